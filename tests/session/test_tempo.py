"""Musical time: bar lines on their samples, for hours, through tempo changes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from demon_live.session.state import DeckState, frames_for, make_loop
from demon_live.session.tempo import TempoMap, VirtualPlayhead, samples_per_cycle


def rounded(x: Fraction) -> int:
    return (2 * x.numerator + x.denominator) // (2 * x.denominator)


def test_bar_lines_are_exact_to_the_sample_after_three_hours_at_an_odd_tempo() -> None:
    bpm = Fraction("133.7")
    tempo = TempoMap.start(bpm)
    bars = int(3 * 3600 * bpm / 60 / 4)
    for bar in (1, 7, 1000, bars):
        assert tempo.sample_at(Fraction(bar)) == rounded(bar * 4 * 60 * 48000 / bpm)


@pytest.mark.parametrize("bpm", ["60", "128", "133.7", "174"])
def test_the_sample_of_a_bar_line_is_the_first_that_belongs_to_the_bar(bpm: str) -> None:
    tempo = TempoMap.start(Fraction(bpm))
    for bar in (1, 3, 17, 4001, 60000):
        at = tempo.sample_at(Fraction(bar))
        before, on = tempo.cycles_at(np.array([at - 1, at], np.int64))
        assert before < bar <= on


def test_a_tempo_change_joins_without_a_gap_and_keeps_the_past() -> None:
    old = TempoMap.start(Fraction(120))
    new = old.change(Fraction(8), Fraction(128), 4)
    joint = old.sample_at(Fraction(8))
    assert new.sample_at(Fraction(8)) == joint
    assert new.sample_at(Fraction(5)) == old.sample_at(Fraction(5))
    assert new.sample_at(Fraction(9)) - joint == 90000  # 4 beats at 128 bpm
    assert new.cycle_at(joint + 45000) == Fraction(17, 2)


def test_samples_and_cycles_are_inverse() -> None:
    tempo = TempoMap.start(Fraction("133.7")).change(Fraction(3), Fraction(99), 7)
    for sample in (0, 1, 86_000, 10**6, 10**9):
        assert rounded(tempo.exact(tempo.cycle_at(sample))) == sample


def test_seven_beats_last_seven_eighths_of_eight() -> None:
    assert samples_per_cycle(Fraction(120), 7) * 8 == samples_per_cycle(Fraction(120), 8) * 7


def test_a_virtual_clock_does_not_run_backwards() -> None:
    clock = VirtualPlayhead(5)
    clock.advance(10)
    assert clock.now() == 15
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


@pytest.mark.parametrize(("bpm", "cycles"), [("174", 8), ("133.7", 3), ("128", 8), ("96.5", 1)])
def test_laps_begin_on_the_bar_lines_of_the_tempo_map_for_hours(bpm: str, cycles: int) -> None:
    tempo = TempoMap.start(Fraction(bpm))
    loop = make_loop(DeckState("main", cycles=cycles), tempo, Fraction(0), 1)
    for lap in (0, 1, 2, 999, 5000):
        assert loop.lap_start(lap) == tempo.sample_at(Fraction(lap * cycles))
    assert loop.frames % 2 == 0
    assert loop.frames * 1920 >= loop.samples > (loop.frames - 2) * 1920


def test_a_stage_in_the_middle_of_a_set_keeps_laps_on_multiples_of_its_length() -> None:
    tempo = TempoMap.start(Fraction(120)).change(Fraction(5), Fraction(128), 4)
    loop = make_loop(DeckState("main", cycles=8), tempo, Fraction(6), 2)
    assert loop.from_sample == tempo.sample_at(Fraction(6))
    lap, position = loop.locate(loop.from_sample)
    assert loop.lap_start(lap + 1) == tempo.sample_at(Fraction(8))
    assert position == loop.from_sample - loop.lap_start(lap)


def test_locate_and_next_heard_agree() -> None:
    loop = make_loop(DeckState("m", cycles=3), TempoMap.start(Fraction("133.7")), Fraction(0), 1)
    for now in (0, 1, 258_488, 258_489, 10**7 + 3):
        for position in (0, 1920, 100_000, 258_000):
            heard = loop.next_heard(position, now)
            assert now <= heard < now + loop.samples
            assert loop.locate(heard)[1] == position


def test_frames_cover_the_lap_with_the_smallest_even_number() -> None:
    assert frames_for(Fraction(1920)) == 2
    assert frames_for(Fraction(3840)) == 2
    assert frames_for(Fraction(3841)) == 4
    assert frames_for(Fraction(7681, 2)) == 4
