"""What Tidal and Strudel play for the same text, worked out from their definitions."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest

from demon_live.lang import DemonError, Lane, compile_source
from demon_live.lang.lane import PatternLane
from demon_live.lang.pattern import Pattern


def lane(expression: str, control: str = "seed") -> Lane:
    return compile_source(f"{control} = {expression}").decks["main"][control]


def pattern(expression: str, control: str = "seed") -> Pattern:
    made = lane(expression, control)
    assert isinstance(made, PatternLane)
    return made.pattern


def shown(expression: str, cycle: int = 0, control: str = "seed") -> str:
    """The events of a cycle as `begin-end value`, times from its beginning; ( and ) where cut."""
    out = []
    events = pattern(expression, control).query(cycle, cycle + 1)
    for e in sorted(events, key=lambda e: (e.begin, e.end, str(e.value))):
        left = "" if e.whole_begin == e.begin else "("
        right = "" if e.whole_end == e.end else ")"
        value = f"{e.value:.10g}" if not isinstance(e.value, str) else e.value
        out.append(f"{left}{e.begin - cycle}-{e.end - cycle}{right} {value}")
    return ", ".join(out)


def same(a: str, b: str, control: str = "seed") -> bool:
    return all(shown(a, c, control) == shown(b, c, control) for c in range(4))


@pytest.mark.parametrize(
    ("expression", "cycle", "events"),
    [
        # One list is the list of parts.
        ('"<0 1>".pick([2, 9])', 0, "0-1 2"),
        ('"<0 1>".pick([2, 9])', 1, "0-1 9"),
        ("cat([2, 9])", 1, "0-1 9"),
        ("slowcat([2, 9])", 0, "0-1 2"),
        ("stack([2, 9])", 0, "0-1 2, 0-1 9"),
        ('seq([2, "3 4"])', 0, "0-1/2 2, 1/2-3/4 3, 3/4-1 4"),
        ("cat([2, 9], 5)", 0, "0-1/2 2, 1/2-1 9"),
        # pick takes the nearest number and stays at the ends; pickmod goes round.
        (
            '"0 1 2 3".pick("1 2 3 4", "10 20 30 40")',
            0,
            "0-1/4 1, 1/4-1/2 20, 1/2-3/4 30, 3/4-1 40",
        ),
        (
            '"0 1 2 3".pickmod("1 2 3 4", "10 20 30 40")',
            0,
            "0-1/4 1, 1/4-1/2 20, 1/2-3/4 3, 3/4-1 40",
        ),
        ('".6 -1".pick(1, 2)', 0, "0-1/2) 2, (1/2-1 1"),
        (
            '"0 1".pickOut("1 2 3 4", "10 20 30 40")',
            0,
            "0-1/4) 1, (1/4-1/2 2, 1/2-3/4) 30, (3/4-1 40",
        ),
        (
            '"<0 1>*2".pickRestart("1 2 3 4", "5 6 7 8")',
            0,
            "0-1/4 1, 1/4-1/2 2, 1/2-3/4 5, 3/4-1 6",
        ),
        ('"0 .4 1 2".select(1, 2, 3)', 0, "0-1/4) 1, (1/4-1/2) 2, (1/2-3/4) 3, (3/4-1 3"),
        # squeeze cuts wholes and parts alike.
        ('"0 10".squeeze("1/2 2")', 0, "0-1/4) 1, 1/4-1/2 2, 1/2-3/4) 11, 3/4-1 12"),
        ('"0 10".squeeze("2 1/2")', 1, "0-1/4 2, (1/4-1/2 1, 1/2-3/4 12, (3/4-1 11"),
        ('"4".squeeze("1/2")', 1, "0-1 5"),
        ('"1".bite(4, "5")', 1, "0-1 1"),
        ('"0 10".add.squeeze("1 2")', 0, "0-1/4 1, 1/4-1/2 2, 1/2-3/4 11, 3/4-1 12"),
        # within goes by where an event begins.
        ('"0 1".within(1/4, 3/4, _ + 10)', 0, "0-1/2 0, 1/2-1 11"),
        ('"0".within(1/2, 1, _ + 5)', 0, "0-1 0"),
        ('"0 1".within(0, 1/2, fast(2))', 0, "0-1/4 0, 1/4-1/2 1, 1/2-1 1"),
        # chunk cuts at its own edges; -n goes backwards.
        ('"0".chunk(2, _ + 5)', 0, "0-1/2) 5, (1/2-1 0"),
        ('"0 1".chunk(-2, _ + 5)', 0, "0-1/2 0, 1/2-1 6"),
        ('"0 1".chunk(-2, _ + 5)', 1, "0-1/2 5, 1/2-1 1"),
        # ply: the copies end with the event, and odd cycles differ.
        ('"0 1 2".ply(1.5)', 0, "0-2/9 0, 2/9-1/3 0, 1/3-5/9 1, 5/9-2/3 1, 2/3-8/9 2, 8/9-1 2"),
        ('"0 1 2".ply(1.5)', 1, "0-1/9 0, 1/9-1/3 0, 1/3-4/9 1, 4/9-2/3 1, 2/3-7/9 2, 7/9-1 2"),
        ('"0 1".ply(.5).press', 0, "1/4-1/2 0, 3/4-1 1"),
        # linger takes the cycles in turn and runs over the edge of one.
        ('"<0 1> 2".linger(1/4)', 0, "0-1/4) 0, 1/4-1/2) 1, 1/2-3/4) 0, 3/4-1) 1"),
        (
            '"0 1 2 3".linger(.3)',
            0,
            "0-1/4 0, 1/4-3/10) 1, 3/10-11/20 0, 11/20-3/5) 1, 3/5-17/20 0, 17/20-9/10) 1, "
            "9/10-1) 0",
        ),
        ('"0 1 2 3".linger(-1/4)', 2, "0-1/4 3, 1/4-1/2 3, 1/2-3/4 3, 3/4-1 3"),
        # every: never for 0, and with an offset.
        ('"0 1".every(0, rev)', 0, "0-1/2 0, 1/2-1 1"),
        ('"0 1".every("<0 2>", rev)', 0, "0-1/2 0, 1/2-1 1"),
        ('"0 1".every(4, rev, 1)', 0, "0-1/2 0, 1/2-1 1"),
        ('"0 1".every(4, rev, 1)', 1, "0-1/2 1, 1/2-1 0"),
        ('"0 1".whenmod(4, 2, rev)', 1, "0-1/2 0, 1/2-1 1"),
        ('"0 1".whenmod(4, 2, rev)', 3, "0-1/2 1, 1/2-1 0"),
        # Structure from the right, and from both sides.
        ('"0 1" +| "10 20 30"', 0, "0-1/3 10, 1/3-1/2) 20, (1/2-2/3 21, 2/3-1 31"),
        ('"0 1".add.out("10 20 30")', 0, "0-1/3 10, 1/3-1/2) 20, (1/2-2/3 21, 2/3-1 31"),
        ('"0 1" |+| "10 20 30"', 0, "0-1/3 10, 1/3-1/2 20, 1/2-2/3 21, 2/3-1 31"),
        ('"0 1".add.mix("10 20 30")', 0, "0-1/3 10, 1/3-1/2 20, 1/2-2/3 21, 2/3-1 31"),
        ('"2 3" *| "1 2 3"', 0, "0-1/3 2, 1/3-1/2) 4, (1/2-2/3 6, 2/3-1 9"),
        ('"2 3" |*| "1 2 3"', 0, "0-1/3 2, 1/3-1/2 4, 1/2-2/3 6, 2/3-1 9"),
        ('"2 3" |- "1"', 0, "0-1/2 1, 1/2-1 2"),
        ('"0 1".every(1, add.out("10 20 30"))', 0, "0-1/3 10, 1/3-1/2) 20, (1/2-2/3 21, 2/3-1 31"),
        # Slices, copies, gates.
        ('"0 1 2 3".bite(4, "3 [2 1] 0")', 0, "0-1/3 3, 1/3-1/2 2, 1/2-2/3 1, 2/3-1 0"),
        ('"<0 1> 2".bite(2, "1 0 0")', 1, "0-1/3 2, 1/3-2/3 1, 2/3-1 1"),
        (
            '"0 1".plyWith(3, _ + 1)',
            0,
            "0-1/6 0, 1/6-1/3 1, 1/3-1/2 2, 1/2-2/3 1, 2/3-5/6 2, 5/6-1 3",
        ),
        ('"0 1 0 2".fix(0, _ + 5)', 0, "0-1/4 5, 1/4-1/2 1, 1/2-3/4 5, 3/4-1 2"),
        ('"0 1 .1 2".fix([.1, 2], _ + 5)', 0, "0-1/4 0, 1/4-1/2 1, 1/2-3/4 5.1, 3/4-1 7"),
        ('stitch("t f t", "1 2 3", 9)', 0, "0-1/3 1, 1/3-2/3 9, 2/3-1 3"),
        ('"<0 1 2 3>*2".restart("<1 [1 1]>")', 0, "0-1/2 0, 1/2-1 1"),
        ('"<0 1 2 3>*2".restart("<1 [1 1]>")', 1, "0-1/2 0, 1/2-1 0"),
        (
            '"0 1".euclidFull(3, 8, 9)',
            0,
            "0-1/8 0, 1/8-1/4 9, 1/4-3/8 9, 3/8-1/2 0, 1/2-5/8 9, 5/8-3/4 9, 3/4-7/8 1, 7/8-1 9",
        ),
        ('"0 1".euclidLegato(3, 8)', 0, "0-3/8 0, 3/8-1/2) 0, (1/2-3/4 1, 3/4-1 1"),
        ("pure(5).euclidLegato(1, 4)", 0, "0-1 5"),
        # Scales.
        ("\"0 2 7 -1\".scale('minor')", 0, "0-1/4 0, 1/4-1/2 3, 1/2-3/4 12, 3/4-1 -2"),
        ('"0 2".scale("c4:major")', 0, "0-1/2 60, 1/2-1 64"),
        ('"0 1 3 4".toScale([0, 2, 7])', 0, "0-1/4 0, 1/4-1/2 2, 1/2-3/4 12, 3/4-1 14"),
        ('"0 1 3".toScale([0, 2, 7], 10)', 0, "0-1/3 0, 1/3-2/3 2, 2/3-1 10"),
        # Ranges keep the fraction of their left end.
        ('"0.5 .. 2.5"', 0, "0-1/3 0.5, 1/3-2/3 1.5, 2/3-1 2.5"),
        ('"0.1 .. 0.4"', 0, "0-1 0.1"),
        ('"2.5 .. 0"', 0, "0-1/3 2.5, 1/3-2/3 1.5, 2/3-1 0.5"),
        ('"0 .25 .. 1"', 0, "0-1/2 0, 1/2-1 0.25"),
    ],
)
def test_events(expression: str, cycle: int, events: str) -> None:
    assert shown(expression, cycle) == events


def test_the_same_in_other_words() -> None:
    assert same('"1 0 1".inv', '"1 0 1".invert')
    assert same('"0 1 2 3 4 5 6 7".swing(4)', '"0 1 2 3 4 5 6 7".swing(1/3, 4)')
    assert same("\"0 1\".pick('a', 'b')", "\"0 1\".pick(['a', 'b'])", "prompt")
    assert same('"0 1".firstOf(2, rev, 1)', '"0 1".every(2, rev, 1)')


def test_curves_squeezed_into_events() -> None:
    made = lane('"0 .5".squeeze(saw * .4)', "blend")
    values = made.sample(np.array([0, 0.25, 0.375, 0.5, 0.75]))
    assert values == pytest.approx([0, 0.2, 0.3, 0.5, 0.7], abs=1e-6)


def test_a_curve_plays_on_where_patterns_are_squeezed_into_it() -> None:
    made = lane('square.squeeze("0 .1")', "blend")
    assert made.sample(np.array([0, 0.5])) == pytest.approx([0, 1])


@pytest.mark.parametrize("curve", ["tri", "itri.late(1/2)", "sine.late(1/4)", "saw"])
def test_the_zero_of_a_curve_is_the_same_in_a_sample_and_at_its_moment(curve: str) -> None:
    made = lane(f"{curve}.invert", "blend")
    assert [made.at(F(c)) for c in range(3)] == [1, 1, 1]
    assert made.sample(np.arange(3.0)) == pytest.approx([1, 1, 1])


def test_within_cuts_curves_at_the_edges() -> None:
    made = lane("saw.within(1/2, 1, 1 - _)", "blend")
    assert made.sample(np.array([0.25, 0.75])) == pytest.approx([0.25, 0.25])


def test_a_picked_curve_begins_at_its_beginning() -> None:
    made = lane('"<0 1>".pickRestart(saw.slow(4), .9)', "blend")
    assert made.sample(np.array([0.5, 1.5, 2.5])) == pytest.approx([0.125, 0.9, 0.125])


def test_foxdots_ramps() -> None:
    def values(text: str, *cycles: float) -> list[float]:
        return [round(float(v), 4) for v in lane(text, "blend").sample(np.array(cycles))]

    assert values("sinvar([0, 1], 4)", 1, 2, 3) == [0.3827, 0.7071, 0.9239]
    assert values("sinvar([1, 0], 4)", 1, 2, 3) == [0.9239, 0.7071, 0.3827]
    assert values("linvar([0, 1], [8, 0])", 0, 4, 7.9, 8, 12) == [0, 0.5, 0.9875, 0, 0.5]
    assert values("linvar([0, 1], [8, inf])", 4, 8, 100, 9000) == [0.5, 1, 1, 1]
    assert values("var([.2, .9], [6, inf])", 5, 6, 9000) == [0.2, 0.9, 0.9]


@pytest.mark.parametrize(
    "text", ["linvar([0, 1], [0, 0])", "linvar([0, 1], -1)", "linvar([0, 1], 0)"]
)
def test_ramps_need_a_length(text: str) -> None:
    with pytest.raises(DemonError, match="below 0"):
        lane(text)


@pytest.mark.parametrize(
    "call",
    ["degradeBy(50)", "undegradeBy(-1)", "sometimesBy(30, rev)", "someCyclesBy(1.5, rev)"],
)
def test_a_chance_goes_from_0_to_1(call: str) -> None:
    with pytest.raises(DemonError) as caught:
        lane(f'"0 1".{call}')
    assert caught.value.message == "a chance goes from 0 to 1"
    assert caught.value.span is not None
    source = caught.value.source or ""
    place = source[caught.value.span.start : caught.value.span.end]
    assert place == call.partition("(")[2].rstrip(")").partition(",")[0]


def test_a_draw_for_each_event_that_reads_it() -> None:
    for words in ("choose(1, 2, 3)", 'choose("1", "2 2", 3)', "wchoose([1, 1], [2, 1], [3, 1])"):
        made = pattern(f'"0*8".add({words})')
        kinds = [{e.value for e in made.query(c, c + 1)} for c in range(40)]
        assert all(len(made.query(c, c + 1)) == 8 for c in range(40))
        assert sum(len(k) > 1 for k in kinds) >= 38
        assert set().union(*kinds) == {1, 2, 3}
    texts = pattern("choose('a', 'b').struct(\"1*8\")", "prompt")
    assert {e.value for e in texts.query(0, 1)} == {"a", "b"}
    once = pattern('"0*8".add(randcat(1, 2, 3))')
    assert all(len({e.value for e in once.query(c, c + 1)}) == 1 for c in range(20))


def test_weights() -> None:
    made = pattern('"0*8".add(wchoose([0, 3], [1, 1]))')
    ones = sum(e.value for e in made.query(0, 100))
    assert 140 < ones < 260


def test_a_long_event_is_drawn_once() -> None:
    made = lane("choose('a', 'b').segment(1/4)", "prompt")
    assert all(len({made.at(F(c + i)) for i in range(4)}) == 1 for c in range(0, 64, 4))
    assert {made.at(F(c)) for c in range(0, 64, 4)} == {"a", "b"}
