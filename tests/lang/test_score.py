"""Scores: statements, decks, scenes, when-clauses, lets, and the difference of two versions."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest

from demon_live.lang import (
    Bind,
    Chain,
    DemonError,
    Go,
    Let,
    Program,
    Scene,
    Setting,
    When,
    Word,
    compile_source,
    diff,
    format_source,
    removed,
)

SCORE = """
# a comment
tempo 128          # beats a minute
loop 8
source "loops/amen.wav"
prompt = "<'acid techno, 303' 'dub techno'>/8"
blend = sine.slow(4)   # a chain over
    .range(.2, .9)     # several lines
let wob(n) = sine.fast(n).range(0, 1)
velocity = wob(3) * .2 + .9 over 4
seed = "<1 2 3 4>/2" at 8
deck drums {
  loop 2
  gain = "1 .5".every(4, rev) !
}
scene drop { blend = 1; denoise = .9 over 2 }
go drop at 8
chain 'drop' 8, 'calm' 4.5
hush
mute drums at 4
"""


def only(text: str) -> object:
    (statement,) = compile_source(text).statements
    return statement


def test_the_whole_of_a_score() -> None:
    program = compile_source(SCORE, "x.demon")
    assert program.settings == {"tempo": 128.0, "loop": 8.0, "source": "loops/amen.wav"}
    assert list(program.decks["main"]) == ["prompt", "blend", "velocity", "seed"]
    assert list(program.decks["drums"]) == ["gain"]
    assert list(program.scenes) == ["drop"]
    assert [s.control for s in program.scenes["drop"].body if isinstance(s, Bind)] == [
        "blend",
        "denoise",
    ]
    assert program.chains[0].scenes == (("drop", F(8)), ("calm", F(9, 2)))
    assert "wob" in program.lets
    kinds = [type(s).__name__ for s in program.statements]
    assert kinds[-5:] == ["Scene", "Go", "Chain", "Word", "Word"]


def test_statements_know_their_place() -> None:
    program = compile_source(SCORE)
    for statement in program.statements:
        text = SCORE[statement.span.start : statement.span.end]
        assert text.strip() == text
        assert SCORE.count("\n", 0, statement.span.start) + 1 == statement.span.line


@pytest.mark.parametrize(
    ("tail", "when"),
    [
        ("", When()),
        ("now", When("now")),
        ("!", When("now")),
        ("at 8", When("at", F(8))),
        ("in 1/2", When("in", F(1, 2))),
        ("over 4", When("over", F(4))),
        ("xfade .5", When("xfade", F(1, 2))),
        ("at 8 over 4", When("at", F(8), When("over", F(4)))),
        ("over 4 at 8", When("at", F(8), When("over", F(4)))),
        ("now over 2", When("now", F(0), When("over", F(2)))),
    ],
)
def test_when(tail: str, when: When) -> None:
    statement = only(f"blend = .5 {tail}")
    assert isinstance(statement, Bind)
    assert statement.when == when


@pytest.mark.parametrize("tail", ["at 0", "over -1", "at 2 in 3", "over 1 over 2", "now now"])
def test_when_refused(tail: str) -> None:
    with pytest.raises(DemonError):
        compile_source(f"blend = .5 {tail}")


def test_a_deck_line_holds_to_the_end() -> None:
    program = compile_source("deck drums\nblend = .5\nloop 2")
    assert list(program.decks["drums"]) == ["blend"]
    assert [s.deck for s in program.statements if isinstance(s, Setting)] == ["drums"]


def test_a_deck_may_be_named_in_front() -> None:
    assert list(compile_source("drums.blend = .5").decks["drums"]) == ["blend"]


def test_default_gives_back() -> None:
    statement = only("blend = default")
    assert isinstance(statement, Bind)
    assert statement.lane is None
    assert compile_source("blend = .5\nblend = default").decks["main"] == {}


def test_loras_are_controls() -> None:
    program = compile_source("lora.tape = sine.range(0, .8)")
    assert program.decks["main"]["lora.tape"].sample(np.array([0.25]))[0] == pytest.approx(0.8)


def test_source_none() -> None:
    assert compile_source("source none").settings == {"source": None}
    assert compile_source("source 'none'").settings == {"source": "none"}


@pytest.mark.parametrize(
    "text", ["hush", "hush()", "hush !", "panic", "undo", "redo", "stop", "unsolo"]
)
def test_words_without_arguments(text: str) -> None:
    statement = only(text)
    assert isinstance(statement, Word)
    assert statement.args == ()


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("mute drums", ("drums",)),
        ("save friday", ("friday",)),
        ("load sets/a-1.demon", ("sets/a-1.demon",)),
        ("load 'my set.demon'", ("my set.demon",)),
        ("solo(drums)", ("drums",)),
        ("record friday", ("friday",)),
    ],
)
def test_words_with_arguments(text: str, args: tuple[str, ...]) -> None:
    statement = only(text)
    assert isinstance(statement, Word)
    assert statement.args == args


def test_lets_come_from_earlier_lines() -> None:
    before = compile_source("let wob(n) = sine.fast(n)")
    after = compile_source("blend = wob(2) * .5", lets=before.lets)
    expected = compile_source("blend = sine.fast(2) * .5")
    times = np.arange(0, 2, 0.1)
    assert np.array_equal(
        after.decks["main"]["blend"].sample(times), expected.decks["main"]["blend"].sample(times)
    )


def test_lets_take_patterns_functions_and_each_other() -> None:
    text = """
    let base = "0 .25 .5 1"
    let twice(p) = p.fast(2)
    let odd(f) = base.every(2, f)
    noise = odd(twice)
    blend = base.twice
    """
    program = compile_source(text)
    times = np.arange(0, 2, 1 / 16)
    expected = compile_source(
        'noise = "0 .25 .5 1".every(2, fast(2))\nblend = "0 .25 .5 1".fast(2)'
    )
    for control in ("noise", "blend"):
        assert np.array_equal(
            program.decks["main"][control].sample(times),
            expected.decks["main"][control].sample(times),
        )


@pytest.mark.parametrize(
    "text", ["let f = f\nblend = f", "let f(n) = g(n)\nlet g(n) = f(n)\nblend = f(1)"]
)
def test_lets_may_not_go_in_circles(text: str) -> None:
    with pytest.raises(DemonError, match="calls itself"):
        compile_source(text)


def sampled(text: str, control: str = "blend", deck: str = "main", **how: int) -> list[float]:
    lane = compile_source(text, **how).decks[deck][control]  # type: ignore[arg-type]
    return [round(float(v), 4) for v in lane.sample(np.arange(0, 40, 1 / 8))]


RANDOM = [
    "rand.segment(8)",
    "perlin",
    'stack(0, ".2*8?")',
    '"0 | .5 | 1"',
    'stack(0, ".2*8".degradeBy(.5))',
    '"1*8".sometimesBy(.5, _ * .5)',
    '"0*8".add(choose(.2, .5, .8))',
    "randcat(.2, .5, .8)",
    '"0 .2 .4 .8".shuffle(4)',
    '".2 .8".someCycles(rev)',
    "irand(8).segment(8) / 8",
]


@pytest.mark.parametrize("expression", RANDOM)
def test_chance_is_one_function_of_time(expression: str) -> None:
    one = sampled(f"blend = {expression}")
    assert len(set(one)) > 1
    assert sampled(f"# moved\n\nnoise = rand\nnoise = {expression}", "noise") == one
    assert sampled(f"deck drums {{ blend = {expression} }}", deck="drums") == one
    assert sampled(f"let r = {expression}\nblend = r") == one
    assert sampled(f"blend = ({expression}) + rand * 0") == one
    assert sampled(f"blend = {expression}", seed=7) != one
    assert sampled(f"blend = ({expression}).salt(3)") != one
    assert sampled(f"blend = salt(3, {expression})") == sampled(f"blend = ({expression}).salt(3)")
    assert sampled(f"blend = ({expression}).salt(0)") == one


def test_streams_of_chance() -> None:
    assert sampled("blend = rand(3).segment(8)") == sampled("blend = rand.segment(8).salt(3)")
    assert sampled("blend = perlin(2)") != sampled("blend = perlin")
    salted = sampled('blend = ".2*8".degradeBy(.5).salt(2)')
    assert salted != sampled('blend = ".2*8".degradeBy(.5)')
    for text in (
        'let half(p) = p.degradeBy(.5)\nblend = ".2*8".half.salt(2)',
        'let other(p) = p.salt(2)\nblend = other(".2*8".degradeBy(.5))',
        'let other(f) = ".2*8".every(1, f).salt(2)\nblend = other(degradeBy(.5))',
        'blend = ".2*8".every(1, degradeBy(.5).salt(2))',
        'blend = ".2*8".every(1, _.degradeBy(.5).salt(2))',
    ):
        assert sampled(text) == salted
    for text in ("blend = rand(.5)", "blend = rand.salt(sine)", "blend = rand.salt(9000000)"):
        with pytest.raises(DemonError, match="a stream is a whole number"):
            compile_source(text)


def test_what_degrade_loses_undegrade_keeps() -> None:
    both = 'blend = stack(".2*8".degradeBy(.3), ".7*8".undegradeBy(.3))'
    steps = sampled(both)
    assert set(steps) == {0.2, 0.7}
    assert 0.24 < steps.count(0.7) / len(steps) < 0.36
    other = sampled('noise = ".7*8".undegradeBy(.3)', "noise")
    assert [v == 0.7 for v in steps] == [v == 0.7 for v in other]


def test_operators_of_one_string_stay_independent() -> None:
    pairs = compile_source('noise = "[.4? .8?]*8"').decks["main"]["noise"]
    values = pairs.sample(np.arange(0, 40, 1 / 16)).reshape(-1, 2) > 0
    assert len(np.unique(values, axis=0)) == 4


#: Draws of the first rule, as it made them before there was another.
FIRST_RULE = """
blend = rand.segment(8)
noise = "1*8?".degradeBy(.2) + perlin * 0
prompt_mix = choose(.2, .5, .8)
deck drums {
blend = "0 | .5 | 1".sometimesBy(.5, _ * .5).shuffle(4)
}
"""


def test_the_first_rule_of_chance_draws_as_it_did() -> None:
    def first(control: str, deck: str = "main") -> list[float]:
        return sampled(FIRST_RULE, control, deck, chance=1)[:16]

    assert first("blend")[:8] == [0.2387, 0.4386, 0.0132, 0.8191, 0.1271, 0.2067, 0.1805, 0.3643]
    assert first("noise") == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1]
    assert first("prompt_mix") == [0.2] * 8 + [0.8] * 8
    assert first("blend", "drums") == [1] * 8 + [0.5] * 8
    # A let draws anew wherever it stands.
    text = "let r = rand.segment(8)\nblend = r\nnoise = r"
    assert sampled(text, chance=1) != sampled(text, "noise", chance=1)


# --- difference ------------------------------------------------------------------------------


def changes(old: str | None, new: str | None) -> list[str]:
    def program(text: str | None) -> Program | None:
        return None if text is None else compile_source(text)

    out = []
    after = program(new)
    steps = diff(program(old), after) if after is not None else ()
    for s in steps:
        match s:
            case Bind():
                out.append(f"{s.deck}.{s.control}")
            case Setting():
                out.append(f"{s.deck} {s.word} {s.value}")
            case Scene() | Let():
                out.append(f"{type(s).__name__} {s.name}")
            case Word() | Go() | Chain():
                out.append(type(s).__name__)
    gone = removed(program(old), after)
    return [*out, *(f"{s.deck}.{s.control if isinstance(s, Bind) else s.word} gone" for s in gone)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "blend = .5\ntempo 120", ["main.blend", "main tempo 120.0"]),
        ("blend = .5", None, ["main.blend gone"]),
        ("blend = .5", "blend = .5", []),
        ("blend = .5", "# more\n\nblend   =  0.5 over 4", []),
        ("blend = sine.slow(4)", "blend = sine\n  .slow(4)  # same", []),
        ("blend = .5\nnoise = 1", "noise = 1\nblend = .5", []),
        ("blend = .5", "blend = .6", ["main.blend"]),
        ("blend = .5", "noise = .5", ["main.noise", "main.blend gone"]),
        ("blend = .5", "deck x { blend = .5 }", ["x.blend", "main.blend gone"]),
        ("let f = sine\nblend = f", "let f = saw\nblend = f", ["Let f", "main.blend"]),
        (
            "let f = sine\nlet g = f\nblend = g",
            "let f = saw\nlet g = f\nblend = g",
            ["Let f", "main.blend"],
        ),
        ("tempo 120", "tempo 121", ["main tempo 121.0"]),
        ("tempo 120", "", ["main.tempo gone"]),
        ("scene a { blend = 1 }", "scene a { blend = .5 }", ["Scene a"]),
        ("scene a { blend = 1 }", "scene a {\n blend = 1\n}", []),
        ("hush", "hush", []),
        ("", "hush", ["Word"]),
        ("go a", "go a\ngo b", ["Go"]),
        ("chain 'a' 8", "chain 'a' 4", ["Chain"]),
        ("blend = default", "", []),
    ],
)
def test_difference(old: str | None, new: str | None, expected: list[str]) -> None:
    assert changes(old, new) == expected


# --- operators -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("saw ** 2", [0, 0.0625, 0.25, 0.5625]),
        ("2 ** -1", [0.5] * 4),
        ("1 - saw ** 2 / 2", [1, 0.9688, 0.875, 0.7188]),
        ("(-1) ** 2", [1] * 4),
        ("1 - .5 ** 2 ** 1", [0.75] * 4),
        (".2 < saw < .6", [0, 1, 1, 0]),
        (".5 > saw >= .25 != 0", [0, 1, 0, 0]),
        ("saw > .2 and saw < .6", [0, 1, 1, 0]),
        ("saw < .2 or saw > .6", [1, 0, 0, 1]),
        ("not saw > .3 and saw < .2", [1, 0, 0, 0]),
        ("not (saw > .3 and saw < .6)", [1, 1, 0, 1]),
        ('"0 2" and 1', [0, 0, 1, 1]),
        ('not "0 2"', [1, 1, 0, 0]),
    ],
)
def test_operators(expression: str, values: list[float]) -> None:
    text = f"noise = {expression}"
    lane = compile_source(text).decks["main"]["noise"]
    assert [round(float(v), 4) for v in lane.sample(np.arange(4) / 4)] == values
    again = compile_source(format_source(text)).decks["main"]["noise"]
    assert np.array_equal(again.sample(np.arange(4) / 4), lane.sample(np.arange(4) / 4))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tempo (120/4)*4", 120),
        ("tempo 120 + 2*4", 128),
        ("tempo(128)", 128),
        ("cps 120/60/4", 0.5),
        ("nudge -(3*4)", -12),
        ("nudge in -(2*4)", -8),
        ("out 3", 3),
        ("loop 2*(3 + 1) at 8", 8),
    ],
)
def test_settings_take_arithmetic(text: str, value: float) -> None:
    assert list(compile_source(text).settings.values()) == [value]


def test_times_take_arithmetic() -> None:
    statement = only("blend = .5 at 2*(1 + 3) over 8/2")
    assert isinstance(statement, Bind)
    assert statement.when == When("at", F(8), When("over", F(4)))


@pytest.mark.parametrize("text", ["tempo 120/0", "tempo 5 % 0", "tempo 120*", "tempo (120"])
def test_arithmetic_refused(text: str) -> None:
    with pytest.raises(DemonError):
        compile_source(text)
