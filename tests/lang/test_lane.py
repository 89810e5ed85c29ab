"""Lanes: sampling, moments, jumps, and how lanes are joined."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest

from demon_live.lang import Lane, compile_source
from demon_live.lang.controllers import EMPTY, Key, Move
from demon_live.lang.lane import fade_gains


def lane(text: str) -> Lane:
    program = compile_source(text)
    (made,) = program.decks["main"].values()
    return made


def values(made: Lane, *cycles: float) -> list[float]:
    return [round(float(v), 4) for v in made.sample(np.array(cycles, dtype=np.float64))]


def test_an_event_begins_at_its_begin() -> None:
    made = lane('blend = "0 .5 1"')
    assert values(made, 0, 1 / 3, 2 / 3, 1, 100 + 1 / 3) == [0, 0.5, 1, 0, 0.5]
    assert [made.at(F(i, 3)) for i in range(4)] == [0, 0.5, 1, 0]
    assert made.at(F(1, 3) - F(1, 10**12)) == 0


def test_rests() -> None:
    assert values(lane('gain = "1 ~"'), 0, 0.5) == [1, 0]
    assert values(lane('blend = ".5 ~"'), 0, 0.5) == [0.5, 1]
    assert lane('prompt = "acid ~"').at(F(1, 2)) == ""


def test_numbers_are_clipped_and_rounded() -> None:
    assert values(lane("blend = sine * 2"), 0, 0.25) == [1, 1]
    assert values(lane("pan = sine2 * 3"), 0.25, 0.75) == [1, -1]
    assert values(lane("seed = saw * 4"), 0.1, 0.2, 0.4) == [0, 1, 2]


def test_the_youngest_event_holds() -> None:
    assert values(lane('noise = ".1, ~ .4"'), 0, 0.5) == [0.1, 0.4]
    assert values(lane('noise = "[.1 .3], .4"'), 0, 0.5) == [0.4, 0.3]


def test_text_lanes() -> None:
    made = lane("prompt = \"<'acid techno' dub>/2\"")
    assert made.kind == "text"
    assert [made.at(F(c)) for c in range(5)] == [
        "acid techno",
        "acid techno",
        "dub",
        "dub",
        "acid techno",
    ]
    assert made.jumps(F(0), F(8)) == [0, 2, 4, 6]
    assert not made.continuous
    assert lane("key = 'A minor'").jumps(F(0), F(8)) == []


@pytest.mark.parametrize(
    ("text", "jumps", "continuous"),
    [
        ("blend = .5", [], False),
        ('blend = "0 .5 .5 1"', ["0", "1/4", "3/4"], False),
        ("blend = sine", [], True),
        ("blend = tri", [], True),
        ("blend = square", ["0", "1/2"], False),
        ("blend = square.slow(2).late(1/4)", ["1/4"], False),
        ("blend = saw", ["0"], True),
        ("blend = saw.rev", ["0"], True),
        ("blend = sine.range(0, 0)", [], True),
        ("blend = square * 0", [], False),
        ("blend = cat(sine, .5)", [], True),
        ("blend = cat(sine, 0)", ["0"], True),
        ('seed = "<1 2>"', ["0"], False),
        ("blend = saw.segment(2)", ["0", "1/2"], False),
        ('blend = "0 1".smooth(.1)', [], True),
    ],
)
def test_jumps(text: str, jumps: list[str], continuous: bool) -> None:
    made = lane(text)
    assert [str(j) for j in made.jumps(F(0), F(1))] == jumps
    assert made.continuous is continuous


def test_jumps_at_a_high_cycle_are_exact() -> None:
    made = lane('blend = "0 .5 1"')
    begin = F(1_000_000)
    assert made.jumps(begin, begin + 1) == [begin, begin + F(1, 3), begin + F(2, 3)]


def test_smooth_is_a_straight_line() -> None:
    made = lane('blend = "0 1".smooth(.1)')
    assert values(made, 0.49, 0.5, 0.55, 0.6, 0.9) == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-3)
    between = lane('blend = "0 1".smooth')
    assert values(between, 0, 0.25, 0.5, 0.75) == pytest.approx([0, 0.5, 1, 0.5], abs=1e-3)


def test_foxdot_words() -> None:
    assert values(lane("blend = linvar([0, 1], 8)"), 0, 4, 8, 12, 16) == [0, 0.5, 1, 0.5, 0]
    assert values(lane("blend = var([.2, .9], [6, 2])"), 0, 5.9, 6, 7.9, 8) == [
        0.2,
        0.2,
        0.9,
        0.9,
        0.2,
    ]
    assert values(lane("blend = sinvar([0, 1], 2)"), 0, 1, 2, 3) == [0, 0.7071, 1, 0.7071]


# --- joined lanes ----------------------------------------------------------------------------


def constant(value: float, control: str = "blend") -> Lane:
    return Lane.constant(control, value)


def test_constants() -> None:
    assert values(constant(0.3), 0, 99.5) == [0.3, 0.3]
    assert Lane.constant("prompt", "dub").at(F(0)) == "dub"
    assert Lane.constant("blend").at(F(0)) == 1
    assert Lane.constant("source").at(F(0)) == ""


def test_switch() -> None:
    made = Lane.switch(constant(0.2), lane('blend = "0 1"'), F(3))
    assert values(made, 0, 2.9, 3, 3.5) == [0.2, 0.2, 0, 1]
    assert made.at(F(3)) == 0
    assert made.jumps(F(2), F(4)) == [3, F(7, 2)]
    assert made.text == '"0 1"'
    same = Lane.switch(constant(0.2), constant(0.2), F(3))
    assert same.jumps(F(0), F(9)) == []


def test_glide_is_tidals_interpolate() -> None:
    made = Lane.glide(constant(0.8), constant(0.4), F(2), F(4))
    times = np.linspace(2, 6, 33)
    x = (times - 2) / 4
    assert made.sample(times) == pytest.approx(0.8 * (1 - x) + 0.4 * x, abs=1e-6)
    assert values(made, 0, 2, 6, 9) == [0.8, 0.8, 0.4, 0.4]
    assert made.at(F(4)) == pytest.approx(0.6)
    assert made.continuous


def test_glide_between_patterns_moves_both() -> None:
    made = Lane.glide(lane('blend = "0 1"'), lane("blend = .5"), F(0), F(2))
    assert values(made, 0, 0.5, 1, 1.5, 2) == [0, 0.875, 0.25, 0.625, 0.5]
    assert made.jumps(F(0), F(3)) == [0, F(1, 2), 1, F(3, 2)]


def test_text_changes_at_the_end_of_a_glide() -> None:
    made = Lane.glide(lane("prompt = 'a'"), lane("prompt = 'b'"), F(2), F(4))
    assert [made.at(F(c)) for c in (2, 5, 6)] == ["a", "a", "b"]
    assert made.jumps(F(0), F(9)) == [6]


def test_xfade_follows_tidals_envelopes() -> None:
    # xfadeIn: the old under sqrt(sin(pi/2 (1-x))), the new under sqrt(cos(pi/2 (1-x))).
    x = np.linspace(0, 1, 21)
    down, up = np.sqrt(np.sin(np.pi / 2 * (1 - x))), np.sqrt(np.cos(np.pi / 2 * (1 - x)).clip(0))
    assert fade_gains(x)[0] == pytest.approx(down)
    assert fade_gains(x)[1] == pytest.approx(up)
    old, new = lane("gain = .8"), lane("gain = 0")
    assert Lane.xfade(old, new, F(0), F(1)).sample(x) == pytest.approx(0.8 * down, abs=1e-6)
    assert Lane.xfade(new, old, F(0), F(1)).sample(x) == pytest.approx(0.8 * up, abs=1e-6)
    same = Lane.xfade(old, old, F(0), F(1)).sample(x)
    assert same == pytest.approx(np.full(21, 0.8), abs=1e-6)


def test_xfade_of_another_control_is_a_glide() -> None:
    made = Lane.xfade(lane("pan = -1"), lane("pan = 1"), F(0), F(2))
    assert values(made, 0, 1, 2) == [-1, 0, 1]


def test_prune_drops_what_is_over() -> None:
    made = constant(0)
    for i in range(1, 50):
        made = Lane.prune(Lane.switch(made, constant(i / 50), F(i)), F(i) - 1)
    assert made.at(F(49)) == pytest.approx(0.98)
    depth, inner = 0, made
    while hasattr(inner, "old"):
        depth, inner = depth + 1, inner.old
    assert depth <= 2
    gliding = Lane.glide(constant(0), constant(1), F(0), F(4))
    assert Lane.prune(gliding, F(2)).at(F(2)) == 0.5
    assert Lane.prune(gliding, F(4)).at(F(4)) == 1
    assert not hasattr(Lane.prune(gliding, F(4)), "old")


def test_a_composite_passes_on_what_its_parts_name() -> None:
    knob, moves = Key("cc", 21), EMPTY.moved([Move(Key("cc", 21, 1), 0.5)], 0.0, 0.0)
    waiting = lane("blend = cc(21)")
    for made in (
        Lane.switch(constant(0), waiting, F(2)),
        Lane.glide(waiting, constant(0), F(2), F(2)),
        Lane.switch(Lane.glide(constant(0), waiting, F(0), F(1)), constant(1), F(8)),
    ):
        assert made.keys == {knob}
        assert made.resolve(moves).keys == frozenset()
    assert values(Lane.switch(constant(0), waiting, F(2)).resolve(moves), 1, 3) == [0, 0.5]
    plain = Lane.switch(constant(0), constant(1), F(2))
    assert plain.resolve(moves) is plain


def test_sampling_many_cycles_apart() -> None:
    made = lane("blend = rand.segment(4)")
    far = np.array([0.0, 1e6, 5.25, 1e6 + 0.5])
    one_by_one = [made.sample(far[i : i + 1])[0] for i in range(4)]
    assert made.sample(far).tolist() == one_by_one


def test_an_empty_array() -> None:
    assert lane("blend = sine").sample(np.zeros(0)).shape == (0,)
