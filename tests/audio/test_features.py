"""What is heard of an input: its level, its pitch, its brightness, what begins in it."""

from __future__ import annotations

import numpy as np
import pytest

from demon_live.audio.features import InputFeatures
from demon_live.core import RATES, Floats

SECOND = RATES.sample_rate


def heard(audio: Floats) -> list[dict[str, float]]:
    features = InputFeatures()
    stereo = np.repeat(audio[:, None], 2, axis=1).astype(np.float32)
    frames = len(audio) // RATES.hop
    return [dict(features.hear(f)) for f in stereo[: frames * RATES.hop].reshape(frames, -1, 2)]


def tone(hertz: float, level: float = 0.3, overtones: int = 1) -> Floats:
    t = np.arange(SECOND) / SECOND
    parts = [np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, overtones + 1)]
    return np.asarray(level * np.sum(parts, axis=0), np.float32)


def test_silence_is_0_in_all_of_them() -> None:
    assert set(heard(np.zeros(SECOND, np.float32))[-1].values()) == {0.0}


@pytest.mark.parametrize("note", [28, 36, 45, 57, 69, 81, 93])
@pytest.mark.parametrize("overtones", [1, 6])
def test_the_pitch_of_a_tone_is_its_note(note: int, overtones: int) -> None:
    hertz = 440 * 2 ** ((note - 69) / 12)
    found = heard(tone(hertz, overtones=overtones))[-1]["in_pitch"]
    assert found * 72 + 24 == pytest.approx(note, abs=0.15)


def test_a_pitch_stays_where_there_is_none() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, SECOND)
    values = heard(np.concatenate([tone(220), noise, np.zeros(SECOND)]).astype(np.float32))
    assert values[24]["in_pitch"] == pytest.approx((57 - 24) / 72, abs=0.002)
    assert values[-1]["in_pitch"] == values[30]["in_pitch"]


@pytest.mark.parametrize("db", [-6, -20, -40])
def test_a_level_is_in_decibels(db: float) -> None:
    level = 10 ** (db / 20) * 2**0.5
    assert heard(tone(440, level))[-1]["in_level"] == pytest.approx(1 + db / 60, abs=0.01)


def test_a_level_falls_slower_than_it_rises() -> None:
    values = heard(np.concatenate([np.zeros(SECOND, np.float32), tone(440), np.zeros(SECOND)]))
    level = [v["in_level"] for v in values]
    full = level[48]
    assert level[27] > 0.95 * full
    assert 0.1 * full < level[55] < 0.3 * full
    assert level[-1] < 0.01


def test_brightness_is_where_the_spectrum_has_its_middle() -> None:
    low, high = (heard(tone(hertz))[-1]["in_bright"] for hertz in (200, 5000))
    assert low == pytest.approx(np.log(2) / np.log(100), abs=0.02)
    assert high == pytest.approx(np.log(50) / np.log(100), abs=0.02)


def test_each_hit_is_one_onset_in_its_frame() -> None:
    audio = np.random.default_rng(2).normal(0, 1e-4, 2 * SECOND).astype(np.float32)
    hit = np.random.default_rng(3).normal(0, 0.4, 9600) * np.exp(-np.arange(9600) / 1500)
    places = [SECOND // 2, SECOND, SECOND + SECOND // 4]
    for place in places:
        audio[place : place + len(hit)] += hit.astype(np.float32)
    onset = [v["in_onset"] for v in heard(audio)]
    assert [n for n, value in enumerate(onset) if value == 1.0] == [p // 1920 for p in places]
    after = places[0] // 1920
    assert onset[after + 6] == pytest.approx(0.6**6)
    assert not any(v["in_onset"] for v in heard(np.zeros(SECOND, np.float32)))
