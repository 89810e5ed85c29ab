"""The device work of a tick reads its fixed memory and the staging buffer, nothing else.

A CUDA graph repeats the kernels of the tick that it was captured in. Here, without a GPU, a
stand-in repeats the Python of that tick, with all that it had closed over then: if anything that
changes from tick to tick did not come through the staging buffer, the latents would differ.
tests/engine/test_cuda.py asserts the same with real graphs.
"""

import numpy as np
import pytest

from demon_live.engine import Dcw, Ring, ring
from demon_live.engine.batch import SlotBatch
from demon_live.engine.cuda_graphs import Graphs
from tests.helpers.velocity_models import (
    SHARED,
    C,
    Linear,
    T,
    alone,
    play,
    request,
    same,
    source,
    variety,
)


class Again(Graphs):
    """Runs the work of the second time whenever a key comes again."""

    def __init__(self, device, enabled=True):
        super().__init__(device)
        self.enabled, self.works = enabled, {}

    def run(self, key, work):
        if key in self.works:
            self.replayed += 1
        else:
            self.captured += 1
            self.works[key] = work
        return self.works[key]()


class Device(SlotBatch):
    """Keeps its state as on a GPU."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.graphs, self._on_host = Again(self.device), False


def stream(it, edits):
    out = []
    for n in range(120):
        for name, value in edits(n).items():
            it.share(name, value)
        if n in (30, 77):
            it.migrate("main", denoise=0.3)
        if n == 50:
            it.resize(6)
        it.submit(variety(n))
        out += it.tick()
    return out + it.flush()


def moving(n):
    """Values that are others at each tick, of shapes that come again."""
    ramp = np.linspace(0, 1, T, dtype=np.float32)
    return {
        **SHARED,
        "blend": ramp * (n % 5) / 5,
        "velocity": 0.8 + n / 1000,
        "noise": (n % 3) / 10,
        "guide": 1.0 + (n % 4),
        "energy": 1.0 + n / 500,
    }


@pytest.mark.parametrize("edits", [lambda n: {}, lambda n: SHARED, moving])
@pytest.mark.parametrize("dcw", [None, Dcw()])
def test_repeating_the_work_of_an_earlier_tick_changes_no_bit(monkeypatch, edits, dcw):
    eager = stream(Ring(Linear(), steps=8, depth=4, shift=3.0, dcw=dcw), edits)
    monkeypatch.setattr(ring, "SlotBatch", Device)
    it = Ring(Linear(), steps=8, depth=4, shift=3.0, dcw=dcw)
    again = stream(it, edits)
    captured, replayed = it.graphs
    assert replayed > captured
    for a, b in zip(eager, again, strict=True):
        assert a.versions == b.versions
        assert same(a.latent, b.latent)


def test_a_steady_stage_needs_a_handful_of_graphs(monkeypatch):
    monkeypatch.setattr(ring, "SlotBatch", Device)
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    for n in range(200):
        it.share("velocity", 1.0 + n / 1000)
        it.share("blend", np.full(T, n / 200, np.float32))
        it.submit(request(n, denoise=n / 200))
        it.tick()
    # Each for 1 to 4 slots while it fills, and for the two places of the state.
    assert it.graphs[0] <= 4 * 2 * 2


def test_one_shape_of_the_loop_each(monkeypatch):
    monkeypatch.setattr(ring, "SlotBatch", Device)
    it = Ring(Linear(), steps=8, depth=4, shift=3.0)
    out = play(
        it,
        40,
        lambda n, deck: request(n, frames=T * (1 + n % 2), source=source(1, T * (1 + n % 2), C)),
    )
    for generation in [g for tick in out for g in tick]:
        assert same(generation.latent, alone(generation.request))
