"""Hints name the command for the Python that runs; what doors need is looked for first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from demon_live import paths
from demon_live.cli import doctor, main
from demon_live.cli.live import _scores
from demon_live.control import osc
from demon_live.errors import FileError, UsageError


def test_an_extra_is_installed_for_the_python_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    python, _, rest = paths.install("osc").partition(" ")
    assert os.path.abspath(python) == sys.executable
    assert rest == "-m pip install -e '.[osc]'"
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "demon_live")
    assert paths.install("osc").endswith(" -m pip install 'demon-live[osc]'")
    # As in the environment of a tool of uv.
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    assert paths.install("osc") == f"uv pip install --python {python} 'demon-live[osc]'"


@pytest.mark.skipif(shutil.which("make") is None, reason="without make")
def test_make_installs_each_extra_that_a_hint_may_name(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"dev"}
    for target in [*extras, "extras"]:
        # -n only prints what it would do.
        done = subprocess.run(
            ["make", "--no-print-directory", "-n", target, f"VENV={tmp_path}"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            env={k: v for k, v in os.environ.items() if k != "MAKEFLAGS"},
        )
        named = "osc,web,midi,link" if target == "extras" else target
        assert done.stdout.splitlines()[-1].endswith(
            f"install --no-build-isolation --editable '.[{named}]'"
        )


@pytest.mark.skipif(shutil.which("make") is None, reason="without make")
def test_make_gpu_brings_a_torch_with_cuda_and_the_extra(tmp_path: Path) -> None:
    def would_do(*words: str) -> str:
        command = ["make", "--no-print-directory", "-n", "gpu", f"VENV={tmp_path}", *words]
        root = Path(__file__).parents[2]
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "DEMON_TORCH")}
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, env=env
        )
        return done.stdout

    assert "install --force-reinstall torch;" in would_do()
    assert "--editable '.[ace]'" in would_do()
    assert 'install "torch==2.13.0";' in would_do("DEMON_TORCH=torch==2.13.0")


def test_doctor_knows_each_extra_and_the_command_for_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert doctor.EXTRAS.keys() == project["optional-dependencies"].keys() - {"dev"}
    monkeypatch.setitem(doctor.EXTRAS, "osc", ("OSC", ("json",)))
    monkeypatch.setitem(doctor.EXTRAS, "lsp", ("editors", ("json", "no_such_module.inside")))
    found = {check.name: check for check in doctor._extras()}
    assert (found["extra osc"].verdict, found["extra osc"].remedy) == ("ok", "")
    assert found["extra lsp"].detail == "editors: without no_such_module.inside"
    assert found["extra lsp"].remedy == f"if you want it: {paths.install('lsp')}"


def test_a_door_that_lacks_its_package_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise UsageError("OSC needs the package python-osc", hint=paths.install("osc"))

    monkeypatch.setattr(osc, "require", missing)
    out = tmp_path / "x.wav"
    words = ["live", "--no-tty", "--osc", "9000", "--audio", f"file:{out}"]
    assert main(words) == UsageError.exit_code
    assert "pip install -e" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_python_patterns_alone_plays_where_they_may_run(tmp_path: Path) -> None:
    (tmp_path / "beat.py").write_text("")
    assert _scores([str(tmp_path)], python=True) == [tmp_path]
    with pytest.raises(FileError, match="without scores"):
        _scores([str(tmp_path)])
