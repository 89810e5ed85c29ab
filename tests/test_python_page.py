"""The page about Python, the notebook and the scripts run as they stand, and are typed."""

from __future__ import annotations

import ast
import json
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
EXAMPLES = sorted(shipped("examples").glob("*.py"))
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


def cells() -> list[str]:
    """The code of the notebook."""
    notebook = json.loads((shipped("examples") / "play.ipynb").read_text("utf-8"))
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


#: Of what a cell shows: a page, a picture, or a line.
FORMS = ("html", "svg ", "text")
#: Shows a value as a notebook does: as the best form that it has.
SHOW = """
def show(value):
    for form in ("html", "svg"):
        if text := getattr(value, f"_repr_{form}_", lambda: None)():
            print(form, text[:4])
            return
    print("text", repr(value))
"""


def shown(code: str) -> str:
    """The code of a cell, which shows the value of its last line."""
    tree = ast.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        call = ast.Call(ast.Name("show", ast.Load()), [last.value], [])
        tree.body[-1] = ast.Expr(call)
    return ast.unparse(ast.fix_missing_locations(tree))


def run(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DEMON_STATE": str(folder / "state"), "DEMON_SPARE": "0"}
    env["PYTHONPATH"] = str(Path(demon_live.__file__).parents[1])
    return subprocess.run(
        [sys.executable, script], cwd=folder, env=env, capture_output=True, text=True, timeout=380
    )


def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(blocks())
    assert blocks().count("\nfrom demon_live") > 5
    done = run(page, tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'source "loops/house_124.flac"' in done.stdout
    for name in ("house.wav", "acid.wav", "second_take.set.jsonl", "curves"):
        assert (tmp_path / name).exists(), name


def test_the_cells_of_the_notebook_run_and_show_pictures(tmp_path: Path) -> None:
    notebook = tmp_path / "play.py"
    notebook.write_text("\n".join([SHOW, *map(shown, cells())]))
    done = run(notebook, tmp_path)
    assert done.returncode == 0, done.stderr
    forms = [line.split()[0] for line in done.stdout.splitlines() if line[:4] in FORMS]
    wanted = "svg svg html html svg html text text text text text"
    assert forms == wanted.split(), done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(path: Path, tmp_path: Path) -> None:
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{path.stem}.wav").exists() or path.stem == "sweep"
    assert list(tmp_path.glob("*.wav"))


def test_the_page_and_the_examples_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    page, notebook = tmp_path / "page.py", tmp_path / "notebook.py"
    page.write_text(blocks())
    notebook.write_text("\n".join(cells()))
    root = Path(demon_live.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", page, notebook, *EXAMPLES],
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
