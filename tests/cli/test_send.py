"""`demon send`: what is asked of the session, and where errors are said to be."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from demon_live.cli import main
from demon_live.cli.send import blocks
from demon_live.control.client import author
from demon_live.control.registry import socket_path
from demon_live.control.remote_session import connect
from demon_live.errors import ScoreError, Span, placed
from demon_live.runtime.offline import Offline
from tests.helpers.real_session import playing
from tests.helpers.served import Recorder, session

__all__ = ["playing", "session"]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_text_is_evaluated_and_its_reply_printed(
    session: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", "-e", "blend = .3"]) == 0
    assert session.asked == [("blend = .3", "<send>", "repl")]
    assert "blend · from bar 6" in capsys.readouterr().out
    assert main(["send", "-q", "-e", "blend = .3"]) == 0
    assert capsys.readouterr().out == ""


def test_a_file_is_played_as_that_file(session: Recorder, tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("blend = 1\n")
    assert main(["send", str(score)]) == 0
    assert session.loaded == ["x.demon"]


def test_an_error_has_exit_code_1_and_is_shown_with_its_caret(
    session: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"wrong = 1\n")
    assert main(["send", "-", "--at", "set.demon:12"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("set.demon:12:1: there is no control")
    assert "12 | wrong = 1" in said
    assert "   | ^^^^^" in said
    assert "did you mean blend?" in said


def test_an_unsaved_buffer_is_all_that_its_file_says(
    session: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stdin(monkeypatch, b"blend = 1\n")
    assert main(["send", "-", "--as", str(tmp_path / "x.demon")]) == 0
    assert session.asked == [("blend = 1\n", str(tmp_path / "x.demon"), "file")]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["send"], 2),
        (["send", "-", "-e", "hush"], 2),
        (["send", "--stdin", "-e", "hush"], 2),
        (["send", "-e", "hush", "--as", "ann", "--as", "bob"], 2),
        (["send", "-e", "hush", "--as", "a" * 33 + ".demon", "--as", "b.demon"], 2),
        (["send", "x.demon", "--at", "x:1"], 2),
        (["send", "nowhere.demon"], 1),
        (["send", "-e", "hush", "--name", "nobody"], 1),
        (["send", "-e", "hush", "--name", "../x"], 1),
    ],
)
def test_what_cannot_be_sent(
    session: Recorder, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert "hint: " in capsys.readouterr().err or code == 2


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 70_000])
def test_what_is_no_score_is_not_sent(
    session: Recorder, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, data)
    assert main(["send", "-"]) == 1
    assert session.asked == []


def test_a_byte_order_mark_is_no_part_of_a_text(
    session: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"\xef\xbb\xbfblend = .5\r\n")
    assert main(["send", "-"]) == 0


def test_places_are_those_of_the_file_it_was_taken_from() -> None:
    text = "a = 1\nblend = wrong"
    other = ScoreError("also", span=Span.of(text, 0, 1), source=text, name="<send>")
    error = ScoreError("no", span=Span.of(text, 14, 19), source=text, others=[other])
    found = placed(error, "x.demon", 10, 5)
    assert found.span is not None
    assert (found.span.line, found.span.col) == (11, 9)
    assert found.source is not None
    assert found.source[found.span.start : found.span.end] == "wrong"
    assert str(found).splitlines()[0] == "x.demon:11:9: no"
    assert str(found.others[0]).splitlines()[0] == "x.demon:10:5: also"


def test_send_loads_nothing_that_it_does_not_need(session: Recorder) -> None:
    program = (
        "import sys; from demon_live.cli import main; code = main(['send', '-e', 'hush']);"
        "sys.exit(code or sorted({'numpy', 'torch', 'prompt_toolkit', 'lark', 'pygments'}"
        " & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert session.asked == [("hush", "<send>", "repl")]


def test_as_names_an_author_or_a_file(playing: Offline, tmp_path: Path) -> None:
    score = str(tmp_path / "x.demon")
    assert main(["send", "-e", "blend = 1", "--as", "ann", "--as", score]) == 0
    assert main(["send", "-e", "gain = 1", "--as", "bob"]) == 0
    assert main(["send", "-e", "pan = 0"]) == 0
    events = playing.session.journal.recording().events
    assert [(e.by, e.origin) for e in events[:2]] == [("ann", "file"), ("bob", "repl")]
    assert events[2].by == author()
    assert main(["send", "-e", "undo", "--as", "ann"]) == 0
    assert set(playing.session.state.decks["main"].bound) == {"gain", "pan"}


def test_a_session_is_reached_by_the_path_of_a_socket(
    session: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the end of a forwarding: another folder, another name, and no file that says who it is.
    (tmp_path / "far.sock").symlink_to(socket_path("default"))
    monkeypatch.setenv("DEMON_RUNTIME", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    assert main(["send", "-e", "blend = .3", "--name", "./far.sock"]) == 0
    assert session.asked == [("blend = .3", "<send>", "repl")]
    with connect(str(tmp_path / "far.sock")) as remote:
        assert remote.status().cycle == session.status().cycle


def read(*pieces: bytes) -> list[bytes]:
    """The blocks of what is written in pieces, each once the one before has come out."""
    source, sink = os.pipe()
    got: list[bytes] = []
    try:
        found = blocks(source)
        for piece in pieces:
            os.write(sink, piece)
            got.append(next(found))
        os.close(sink)
        got += found
    finally:
        os.close(source)
    return got


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([b"blend = .3\n"], [b"blend = .3\n"]),
        ([b"blend = .3\npan = .1\n", b"gain = 1\n"], [b"blend = .3\npan = .1\n", b"gain = 1\n"]),
        ([b"blend = 1\n\npan = 1\n"], [b"blend = 1\n\n", b"pan = 1\n"]),
        ([b"\n\nscene a {\n\n  blend = 1\n}\n"], [b"scene a {\n\n  blend = 1\n}\n"]),
        # What is never closed does not swallow what comes later.
        ([b"scene a {\n", b"gain = 1\n"], [b"scene a {\n", b"gain = 1\n"]),
        ([b"gain = 1"], [b"gain = 1"]),
        # Read once, not once for each of its 15,000 blank lines.
        ([b"scene a {\n" + b"p\n\n" * 15_000], [b"scene a {\n" + b"p\n\n" * 15_000]),
        ([b"\xff\n"], [b"\xff\n"]),
    ],
)
def test_blocks_are_what_comes_at_once_or_up_to_a_blank_line(
    pieces: list[bytes], found: list[bytes]
) -> None:
    assert read(*pieces) == found


@contextlib.contextmanager
def performer(name: str) -> Iterator[Callable[[bytes, str], bytes]]:
    """`demon send --stdin --as NAME`: call it with a block and the stream of the answer's line."""
    command = [sys.executable, "-m", "demon_live", "send", "--stdin", "--as", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:

        def say(block: bytes, stream: str) -> bytes:
            assert process.stdin is not None
            process.stdin.write(block)
            process.stdin.flush()
            return bytes(getattr(process, stream).readline())

        try:
            yield say
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


def test_two_performers_send_blocks_and_both_are_heard_on_the_same_bar(playing: Offline) -> None:
    playing.session.apply("gain = 1")
    with performer("ann") as ann, performer("bob") as bob:
        for one in (ann, bob):
            assert b'no function "slwo"' in one(b"blend = sine.slwo(2)\n", "stderr")
        assert b"pan = .1" in ann(b"pan = .1\nlpf = 900\n", "stdout")
        assert b"two: loop of 4" in bob(b"deck two {\n  gain = .5\n\n  hpf = 90\n}\n", "stdout")
    _, *events = playing.session.journal.recording().events
    assert {e.by: e.text for e in events} == {
        "ann": "pan = .1\nlpf = 900\n",
        "bob": "deck two {\n  gain = .5\n\n  hpf = 90\n}\n",
    }
    decks = playing.session.state.decks
    heard = [("main", "pan"), ("main", "lpf"), ("two", "gain"), ("two", "hpf")]
    jumps = [decks[d].lanes[c].jumps(Fraction(0), Fraction(9)) for d, c in heard]
    assert [list(jump) for jump in jumps] == [[1]] * 4
