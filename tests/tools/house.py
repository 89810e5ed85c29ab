"""The structure of the code in numbers.

    python -m tests.tools.house [ROOT] [--json]

Static: files, lines, class names used twice, circles of imports, long functions and files, bytes of
the README. Run: the files and functions of demon_live that one line of score passes, by
sys.setprofile: in `Session.apply` with a session without sound, and on its whole way off line, from
the text at the prompt to a block of the mixer. ROOT is another checkout; its code runs in a process
of its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
LINE = "blend = sine.slow(4).range(.2,.9)"
LONG_FUNCTION, LONG_FILE = 60, 450

Graph = Mapping[str, set[str]]


@dataclass(frozen=True, slots=True)
class Module:
    """A module of demon_live. imports: those of demon_live, lazy and for types only as well."""

    name: str
    path: Path
    lines: int
    tree: ast.Module


def modules(root: Path) -> dict[str, Module]:
    """All modules of `root`/demon_live by their dotted names."""
    found = {}
    for path in sorted((root / "demon_live").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text.count("\n"), ast.parse(text))
    return found


def imported(module: Module, known: Iterable[str]) -> Iterator[str]:
    """The modules that a module imports anywhere in its text."""
    names = set(known)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in names else str(node.module)


def import_graph(of: Mapping[str, Module]) -> Graph:
    return {name: set(imported(module, of)) - {name} for name, module in of.items()}


def package_graph(graph: Graph) -> Graph:
    """The same between the packages of demon_live."""

    def package(name: str) -> str:
        return ".".join(name.split(".")[:2])

    found: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        # The head of the package only names what it exports.
        if name != "demon_live":
            found[package(name)] |= {package(o) for o in others} - {package(name), "demon_live"}
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    out: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                out.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return out


def twice(of: Mapping[str, Module]) -> dict[str, list[str]]:
    """Names of more than one class, private ones too, with their modules."""
    where: dict[str, list[str]] = defaultdict(list)
    for module in of.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module.name)
    return {name: places for name, places in sorted(where.items()) if len(places) > 1}


def long_functions(of: Mapping[str, Module]) -> list[str]:
    return [
        f"{module.name}.{node.name} ({(node.end_lineno or 0) - node.lineno + 1})"
        for module in of.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONG_FUNCTION
    ]


def static(root: Path) -> dict[str, object]:
    """All that is read off the text."""
    of = modules(root)
    graph = import_graph(of)
    return {
        "files": len(of),
        "lines": sum(module.lines for module in of.values()),
        "class_names_twice": twice(of),
        "import_circles": circles(graph),
        "package_circles": circles(package_graph(graph)),
        "long_functions": long_functions(of),
        "long_files": [f"{m.name} ({m.lines})" for m in of.values() if m.lines > LONG_FILE],
        "readme_bytes": (root / "README.md").stat().st_size,
    }


# -- what runs ---------------------------------------------------------------------------------

#: Runs in a checkout of any age: names that have changed are tried one after the other.
_PROBE = '''
import asyncio, importlib, json, sys, threading
from pathlib import Path

LINE = sys.argv[1]
seen = set()

def note(frame, event, argument):
    code = frame.f_code
    name = code.co_filename
    if event == "call" and "/demon_live/" in name and code.co_name != "<module>":
        seen.add((name, code.co_firstlineno))

def profiled(work):
    seen.clear()
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {"files": len({f for f, _ in seen}), "functions": len(seen),
            "names": sorted({f.split("/demon_live/")[1] for f, _ in seen})}

def first(*places):
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            pass
    raise SystemExit(f"none of {places}")

def silent():
    """A session without sound."""
    Session = first("demon_live:Session")
    output = first("demon_live.session.output:NullOutput", "demon_live.runtime.dry_run:DeafRig",
                   "demon_live.perform.walk:DeafRig")
    return Session(output())

def apply_alone():
    session = silent()
    session.apply("blend = .5")          # lazy imports and caches are not the line's own
    return profiled(lambda: session.apply(LINE))

def whole_way():
    from prompt_toolkit.input import DummyInput
    from prompt_toolkit.output import DummyOutput

    MockEngine, by_prompt, offline = (
        first(f"tests.helpers.mock_engine:{name}", f"tests.mock_engine:{name}")
        for name in ("MockEngine", "by_prompt", "offline")
    )
    Prompt = first("demon_live.ui.prompt:Prompt", "demon_live.ui.prompt:Repl",
                   "demon_live.ui.repl:Repl")
    instrument = offline(MockEngine(by_prompt))
    session = instrument.session
    session.apply("tempo 120\\nloop 2\\nblend = .5")
    for _ in range(20):
        instrument.turn()
    tty = {"input": DummyInput(), "output": DummyOutput(), "history": Path("/dev/null")}
    try:
        prompt = Prompt(first("demon_live.ui.controller:UiController")(session), **tty)
        desk, buffer = prompt.controller, prompt.prompt
    except SystemExit:
        prompt = Prompt(session, **tty)
        desk, buffer = prompt.desk, prompt.buffer

    async def typed():
        desk.say = lambda pieces: None
        buffer.text = LINE
        assert prompt.complete_statement()
        prompt.accept()
        await desk.jobs_done()

    def way():
        asyncio.run(typed())
        # Until the edit has been sampled, made, decoded and mixed.
        for _ in range(12):
            instrument.turn()

    return profiled(way)

found = {"apply": apply_alone()}
try:
    found["way"] = whole_way()
except Exception as error:
    found["way"] = {"failed": f"{type(error).__name__}: {error}"}
print(json.dumps(found))
'''


def run(root: Path, line: str = LINE) -> dict[str, dict[str, object]]:
    """Files and functions that one line passes: in `apply`, and on its whole way."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, line],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def counts(root: Path) -> dict[str, int]:
    """One number for each measure."""
    found: dict[str, int] = {}
    for name, value in static(root).items():
        found[name] = value if isinstance(value, int) else len(value)  # type: ignore[arg-type]
    for part, row in run(root).items():
        for name in ("files", "functions"):
            if name in row:
                found[f"{part}_{name}"] = int(str(row[name]))
    return found


def main() -> None:
    """Print the table, or everything as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.house")
    parser.add_argument("root", nargs="?", type=Path, default=HERE)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    root = args.root.resolve()
    if args.json:
        found = {**static(root), **run(root)}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    for name, value in counts(root).items():
        sys.stdout.write(f"{name.replace('_', ' '):<24}{value:>8}\n")


if __name__ == "__main__":
    main()
