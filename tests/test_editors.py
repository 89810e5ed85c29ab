"""The snippets for editors: vim evaluates a line in a session and finds its errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demon_live.control.registry import Claim, Info, socket_path
from demon_live.control.server import ControlServer
from demon_live.paths import shipped
from demon_live.runtime.offline import Offline
from demon_live.session.status import Outcome
from tests.helpers.mock_engine import MockEngine, write_tone
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


@pytest.mark.skipif(shutil.which("nvim") is None, reason="there is no Neovim here")
def test_neovim_shows_errors_and_evaluates_blocks(session: Recorder, tmp_path: Path) -> None:
    pytest.importorskip("pygls")
    (tmp_path / "x.demon").write_text("tempo 120\n\nblend = .5\ngain = 1\n\nblend = saw.slwo(2)\n")
    script = tmp_path / "do.lua"
    script.write_text(
        f"""
vim.g.demon_lsp = {{ '{sys.executable}', '-m', 'demon_live', 'lsp' }}
vim.cmd('luafile {EDITORS}/demon.lua')
vim.cmd('edit x.demon')
vim.wait(60000, function() return #vim.diagnostic.get(0) > 0 end)
local found, said = vim.diagnostic.get(0)[1], nil
vim.notify = function(text) said = text end
vim.cmd('3')
vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes('<C-e>', true, false, true), 'x', false)
vim.wait(60000, function() return said ~= nil end)
local place = found.lnum .. ':' .. found.col .. ' ' .. found.message:gsub('\\n', ' ')
vim.fn.writefile({{ place, said or 'nothing' }}, 'found')
vim.cmd('qall!')
"""
    )
    subprocess.run(
        ["nvim", "--headless", "-u", "NONE", "-i", "NONE", "-n", "-S", str(script)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=115, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert (tmp_path / "found").read_text().splitlines() == [
        '5:12 there is no function "slwo" hint: did you mean slow?',
        "blend · from bar 6 · class step",
    ]
    assert session.asked == [("blend = .5\ngain = 1", "<editor>", "repl")]


@pytest.mark.skipif(shutil.which("vim") is None, reason="there is no vim here")
def test_vim_finds_sounds_as_every_door_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("gig", "shell", "library", "elsewhere"):
        (tmp_path / place).mkdir()
        write_tone(tmp_path / place / f"{place}_120.wav", 0.2, 2.0)
    # Of two files with one name the one beside the score is meant.
    write_tone(tmp_path / "gig" / "both_120.wav", 0.2, 2.0)
    write_tone(tmp_path / "shell" / "both_120.wav", 0.2, 4.0)
    names = ("gig", "shell", "library", "both")
    score = tmp_path / "gig" / "set.demon"
    score.write_text("".join(f'deck {name} {{ source "{name}_120.wav" }}\n' for name in names))
    monkeypatch.chdir(tmp_path / "shell")
    made = Offline(
        MockEngine(lambda row: 0.2),  # type: ignore[arg-type]
        folders=(Path.cwd(), tmp_path / "library"),
        sets=tmp_path,
    )
    replies: list[str] = []
    apply = made.session.apply

    def noted(text: str, name: str, origin: str) -> Outcome:
        outcome = apply(text, name, origin)
        replies.extend(outcome.messages)
        return outcome

    monkeypatch.setattr(made.session, "apply", noted)
    claim = Claim.take(Info("default", os.getpid()))
    server = ControlServer(made.session, socket_path("default"))
    script = tmp_path / "do.vim"
    script.write_text(
        f"""
let g:demon_command = '{sys.executable} -m demon_live'
source {EDITORS}/demon.vim
edit {score}
call DemonFile()
for n in range(1, 4)
  call setline(n, substitute(getline(n), 'deck ', 'deck line_', ''))
  call DemonSend(n, n)
endfor
qall!
"""
    )
    root = str(Path(__file__).parents[1])
    try:
        subprocess.run(
            ["vim", "-es", "-u", "NONE", "-i", "NONE", "-N", "-S", str(script)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False,
            cwd=tmp_path / "elsewhere", env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
    finally:
        server.close()
        claim.release()
        made.close()
    loops = [reply.partition(",")[2].partition(" ·")[0].strip() for reply in replies]
    read = "1 bar at 120 bpm, 4 times, of a file of 2.00 s"
    assert loops == [f"{name}_120.wav: {read}" for name in (*names, *names)]


def test_vs_code_runs_tasks_that_exist() -> None:
    tasks = {t["label"] for t in json.loads((EDITORS / "tasks.json").read_text())["tasks"]}
    keys = json.loads((EDITORS / "keybindings.json").read_text())
    named = json.dumps(keys)
    assert tasks == {"demon: line or selection", "demon: file", "demon: hush"}
    assert all(f'"{label}"' in named for label in tasks)
