"""Completion and the line of help, as the prompt asks for them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.errors import DemonError, UsageError
from demon_live.lang import compile_source, is_complete
from demon_live.paths import shipped
from demon_live.session.status import Words
from demon_live.ui import guide
from demon_live.ui.complete import ScoreCompleter, _open_quote, hint_at


def offered(text: str, *, asked: bool = False) -> list[str]:
    event = CompleteEvent(text_inserted=not asked, completion_requested=asked)
    words = Words(("main", "drums"), ("drop",), {"wob": ("n",)}, (str(shipped("patterns")),))
    completer = ScoreCompleter(lambda: words)
    return [c.text for c in completer.get_completions(Document(text), event)]


N = 200_000
#: Texts that a pattern that goes back and forth would read N times N times.
LONG = {
    "letters": "x" * N,
    "letters and a sign": "x" * N + "!",
    "letters and digits": "x9" * (N // 2) + "!",
    "names": "a." * (N // 2),
    "names and =": "a=" * (N // 2),
    "blanks": "blend = 1" + " " * N + "x",
    "blanks in a prompt": "prompt = " + " " * N + "x",
    "quotes": "prompt = " + " '" * (N // 2) + "x'",
    "commas": "prompt = ' " + ", " * (N // 2) + "'",
    "a file": "timbre = " + "( " * (N // 2) + "'",
    "a question": "? " + " " * N + "a b",
    "lines": "\n" * N,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_text_of_any_length_is_read_once(text: str) -> None:
    assert isinstance(hint_at(text, len(text)), str)
    assert isinstance(offered(text), list)
    assert isinstance(offered(text, asked=True), list)
    guide.question(text)
    is_complete(text)


@pytest.mark.parametrize(
    "statement",
    [
        'timbre = "' + "a" * 60_000 + '"',
        "blend = fast(" + "1 " * 30_000,
        "blend = (1 +\n" + "#" * 60_000,
    ],
    ids=["a long word", "values without commas", "a comment that closes nothing"],
)
def test_a_statement_of_any_length_is_read_once(statement: str) -> None:
    with contextlib.suppress(DemonError):
        compile_source(statement)


@pytest.mark.parametrize(
    ("line", "control", "inside"),
    [
        ("prompt = 'acid, du", "prompt", "acid, du"),
        ("two.prompt2 = <'a' 'b", "prompt", "b"),
        ("prompt = \"'a", "prompt", "a"),
        ("prompt = x'a", "prompt", None),
        ("prompt = ", "prompt", None),
        ("timbre = 'a' 'loops/d", "timbre", "loops/d"),
        ("timbre = 'a", "prompt", None),
        ("blend = 'a", "prompt", None),
    ],
)
def test_the_text_in_open_quotes(line: str, control: str, inside: str | None) -> None:
    assert _open_quote(line, control) == inside


def test_controls_at_the_start_of_a_statement() -> None:
    assert offered("den") == ["denoise"]
    assert set(CONTROLS) <= set(offered("", asked=True))


def test_functions_after_a_dot_and_signals_in_expressions() -> None:
    assert "slow" in offered("blend = sine.sl")
    assert "sine" in offered("blend = si")


def test_decks_and_scenes_of_the_session() -> None:
    assert offered("mute dr") == ["drums"]
    assert offered("go dr") == ["drop"]


def test_words_that_let_defined_show_their_arguments() -> None:
    assert "wob" in offered("blend = wo")
    event = CompleteEvent(completion_requested=True)
    words = Words(lets={"wob": ("n", "depth")})
    (found,) = ScoreCompleter(lambda: words).get_completions(Document("blend = wo"), event)
    assert "wob(n, depth)" in found.display_meta_text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("prompt = 'dub", "dub techno"),
        ("prompt = 'acid, 30", "303"),
        ("prompt = \"<'acid' 'ambi", "ambient"),
        ("prompt2 = cat('acid', 'ambi", "ambient"),
        ("drums.prompt = 'break", "breaks"),
        ('source "loops/tech', "loops/techno_128.flac"),
        ("source 'no", "none"),
        ("timbre = 'loops/tech", "loops/techno_128.flac"),
        ("drums.timbre = \"<'loops/dub_120.flac' 'loops/ho", "loops/house_124.flac"),
        ("timbre = cat('loops/br", "loops/breaks_134.flac"),
        ("lyr", "lyrics"),
        ("engine im", "imp"),
        ("tour 1", "10"),
    ],
)
def test_what_only_this_machine_knows(text: str, word: str) -> None:
    assert word in offered(text)


def test_a_prompt_opens_no_list_at_its_first_letter() -> None:
    assert offered("prompt = 'a") == []
    assert len(offered("prompt = '", asked=True)) > 20


def test_nothing_opens_by_itself_where_nothing_was_begun() -> None:
    assert offered("") == []
    assert offered("blend = ") == []
    assert offered("blend = sine2") == []


def test_words_that_can_be_asked_about() -> None:
    assert "lead" in offered("?le")
    assert "denoise" in offered("help deno")


def test_files_after_load(tmp_path: Path) -> None:
    (tmp_path / "one.demon").touch()
    (tmp_path / "other.txt").touch()
    assert offered(f"load {tmp_path}{os.sep}o", asked=True) == ["ne.demon"]


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("denoise = .5", "denoise  0..1"),
        ("blend = sine.slow(4)", "p.slow("),
        ("", "? help"),
        ("zzz", ""),
    ],
)
def test_the_line_of_help(text: str, starts: str) -> None:
    at = text.index("slow") if "slow" in text else len(text)
    assert hint_at(text, at).startswith(starts)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("?", ""),
        ("? blend", "blend"),
        ("?blend", "blend"),
        ("blend?", "blend"),
        ("help", ""),
        ("help over", "over"),
        ("?<>", "<>"),
        ('gain = "1?"', None),
        ("helper = 1", None),
        ("blend = .5", None),
    ],
)
def test_what_is_a_question(line: str, word: str | None) -> None:
    assert guide.question(line) == word


def test_every_word_can_be_asked_about() -> None:
    for word in (*guide.known(), *CONTROLS, *SETTINGS, *guide.SCREEN, "<>", "~"):
        pieces = guide.about(word)
        assert pieces[0][0] in ("topic", "heading", "hint")
        assert all(len(line) < 110 for _, text in pieces for line in text.split("\n")), word


def test_an_unknown_word_is_offered_its_neighbours() -> None:
    with pytest.raises(UsageError) as fault:
        guide.about("denois")
    assert "denoise" in (fault.value.hint or "")
