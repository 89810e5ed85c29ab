"""Help, reference, completion and colours all follow from the tables."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from pygments.lexers import get_lexer_by_name
from pygments.token import Error, Keyword, Name

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.lang import compile_source, complete, help_for, reference
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.help import all_names
from demon_live.lang.lexer import DemonLexer

NAMES = list(dict.fromkeys(all_names()))


@pytest.mark.parametrize("name", NAMES)
def test_each_example_plays(name: str) -> None:
    found = help_for(name)
    assert found is not None
    assert found.line.endswith(".")
    for example in found.examples:
        program = compile_source(example)
        assert not program.warnings, program.warnings
        for lanes in program.decks.values():
            for lane in lanes.values():
                if lane.kind == "number":
                    values = lane.sample(np.arange(0, 4, 1 / 25))
                    assert np.isfinite(values).all()
                else:
                    assert isinstance(lane.at(0), str)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", FUNCTIONS.values(), ids=lambda w: w.name)
def test_an_example_shows_its_word_at_work(word: object) -> None:
    name, example = word.name, word.example  # type: ignore[attr-defined]
    assert name in example
    program = compile_source(example)
    (lane,) = program.decks["main"].values()
    assert len(np.unique(lane.sample(np.arange(0, 8, 1 / 25)))) > 1 or name in (
        "never",
        "always",
        "pure",
    )


def test_every_control_and_stage_word_has_help() -> None:
    for control in (*CONTROLS.values(), *SETTINGS.values()):
        found = help_for(control.name)
        assert found is not None
        assert found.line == control.help


def test_help_finds_neighbours_and_signs() -> None:
    assert help_for("slwo") is not None
    assert help_for("slwo").name == "slow"  # type: ignore[union-attr]
    assert help_for("BLEND").name == "blend"  # type: ignore[union-attr]
    assert help_for("*").kind == "mini"  # type: ignore[union-attr]
    assert help_for("qqqqqqqq") is None
    assert "p.range(low, high)" in str(help_for("range"))


def test_the_reference_names_everything() -> None:
    page = reference()
    for name in (*CONTROLS, *SETTINGS, *FUNCTIONS, "sine", "rand", "hush", "scene"):
        assert f"| `{name}` |" in page
    assert all(row.count(" | ") >= 3 for row in page.splitlines() if row.startswith("| `"))


def test_the_table_is_whole() -> None:
    for word in FUNCTIONS.values():
        assert word.help.endswith(".")
        parameters = inspect.signature(word.make).parameters.values()
        takes = len(word.params) + word.method + word.random
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            needed = sum(p.default is p.empty for p in parameters)
            assert needed <= takes <= len(parameters), word.name


# --- completion ------------------------------------------------------------------------------


def words(text: str, **known: list[str]) -> list[str]:
    return [c.word for c in complete(text, **known)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        ("", ["blend", "tempo", "deck", "hush"], ["sine", "slow"]),
        ("bl", ["blend"], ["noise"]),
        ("blend", ["blend"], []),
        ("blend = ", ["sine", "rand", "cat", "default"], ["slow", "tempo", "noise"]),
        ("blend = si", ["sine", "sine2", "sinvar"], ["saw"]),
        ("blend = sine.", ["slow", "range", "every"], ["cat", "sine", "blend"]),
        ("blend = sine.sl", ["slow"], ["fast"]),
        ("blend = sine.every(4, ", ["rev", "fast", "_", "sine"], ["blend"]),
        ("blend = sine.every(", ["sine"], ["rev"]),
        ("blend = sine ", ["over", "at", "xfade", "now"], ["sine", "slow"]),
        ("blend = sine ov", ["over"], ["at"]),
        ("key = 'A ", ["A minor", "A major"], ["C minor"]),
        ("key = ", ["'A minor'", "cat", "default"], ["sine", "cc"]),
        ("pad.key = a", ["'A minor'", "'Ab major'"], ["'C minor'"]),
        ("prompt = ", ["cat", "default"], ["sine", "rand"]),
        ("ma", ["master"], []),
        ("link o", ["on", "off"], []),
        ("deck x {\n  noi", ["noise"], []),
        ("deck x {", ["blend"], []),
        ("blend = sine\nno", ["noise"], []),
        ("let f = sine.sl", ["slow"], []),
    ],
)
def test_completion(text: str, has: list[str], lacks: list[str]) -> None:
    found = words(text)
    assert set(has) <= set(found)
    assert not set(lacks) & set(found)


def test_completion_knows_decks_scenes_and_lets() -> None:
    assert words("mute d", decks=["main", "drums"]) == ["drums"]
    assert words("go ", scenes=["drop"])[:1] == ["drop"]
    assert "wob" in words("blend = w", lets=["wob"])


def test_completion_knows_what_the_lines_before_gave_a_name_to() -> None:
    text = "let wobble(n) = sine.slow(n)\nscene peak { gain = 1 }\ndeck drums {\n gain = 1\n}\n"
    for typed, word in (("blend = wob", "wobble"), ("go pe", "peak"), ("mute dr", "drums")):
        assert word in {c.word for c in complete(text + typed)}
        assert word not in {c.word for c in complete(typed)}


def test_completion_tells_range_and_help_and_where() -> None:
    (found,) = (c for c in complete("tempo 120\nble") if c.word == "blend")
    assert (found.display, found.help, found.start) == ("0..1", CONTROLS["blend"].help, 10)


@pytest.mark.parametrize("text", ["blend = ) ", "blend = 'a b", '"', "blend = sine sine ", "?? "])
def test_completion_after_an_error_is_quiet(text: str) -> None:
    assert isinstance(complete(text), list)


def test_what_is_completed_parses() -> None:
    for c in complete("blend = sine."):
        word = FUNCTIONS[c.word]
        assert word.method


# --- colours ---------------------------------------------------------------------------------


def test_the_lexer_is_registered() -> None:
    assert isinstance(get_lexer_by_name("demon"), DemonLexer)


def test_colours() -> None:
    tokens = [
        (kind, text)
        for kind, text in DemonLexer().get_tokens("blend = sine.slow(4) over 2\nhush\n")
        if text.strip()
    ]
    kinds = {text: kind for kind, text in tokens}
    assert kinds["blend"] is Name.Variable
    assert kinds["sine"] is Name.Constant
    assert kinds["slow"] is Name.Function
    assert kinds["over"] is Keyword.Pseudo
    assert kinds["hush"] is Keyword


@pytest.mark.parametrize("name", NAMES)
def test_no_example_is_red(name: str) -> None:
    for example in help_for(name).examples:  # type: ignore[union-attr]
        tokens = list(DemonLexer().get_tokens(example + "\n"))
        assert "".join(text for _, text in tokens) == example + "\n"
        assert all(kind is not Error for kind, _ in tokens)


def test_the_ways_out_of_a_deck_are_completed() -> None:
    words = [found.word for found in complete("deck a { to ")]
    assert words == ["osc", "midi", "superdirt", "none"]
