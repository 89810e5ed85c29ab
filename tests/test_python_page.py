"""The page about Python says what is true: its blocks run, in order, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import demon_live
from demon_live.paths import shipped

#: Real models in processes of their own.
pytestmark = pytest.mark.timeout(400)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def blocks() -> str:
    """The blocks as one module, each on the line of the page where it stands."""
    page = (shipped("examples") / "python.md").read_text("utf-8")
    out = [""] * page.count("\n")
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start(1))
        for i, row in enumerate(found[1].splitlines()):
            out[line + i] = row
    return "\n".join(out) + "\n"


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "page.py"
    script.write_text(code)
    env = {**os.environ, "DEMON_STATE": str(folder / "state"), "DEMON_SPARE": "0"}
    env["PYTHONPATH"] = str(Path(demon_live.__file__).parents[1])
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=env, capture_output=True, text=True, timeout=380
    )


def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    code = blocks()
    assert code.count("\nfrom demon_live") > 5
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'source "loops/house_124.flac"' in done.stdout
    for name in ("house.wav", "acid.wav", "second_take.set.jsonl", "curves"):
        assert (tmp_path / name).exists(), name


@pytest.mark.parametrize("name", ["script.py", "sweep.py", "data.py"])
def test_the_examples_run(name: str, tmp_path: Path) -> None:
    done = run((shipped("examples") / name).read_text("utf-8"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.wav"))


def test_the_page_and_the_examples_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    page = tmp_path / "page.py"
    page.write_text(blocks())
    examples = [shipped("examples") / name for name in ("script.py", "sweep.py", "data.py")]
    root = Path(demon_live.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", page, *examples],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_offers_its_names_and_loads_none_of_them() -> None:
    code = (
        "import sys, demon_live\n"
        "heavy = {'torch', 'numpy', 'lark'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "names = dir(demon_live)\n"
        "assert 'Live' in names and 'generate' in names and 'importlib' not in names, names\n"
        "for name in demon_live.__all__:\n    assert getattr(demon_live, name) is not None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_every_public_class_and_function_has_a_docstring() -> None:
    for name in demon_live.__all__:
        if name != "__version__":
            assert getattr(demon_live, name).__doc__, name
