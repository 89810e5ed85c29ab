"""Where the files are that scores name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from demon_live.errors import FileError


class Find(Protocol):
    """What finds sources: `find_source`, or one that knows where they were sent."""

    def __call__(
        self, name: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None, /
    ) -> Path: ...


def find_source(
    name: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None = None
) -> Path:
    """Where a source is: next to the score, else in a library folder.

    A score file is data from anywhere, so what it names stays inside those folders, symbolic links
    included. At the prompt (no base) the performer may name any path. within: of a set from a
    stranger, who chose the names of its scores, too, nothing outside these folders is looked at.
    Raises FileError.
    """
    given = Path(name).expanduser()
    if not base and given.is_absolute() and within is None:
        return given
    roots = [Path(base or "."), *folders]
    if within is not None:
        return _find_within(name, roots, within)
    outside = False
    for root in roots:
        try:
            path = (root / name).resolve()
            if path.is_relative_to(root.resolve()):
                if path.exists():
                    return path
            else:
                outside = True
        except (OSError, ValueError):  # a name that no file can have
            continue
    if outside:
        raise FileError(
            f"{name!r} is outside the folder of the score",
            hint="copy the file next to the score, or name it at the prompt",
        )
    return roots[0] / name


def _find_within(name: str, roots: Sequence[Path], within: Sequence[Path]) -> Path:
    """The first `root / name` that lies in one of `within`; outside them no file is looked at."""
    allowed = [folder.resolve() for folder in within]
    missing, outside = None, False
    for root in roots:
        try:
            path = (root / name).resolve()
            if not any(path.is_relative_to(folder) for folder in allowed):
                outside = True
            elif path.exists():
                return path
            else:
                missing = missing or path
        except (OSError, ValueError):  # a name that no file can have
            continue
    if missing is not None and not outside:
        return missing
    raise FileError(
        f"this set was not recorded here, and it names {name!r} outside "
        f"{', '.join(dict.fromkeys(map(str, within)))}",
        hint="put the file beside the set, or, if you trust who made it: --trust",
    )
