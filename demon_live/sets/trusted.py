"""Which sets were recorded here, by this user: those may name sources wherever they lie.

A set is a text that anyone can write, and the names of its scores are part of it. So a set that
this machine did not record reads nothing but the folders it is played from. What was recorded here
is known by path and inode, in a file of the state folder: a stranger's set, wherever it is put, is
not among them.

Threads: pure functions, but for that file.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from demon_live.paths import shipped, state_dir

#: Sets that are remembered: the newest.
_MOST = 2000


def _register() -> Path:
    return state_dir() / "own-sets.jsonl"


def _identity(path: Path) -> str:
    status = path.stat()
    return json.dumps([str(path.resolve()), status.st_dev, status.st_ino])


def _known() -> list[str]:
    try:
        return _register().read_text("utf-8").splitlines()[-_MOST:]
    except (OSError, ValueError):
        return []


def remember(path: Path) -> None:
    """The set at `path` was begun here. A register that cannot be written costs `--trust`."""
    with contextlib.suppress(OSError):
        lines = [*_known(), _identity(path)][-_MOST:]
        part = _register().with_suffix(f".{os.getpid()}.part")
        part.write_text("\n".join(lines) + "\n", "utf-8")
        part.replace(_register())


def is_own(path: Path | None) -> bool:
    """Whether the set at `path` was recorded here; what has no file is of this session."""
    if path is None:
        return True
    try:
        return _identity(path) in _known()
    except OSError:
        return False


def bounds(path: Path | None, trust: bool) -> tuple[Path, ...] | None:
    """The folders that a replay of the set at `path` may read from; None: anywhere."""
    if trust or path is None or is_own(path):
        return None
    return (Path.cwd(), path.resolve().parent, shipped("patterns"))
