"""Laws of patterns and lanes, for generated patterns."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from demon_live.lang import Event, Lane, compile_source, mini
from demon_live.lang.pattern import Pattern
from demon_live.lang.transform import fast, late, reverse
from tests.helpers.lang_strategies import curves, notations

law = settings(max_examples=60, deadline=None)


def lane(expression: str, control: str = "noise") -> Lane:
    return compile_source(f"{control} = {expression}").decks["main"][control]


def covered(events: list[Event]) -> dict[Any, Any]:
    """How much of each whole is covered: equal however a query was cut."""
    out: dict[Any, Any] = defaultdict(F)
    for e in events:
        out[e.whole_begin, e.whole_end, str(e.value)] += e.end - e.begin
    return dict(out)


def same(a: Pattern, b: Pattern, end: int = 3) -> bool:
    return covered(a.query(0, end)) == covered(b.query(0, end))


@law
@given(notations, st.fractions(F(1, 10), F(29, 10), max_denominator=12))
def test_split_queries_equal_whole_queries(text: str, at: F) -> None:
    pattern = mini(text)
    assert covered(pattern.query(0, 3)) == covered(pattern.query(0, at) + pattern.query(at, 3))


@law
@given(notations)
def test_parts_lie_in_wholes_and_in_the_query(text: str) -> None:
    for e in mini(text).query(F(1, 3), F(5, 2)):
        assert e.whole_begin is not None
        assert e.whole_end is not None
        assert F(1, 3) <= e.begin < e.end <= F(5, 2)
        assert e.whole_begin <= e.begin
        assert e.end <= e.whole_end


@law
@given(notations)
def test_fast_twice_is_fast_four(text: str) -> None:
    pattern = mini(text)
    assert same(fast(fast(pattern, F(2)), F(2)), fast(pattern, F(4)))
    assert same(fast(fast(pattern, F(3)), F(1, 3)), pattern)


@law
@given(notations, st.fractions(-2, 2, max_denominator=8))
def test_late_and_early_cancel(text: str, shift: F) -> None:
    pattern = mini(text)
    assert same(late(late(pattern, shift), -shift), pattern)


@law
@given(notations)
def test_reversed_twice_is_the_same(text: str) -> None:
    pattern = mini(text)
    assert same(reverse(reverse(pattern)), pattern)


@law
@given(notations)
def test_periods_are_true(text: str) -> None:
    pattern = mini(text)
    if pattern.period is not None and pattern.period <= 12:
        p = pattern.period
        moved = [
            e._replace(whole_begin=e.whole_begin - p, whole_end=e.whole_end - p)  # type: ignore[operator]
            for e in pattern.query(p, p + 2)
        ]
        assert covered(moved) == covered(pattern.query(0, 2))


@law
@given(notations)
def test_costs_are_bounds(text: str) -> None:
    # A rhythm of chords has a hit for each voice; cost counts voices once.
    assume("," not in text.replace("(3,", "").replace("(<3 5>,", "").replace("(-3,", ""))
    pattern = mini(text)
    for c in range(4):
        onsets = [e for e in pattern.query(c, c + 1) if e.onset]
        assert len(onsets) <= pattern.cost + 1e-9


@law
@given(curves)
def test_sampling_equals_asking_for_each_moment(expression: str) -> None:
    made = lane(expression)
    times = np.arange(0, 5, 1 / 12)
    values = made.sample(times)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values <= 1).all()
    # Where it jumps, a moment may be on either side.
    sides = [values, *(made.sample(times + x) for x in (-1e-6, 1e-6))]
    for i in range(0, len(times), 7):
        asked = made.at(F(i, 12))
        assert min(abs(asked - float(side[i])) for side in sides) <= 1e-4


@law
@given(curves)
def test_sampling_does_not_depend_on_the_window(expression: str) -> None:
    made = lane(expression)
    times = np.arange(0, 6, 1 / 16)
    whole = made.sample(times)
    again = lane(expression)
    pieces = np.concatenate([again.sample(times[60:]), again.sample(times[:60])])
    assert np.array_equal(np.concatenate([whole[60:], whole[:60]]), pieces)
    shuffled = np.random.default_rng(1).permutation(len(times))
    assert np.array_equal(lane(expression).sample(times[shuffled]), whole[shuffled])


@law
@given(curves)
def test_between_jumps_a_lane_does_not_step(expression: str) -> None:
    made = lane(expression)
    jumps = made.jumps(F(0), F(2))
    assert jumps == sorted(set(jumps))
    assert all(0 <= j < 2 for j in jumps)
    if not made.continuous:
        fine = np.arange(0, 2, 1 / 240)
        steps = fine[1:][np.abs(np.diff(made.sample(fine))) > 1e-5]
        for s in steps:
            assert any(abs(float(j) - s) <= 1 / 240 + 1e-6 for j in jumps), (s, jumps)


@law
@given(curves, curves)
def test_sums_of_signals_commute(a: str, b: str) -> None:
    left, right = compile_source(f"velocity = {a}"), compile_source(f"velocity = {b}")
    if all(p.decks["main"]["velocity"].pattern.curve for p in (left, right)):  # type: ignore[attr-defined]
        times = np.arange(0, 2, 1 / 16)
        one = lane(f"({a}) + ({b})", "energy").sample(times)
        two = lane(f"({b}) + ({a})", "energy").sample(times)
        assert one == pytest.approx(two, abs=1e-5)
