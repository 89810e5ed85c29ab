"""Mini-notation: every operator with exact times, the disputes, what is refused and where."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction as F

import pytest

from demon_live.lang import DemonError, mini


def shown(text: str, begin: int = 0, end: int = 1) -> str:
    """Events as `begin-end value`, a leading ( or trailing ) where a part is cut from its whole."""
    out = []
    for e in sorted(mini(text).query(begin, end), key=lambda e: (e.begin, e.end, str(e.value))):
        left = "" if e.whole_begin == e.begin else "("
        right = "" if e.whole_end == e.end else ")"
        out.append(f"{left}{e.begin}-{e.end}{right} {e.value}")
    return ", ".join(out)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("a", "0-1 a"),
        ("a b", "0-1/2 a, 1/2-1 b"),
        ("a [b c]", "0-1/2 a, 1/2-3/4 b, 3/4-1 c"),
        ("a ~ - b", "0-1/4 a, 3/4-1 b"),
        ("a _ b", "0-2/3 a, 2/3-1 b"),
        ("a@3 b", "0-3/4 a, 3/4-1 b"),
        ("a@1.5 b@.5", "0-3/4 a, 3/4-1 b"),
        ("a!2 b", "0-1/3 a, 1/3-2/3 a, 2/3-1 b"),
        ("a ! b", "0-1/3 a, 1/3-2/3 a, 2/3-1 b"),
        ("a !2 b", "0-1/3 a, 1/3-2/3 a, 2/3-1 b"),
        ("a!2 !3 b", shown("a!4 b")),
        ("a!2!3 b", shown("a!4 b")),
        ("a !!2 b", shown("a!3 b")),
        ("a !1 b", "0-1/2 a, 1/2-1 b"),
        ("a @ b @ @", "0-2/5 a, 2/5-1 b"),
        ("a @3 b", "0-3/4 a, 3/4-1 b"),
        ("a@2 @ b", "0-3/4 a, 3/4-1 b"),
        ("a @@ b", "0-3/4 a, 3/4-1 b"),
        ("a __ b", "0-3/4 a, 3/4-1 b"),
        ("a _@ b", "0-3/4 a, 3/4-1 b"),
        ("a@! b", "0-2/5 a, 2/5-4/5 a, 4/5-1 b"),
        ("a !2 @ b", "0-1/4 a, 1/4-3/4 a, 3/4-1 b"),
        ("a!2 _ b", "0-1/4 a, 1/4-3/4 a, 3/4-1 b"),
        ("a ! _ b", "0-1/4 a, 1/4-3/4 a, 3/4-1 b"),
        ("a _ ! b", "0-2/5 a, 2/5-4/5 a, 4/5-1 b"),
        ("[a b] @ c", "0-1/3 a, 1/3-2/3 b, 2/3-1 c"),
        ("a!! b", "0-1/4 a, 1/4-1/2 a, 1/2-3/4 a, 3/4-1 b"),
        ("a*2 b", "0-1/4 a, 1/4-1/2 a, 1/2-1 b"),
        ("a*1.5", "0-2/3 a, 2/3-1) a"),
        ("a/2", "0-1) a"),
        ("a, b c", "0-1/2 b, 0-1 a, 1/2-1 c"),
        ("a . b c", "0-1/2 a, 1/2-3/4 b, 3/4-1 c"),
        ("0 .. 2", "0-1/3 0, 1/3-2/3 1, 2/3-1 2"),
        ("2 .. 0", "0-1/3 2, 1/3-2/3 1, 2/3-1 0"),
        ("{a b, c d e}", "0-1/2 a, 0-1/2 c, 1/2-1 b, 1/2-1 d"),
        ("{a b c}%2", "0-1/2 a, 1/2-1 b"),
        ("a(3,8)", "0-1/8 a, 3/8-1/2 a, 3/4-7/8 a"),
        ("a(<3 1>,4)", "0-1/4 a, 1/4-1/2 a, 1/2-3/4 a"),
        ("'two words' b", "0-1/2 two words, 1/2-1 b"),
        ("bd:3 -1 1.25", "0-1/3 bd:3, 1/3-2/3 -1, 2/3-1 1.25"),
    ],
)
def test_operators(text: str, events: str) -> None:
    assert shown(text) == events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("<a b>", "0-1 a, 1-2 b"),
        ("<a b>/2", "0-2 a"),
        ("<a@3 b>", "0-2) a"),
        ("<a <b c>>", "0-1 a, 1-2 b"),
        ("a*<1 2>", "0-1 a, 1-3/2 a, 3/2-2 a"),
    ],
)
def test_alternation(text: str, events: str) -> None:
    assert shown(text, 0, 2) == events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        # Where Strudel and Tidal differ, LANGUAGE.md decides.
        ("a(3,8,2)", "1/8-1/4 a, 1/2-5/8 a, 3/4-7/8 a"),
        ("0..2", "0-1/3 0, 1/3-2/3 1, 2/3-1 2"),
        (".25", "0-1 0.25"),
        ("", ""),
        ("[]", ""),
        ("a(5,0)", ""),
        ("a(9,8)", shown("a*8")),
        ("a(-3,8)", "1/8-1/4 a, 1/4-3/8 a, 1/2-5/8 a, 5/8-3/4 a, 7/8-1 a"),
        ("a(3,8,11)", shown("a(3,8,3)")),
        ("-- a", "2/3-1 a"),
        ("[a b](3,8)", "0-1/8 a, 3/8-1/2 a, 3/4-7/8 b"),
        ("a*0", ""),
    ],
)
def test_disputes(text: str, events: str) -> None:
    assert shown(text) == events


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[a b", 0, 'missing "]"'),
        ("a b]", 3, "closes nothing"),
        ("[a b>", 4, 'where "]" must close'),
        ("*2 a", 0, "no step in front"),
        ("a*", 1, "needs a number"),
        ("a@x", 1, "needs a number"),
        ("a..", 1, "has no end"),
        ("a(3)", 1, "two numbers"),
        ("a(,8)", 2, "missing here"),
        ("a, , b", 3, "nothing in front"),
        ("a |", 2, "nothing behind"),
        ("a $ b", 2, "means nothing"),
        ("a%4", 1, 'belongs behind "}"'),
        ("a 'b", 2, "no closing"),
        ("_ a", 0, "lengthens the step"),
        ("@ a", 0, "no step in front"),
        ("a _2 b", 2, "takes no number"),
        ("a !0 b", 2, "from 1"),
        ("a !x", 2, "whole number"),
        ("a @x", 2, "needs a number"),
        ("a*b", 2, "is a word"),
        ("<.4 .6>/x", 8, "is a word"),
        ("a(3,<8 x>)", 7, "is a word"),
        ("{a b}%[2 x]", 9, "is a word"),
        ("0 .. x", 5, "is a word"),
        ("a | b, c", 5, "side by side"),
        ("a?2", 1, "from 0 to 1"),
        ("a!0", 1, "from 1"),
        ("a!99999999", 1, "more than 4096"),
        ("a b*1000000", 2, "more than 4096"),
        ("x 0 .. 99999", 2, "more than 4096"),
        ("[" * 70 + "a" + "]" * 70, 64, "deeper than 64"),
    ],
)
def test_refused_with_the_caret_on_the_spot(text: str, place: int, says: str) -> None:
    with pytest.raises(DemonError) as caught:
        mini(text)
    assert says in caught.value.message
    assert caught.value.span is not None
    assert caught.value.span.start == place


def test_chances_are_independent_and_repeatable() -> None:
    pattern = mini("a? b?")
    seen = Counter(tuple(e.value for e in pattern.query(c, c + 1)) for c in range(1000))
    assert set(seen) == {(), ("a",), ("b",), ("a", "b")}
    assert all(190 < n < 310 for n in seen.values())
    assert mini("a? b?").query(500, 520) == pattern.query(500, 520)
    assert mini("a?*16", seed=1).query(0, 8) != mini("a?*16", seed=2).query(0, 8)


def test_copies_draw_their_own_lots() -> None:
    counts = Counter(len(mini("a?!4").query(c, c + 1)) for c in range(200))
    assert set(counts) == {0, 1, 2, 3, 4}


def test_choice_is_even() -> None:
    counts = Counter(mini("a | b | c").query(c, c + 1)[0].value for c in range(900))
    assert all(240 < n < 360 for n in counts.values())


def test_drop_probability() -> None:
    kept = sum(len(mini("a*8?.25").query(c, c + 1)) for c in range(100))
    assert 540 < kept < 660


def test_far_away_cycles_are_exact() -> None:
    (event,) = mini("<a b>/3").query(10**9, 10**9 + F(1, 7))
    assert event.whole_end is not None
    assert event.whole_begin is not None
    assert event.whole_end - event.whole_begin == 3
