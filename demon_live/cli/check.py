"""`demon check`: what is wrong with scores, and where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from demon_live.errors import DemonError, FileError
from demon_live.lang import Program, compile_source, format_source
from demon_live.lang.dsl_score import python_score
from demon_live.session.check import warnings_of
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
            warnings = warnings_of(program, path, text)
        except DemonError as fault:
            bad += 1
            say(show.error(fault), sys.stderr)
            continue
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
