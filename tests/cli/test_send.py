"""`demon send`: what is asked of the session, and where errors are said to be."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from demon_live.cli import main
from demon_live.errors import ScoreError, Span, placed
from tests.helpers.served import Recorder, session

__all__ = ["session"]


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
        (["send", "x.demon", "--at", "x:1"], 2),
        (["send", "nowhere.demon"], 1),
        (["send", "-e", "hush", "--name", "nobody"], 1),
        (["send", "-e", "hush", "--name", "../x"], 2),
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
