"""The measure itself: a beat that is known gives its own errors back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.tools.beatgrid import RATE, Doubles, measure

BPM = Fraction("133.7")


def beats(bars: int, late: Doubles | float = 0.0) -> Doubles:
    """Short decaying noise on each beat, `late` ms behind the grid (one number or one a bar)."""
    rng = np.random.default_rng(1)
    length = round(float(bars * 4 * 60 * RATE / BPM)) + RATE
    audio = np.zeros(length)
    hit = rng.standard_normal(4000) * np.exp(-np.arange(4000) / 800)
    delay = np.broadcast_to(late, bars)
    for beat in range(bars * 4):
        at = round(float(beat * 60 * RATE / BPM) + delay[beat // 4] * 48 + 480)
        audio[at : at + 4000] += hit * (1.0 if beat % 4 == 0 else 0.6)
    return audio


def test_a_steady_beat_has_no_error_and_its_offset_is_told() -> None:
    grid = measure([beats(64)], BPM)
    assert grid.stretches == 8
    assert grid.worst_ms < 0.1
    assert grid.offset_ms == pytest.approx(10.0, abs=1.0)


def test_a_stretch_that_is_late_is_found_to_a_fraction_of_a_millisecond() -> None:
    late = np.zeros(64)
    late[32:40] = 3.0
    grid = measure([beats(64, late)], BPM)
    assert grid.phases_ms[4] == pytest.approx(3.0, abs=0.3)
    assert grid.worst_ms == pytest.approx(3.0, abs=0.3)


def test_a_drifting_beat_gives_its_drift() -> None:
    bars = 96
    hours = float(bars * 4 * 60 / BPM) / 3600
    grid = measure([beats(bars, np.linspace(0, 8, bars))], BPM)
    assert grid.drift_ms_per_hour == pytest.approx(8 / hours, rel=0.1)


def test_pieces_of_any_size_give_the_same_grid() -> None:
    audio = beats(32)
    cut = np.split(audio, [1, 1000, 77_777, 400_001])
    assert measure(cut, BPM) == measure([audio], BPM)
