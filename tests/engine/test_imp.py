"""The ring and the decoder's windows with imp's own network (its shapes; weights do not matter)."""

import numpy as np
import pytest

from demon_live.engine import Request, Ring
from demon_live.engine.decode import WindowDecoder
from demon_live.models.engine import open_engine

T = 50


@pytest.fixture(scope="module")
def imp():
    engine = open_engine("imp", random_weights=True, threads=1)
    yield engine
    engine.close()


def latent(imp, seed, frames=T):
    return np.random.default_rng(seed).normal(size=(frames, imp.channels)).astype(np.float32)


def make(imp, n):
    place = {"bpm": 120.0, "cycles": 1, "beats": 4, "frames": T}
    return Request(
        frames=T,
        channels=imp.channels,
        seed=n,
        denoise=0.4 + 0.1 * n,
        source=latent(imp, n),
        condition=imp.condition(["techno", "ambient", "dub"][n % 3], **place),
        cfg=["off", "full"][n % 2],
    )


def run(imp, depth, requests):
    todo = list(requests)
    it = Ring(imp, steps=4, depth=depth, shift=imp.shift)
    it.share("guide", 2.0)
    it.share("hint", 0.5)
    it.share("prompt_mix", np.linspace(0, 1, T, dtype=np.float32))
    it.on_admit = lambda deck: todo.pop(0) if todo else None
    it.enlist("main")
    out = [generation for _ in range(24) for generation in it.tick()] + it.flush()
    return [generation.latent for generation in out]


@pytest.fixture(scope="module")
def one_by_one(imp):
    return [run(imp, 1, [make(imp, n)])[0] for n in range(5)]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_streaming_equals_one_at_a_time(imp, one_by_one, depth):
    """Tolerance 2e-5 of the latent's own spread: onnxruntime's rows are independent to the bit in
    most batch sizes, and sums are ordered otherwise in the rest."""
    streamed = run(imp, depth, [make(imp, n) for n in range(5)])
    assert len(streamed) == 5
    for a, b in zip(streamed, one_by_one, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - b).max() <= 2e-5 * b.std()


def test_windows_are_exact_with_imps_margin(imp):
    """1e-5 of the loudest sample, inside, at the seam and at the ends."""
    it = latent(imp, 9, 40)
    decoder = WindowDecoder(imp.decode, imp.margin, window=8)
    laps = imp.decode(np.concatenate([it] * 3)[None])[0]
    n = 40 * decoder.hop
    for start, frames in ((10, 8), (36, 8), (0, 3), (39, 10)):
        wanted = laps[n + start * decoder.hop :][: frames * decoder.hop]
        got = decoder.window(it, start, frames)
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(laps).max()
    whole = imp.decode(it[None])[0]
    ends = decoder.full(it, cyclic=False)
    assert np.abs(ends - whole).max() <= 1e-5 * np.abs(whole).max()
