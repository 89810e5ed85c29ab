"""Shapes are captured between ticks, and what is captured and kept is bounded in bytes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from demon_live.errors import EngineError
from demon_live.models.acestep import budget, encode, graphs, layout, load
from demon_live.models.acestep import engine as ace
from demon_live.models.acestep import open as ace_open
from demon_live.models.acestep.qwen import Qwen3
from tests.helpers import acestep_toy as toy

pytest.importorskip("diffusers")
#: Loading diffusers and transformers alone takes a busy machine a minute.
pytestmark = pytest.mark.timeout(900)
CPU = torch.device("cpu")


class Replayed:
    """Stands in for a captured graph: the work of the bucket, again."""

    def __init__(self, bucket: graphs.Bucket) -> None:
        self._bucket = bucket

    def replay(self) -> None:
        self._bucket.v = self._bucket.run()


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, frames) of each capture, in order."""
    found: list[tuple[int, int]] = []

    def capture(bucket: graphs.Bucket) -> None:
        found.append((bucket.x.shape[0], bucket.x.shape[1]))
        bucket.v, bucket.graph = bucket.run(), Replayed(bucket)  # type: ignore[assignment]

    monkeypatch.setattr(graphs.Bucket, "capture", capture)
    return found


@pytest.fixture
def kernels() -> graphs.AceGraphs:
    modules = load.build(toy.TOY, CPU, torch.float32, vae=toy.TOY_VAE)
    made = graphs.AceGraphs(modules, window=43)
    made.cuda = True
    return made


def tick(kernels: graphs.AceGraphs, rows: int = 1, frames: int = 20) -> torch.Tensor:
    g = torch.Generator().manual_seed(rows)
    entry = ace.ConditionStates()
    states = torch.randn(9, toy.TOY.encoder_hidden, generator=g)
    entry.states, entry.kept, entry.length = states, kernels.keep(states), 9
    context = torch.randn(rows, frames, 128, generator=g)
    x, t = torch.randn(rows, frames, 64, generator=g), torch.full((rows,), 0.5)
    with torch.no_grad():
        return kernels.flow(x, t, ace.Batch(context, [entry] * rows, [entry] * rows, None, rows))


def test_a_new_shape_is_captured_after_its_tick_and_changes_nothing(
    kernels: graphs.AceGraphs, captured: list[tuple[int, int]]
) -> None:
    first = tick(kernels)
    tick(kernels, rows=2)
    assert captured == []
    assert [kernels.between_ticks() for _ in range(3)] == [True, True, False]
    assert captured == [(1, 20), (2, 20)]
    assert torch.equal(tick(kernels), first)
    assert not kernels.between_ticks()


def test_a_shape_that_never_finds_a_pause_is_captured_in_a_tick(
    kernels: graphs.AceGraphs,
    captured: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs, "_RUNS", 2)
    tick(kernels)
    tick(kernels)
    assert captured == []
    tick(kernels)
    assert captured == [(1, 20)]


def test_buckets_are_bounded_in_bytes_and_the_one_in_use_stays(
    kernels: graphs.AceGraphs, captured: list[tuple[int, int]]
) -> None:
    tick(kernels)
    [one] = kernels._buckets.values()
    kernels.room = 2 * one.nbytes
    tick(kernels, frames=22)
    assert [key[1] for key in kernels._buckets] == [22]
    tick(kernels, rows=2)
    tick(kernels)
    assert [key[:2] for key in kernels._buckets] == [(1, 20)]
    kernels.room = 0
    tick(kernels, rows=4)
    assert [key[:2] for key in kernels._buckets] == [(4, 20)]


def test_a_capture_that_runs_out_of_memory_takes_that_of_others_then_says_so(
    kernels: graphs.AceGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def capture(bucket: graphs.Bucket) -> None:
        tries.append(len(kernels._buckets))
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            # As torch ends a capture in which something failed.
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(graphs.Bucket, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    tick(kernels)
    tick(kernels, frames=22)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.between_ticks()
    assert tries == [2, 1]
    # It is not tried again, and plays on uncaptured.
    assert not kernels.between_ticks()
    assert torch.isfinite(tick(kernels)).all()


def test_half_a_window_is_decoded_without_its_context() -> None:
    modules = load.build(toy.TOY, CPU, torch.float32, vae=toy.TOY_VAE)
    made = graphs.AceGraphs(modules, window=43)
    z = torch.randn(1, 60, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = made.decoder.full(z)[:, :, 20 * 1920 : 32 * 1920]
        half = made.decode(z[:, 11:41])
    assert torch.count_nonzero(half[:, :, : 9 * 1920]) == 0
    assert torch.allclose(half[:, :, 9 * 1920 : -9 * 1920], whole, atol=1e-5)


def test_texts_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ace.ConditionStates()
    assert entry.nbytes == 0
    entry.states, entry.kept = torch.zeros(4, 8), torch.zeros(2, 2, 4, 8)
    assert entry.nbytes == 4 * (32 + 128)


def test_the_text_encoder_equals_that_of_transformers() -> None:
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(1)
    theirs = Qwen3Model(Qwen3Config(**toy.QWEN)).eval()
    for name, value in theirs.named_parameters():
        value.data = torch.randn(value.shape) / (4 if "norm" not in name else 1)
    ours = Qwen3(toy.QWEN)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    for length in (1, 2, 40):
        ids = torch.randint(0, 300, (1, length))
        with torch.no_grad():
            wanted = theirs(input_ids=ids).last_hidden_state
            assert torch.allclose(ours(ids), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "more", [{"rope_scaling": {"rope_type": "yarn"}}, {"use_sliding_window": True}]
)
def test_a_text_encoder_of_another_form_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="scaled positions or a sliding window"):
        Qwen3({**toy.QWEN, **more})


def test_modules_are_made_without_the_packages_that_nothing_here_uses() -> None:
    code = (
        "import sys, torch\n"
        "from demon_live.models.acestep import load\n"
        "from tests.helpers import acestep_toy as toy\n"
        "load._empty(toy.TOY, 'transformer'); load.oobleck(toy.TOY_VAE)\n"
        "names = 'peft transformers accelerate torch._dynamo torch._inductor'.split()\n"
        "print([n for n in names if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_any_name_or_part_of_the_tracer_is_found_without_loading_it() -> None:
    code = (
        "import sys, torch\n"
        "from demon_live.models.acestep import untraced\n"
        "with untraced():\n"
        "    from torch._dynamo.some.part import decorator\n"
        "    assert decorator(len) is len and decorator(1 > 0, recursive=True) is True\n"
        "    assert torch._dynamo.new()(len) is len\n"
        "print([n for n in sys.modules if n.startswith('torch._dynamo')])\n"
        "import torch._dynamo\n"
        "print(torch._dynamo.__spec__.origin.endswith('__init__.py'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_a_diffusers_that_needs_them_is_loaded_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def imported() -> dict[str, Any]:
        calls.append("torch._dynamo" in sys.modules)
        if len(calls) == 1:
            raise AttributeError("module 'torch._dynamo' has no attribute 'new'")
        return {"vae": object}

    monkeypatch.setattr(load, "_imported", imported)
    load.classes.cache_clear()
    assert load.classes() == {"vae": object}
    assert len(calls) == 2
    load.classes.cache_clear()


# ------------------------------------------------------------------------------ small cards


class Weight:
    """Stands in for a parameter, of which torch lets none move to a device that is not there."""

    def __init__(self, kind: str) -> None:
        self.data, self.device = self, torch.device(kind)

    def to(self, device: torch.device) -> Weight:
        return Weight(device.type)


def test_weights_that_wait_on_the_host_come_for_the_time_of_their_use() -> None:
    class Module:
        weights = (Weight("cpu"), Weight("cuda"))

        def parameters(self) -> Any:
            return iter(self.weights)

    module: Any = Module()

    def where() -> list[str]:
        return [weight.data.device.type for weight in module.weights]

    with encode.lent(module, torch.device("cuda")):
        assert where() == ["cuda", "cuda"]
    assert where() == ["cpu", "cuda"]
    with pytest.raises(KeyError), encode.lent(module, torch.device("cuda")):
        raise KeyError
    assert where() == ["cpu", "cuda"]
    with encode.lent(None, CPU):
        pass


def test_a_small_card_keeps_what_reads_texts_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    config, cuda = layout.AceConfig(), torch.device("cuda")
    whole = budget.weights_bytes(config) + budget.BESIDE_WEIGHTS
    part = budget.weights_bytes(config, offload=True)
    free = [whole]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 24_000_000_000))

    def asked() -> tuple[bool, list[str]]:
        notes: list[str] = []
        return ace_open._offloads(cuda, torch.bfloat16, config, "ace", notes), notes

    assert asked() == (False, [])
    free[0] = whole - 1
    found, notes = asked()
    assert found
    assert len(notes) == 1
    assert "host memory" in notes[0]
    free[0] = part - 1
    with pytest.raises(EngineError, match="GPU memory"):
        asked()


def test_fp8_that_is_asked_for_is_not_given_up_for_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listed:
        backends = ("graphs", "eager", "tensorrt")

    cuda, listed = torch.device("cuda"), Listed()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d=None: (8, 9))
    assert ace_open._order(listed, cuda)[0] == "tensorrt"  # type: ignore[arg-type]
    assert ace_open._why("tensorrt", cuda) == "there is a plan for this card"
    monkeypatch.setenv("DEMON_ACE_FP8", "1")
    assert ace_open._order(listed, cuda)[0] == "graphs"  # type: ignore[arg-type]
    assert "fp8" in ace_open._why("graphs", cuda)


def test_a_checkpoint_whose_texts_wait_on_the_host_plays_the_same(tmp_path: Any) -> None:
    from demon_live.models.manifest import load_manifest

    toy.save_original(tmp_path / "t")
    found = layout.find_checkpoint(load_manifest(toy.manifest_of(tmp_path / "t")))
    states = []
    for offload in (False, True):
        modules = load.load(found, CPU, torch.float32, offload=offload)
        states.append(encode.ConditionEncoder(modules).states("dub", "la la"))
    assert np.array_equal(*states)
