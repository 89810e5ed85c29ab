"""Check 19: a window equals the whole decode inside the margin."""

import numpy as np
import pytest

from demon_live.engine.decode import WindowDecoder
from demon_live.errors import DemonError

HOP, MARGIN, C = 8, 5, 3
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(2 * MARGIN + 1, C, HOP, 2)).astype(np.float32)


class Convolution:
    """Each frame's audio is a function of the frames within MARGIN; zeros past the ends."""

    def __init__(self):
        self.shapes = set()

    def __call__(self, latent):
        self.shapes.add(latent.shape)
        batch, frames, _ = latent.shape
        padded = np.pad(latent.astype(np.float64), ((0, 0), (MARGIN, MARGIN), (0, 0)))
        out = sum(
            np.einsum("bfc,chs->bfhs", padded[:, k : k + frames], KERNEL[k].astype(np.float64))
            for k in range(2 * MARGIN + 1)
        )
        return np.tanh(out / 8).reshape(batch, frames * HOP, 2).astype(np.float32)


def latent(frames=40):
    return RNG.normal(size=(frames, C)).astype(np.float32)


def looped(decode, it):
    """The middle of three laps."""
    n = len(it) * HOP
    return decode(np.concatenate([it] * 3)[None])[0][n : 2 * n]


@pytest.mark.parametrize("window", [None, 1, 7])
@pytest.mark.parametrize(("start", "frames"), [(10, 7), (36, 9), (0, 3), (-2, 5), (79, 2), (0, 40)])
def test_cyclic_windows_are_exact_also_at_the_seam(window, start, frames):
    it, decode = latent(), Convolution()
    decoder = WindowDecoder(decode, MARGIN, HOP, window)
    got = decoder.window(it, start, frames)
    whole = looped(decode, it).reshape(40, HOP, 2)
    expected = whole[np.arange(start, start + frames) % 40].reshape(-1, 2)
    assert got.dtype == np.float32
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("window", [None, 4, 7])
def test_open_windows_are_exact_also_at_the_ends(window):
    it, decode = latent(), Convolution()
    decoder = WindowDecoder(decode, MARGIN, HOP, window)
    whole = decode(it[None])[0]
    for start in range(0, 40, 3):
        for frames in (1, 4, 9):
            end = min(40, start + frames)
            got = decoder.window(it, start, end - start, cyclic=False)
            assert got == pytest.approx(whole[start * HOP : end * HOP], abs=1e-6)
    assert decoder.full(it, cyclic=False) == pytest.approx(whole, abs=1e-6)


def test_one_frame_less_of_margin_is_not_exact():
    it, decode = latent(), Convolution()
    short = WindowDecoder(decode, MARGIN - 1, HOP).window(it, 10, 7)
    exact = WindowDecoder(decode, MARGIN, HOP).window(it, 10, 7)
    wrong = np.abs(short - exact).reshape(7, HOP, 2).max(axis=(1, 2))
    assert wrong[0] > 1e-3
    assert wrong[-1] > 1e-3
    assert wrong[1:-1].max() < 1e-6


def test_one_shape_whatever_is_asked():
    decode = Convolution()
    decoder = WindowDecoder(decode, MARGIN, HOP, window=6)
    for start, frames in [(0, 6), (37, 2), (5, 17), (0, 40)]:
        decoder.window(latent(), start, frames)
    decoder.window(latent(), 3, 8, cyclic=False)
    assert decode.shapes == {(1, 6 + 2 * MARGIN, C)}


def test_short_loops_and_full():
    for frames in (1, 2, 6, 15):
        it, decode = latent(frames), Convolution()
        laps = np.tile(it, (11, 1))
        middle = decode(laps[None])[0].reshape(11, frames * HOP, 2)[5]
        if 5 * frames >= MARGIN:
            assert WindowDecoder(decode, MARGIN, HOP, 4).full(it) == pytest.approx(middle, abs=1e-6)
        ends = WindowDecoder(decode, MARGIN, HOP, 4).full(it, cyclic=False)
        assert ends == pytest.approx(decode(it[None])[0], abs=1e-6)


def test_nothing_and_nonsense():
    decoder = WindowDecoder(Convolution(), MARGIN, HOP)
    assert decoder.window(latent(), 5, 0).shape == (0, 2)
    for start, frames in [(38, 5), (-1, 3), (0, -1)]:
        with pytest.raises(DemonError):
            decoder.window(latent(), start, frames, cyclic=False)
    with pytest.raises(DemonError, match="the decoder made"):
        WindowDecoder(lambda x: np.zeros((1, 5, 2), np.float32), 2, HOP).window(latent(), 0, 4)


def test_a_window_that_comes_again_is_decoded_once_within_a_bound() -> None:
    calls = []

    def decode(latent):
        calls.append(1)
        return np.repeat(latent[..., :2], 1920, axis=1)

    decoder = WindowDecoder(decode, 2)
    one, two = (np.full((20, 2), n, np.float32) for n in (1, 2))
    decoder.keep = 2 * 4 * 1920 * 8
    first = decoder.again(one, 3, 4)
    assert decoder.again(one, 23, 4) is first
    assert np.array_equal(decoder.again(two, 3, 4), 2 * first)
    assert len(calls) == 2
    decoder.again(one, 5, 4)
    assert decoder.again(two, 3, 4)[0, 0] == 2
    assert len(calls) == 3
    decoder.again(one, 3, 4)
    assert len(calls) == 4  # it had to go
