"""The wheel plays: installed outside the checkout, it has engines, weights, patterns and examples.

The fresh environment borrows the dependencies of this one through a .pth file, so that the test is
quick and needs no network; the package itself can only come from the wheel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from demon_live.models.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="needs the checkout to build from"
)


class Installed:
    """A fresh environment with the wheel in it, and an empty folder to work in."""

    def __init__(self, home: Path, wheel: Path) -> None:
        self.home, self.bin = home, home / "venv" / ("Scripts" if os.name == "nt" else "bin")
        venv.create(home / "venv", with_pip=False, symlinks=os.name != "nt")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_paths()['purelib'])"))
        (self.site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        outside = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        env = {k: v for k, v in os.environ.items() if k not in outside}
        env |= {"DEMON_STATE": str(self.home / "state"), "DEMON_CACHE": str(self.home / "cache")}
        return subprocess.run(
            command,
            cwd=self.home,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def run(self, code: str) -> str:
        done = self.call(str(self.bin / "python"), "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def demon(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.call(str(self.bin / "demon"), *arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


def test_the_wheel_has_all_that_plays_and_no_litter(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {n.removeprefix("demon_live/share/") for n in names if "/share/" in n}
    assert {f"engines/imp/{w.file}" for w in load_manifest("imp").weights} <= shipped
    assert "engines/imp.toml" in shipped
    assert "demon_live/lang/grammar.lark" in names
    patterns = {f"patterns/{path.name}" for path in (ROOT / "patterns").glob("*.demon")}
    assert patterns
    assert patterns <= shipped
    litter = ("__pycache__", ".pyc", ".part", ".pt", ".npz", ".ckpt", "/out/", "tests/", ".venv")
    assert [n for n in names if any(piece in n for piece in litter)] == []


def test_the_package_comes_from_the_wheel(installed: Installed) -> None:
    place = Path(installed.run("import demon_live; print(demon_live.__file__)"))
    assert place.is_relative_to(installed.site)
    folder = installed.run("from demon_live.paths import shipped; print(shipped('engines'))")
    assert Path(folder).is_relative_to(installed.site)


def test_its_files_are_whole(installed: Installed) -> None:
    code = "from demon_live.models.manifest import *; m = load_manifest('imp')\n"
    code += "print(*[f.state for f in verify(m)])"
    assert set(installed.run(code).split()) == {"ok"}


def test_it_checks_and_renders_a_shipped_pattern(installed: Installed) -> None:
    score = sorted((installed.site / "demon_live/share/patterns").glob("[0-9]*.demon"))[0]
    installed.demon("check", str(score))
    installed.demon("render", str(score), "--cycles", "1", "-o", "out.wav")
    audio, rate = soundfile.read(installed.home / "out.wav")
    assert rate == 48000
    assert len(audio) > rate
    assert np.abs(audio).max() > 0.01


@pytest.mark.parametrize("lock", ["live", "dev"])
def test_a_lock_has_every_dependency_in_a_version_that_is_allowed_with_its_hash(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    wanted += project["optional-dependencies"]["dev"] if lock == "dev" else []
    locked: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=[\w-])", (ROOT / ".ci" / f"{lock}.lock").read_text()):
        if found := re.match(r"([\w.-]+)==(\S+)", entry):
            assert "--hash=sha256:" in entry
            locked.setdefault(canonicalize_name(found[1]), []).append(found[2])
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name in ("torch", "python-rtmidi"):
            assert name not in locked
            continue
        assert locked.get(name), name
        assert all(requirement.specifier.contains(v) for v in locked[name]), name
