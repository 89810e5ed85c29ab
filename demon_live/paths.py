"""Where things are: shipped files, the user's files, and files of the running session.

Shipped folders (`patterns`, `engines`, `examples`) lie beside the package in a checkout and inside
it (`share/`) in an installed wheel. Nothing is created at import.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from demon_live.errors import FileError

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The shipped folder called `folder`. Raises FileError if the installation lacks it."""
    for base in (_PACKAGE.parent, _PACKAGE / "share"):
        # A checkout is known by its pyproject: site-packages may hold another project's `engines`.
        if base.name == "share" or (base / "pyproject.toml").is_file():
            path = base / folder
            if path.is_dir():
                return path
    raise FileError(
        f"the installation has no folder {folder!r}",
        hint="install demon-live again, or run it from a checkout",
    )


def state_dir() -> Path:
    """Logs, history and sets; DEMON_STATE overrides. Created when asked for."""
    from platformdirs import user_state_path

    path = Path(os.environ.get("DEMON_STATE") or user_state_path("demon"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def sets_dir() -> Path:
    """Recorded sets."""
    path = state_dir() / "sets"
    path.mkdir(exist_ok=True)
    return path


def cache_dir() -> Path:
    """Plans and fetched weights; DEMON_CACHE overrides. Created when asked for."""
    from platformdirs import user_cache_path

    path = Path(os.environ.get("DEMON_CACHE") or user_cache_path("demon"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def runtime_dir() -> Path:
    """Files of running sessions (mmap'ed PCM, sockets), in memory where the system can.

    Raises FileError if the folder is not this user's own: others could read or replace the files.
    """
    path = _runtime_dir()
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or not is_own(found):
        raise FileError(
            f"{path} belongs to somebody else",
            hint="name a folder of your own: DEMON_RUNTIME=~/run demon live",
        )
    if found.st_mode & 0o077 and hasattr(os, "getuid"):
        path.chmod(0o700)
    return path


def is_own(found: os.stat_result) -> bool:
    """Whether this user owns the file, as far as the system can tell."""
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _runtime_dir() -> Path:
    if asked := os.environ.get("DEMON_RUNTIME"):
        # Where it cannot be made, the next best is taken, as for one that is not writable.
        with contextlib.suppress(OSError):
            Path(asked).mkdir(mode=0o700, parents=True, exist_ok=True)
    given = os.environ.get("DEMON_RUNTIME") or os.environ.get("XDG_RUNTIME_DIR")
    for base in (Path(p) for p in (given, "/dev/shm") if p):
        if base.is_dir() and os.access(base, os.W_OK):
            path = base / f"demon-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
            path.mkdir(mode=0o700, exist_ok=True)
            return path
    path = cache_dir() / "run"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
