"""The decoder's finish: its discriminators tell what they should, their say is bounded, the encoder
stays, and a training goes on as if it had not stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp import losses, pool, train_codec
from engines.imp.adversary import VIEWS, Adversary, Discriminators, judgement, matching
from engines.imp.train_decoder import Finish

LENGTH = 8192


def sounds(seed: int, count: int = 3) -> tuple[Tensor, Tensor]:
    """Chords of random partials, and noise as loud, [count, 2, LENGTH]."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(LENGTH) / imp.SAMPLE_RATE
    f = 400 * 2 ** (4 * torch.rand(count, 1, 8, 1, generator=g))
    phase = 6.3 * torch.rand(count, 2, 8, 1, generator=g)
    chord = 0.1 * torch.sin(6.2832 * f * t + phase).sum(2)
    noise = torch.randn(count, 2, LENGTH, generator=g)
    return chord, noise * chord.std() / noise.std()


def test_discriminators_learn_to_tell_noise_from_partials() -> None:
    torch.manual_seed(1)
    adversary = Adversary("cpu", (1.0, 1.0), width=8)
    adversary.optimiser.rate(3e-3)
    nets = adversary.nets
    first = None
    for seed in range(12):
        loss = adversary.learn(*(nets.spectra(x) for x in sounds(seed)))
        first = loss if first is None else first
    with torch.no_grad():
        real, made = ([logits for _, logits in nets(nets.spectra(x))] for x in sounds(100))
    assert first is not None
    assert judgement(real, made) < 0.5 * first
    apart = [float(a.mean() - b.mean()) for a, b in zip(real, made, strict=True)]
    assert sum(d > 0.5 for d in apart) >= len(apart) - 2


def test_each_band_sees_its_part_of_the_spectrum() -> None:
    """A sine is loudest in the bands that hold it, at its place."""
    nets = Discriminators(width=2)
    t = torch.arange(LENGTH) / imp.SAMPLE_RATE
    seen = nets.spectra(torch.sin(6.2832 * 3000 * t).expand(1, 2, -1))
    edges = [band for _, bands in VIEWS for band in bands]
    for (size, low, _), (a, b), x in zip(nets.slices, edges, seen, strict=True):
        level = x[0, 0].mean(0)
        if a < 3000 < b:
            assert abs((int(level.argmax()) + low) * imp.SAMPLE_RATE / size - 3000) <= 94
        else:
            assert level.max() < 0.5


def test_matching_asks_for_noise_of_the_right_level_not_for_its_mean() -> None:
    g = torch.Generator().manual_seed(2)
    x, y, z = torch.randn(3, 200_000, generator=g)

    def cost(scale: float) -> float:
        return float(matching([x], [scale * y], [scale * z]))

    assert cost(1.0) == pytest.approx(0.5**0.5, abs=0.01)  # the least there is
    assert cost(0.0) == pytest.approx(1.0, abs=0.01)
    assert cost(0.7) > cost(1.0) + 0.01
    assert cost(1.4) > cost(1.0) + 0.01


def test_the_say_of_the_adversary_is_its_share_of_the_gradient() -> None:
    adversary = Adversary("cpu", (0.5, 0.25), width=2)
    g = torch.Generator().manual_seed(3)
    held, hinge, match = ([s * torch.randn(2, 2, 50, generator=g)] for s in (3.0, 1e-4, 40.0))
    assert torch.equal(adversary.weighed(held, [hinge, match])[0], held[0])
    for _ in range(50):
        adversary.weighed(held, [hinge, match])
    adversary.ramp.fill_(1.0)
    none = [torch.zeros_like(hinge[0])]
    size = held[0].norm()
    added = adversary.weighed(held, [hinge, none])[0] - held[0]
    assert float(added.norm() / size) == pytest.approx(0.5, rel=0.05)
    wild = [1e6 * hinge[0]]
    added = adversary.weighed(held, [wild, none])[0] - held[0]
    assert float(added.norm() / size) < 1.1
    broken = [torch.full_like(hinge[0], float("nan"))]
    assert adversary.weighed(held, [broken, none])[0].isfinite().all()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    """A training in the small: short segments, a shallow decoder."""
    for module in (losses, pool, train_codec):
        monkeypatch.setattr(module, "SEGMENT", 8 * imp.HOP)
    monkeypatch.setattr(imp, "COARSE_BLOCKS", 1)
    monkeypatch.setattr(imp, "FINE_BLOCKS", 1)
    return argparse.Namespace(
        device="cpu", keep_encoder=True, init=None, out=tmp_path, batch=2, seed=0, seconds=100.0,
        channels=imp.CHANNELS + 8, tone_bins=imp.TONE_BINS, lines=True, rate=1e-3,
        adversary_rate=1e-3, hinge=1.0, match=1.0, width=2, alone=1, rise=2, stage=60.0,
    )  # fmt: skip


def advance(run: Finish, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        run.rate(0.1)
        run.step()
        run.count += 1


def everything(run: Finish) -> list[Tensor]:
    nets = [*run.codec.tensors().values(), *run.adversary.nets.state_dict().values()]
    return [v.clone() for v in (*nets, *run.average.shadow, run.adversary.norms)]


def test_the_finish_leaves_the_encoder_and_goes_on_where_it_stopped(
    options: argparse.Namespace,
) -> None:
    torch.manual_seed(0)
    through = Finish(options)
    before = {k: v.clone() for k, v in through.codec.tensors().items()}
    loops = through.pool.clone()
    advance(through, range(1))
    alone = {k: v.clone() for k, v in through.codec.tensors().items()}
    assert all(torch.equal(before[k], alone[k]) for k in before)  # the discriminators go first
    advance(through, range(1, 2))
    through.keep()
    advance(through, range(2, 4))
    after = through.codec.tensors()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert all(name.startswith("decoder.") for name in changed)
    assert {"decoder.level.weight", "decoder.air.weight", "decoder.fine.0.up.weight"} <= changed

    torch.manual_seed(9)
    again = Finish(options)
    again.pool = loops
    again.codec.load(before)  # the encoder comes with --init
    again.resume()
    advance(again, range(2, 4))
    assert again.count == through.count
    for a, b in zip(everything(through), everything(again), strict=True):
        assert torch.equal(a, b)


def test_stages_are_kept_apart(options: argparse.Namespace) -> None:
    """As it came, and once every `stage` seconds: float16 shards, each in its folder."""
    run = Finish(options)
    bias = run.codec.decoder.level.bias.detach().clone()
    held = [0.1 * torch.randn(2, 16 * imp.HOP)]
    run.begin(held)
    run.begin(held)  # resumed before its first step
    assert [p.name for p in options.out.glob("at_*")] == ["at_0"]
    lifted = (run.codec.decoder.level.bias.detach() - bias).view(2, -1)
    assert lifted[:, 96:].allclose(torch.tensor(1.0))
    assert not lifted[:, :96].any()
    for run.spent in (30.0, 70.0, 80.0, 100.0):
        run.report(held, "checkpoint")
    assert {p.name for p in options.out.glob("at_*")} == {"at_0", "at_70", "at_100"}
