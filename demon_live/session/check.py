"""What is wrong with a score beyond its own text: names that nothing defines, missing files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

from demon_live.errors import DemonError, ScoreError, ScoreWarning, nearest
from demon_live.lang import (
    Bind,
    Chain,
    Go,
    Lane,
    Program,
    Scene,
    Setting,
    Statement,
    Word,
    compile_source,
)
from demon_live.paths import shipped
from demon_live.session.assets import named_files
from demon_live.session.scores import read_score

#: Of a new pattern of text the values of so many cycles are looked at, and of so many changes.
_CYCLES, _VALUES = 16, 64


def values_of(lane: Lane, begin: Fraction) -> list[str]:
    """What a lane of text gives from cycle `begin` on, each once; of a long pattern the first."""
    cycles = [begin]
    for k in range(_CYCLES):
        cycles += lane.jumps(begin + k, begin + k + 1)
        # Warnings about a thousand values in a cycle help no one.
        if len(cycles) >= _VALUES:
            break
    return sorted({str(lane.at(cycle)) for cycle in cycles[:_VALUES]})


def ducked_by(lane: Lane, begin: Fraction) -> list[str]:
    """The decks that a lane of `duck` makes way for from cycle `begin` on."""
    names = {value.partition(":")[0].strip() for value in values_of(lane, begin)}
    return sorted(names - {"", "beat"})


def no_deck(name: str, decks: Collection[str]) -> tuple[str, str]:
    """What a warning says of a deck that `duck` names and nothing begins, and its remedy."""
    near = nearest(name, [*decks, "beat"])
    message = f"there is no deck {name!r} to duck for"
    return message, f"did you mean {near[0]}?" if near else _DEFINED_BY["deck"].format(name)


def faults_of(path: Path, text: str) -> tuple[DemonError, ...]:
    """All that `demon check` says of a score: its errors, or else its warnings.

    Args:
        path: of the score; names and files are looked for beside it.
        text: of the score, saved or not.
    """
    try:
        text = read_score(path, text.encode("utf-8", "surrogatepass"))
        return warnings_of(compile_source(text, name=str(path)), path, text)
    except DemonError as fault:
        return fault.errors


def warnings_of(program: Program, path: Path, text: str) -> tuple[ScoreWarning, ...]:
    """The warnings about a score, those of its compilation first.

    Raises:
        ScoreError: for a name that neither this score nor one beside it defines.
    """
    _must_know_names(program, path, text)
    return (
        *program.warnings,
        *_missing_files(program, path, text),
        *_missing_decks(program, path, text),
    )


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


def _missing_decks(program: Program, path: Path, text: str) -> Iterator[ScoreWarning]:
    """Warn of decks that `duck` names: they may come later."""
    rows = list(program.statements)
    rows += [inner for row in rows if isinstance(row, Scene) for inner in row.body]
    for row in rows:
        if not isinstance(row, Bind) or row.lane is None or row.control != "duck":
            continue
        known = _defined(program)
        asked = [name for name in ducked_by(row.lane, Fraction(0)) if ("deck", name) not in known]
        if asked:
            known |= _defined_beside(path)
        decks = {name for what, name in known if what == "deck"}
        for name in asked:
            if name not in decks:
                message, hint = no_deck(name, decks)
                yield ScoreWarning(message, span=row.span, source=text, name=str(path), hint=hint)
