"""Where things are: shipped files, the user's files, and files of the running session; how to open
what a stranger may have put there.

Shipped folders (`patterns`, `engines`, `examples`) lie beside the package in a checkout and inside
it (`share/`) in an installed wheel. Nothing is created at import.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import stat
import sys
from importlib.util import find_spec
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


def install(extra: str) -> str:
    """The command that installs an extra for the Python that runs now."""
    python = shlex.quote(min(sys.executable, os.path.relpath(sys.executable), key=len))
    # What uv installs has no pip.
    pip = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    root = _PACKAGE.parent
    if not (root / "pyproject.toml").is_file():
        return f"{pip} 'demon-live[{extra}]'"
    where = shlex.quote(f"{min(str(root), os.path.relpath(root), key=len)}[{extra}]")
    return f"{pip} -e {where}"


def state_dir() -> Path:
    """Logs, history and sets; DEMON_STATE overrides. Created when asked for. Where it cannot be
    created, that is an error of what is to be written there."""
    from platformdirs import user_state_path

    path = Path(os.environ.get("DEMON_STATE") or user_state_path("demon"))
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sets_dir() -> Path:
    """Recorded sets."""
    path = state_dir() / "sets"
    with contextlib.suppress(OSError):
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


def open_file(path: Path | str) -> io.BufferedReader:
    """Open an ordinary file for reading, without ever waiting for its other end.

    Raises OSError: also for a folder, a FIFO, a socket or a device, and for a link to one.
    """
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, os.O_RDONLY | flags)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from None
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_ordinary(path) from None
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return open(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_ordinary(path)


def _not_ordinary(path: Path | str) -> OSError:
    return OSError(errno.EINVAL, "not an ordinary file", str(path))


def read_file(path: Path | str, most: int) -> bytes:
    """The content of an ordinary file of at most `most` bytes. Raises OSError, as `open_file`."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return data


def remove_file(path: Path) -> None:
    """Remove a file, if there is one and it can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()
