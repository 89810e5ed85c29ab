"""The snippets for editors: vim evaluates a line in a session and finds its errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demon_live.paths import shipped
from tests.helpers.served import Recorder, session

__all__ = ["session"]

EDITORS = shipped("examples") / "editors"


@pytest.mark.skipif(shutil.which("vim") is None, reason="there is no vim here")
def test_vim_sends_lines_and_buffers_and_lists_errors(session: Recorder, tmp_path: Path) -> None:
    score = tmp_path / "x.demon"
    score.write_text("tempo 120\n\nblend = .5\nwrong = 1\n")
    script = tmp_path / "do.vim"
    script.write_text(
        f"""
let g:demon_command = '{sys.executable} -m demon_live'
source {EDITORS}/demon.vim
edit {score}
call DemonSend(3, 3)
call setline(1, 'tempo 130')
call DemonSend(1, 1)
call DemonSend(3, 4)
call writefile([json_encode(map(getloclist(0), '[v:val.lnum, v:val.col, v:val.text]'))],
      \\ '{tmp_path}/found')
3
normal \x05
call DemonSay('hush')
call setline(4, '# nothing')
call DemonFile()
qall!
"""
    )
    subprocess.run(
        ["vim", "-es", "-u", "NONE", "-i", "NONE", "-N", "-S", str(script)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    fragment = "<send>", "repl"
    assert session.asked == [
        ("blend = .5", *fragment),
        ("tempo 130", *fragment),
        ("blend = .5\nwrong = 1", *fragment),
        ("blend = .5", *fragment),
        ("hush", *fragment),
        ("tempo 130\n\nblend = .5\n# nothing", str(score), "file"),
    ]
    found = json.loads((tmp_path / "found").read_text())
    assert found == [[4, 1, 'there is no control "wrong"']]


def test_vs_code_runs_tasks_that_exist() -> None:
    tasks = {t["label"] for t in json.loads((EDITORS / "tasks.json").read_text())["tasks"]}
    keys = json.loads((EDITORS / "keybindings.json").read_text())
    named = json.dumps(keys)
    assert tasks == {"demon: line or selection", "demon: file", "demon: hush"}
    assert all(f'"{label}"' in named for label in tasks)
