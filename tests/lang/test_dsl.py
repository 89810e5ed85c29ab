"""The words in Python: the same text, the same Program, the same lanes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings

from demon_live import dsl
from demon_live.controls import SETTINGS
from demon_live.dsl import (
    Score,
    at,
    chain,
    deck,
    go,
    hush,
    mini,
    mute,
    over,
    program,
    run_python,
    saw,
    scene,
    sine,
    source,
    tempo,
    text,
)
from demon_live.errors import DemonError
from demon_live.lang import compile_source, diff
from demon_live.lang.dsl_pattern import Pat
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE
from demon_live.lang.signals import SIGNALS
from tests.helpers.lang_strategies import curves
from tests.tools import dsl_stub


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with Score():
        yield


def same(lines: str) -> None:
    """What was said in Python is this score."""
    assert diff(compile_source(lines), program()) == ()
    assert diff(program(), compile_source(lines)) == ()


def test_the_page_of_the_specification() -> None:
    deck.blend = sine.slow(4).range(0.2, 0.9)
    deck["drums"].denoise = mini("<.4 .6 .8 1>/2")
    deck.velocity = over(4, sine.fast(3) * 0.2 + 0.9)
    same(
        "blend = sine.slow(4).range(.2, .9)\nvelocity = sine.fast(3) * .2 + .9 over 4\n"
        'deck drums { denoise = "<.4 .6 .8 1>/2" }'
    )


def test_functions_lambdas_and_thirds() -> None:
    deck.noise = mini("0 .3 1").every(4, dsl.rev).off(1 / 8, dsl._ * 0.5).late(1 / 3)  # type: ignore[attr-defined]
    deck.blend = mini("0 1").every(3, lambda p: p.fast(2).rev)
    deck.hint = 1 - saw.rev()
    same(
        'noise = "0 .3 1".every(4, rev).off(.125, _ * .5).late(1/3)\n'
        'blend = "0 1".every(3, _.fast(2).rev)\nhint = 1 - saw.rev\n'
    )
    lane = program().decks["main"]["noise"]
    assert lane.jumps(F(0), F(1))[0] == 0


def test_stage_scenes_and_words() -> None:
    tempo(128)
    source("loops/a.wav")
    with scene("drop"):
        deck.blend = at(8, over(2, 1))
        deck["drums"].gain = 0
    go("drop", at(8, None))
    chain(("drop", 8), ("calm", 4.5))
    hush()
    mute("drums")
    deck.lora_tape = 0.5
    deck.prompt = "acid techno"
    deck.key = text("A minor")
    deck.prompt2 = "<'a b' c>/4"
    deck.noise = None
    same(
        "tempo 128\nsource 'loops/a.wav'\n"
        "scene drop { blend = 1 at 8 over 2\n deck drums { gain = 0 } }\n"
        "go drop at 8\nchain 'drop' 8, 'calm' 4.5\nhush\nmute drums\nlora.tape = .5\n"
        "prompt = 'acid techno'\nkey = 'A minor'\nprompt2 = \"<'a b' c>/4\"\nnoise = default"
    )


def test_errors_are_those_of_the_language() -> None:
    with pytest.raises(DemonError, match="no control"):
        deck.denois = 1
    with pytest.raises(DemonError, match="missing"):
        mini("0 [1")
    with pytest.raises(DemonError, match="neither true nor false"):
        bool(sine)
    with pytest.raises(DemonError, match="its own pattern"):
        sine.every(2, lambda p: p.off(1 / 8, lambda q: q * p))


def test_an_unknown_method_gets_the_nearest_right_one() -> None:
    with pytest.raises(AttributeError, match=r'no function "rnage": did you mean range\?'):
        sine.rnage(0, 1)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"did you mean segment\?"):
        sine.seg  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(sine, "qqqqqqqq")


def test_an_endless_length() -> None:
    deck.blend = dsl.linvar([0, 1], [8, float("inf")])  # type: ignore[attr-defined]
    same("blend = linvar([0, 1], [8, inf])")


def test_operators_of_python() -> None:
    deck.blend = sine**2
    deck.noise = 2 ** (saw - 1)
    deck.hint = (saw > 0.2) & ~(saw > 0.6) | sine
    same("blend = sine ** 2\nnoise = 2 ** (saw - 1)\nhint = saw > .2 and not saw > .6 or sine")


def test_python_files() -> None:
    made = run_python(
        "from demon_live.dsl import *\n"
        "for i in range(2):\n    deck[f'd{i}'].blend = sine.slow(i + 1)\n"
    )
    assert sorted(made.decks) == ["d0", "d1", "main"]
    with pytest.raises(DemonError) as caught:
        run_python("from demon_live.dsl import deck\n\ndeck.blend = 1 / 0\n", "a.py")
    assert caught.value.span is not None
    assert caught.value.span.line == 3
    assert "division" in str(caught.value)
    with pytest.raises(DemonError) as broken:
        run_python("x = (\n", "a.py")
    assert broken.value.span is not None


def test_every_word_is_there_with_its_help() -> None:
    for word in FUNCTIONS.values():
        if word.method:
            member = inspect.getattr_static(Pat, word.name)
            function: Callable[..., object] = (
                member.fget if isinstance(member, property) else member
            )
            assert function.__doc__ == word.help, word.name
            if not isinstance(member, property):
                names = list(inspect.signature(member).parameters)[1:]
                assert len(names) == len(word.params)
    for name in (*SIGNALS, *(w for w in FUNCTIONS if w not in ("range", "abs", "round"))):
        assert isinstance(getattr(dsl, name), Pat) or name == "mini", name


@settings(max_examples=60, deadline=None)
@given(curves)
def test_a_score_and_its_python_twin_give_equal_lanes(expression: str) -> None:
    score = compile_source(f"noise = {expression}").decks["main"]["noise"]
    # A line of score pastes into Python: only the strings need their name.
    quoted = expression.split('"')
    python = "".join(f'mini("{part}")' if i % 2 else part for i, part in enumerate(quoted))
    python = python.replace(".3.", "pure(.3).").replace("(.3 ", "(pure(.3) ")
    names = {name: getattr(dsl, name) for name in dsl.__all__}
    names["_"] = dsl._
    with Score():
        deck.noise = eval(python, {"__builtins__": {}}, names)
        twin = program().decks["main"]["noise"]
    times = np.arange(0, 4, 1 / 25)
    assert np.array_equal(score.sample(times), twin.sample(times))


def test_the_words_of_the_stage_and_controllers_have_python_twins() -> None:
    from demon_live import dsl

    with dsl.Score() as made:
        dsl.deck.blend = dsl.cc(21).range(0.2, 0.9)
        dsl.deck.seed = dsl.note
        dsl.deck["two"].gain = dsl.gate(2) * 0.5
        dsl.fader(dsl.over(8, 1))
        dsl.snapshot("calm")
        dsl.recall("calm")
        dsl.crossfade("main", "two")
        dsl.learn("blend")
    text = made.text
    assert "blend = cc(21).range(.2, .9)" in text
    assert "seed  = note" in text
    assert "gate(2)*.5" in text.replace(" ", "")
    assert "fader = 1 over 8" in text
    assert [s for s in ("snapshot calm", "crossfade main two", "learn blend") if s in text]
    assert made.program().decks["main"]["blend"].keys


@pytest.mark.parametrize("word", [*SETTINGS, *PERFORMANCE])
def test_every_setting_and_performance_word_is_there_with_its_help(word: str) -> None:
    found = getattr(dsl, word)
    assert word in dsl.__all__
    assert found.__doc__ == (SETTINGS[word].help if word in SETTINGS else PERFORMANCE[word].help)


def test_methods_check_the_number_of_their_arguments() -> None:
    with pytest.raises(DemonError, match="fast takes 1 argument"):
        sine.fast()  # type: ignore[call-arg]
    with pytest.raises(DemonError, match="2 to 3 arguments"):
        sine.euclid(1, 2, 3, 4)  # type: ignore[call-arg]
    assert str(sine.range(high=0.9, low=0.2)) == "sine.range(.2, .9)"


def test_the_stub_is_up_to_date() -> None:
    """When this fails: python -m tests.tools.dsl_stub"""
    assert dsl_stub.PATH.read_text("utf-8") == dsl_stub.stub()
