"""Text to tree and back: round trips, canonical form, and what any text at all gives."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demon_live.lang import DemonError, compile_source, diff, format_source, is_complete, unparse
from demon_live.lang.parse import parse_statement
from demon_live.lang.syntax import StatementNode
from demon_live.lang.syntax import unparse_statement as unparse_node
from tests.helpers.lang_strategies import statements

many = settings(max_examples=200, deadline=None)

#: Pieces of scores, so that random text gets past the first character.
_SIGNS = "()[]{}<>,.|?!@*/%+-_~'\"`#=;:\n $^&"
_WORDS = """0|1|.5|sine|blend|noise = | = |slow|every|rev|deck d {|scene s {|}|let f(n) = |over 4
at 8|tempo 120|prompt = |go x|hush|bd|..|'a b'|"0 1"|1e9|a*|!9999|(3,8)|default|ß=|é"""
PIECES = st.sampled_from([*_SIGNS, *_WORDS.replace("\n", "|").split("|"), "\t", "\u2028", "\x00"])
JUMBLES = st.lists(PIECES, max_size=25).map("".join)


def answer(text: str) -> None:
    """A Program, or a DemonError whose every span lies inside the text; with little work."""
    with Calls() as calls:
        check(text)
    # Work, not time: 50 ms are some 200,000 calls of Python on a machine of today.
    assert calls.count < 200_000


class Calls:
    """Counts the Python functions that are called inside `with`."""

    count = 0

    def _hear(self, frame: FrameType, event: str, argument: object) -> None:
        self.count += event == "call"

    def __enter__(self) -> Calls:
        self._before = sys.getprofile()
        sys.setprofile(self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._before)


def check(text: str) -> None:
    """A Program, or a DemonError whose every span lies inside the text."""
    try:
        compile_source(text)
    except DemonError as error:
        for e in error.errors:
            assert e.span is not None
            assert 0 <= e.span.start <= e.span.end <= len(text)
            assert e.span.line >= 1
            assert e.span.col >= 1
            assert str(e)


compile_source("blend = sine")  # the grammar is built on first use


@many
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    answer(text)


@many
@given(JUMBLES)
def test_jumbled_scores(text: str) -> None:
    answer(text)


@many
@given(JUMBLES)
def test_jumbled_expressions(text: str) -> None:
    answer("blend = " + text)


@many
@given(JUMBLES)
def test_jumbled_notation(text: str) -> None:
    answer('blend = "' + text.replace('"', "").replace("\n", " ") + '"')


@many
@given(JUMBLES)
def test_formatting_never_fails_and_settles(text: str) -> None:
    once = format_source(text)
    assert format_source(once) == once
    is_complete(text)


@many
@given(statements)
def test_statements_round_trip(node: StatementNode) -> None:
    text = unparse_node(node)
    assert parse_statement(text) == node
    answer(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("blend=0.50", "blend = .5\n"),
        ("blend = sine\n  .slow( 4 )\n", "blend = sine.slow(4)\n"),
        ("blend = (1+2)*3 - (4 - 5)", "blend = (1 + 2) * 3 - (4 - 5)\n"),
        ("blend = -sine.rev() !", "blend = -sine.rev() now\n"),
        ('source "a b.wav"', 'source "a b.wav"\n'),
        ("deck x {blend=1;noise=0}", "deck x {\n  blend = 1\n  noise = 0\n}\n"),
        ("\n\n# hello\n\n\n\nblend = 1   # why\n# end", "# hello\n\nblend = 1  # why\n# end\n"),
        ("blend = (((", "blend = (((\n"),
        ("prompt = ;bd", "prompt =;\nbd\n"),
        ("blend = 1 / 3", "blend = 1/3\n"),
        ("prompt = 'it\\'s'", "prompt = 'it\\'s'\n"),
        ("hush()", "hush\n"),
        ("beats 7 / 8 at 4", "beats 7/8 at 4\n"),
        ("beats 3.5", "beats 7/8\n"),
        ("beats 4/4; beats 12/8", "beats 4\nbeats 6\n"),
        ("beats 7/16", "beats 7/16\n"),
        (
            "pan=0 #a\nvelocity = 1  # b\nhush",
            "pan      = 0  # a\nvelocity = 1  # b\nhush\n".replace("# a", "#a"),
        ),
        ("", ""),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert format_source(text) == canonical
    assert format_source(canonical) == canonical


def test_canonical_form_means_the_same() -> None:
    text = """
    deck a { blend = sine . slow(4) ; let f(x)=x*.5 # tail
      noise = f(saw) at 8 }
    scene s { gain=0 }
    tempo   120
    """
    old = compile_source(text)
    new = compile_source(unparse(old))
    assert diff(old, new) == ()
    assert diff(new, old) == ()
    assert unparse(new) == unparse(old)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("blend = sine", True),
        ("blend = sine.range(", False),
        ("blend = sine.range(.2,\n .9)", True),
        ("deck drums {", False),
        ("deck drums {\n  blend = 1", False),
        ("deck drums {\n  blend = 1\n}", True),
        ("deck drums {\n\n", True),
        ("deck drums {\n  blend = 1\n  ", True),
        ("blend = saw.slow(2\n", True),
        ("blend = ", False),
        ("blend = 1 +", False),
        ("blend = sine.", False),
        ('blend = "0 ..', True),
        ("", True),
        ("hush", True),
        ("blend = 1 # (", True),
        ("prompt = '('", True),
    ],
)
def test_more_lines_are_asked_for(text: str, complete: bool) -> None:
    assert is_complete(text) is complete
