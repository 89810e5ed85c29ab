"""Which sessions run here: one info file and one socket each, in the runtime folder.

    session-NAME.json   who it is; locked by its session for as long as that lives
    session-NAME.sock   its control socket

A lock ends with its process, however that ends: a file that can be locked is left over from a dead
session, and whoever finds it removes it and its socket.

Threads: functions may be called from any thread; a `Claim` belongs to its session.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demon_live.errors import DemonError, FileError, UsageError
from demon_live.paths import runtime_dir

try:
    import fcntl
except ImportError:  # no such system call on this system: sessions stay within their terminal
    fcntl = None  # type: ignore[assignment]

#: The name of a session that was started without one.
DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_FILE = re.compile(r"session-(.+)\.json")
_LARGEST = 64 * 1024
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Info:
    """A running session, for others to read.

    Attributes:
        since: start, in seconds since the epoch.
        scores: the scores named at its start.
        detached: it has no terminal of its own.
        web: address of its page, token included, or "".
        osc: HOST:PORT, or "".
    """

    name: str
    pid: int
    since: float = 0.0
    engine: str = ""
    scores: tuple[str, ...] = ()
    folder: str = ""
    version: str = ""
    detached: bool = False
    web: str = ""
    osc: str = ""

    @property
    def socket(self) -> Path:
        """Its control socket."""
        return socket_path(self.name)


def available() -> bool:
    """Whether this system has what a detached session needs (unix sockets, locks, fork)."""
    return fcntl is not None and hasattr(socket, "AF_UNIX") and hasattr(os, "fork")


def check_name(name: str) -> str:
    """Check the name of a session, and return it. Raises UsageError if malformed."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:40]!r} is no name for a session",
            hint="up to 32 letters, digits, - and _, such as: left",
        )
    return name


def socket_path(name: str) -> Path:
    """Where the control socket of a session lies. A name with a / is the path of one, such as the
    end of an SSH forwarding here."""
    if "/" in name:
        return Path(name)
    return runtime_dir() / f"session-{check_name(name)}.sock"


def _info_path(name: str) -> Path:
    return runtime_dir() / f"session-{check_name(name)}.json"


@dataclass
class Claim:
    """A name, held until `release` or the end of the process."""

    info: Info
    _file: int = field(default=-1, repr=False)

    @staticmethod
    def take(info: Info) -> Claim:
        """Claim a name. Raises FileError while another session holds it."""
        path = _info_path(info.name)
        for _ in range(_TRIES):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            # Whoever cleans up may have unlinked the file between our opening and locking it.
            if _lock(file) and _same(file, path):
                break
            os.close(file)
            # A `find` holds the lock of a dead session for microseconds.
            time.sleep(0.01)
        else:
            raise taken(info.name)
        claim = Claim(info, file)
        with contextlib.suppress(OSError):
            info.socket.unlink()
        claim.publish(info)
        return claim

    def publish(self, info: Info) -> None:
        """Write the info for others to read."""
        self.info = info
        data = json.dumps(asdict(info)).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)

    def release(self) -> None:
        """Free the name. Twice is fine."""
        if self._file < 0:
            return
        for path in (self.info.socket, _info_path(self.info.name)):
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(self._file)
        self._file = -1


def taken(name: str) -> DemonError:
    """The error for a name that another session has."""
    flag = "" if name == DEFAULT else f" --name {name}"
    return FileError(
        f"a session called {name!r} plays already",
        hint=f"demon attach{flag} returns to it, demon stop{flag} ends it; "
        "a second one needs a name of its own: demon live --name NAME",
    )


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except OSError:
        return False


def find(name: str = DEFAULT) -> Info | None:
    """The running session of that name, or None. Removes the files of a dead one.

    Of the path of a socket nothing is known.
    """
    if "/" in name:
        return None
    path = _info_path(name)
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _lock(file):
            if _same(file, path):
                for left in (socket_path(name), path):
                    with contextlib.suppress(OSError):
                        left.unlink()
            return None
        return _read(name, os.pread(file, _LARGEST, 0))
    finally:
        os.close(file)


def ended(name: str, patience: float) -> bool:
    """Wait until no session of that name runs; False if one still does after `patience` s."""
    end = time.monotonic() + patience
    while find(name) is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


def sessions() -> tuple[Info, ...]:
    """Every running session of this user, by name."""
    if not available():
        return ()
    names = (m[1] for p in runtime_dir().iterdir() if (m := _FILE.fullmatch(p.name)))
    found = (find(name) for name in sorted(names) if _NAME.fullmatch(name))
    return tuple(info for info in found if info is not None)


def _read(name: str, data: bytes) -> Info:
    """Read an info file; a session that has only just started has written nothing yet."""
    try:
        row: dict[str, Any] = json.loads(data)
        row["scores"] = tuple(str(s) for s in row.get("scores", ()))
        known = {k: v for k, v in row.items() if k in Info.__slots__}
        return Info(**{**known, "name": name})
    except (ValueError, TypeError, AttributeError):
        return Info(name, 0)
