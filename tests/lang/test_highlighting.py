"""Which written steps sound: the places of mini-notation, through transforms and arithmetic."""

from __future__ import annotations

import pytest

from demon_live.lang import compile_source
from demon_live.lang.highlighting import highlights


def lit(text: str, cycle: float, control: str | None = None) -> list[str]:
    lines = [x for x in highlights(text) if control in (None, x.control)]
    return [text[step.start : step.stop] for line in lines for step in line.active(cycle)]


@pytest.mark.parametrize(
    ("score", "cycle", "steps"),
    [
        ('blend = "1 .2 [0 .9]"', 0.1, ["1"]),
        ('blend = "1 .2 [0 .9]"', 0.9, [".9"]),
        ('blend = "1 .2 [0 .9]"', 7.4, [".2"]),
        ('denoise = "<.4 .6 .8>/2"', 3.5, [".6"]),
        ('blend = "1 .2".slow(2).range(.2, 1)', 1.5, [".2"]),
        ('blend = "1 .2".every(2, rev)', 0.1, [".2"]),
        ('blend = "1 .2" * .5 + .1', 0.1, ["1"]),
        ('blend = "1 .5" + "0 .1 .2 .3"', 0.3, ["1", ".1"]),
        ('seed = "1 2".rangex(1, 8)', 0.6, ["2"]),
        ('morph = "0 1 .5".smooth(.1)', 0.5, ["1"]),
        ('gain = "1(3,8)"', 0.3, []),
        ('gain = "1(3,8)"', 0.4, ["1"]),
        ('gain = "1*2"', 0.9, ["1"]),
        ('seed = "0 .. 3"', 0.1, ["0 .. 3"]),
        ('seed = "1, 2 3"', 0.9, ["1", "3"]),
        ('seed = "{1 2 3}%2"', 1.1, ["3"]),
        ("prompt = \"<'a b' c>\"", 1.5, ["c"]),
        ("prompt = \"<'a b' c>\"", 2.5, ["'a b'"]),
        ('gain = "1 ~"', 0.7, []),
        ("blend = .5", 0.5, []),
        ("blend = sine.slow(2)", 0.5, []),
        ('let wob(n) = "0 .5 1".fast(n)\nblend = wob(2)', 0.2, [".5"]),
        ('let w = "0 1"\nblend = w\nnoise = "1 0"', 0.7, ["1", "0"]),
    ],
)
def test_the_steps_that_sound(score: str, cycle: float, steps: list[str]) -> None:
    assert lit(score, cycle) == steps


def test_lots_fall_as_they_fall_for_the_ear() -> None:
    score = 'gain = "1? .5? .2? .9?"'
    lane = compile_source(score).decks["main"]["gain"]
    for cycle in range(64):
        for step in range(4):
            at = cycle + step / 4 + 0.1
            (heard,) = lane.sample([at])
            shown = [float(s) for s in lit(score, at)]
            assert shown == ([pytest.approx(heard)] if heard else [])


def test_a_line_knows_its_deck_its_control_and_its_text() -> None:
    score = 'deck drums {\n  gain = "1 .5" over 2\n}\nscene a {\n  blend = 1\n}\n'
    found = [(x.deck, x.control, x.text, score[x.start : x.stop]) for x in highlights(score)]
    assert found == [
        ("drums", "gain", '"1 .5"', 'gain = "1 .5" over 2'),
        ("main", "blend", "1", "blend = 1"),
    ]


def test_what_is_broken_hides_nothing_else() -> None:
    score = 'blend = "1 (\nnoise = "0 1"\nnosuch = 1\nlet x = (\nmorph = $$$\n'
    assert [x.control for x in highlights(score)] == ["noise"]
    assert highlights("") == []
    assert highlights("(" * 5000) == []


def test_the_onset_of_an_event_is_known_where_it_is_cut_in_two() -> None:
    line = highlights('blend = "1 .5" + "0 .1 .2 .3"')[0]
    step = next(s for s in line.active(0.3) if s.start == 9)
    assert (step.onset, step.begin, step.end) == (0.0, 0.25, 0.5)
