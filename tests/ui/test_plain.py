"""A session without a terminal: lines in, lines out."""

from __future__ import annotations

import io
import os
import threading

from demon_live.ui import show
from demon_live.ui.plain import play_plain, readable
from tests.helpers.ui_fakes import FakeSession


def play(session: FakeSession, lines: str | None, **more: object) -> str:
    out = io.StringIO()
    source = None if lines is None else io.StringIO(lines)
    play_plain(session, source, out, **more)  # type: ignore[arg-type]
    return out.getvalue()


def test_statements_are_evaluated_until_the_input_ends() -> None:
    session = FakeSession()
    said = play(session, "blend = 1\nscene a {\n  blend = 1\n}\n\ndenoise = .5")
    assert session.applied == ["blend = 1", "scene a {\n  blend = 1\n}", "denoise = .5"]
    assert said.count("from bar 6") == 3


def test_errors_do_not_end_it() -> None:
    session = FakeSession()
    said = play(session, "wrong = 1\nblend = 1\n")
    assert "^^^^^" in said
    assert session.applied == ["blend = 1"]


def test_a_fault_of_ours_does_not_end_it() -> None:
    session = FakeSession()
    assert "RuntimeError: a fault of ours" in play(session, "crash\nblend = 1\n")
    assert session.applied == ["blend = 1"]


def test_questions_are_answered() -> None:
    said = play(FakeSession(), "?blend\n?nosuch\n?\n")
    assert "0 keeps the source exactly" in said
    assert "there is no word 'nosuch'" in said
    assert "Alt-." in said


def test_events_are_printed_as_lines() -> None:
    session = FakeSession(lines=["one", "x.demon:1:1: two"])
    assert play(session, "") == "one\nx.demon:1:1: two\n"


def test_it_stops_when_told() -> None:
    stop = threading.Event()
    stop.set()
    assert play(FakeSession(lines=["last words"]), None, stop=stop) == "last words\n"


def test_it_stops_after_a_time_even_if_the_input_ended_long_before() -> None:
    session = FakeSession()
    play(session, "blend = 1\n", seconds=0.15)
    assert session.applied == ["blend = 1"]


def test_the_void_is_not_read_but_a_pipe_is() -> None:
    with open(os.devnull) as void:
        assert not readable(void)
    read, write = os.pipe()
    with os.fdopen(read) as pipe:
        assert readable(pipe)
    os.close(write)
    assert not readable(io.StringIO())


def test_remedies_are_put_under_each_other_on_narrow_screens() -> None:
    from demon_live.errors import ScoreError

    fault = ScoreError("x", hint="h" * 60, playing="everything, as before")
    text = show.ansi(show.error(fault), colour=False)
    assert "\n  still playing: everything" in text


def test_long_replies_go_on_under_their_beginning() -> None:
    said = show.ansi(show.outcome(("word " * 30,), width=60), colour=False)
    assert all(len(row) < 60 for row in said.split("\n"))
    assert said.split("\n")[1].startswith("         word")


def test_colour_is_kept_off_the_line_end() -> None:
    assert show.ansi([("error", "x\n")], colour=True) == "\x1b[31mx\x1b[0m\n"
