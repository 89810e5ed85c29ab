"""The first ten minutes: a set to start from, and a shell that completes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from demon_live.cli import main
from demon_live.cli.arguments import COMMANDS, completion
from demon_live.lang import compile_source


def test_a_new_set_can_be_checked_and_names_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "friday"]) == 0
    assert "demon live friday" in capsys.readouterr().out
    score = Path("friday/friday.demon")
    program = compile_source(score.read_text(), name=str(score))
    assert program.warnings == ()
    assert set(program.scenes) == {"calm", "peak"}
    assert (score.parent / str(program.settings["source"])).is_file()
    readme = Path("friday/README.md").read_text()
    assert "demon live friday" in readme
    assert "dub_120.flac" in readme
    assert main(["check", "friday"]) == 0
    assert "friday.demon" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["new", str(tmp_path / "mine")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []
    assert main(["new", str(tmp_path / "_muted")]) == 2


def test_names_with_blanks_are_quoted_for_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my set"
    assert main(["new", str(path)]) == 0
    assert f"demon live '{path}'" in capsys.readouterr().out
    assert (path / "my_set.demon").is_file()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_know_every_command_and_are_shell(shell: str) -> None:
    text = completion(shell)
    assert all(command in text for command in COMMANDS)
    assert "--stage" in text or "stage" in text
    if found := shutil.which(shell):
        done = subprocess.run(
            [found, "-n"], input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["demon", "ren"], "render"),
        (["demon", "help", "deno"], "denoise"),
        (["demon", "live", "--the"], "--theme"),
        (["demon", "live", "--theme", "li"], "light"),
        (["demon", "engines", "info", "im"], "imp"),
    ],
)
def test_bash_completes(words: list[str], offered: str, tmp_path: Path) -> None:
    (tmp_path / "demon.bash").write_text(completion("bash"))
    asked = " ".join(words)
    line = (
        f"source {tmp_path}/demon.bash; COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; "
        f"_shtab_demon demon {words[-1]} {words[-2]}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", line], text=True, capture_output=True, check=True)
    assert offered in done.stdout.split()
