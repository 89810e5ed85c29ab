"""`demon check`: what is wrong with scores, and where."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from demon_live.errors import DemonError, FileError, ScoreError, ScoreWarning, nearest
from demon_live.lang import (
    Bind,
    Chain,
    Go,
    Program,
    Scene,
    Setting,
    Statement,
    Word,
    compile_source,
    format_source,
)
from demon_live.lang.dsl_score import python_score
from demon_live.paths import shipped
from demon_live.session.assets import named_files
from demon_live.session.scores import read_score
from demon_live.ui import show

Say = Callable[[show.Pieces, IO[str]], None]


def check(words: Sequence[str], *, canonical: bool, python: bool, say: Say) -> int:
    """Check scores, and those in folders. Returns the exit code.

    canonical: print them too. python: *.py pattern files are run.
    """
    bad = 0
    for path in files(words, python):
        try:
            text = read_score(path)
            if path.suffix == ".py":
                program, text = _run(path, text, python)
            else:
                program = compile_source(text, name=str(path))
            _must_know_names(program, path, text)
        except DemonError as fault:
            bad += 1
            say(show.error(fault), sys.stderr)
            continue
        warnings = (*program.warnings, *_missing_files(program, path, text))
        for warning in warnings:
            say([("warning", f"{warning}\n")], sys.stderr)
        if canonical:
            say([("", format_source(text))], sys.stdout)
        else:
            n = len(warnings)
            ok = f"ok, but for {n} warning{'s' * (n != 1)}  " if n else "ok  "
            row = f"{path}  {_summary(program)}".rstrip()
            say([("warning" if n else "reply", ok), ("", f"{row}\n")], sys.stdout)
    return 1 if bad else 0


def _run(path: Path, text: str, allowed: bool) -> tuple[Program, str]:
    """The score that a pattern file of Python says, and its text."""
    if not allowed:
        hint = f"allow it: demon check --python {path}"
        raise FileError(f"{path} is Python and would run as code", hint=hint)
    score = python_score(text, str(path))
    return score.program(), score.text


def _summary(program: Program) -> str:
    counts = [(name, len(lanes)) for name, lanes in program.decks.items() if lanes]
    rows = [f"{name}: {n} control{'s' if n != 1 else ''}" for name, n in counts]
    if program.scenes:
        n, lines = len(program.scenes), sum(len(s.body) for s in program.scenes.values())
        rows.append(f"{n} scene{'s' * (n != 1)} of {lines} line{'s' * (lines != 1)}")
    chains = [c for c in program.chains if c.scenes]
    rows += [f"a chain of {float(sum(n for _, n in c.scenes)):g} bars" for c in chains]
    return ", ".join(rows)


def _must_know_names(program: Program, path: Path, text: str) -> None:
    """Raise ScoreError for a name that neither this score nor one beside it defines."""
    known = _defined(program)
    for row in program.statements:
        asked = list(_asked(row))
        if any(pair not in known for pair in asked):
            known |= _defined_beside(path)
        for what, name in (pair for pair in asked if pair not in known):
            near = nearest(name, [n for kind, n in known if kind == what])
            hint = f"did you mean {near[0]}?" if near else _DEFINED_BY[what].format(name)
            message = f"there is no {what} {name!r}"
            raise ScoreError(message, span=row.span, source=text, name=str(path), hint=hint)


_DEFINED_BY = {
    "scene": "scene {} {{ ... }} defines it",
    "deck": "deck {} {{ ... }} begins it",
    "snapshot": "snapshot {} takes it",
}


def _asked(row: Statement) -> Iterator[tuple[str, str]]:
    """(what, name) of all that a statement needs."""
    if isinstance(row, Go):
        yield "scene", row.scene
    elif isinstance(row, Chain):
        yield from (("scene", name) for name, _ in row.scenes)
    elif isinstance(row, Scene) and row.base:
        yield "scene", row.base
    elif isinstance(row, Word) and row.name in ("mute", "unmute", "solo", "crossfade", "deck"):
        yield from (("deck", name) for name in row.args)
    elif isinstance(row, Word) and row.name == "recall":
        yield from (("snapshot", name) for name in row.args)


def _defined(program: Program) -> set[tuple[str, str]]:
    """(what, name) of all that a score defines, inside scenes as well."""
    rows = list(program.statements)
    rows += [inner for row in program.statements if isinstance(row, Scene) for inner in row.body]
    found = {("deck", row.deck) for row in rows if isinstance(row, Bind | Setting)}
    found |= {("scene", name) for name in program.scenes}
    return found | {
        ("snapshot", name)
        for row in rows
        if isinstance(row, Word) and row.name == "snapshot"
        for name in row.args
    }


def _defined_beside(path: Path) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for other in path.parent.glob("*.demon"):
        # What is wrong with another score is told of that one.
        with contextlib.suppress(DemonError):
            found |= _defined(compile_source(read_score(other)))
    return found


def _missing_files(program: Program, path: Path, text: str) -> Iterator[ScoreWarning]:
    """Warn of missing sources and timbres: a score may be checked without its sounds."""
    roots = (path.parent, Path.cwd(), shipped("patterns"))
    for name, span, what in named_files(program):
        if name and name != "none" and not any(os.path.isfile(root / name) for root in roots):
            yield ScoreWarning(
                f"there is no file {name}",
                span=span,
                source=text,
                name=str(path),
                hint=f"{what} lie next to the score, or in the library",
            )


def files(words: Sequence[str], python: bool = False) -> list[Path]:
    """The scores among `words`, and those in the folders among them; python: *.py too."""
    found: list[Path] = []
    for word in words:
        path = Path(word)
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = sorted(path.glob("*.demon"))
        inside += sorted(path.glob("[!_.]*.py")) if python else []
        if not inside:
            raise FileError(f"{path} is a folder without scores", hint="scores are called *.demon")
        found += inside
    return found
