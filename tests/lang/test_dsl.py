"""The words in Python: the same text, the same Program, the same lanes."""

from __future__ import annotations

import builtins
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from demon_live.lang.dsl_score import EndlessError, python_score
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import PERFORMANCE
from demon_live.lang.signals import SIGNALS
from demon_live.session.output import NullOutput
from demon_live.session.session import Session
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
        plain = name in ("mini", "curve", "onsets", "midi")
        assert isinstance(getattr(dsl, name), Pat) or plain, name


@settings(max_examples=60, deadline=None)
@given(curves)
def test_a_score_and_its_python_twin_give_equal_lanes(expression: str) -> None:
    score = compile_source(f"noise = {expression}").decks["main"]["noise"]
    # A line of score pastes into Python: only the strings need their name.
    quoted = expression.split('"')
    python = "".join(f'mini("{part}")' if i % 2 else part for i, part in enumerate(quoted))
    python = python.replace(".3.", "pure(.3).").replace("(.3 ", "(pure(.3) ")
    names = {name: value for name, value in vars(dsl).items() if not name.startswith("__")}
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


def test_beats_take_a_meter_as_in_a_score() -> None:
    with Score("meter") as score:
        dsl.beats("7/8")
    assert "beats 7/8" in score.text
    assert score.program().settings == compile_source("beats 7/8").settings


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


NUMBERS = [
    np.float64(0.3), np.float32(0.3), np.array(0.3), torch.tensor(0.3, dtype=torch.float64),
    Decimal("0.3"), F(3, 10),
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: type(n).__name__)
def test_numbers_of_other_libraries_are_numbers(number: Any) -> None:
    deck.blend = number
    deck.noise = sine * number
    deck.hint = dsl.seq(number, 1)
    deck.velocity = over(np.int64(2), number)
    tempo(np.float64(128))
    deck.loop(np.int32(4))  # type: ignore[arg-type]
    deck.seed = torch.tensor(3)  # type: ignore[assignment]
    same(
        "blend = .3\nnoise = sine * .3\nhint = seq(.3, 1)\nvelocity = .3 over 2\n"
        "tempo 128\nloop 4\nseed = 3"
    )


def test_arrays_and_functions_are_no_numbers_but_curves() -> None:
    for value in (np.linspace(0, 1, 1000), lambda t: t):
        with pytest.raises(DemonError, match="is no pattern") as caught:
            deck.blend = value  # type: ignore[assignment]
        assert "curve(" in str(caught.value.hint)
        assert len(str(caught.value)) < 250


def test_patterns_are_sampled_as_they_are() -> None:
    times = np.arange(0, 2, 0.125)
    assert np.allclose((sine * 8).sample(times), 4 + 4 * np.sin(times * 2 * np.pi), atol=1e-5)
    assert [(e.begin, e.value) for e in mini("0 ~ 1").events(0, 1)] == [(0, 0), (F(2, 3), 1)]
    with pytest.raises(DemonError, match="controller"):
        dsl.cc(21).sample(times)


def test_patterns_compare_with_patterns_only() -> None:
    assert sine not in [int, None]
    assert sine != str  # noqa: E721 - tools compare so
    assert str(sine == 0.5) == "sine == .5"
    assert inspect.signature(dsl.every) is not None
    with pytest.raises(DemonError, match="neither true nor false"):
        max(sine, saw)  # type: ignore[type-var]


def test_a_name_that_is_wrong_has_a_near_one() -> None:
    with pytest.raises(AttributeError, match="did you mean slow"):
        sine.slwo(4)  # type: ignore[attr-defined]
    assert not hasattr(sine, "_repr_png_")


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: over(sine, 4), "over(4"),  # type: ignore[arg-type]
    (lambda: dsl.in_(sine, 4), "in_(4"),  # type: ignore[arg-type]
    (lambda: go("x", 8), 'go("x", at(8))'),  # type: ignore[arg-type]
    (lambda: chain("x", 8), 'chain(("drop", 8))'),  # type: ignore[arg-type]
    (lambda: setattr(deck, "source", "x.wav"), "deck.source('x.wav')"),
    (lambda: setattr(deck, "loop", 4), "deck.loop(4)"),
    (lambda: setattr(deck, "tempo", 120), "tempo(120)"),
    (lambda: deck["my deck"], "one word"),
    (lambda: tempo([1]), "is no number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_mistakes_have_a_remedy(mistake: Callable[[], object], said: str) -> None:
    with pytest.raises(DemonError) as caught:
        mistake()
    assert said in str(caught.value)


def test_a_deck_is_asked_for_by_its_name() -> None:
    with pytest.raises(AttributeError, match=r'deck\["drums"\]'):
        deck.drums.blend = 1


def test_strings_are_text_wherever_a_control_takes_text() -> None:
    deck.prompt = dsl.cat("acid techno", "deep house")
    deck.prompt2 = mini("a b")
    deck.blend = dsl.cat("0 1", 0.5)
    source(Path("loops/a.wav"))
    same(
        "prompt = cat('acid techno', 'deep house')\nprompt2 = \"a b\"\n"
        "blend = cat(\"0 1\", .5)\nsource 'loops/a.wav'"
    )


def test_a_score_is_a_value() -> None:
    with Score("mine") as made:
        deck.blend = saw
        assert str(pickle.loads(pickle.dumps(made))) == made.text == str(made)
    assert program(made).text == made.text
    assert "mine" in repr(made)
    assert "blend = saw" in made._repr_html_()
    assert made.sample("main", "blend", [0.25, 0.5]).tolist() == [0.25, 0.5]


def test_a_score_of_a_text_goes_on_in_python() -> None:
    begun = "# head\ntempo 126\n\nscene drop {\n  blend = saw\n}\ndeck drums {\n  gain = .5\n}\n"
    made = Score.from_text(begun, "begun.demon")
    with made:
        deck.blend = sine
        deck["drums"].noise = 3; line = inspect.currentframe().f_lineno  # type: ignore[union-attr] # noqa: E702  # fmt: skip
    whole = compile_source(begun + "blend = sine\ndeck drums {\nnoise = 3\n}")
    assert not diff(whole, made.program())
    assert "# head" in made.text
    # What Python says is shown where it says it.
    warned = made.program().warnings[0]
    assert (warned.name, warned.span and warned.span.line) == (__file__, line)
    with pytest.raises(DemonError, match=r"begun.demon:1:1"):
        Score.from_text("blendd = 1", "begun.demon").program()


def test_a_score_of_a_file_of_python(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("from demon_live import dsl as d\nd.deck.blend = d.saw\n")
    assert Score.from_py(path).text == "blend = saw\n"
    path.write_text("1/0")
    with pytest.raises(DemonError, match="division by zero"):
        Score.from_py(path)
    with pytest.raises(DemonError, match="cannot be read"):
        Score.from_py(tmp_path / "none.py")


def test_a_score_is_played_by_a_session() -> None:
    session = Session(NullOutput("mock"))
    with Score() as made:
        deck.blend = 0.25
    assert made.play(session).messages[-1].startswith("blend = .25")
    assert session.state.decks["main"].lanes["blend"].at(F(9)) == 0.25


def test_errors_show_the_line_of_python() -> None:
    deck.prompt = "a"
    deck["drums"].denoise = "wrong"; line = inspect.currentframe().f_lineno  # type: ignore[union-attr] # noqa: E702  # fmt: skip
    with pytest.raises(DemonError) as caught:
        program()
    assert caught.value.span is not None
    assert caught.value.span.line == line
    assert caught.value.name == __file__
    assert 'as a score: denoise = "wrong"' in str(caught.value)


def test_warnings_of_a_file_of_python_show_its_line() -> None:
    made = run_python("from demon_live import dsl as d\n\nd.deck.denoise = 1.4\n", "a.py")
    assert str(made.warnings[0]).startswith("a.py:3:1: ")
    assert "d.deck.denoise = 1.4" in str(made.warnings[0])


def test_a_file_of_python_that_does_not_end_is_an_error() -> None:
    code = "from demon_live import dsl as d\nd.deck.blend = 1\nwhile True:\n    pass\n"
    with pytest.raises(EndlessError, match="does not end") as caught:
        python_score(code, "a.py", seconds=0.2)
    assert caught.value.span is not None
    assert caught.value.span.line >= 1
    for thread in threading.enumerate():
        if thread.name == "score":
            thread.join(60)
            assert not thread.is_alive()


def test_a_star_hides_no_builtin() -> None:
    assert not {*dsl.__all__} & {*dir(builtins)}
    assert isinstance(dsl.pow, Pat)


def test_the_stub_is_up_to_date() -> None:
    """When this fails: python -m tests.tools.dsl_stub"""
    assert dsl_stub.PATH.read_text("utf-8") == dsl_stub.stub()


def test_a_deck_that_goes_elsewhere_takes_any_name() -> None:
    with dsl.Score() as made:
        dsl.deck["lights"].to("osc", "127.0.0.1:9000")
        dsl.deck["lights"].dimmer = dsl.sine.slow(2)
        dsl.deck["lights"].colour = "red blue"
        dsl.deck["keys"].to("midi", "na'no", 3)
        dsl.deck["keys"].cc74 = 0.5
        with pytest.raises(DemonError, match="dimmer") as caught:
            dsl.deck["other"].dimmer = 1
        assert 'deck["other"].to()' in str(caught.value)
        with pytest.raises(DemonError, match="channel"):
            dsl.deck["keys"].to("midi", "nano", 17)
    program = made.program()
    assert set(program.decks["lights"]) == {"dimmer", "colour"}
    assert "to midi 'na\\'no' 3" in made.text
    assert compile_source(made.text).decks.keys() == program.decks.keys()
