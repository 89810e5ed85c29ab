"""`demon check`: what is wrong with scores, and where."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from demon_live.errors import DemonError, FileError, ScoreWarning, Span
from demon_live.lang import Bind, Program, Setting, compile_source, format_source
from demon_live.paths import shipped
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
        except DemonError as fault:
            bad += 1
            say(show.error(fault), sys.stderr)
            continue
        for warning in (*program.warnings, *_missing_files(program, path, text)):
            say([("warning", f"{warning}\n")], sys.stderr)
        if canonical:
            say([("", format_source(text))], sys.stdout)
        else:
            say(
                [("reply", "ok  "), ("", f"{path}  {_summary(program)}".rstrip() + "\n")],
                sys.stdout,
            )
    return 1 if bad else 0


def _summary(program: Program) -> str:
    counts = [(name, len(lanes)) for name, lanes in program.decks.items() if lanes]
    return ", ".join(f"{name}: {n} control{'s' if n != 1 else ''}" for name, n in counts)


def _missing_files(program: Program, path: Path, text: str) -> Iterator[ScoreWarning]:
    """Warn of missing sources and timbres: a score may be checked without its sounds."""
    roots = (path.parent, Path.cwd(), shipped("patterns"))
    for name, span, what in _named_files(program):
        if name and name != "none" and not any(os.path.isfile(root / name) for root in roots):
            yield ScoreWarning(
                f"there is no file {name}",
                span=span,
                source=text,
                name=str(path),
                hint=f"{what} lie next to the score, or in the library",
            )


def _named_files(program: Program) -> Iterator[tuple[str, Span, str]]:
    """(name, place, purpose) of all files that a score and its scenes name."""
    scenes = [row for scene in program.scenes.values() for row in scene.body]
    for row in (*program.statements, *scenes):
        if isinstance(row, Setting) and row.word == "source" and isinstance(row.value, str):
            yield row.value, row.span, "sources"
        elif isinstance(row, Bind):
            yield from ((name, span, "sounds") for name, span in row.files)


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
