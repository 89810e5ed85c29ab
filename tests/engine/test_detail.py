"""The source's own detail against closed forms, with codecs whose loss is known."""

from __future__ import annotations

import numpy as np
import pytest

from demon_live.core import RATES, Floats
from demon_live.engine.decode import WindowDecoder
from demon_live.engine.detail import FADE, REACH, DetailDecoder

HOP = RATES.hop
FRAMES = 12


class Lossy:
    """Decodes a latent of two channels to half of its levels; `air` more as noise, if told."""

    margin, window = 1, 5

    def decode(self, latent: Floats) -> Floats:
        return np.repeat(latent / 2, HOP, axis=1)


class Parted(Lossy):
    AIR = 0.125

    def decode(self, latent: Floats) -> Floats:
        return super().decode(latent) + np.float32(self.AIR)

    def decode_parts(self, latent: Floats) -> Floats:
        tone = super().decode(latent)
        return np.concatenate((tone, np.full_like(tone, self.AIR)), axis=2)


def source() -> tuple[Floats, Floats]:
    draw = np.random.default_rng(3)
    audio = draw.standard_normal((FRAMES * HOP, 2)).astype(np.float32) * np.float32(0.1)
    return draw.standard_normal((FRAMES, 2)).astype(np.float32), audio


@pytest.mark.parametrize("engine", [Lossy(), Parted()])
def test_an_equal_latent_gives_the_samples_of_the_source_in_every_window(engine: Lossy) -> None:
    latent, audio = source()
    decoder = DetailDecoder(engine, latent, audio)
    same = latent.copy()
    decoder.note(same, {}, 1.0)
    for start, frames in ((0, FRAMES), (3, 5), (10, 5), (-1, 4)):
        wanted = np.roll(audio, -start * HOP, axis=0)[: frames * HOP]
        assert np.array_equal(decoder.again(same, start, frames), wanted)


def test_what_was_decoded_before_it_was_to_forget_is_decoded_again() -> None:
    """A dry run decodes to silence, so that the remainder would be all of the source."""

    class Switched(Lossy):
        dry = False

        def decode(self, latent: Floats) -> Floats:
            return super().decode(latent) * np.float32(not self.dry)

    latent, audio = source()
    engine = Switched()
    decoder, other = (DetailDecoder(engine, latent, audio) for _ in range(2))
    before, after = (latent + np.float32(REACH / 4) for _ in range(2))
    engine.dry = True
    decoder.note(before, {}, 1.0)
    decoder.again(before, 0, 5)
    engine.dry = False
    decoder.forget()
    for one in (decoder, other):
        one.note(after, {}, 1.0)
    assert np.array_equal(decoder.again(after, 0, 5), other.again(after, 0, 5))


def test_without_detail_or_far_away_the_decode_is_as_it_was() -> None:
    latent, audio = source()
    decoder, plain = DetailDecoder(Parted(), latent, audio), WindowDecoder(Parted().decode, 1)
    near, far = latent.copy(), latent + np.float32(2 * REACH)
    decoder.note(near, {"detail": np.zeros(FRAMES, np.float32)}, 1.0)
    decoder.note(far, {}, 1.0)
    for made in (near, far, latent):
        assert np.array_equal(decoder.again(made, 2, 5), plain.window(made, 2, 5))


@pytest.mark.parametrize("detail", [1.0, 0.5])
def test_the_remainder_comes_back_in_proportion_to_what_is_there(detail: float) -> None:
    latent, audio = source()
    moved = latent + np.float32(REACH / 4)
    whole = DetailDecoder(Lossy(), latent, audio)
    apart = DetailDecoder(Parted(), latent, audio)
    for decoder in (whole, apart):
        decoder.note(moved, {}, detail)
    w, tone = 0.75 * detail, np.repeat(latent / 2, HOP, axis=0)
    added = np.repeat(moved / 2, HOP, axis=0) + w * (audio - tone)
    assert np.abs(whole.again(moved, 0, FRAMES) - added).max() < 1e-5
    air = np.sqrt(1 - w * w) * Parted.AIR
    assert np.abs(apart.again(moved, 0, FRAMES) - added - air).max() < 1e-5


def test_a_frame_counts_as_far_as_its_neighbours_and_the_border_is_a_fade() -> None:
    latent, audio = source()
    made = latent.copy()
    made[5:] += np.float32(2 * REACH)
    made[-1] = latent[-1]
    decoder = DetailDecoder(Lossy(), latent, audio)
    decoder.note(made, {}, 1.0)
    out = decoder.again(made, 0, FRAMES)
    # Frames 4 and 11 stand beside what was changed; 0 to 3 are the source, but for two fades.
    inside = slice(FADE, 4 * HOP - FADE)
    assert np.array_equal(out[inside], audio[inside])
    assert np.array_equal(out[6 * HOP : 10 * HOP], np.repeat(made[6:10] / 2, HOP, axis=0))
    assert not np.array_equal(out[:FADE], audio[:FADE])


def test_the_source_is_decoded_once_and_only_where_it_is_needed() -> None:
    latent, audio = source()
    calls: list[int] = []

    class Counted(Lossy):
        def decode(self, latent: Floats) -> Floats:
            calls.append(latent.shape[1])
            return super().decode(latent)

    decoder = DetailDecoder(Counted(), latent, audio)
    near = [latent + np.float32(0.1 * k) for k in (1, 2)]
    for made in near:
        decoder.note(made, {}, 1.0)
        decoder.again(made, 0, 5)
    # Two windows, and the first stretch of the source.
    assert len(calls) == 3


def test_a_source_shorter_than_its_latent_goes_round_where_it_ends() -> None:
    latent, audio = source()
    audio = audio[: -HOP // 2]
    decoder = DetailDecoder(Lossy(), latent, audio)
    same = latent.copy()
    decoder.note(same, {}, 1.0)
    before = decoder.again(same, -1, 3)
    assert np.array_equal(before, np.concatenate((audio[-HOP:], audio[: 2 * HOP])))
