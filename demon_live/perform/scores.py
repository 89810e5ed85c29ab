"""Score files: read with a bound, written from what plays; where their sources are.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from demon_live.errors import FileError
from demon_live.perform.state import State
from demon_live.places import shipped

__all__ = ["SCORE_LIMIT", "as_score", "find_source", "read_score", "score_name", "write_score"]

#: Longest score, in bytes (the language's bound).
SCORE_LIMIT = 64 * 1024


def read_score(path: Path) -> str:
    """The text of a score file. Raises FileError with the remedy."""
    try:
        if path.is_dir():
            raise FileError(
                f"{path} is a folder", hint=f"name a score in it, such as {path}/x.demon"
            )
        size = path.stat().st_size
        if size > SCORE_LIMIT:
            raise FileError(
                f"{path} has {size} bytes; a score has at most {SCORE_LIMIT}",
                hint="split it into several files or decks",
            )
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path} is not text (byte {error.start})", hint="save it as UTF-8"
        ) from None
    except OSError as error:
        there = path.parent.glob("*.demon") if path.parent.is_dir() else ()
        near = sorted(p.name for p in there)[:6]
        hint = f"scores there: {', '.join(near)}" if near else "give the path of a .demon file"
        raise FileError(f"{path}: {error.strerror or error}", hint=hint) from None


def write_score(path: Path, text: str) -> None:
    """Replace a score file by `text`, or leave it as it is. Raises FileError."""
    if path.suffix != ".demon":
        raise FileError(f"{path} is no score", hint=f"save it as {path.stem or 'set'}.demon")
    path = path.resolve()
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        hint = "save it somewhere else: its folder must be writable"
        raise FileError(f"{path}: {error.strerror or error}", hint=hint) from None


def score_name(path: Path | str) -> str:
    """What a score file is called: relative to the working folder or, if it is a shipped one, to
    where it ships; else its path. A set that names it so replays on another machine, too."""
    full = Path(path).absolute()
    for root in (Path.cwd(), shipped("patterns").parent):
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
    return full.as_posix()


def as_score(state: State) -> str:
    """What plays now, as one score."""
    rows = [f"tempo {float(state.bpm):g}", f"beats {state.beats}"]
    for deck in state.decks.values():
        rows += ["", f"deck {deck.name}", f"loop {deck.cycles}"]
        rows.append(f'source "{deck.source}"' if deck.source else "source none")
        rows += [f"{control} = {lane.text}" for control, lane in deck.bound.items()]
    return "\n".join(rows) + "\n"


def find_source(name: str, base: str, folders: Iterable[Path]) -> Path:
    """Where a source is: next to the score, else in a library folder.

    A score file is data from anywhere, so what it names stays inside those folders, symbolic links
    included. At the prompt (no base) the performer may name any path. Raises FileError.
    """
    if not base and (given := Path(name).expanduser()).is_absolute():
        return given
    roots = [Path(base or "."), *folders]
    outside = False
    for root in roots:
        path = (root / name).resolve()
        if path.is_relative_to(root.resolve()):
            if path.exists():
                return path
        else:
            outside = True
    if outside:
        raise FileError(
            f"{name!r} is outside the folder of the score",
            hint="copy the file next to the score, or name it at the prompt",
        )
    return roots[0] / name
