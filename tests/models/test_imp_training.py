"""imp's trainings go on where they stopped, cut no loop short; the ear knows no key by heart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from demon_live.models.imp import model as imp
from engines.imp import bank as banks
from engines.imp.draw import LENGTHS, Sampler
from engines.imp.listener import SECONDS, Listener, hear, scores
from engines.imp.training import Average, Optimiser, load_shards, save_shards, wait_for


def trainable(seed: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    g = torch.Generator().manual_seed(seed)
    matrices = [nn.Parameter(torch.randn(6, 4, generator=g)) for _ in range(2)]
    return matrices, [nn.Parameter(torch.randn(5, generator=g))]


def stepped(optimiser: Optimiser, seeds: range) -> None:
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        for p in optimiser.parameters:
            p.grad = torch.randn(p.shape, generator=g)
        optimiser.rate(0.01)
        optimiser.step()


def test_an_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    matrices, rest = trainable(0)
    through = Optimiser(matrices, rest, (0.9, 0.98))
    stepped(through, range(3))
    path = tmp_path / "state.pt"
    torch.save({"optimiser": through.state(), "tensors": through.parameters}, path)
    stepped(through, range(3, 6))

    stored = torch.load(path)
    fresh_matrices, fresh_rest = trainable(1)
    again = Optimiser(fresh_matrices, fresh_rest, (0.9, 0.98))
    average = Average([*fresh_matrices, *fresh_rest], 0.1)
    average.fill(stored["tensors"])
    again.restore(stored["optimiser"])
    stepped(again, range(3, 6))
    for a, b in zip(through.parameters, again.parameters, strict=True):
        assert torch.equal(a, b)


def test_shards_and_the_file_of_an_engine_are_read_alike(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3, 2), "b": torch.arange(4.0)}
    save_shards(tmp_path / "shards", "flow", tensors, limit=13)
    assert len(list((tmp_path / "shards").glob("flow_*.safetensors"))) == 2
    held = load_shards(tmp_path / "shards", "flow")

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in tensors.items():
                self.register_buffer(name, value)

    imp.save_half(tmp_path / "flow.safetensors", flow=Named())
    whole = load_shards(tmp_path, "flow")
    assert held.keys() == whole.keys() == tensors.keys()
    assert all(torch.equal(held[k], whole[k]) for k in tensors)


def test_waiting_for_what_never_comes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "go").write_text("12.5")
    assert wait_for(tmp_path / "go") == "12.5"
    (tmp_path / "go").write_text("never")
    with pytest.raises(RuntimeError, match="never"):
        wait_for(tmp_path / "go")


def test_every_loop_is_drawn_whole() -> None:
    """Short loops come in short batches, long ones in long ones, and none is cut."""
    bank = banks.noise(6)
    bank.frames[:] = torch.tensor([90, 208, 210, 400, 150, 300])
    bank.cond[:, 0] = torch.arange(6) + 1.0
    sampler = Sampler(bank, 64, "cpu")
    assert sampler.counts == [3, 3]
    for size, high in enumerate(LENGTHS):
        rows = sampler.draw(size)
        for value in (rows.x0, rows.hint, rows.phase, rows.lanes):
            assert value.shape[1] == high
        lengths = set((2 * rows.keep.sum(1)).tolist())
        assert lengths == set(bank.frames[sampler.index[size]].tolist())


def test_the_ear_hears_keys_by_turning_alone() -> None:
    """Untrained as it is, what it hears of a chord a semitone up is what it hears, one key up."""
    torch.manual_seed(3)
    listener = Listener().eval()
    t = torch.arange(SECONDS * imp.SAMPLE_RATE) / imp.SAMPLE_RATE

    def chord(semitone: int) -> torch.Tensor:
        notes = [220 * 2 ** ((semitone + n) / 12) for n in (0, 3, 7)]
        return sum(0.1 * torch.sin(6.2832 * f * t) for f in notes).expand(2, -1)  # type: ignore[union-attr]

    low, high = (hear(listener, [chord(n)])[1][0] for n in (0, 1))
    fit = [float(((high - high.mean()) * (low - low.mean()).roll(k)).sum()) for k in range(12)]
    assert max(range(12), key=fit.__getitem__) == 1


def test_scores_count_what_was_asked() -> None:
    asked = torch.zeros(2, 128)
    asked[0, [1, 20, 96 + 5]] = 1
    asked[1, [2, 30, 96 + 7]] = 1
    tags, key = torch.full((2, 96), -1.0), torch.zeros(2, 12)
    tags[0, [1, 20]], tags[1, [3, 30, 31]] = 1.0, 1.0
    key[0, 5] = key[1, 6] = 1
    found = scores((tags, key), asked)
    assert found == {"genre": 0.5, "key": 0.5, "tag_f1": pytest.approx(4 / 5)}
