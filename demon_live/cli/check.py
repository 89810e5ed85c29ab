"""`demon check`: what is wrong with scores, and where."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from demon_live.errors import DemonError, FileError, ScoreError, ScoreWarning, nearest
from demon_live.lang import Chain, Go, Program, Scene, compile_source, format_source
from demon_live.paths import shipped
from demon_live.session.assets import named_files
from demon_live.session.scores import read_score
from demon_live.ui import show

Say = Callable[[show.Pieces, IO[str]], None]


def check(words: Sequence[str], *, canonical: bool, say: Say) -> int:
    """Check scores, and those in folders; `canonical` prints them too. Returns the exit code."""
    bad = 0
    for path in files(words):
        try:
            text = read_score(path)
            program = compile_source(text, name=str(path))
            _must_know_scenes(program, path, text)
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


def _summary(program: Program) -> str:
    counts = [(name, len(lanes)) for name, lanes in program.decks.items() if lanes]
    rows = [f"{name}: {n} control{'s' if n != 1 else ''}" for name, n in counts]
    if program.scenes:
        rows.append(f"{len(program.scenes)} scene{'s' * (len(program.scenes) != 1)}")
    chains = [c for c in program.chains if c.scenes]
    rows += [f"a chain of {float(sum(n for _, n in c.scenes)):g} bars" for c in chains]
    return ", ".join(rows)


def _must_know_scenes(program: Program, path: Path, text: str) -> None:
    """Raise ScoreError for a scene that neither this score nor one beside it defines."""
    known = set(program.scenes)
    for row in program.statements:
        asked = [row.scene] if isinstance(row, Go) else []
        asked += [name for name, _ in row.scenes] if isinstance(row, Chain) else []
        asked += [row.base] if isinstance(row, Scene) and row.base else []
        if any(name not in known for name in asked):
            known |= _scenes_beside(path)
        for name in (n for n in asked if n not in known):
            near = nearest(name, known)
            hint = f"did you mean {near[0]}?" if near else f"scene {name} {{ ... }} defines it"
            message = f"there is no scene {name!r}"
            raise ScoreError(message, span=row.span, source=text, name=str(path), hint=hint)


def _scenes_beside(path: Path) -> set[str]:
    found: set[str] = set()
    for other in path.parent.glob("*.demon"):
        # What is wrong with another score is told of that one.
        with contextlib.suppress(DemonError):
            found |= set(compile_source(read_score(other)).scenes)
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


def files(words: Sequence[str]) -> list[Path]:
    """The scores among `words`, and those in the folders among them."""
    found: list[Path] = []
    for word in words:
        path = Path(word)
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = sorted(path.glob("*.demon"))
        if not inside:
            raise FileError(f"{path} is a folder without scores", hint="scores are called *.demon")
        found += inside
    return found
