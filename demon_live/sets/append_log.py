"""A file of lines that only grows, and that neither a crash nor a full disk can spoil.

Lines are with the operating system when `append` returns, so that kill -9 loses none of them, and
on the disk within a second or two (`sync`), so that a power cut loses no more than that. When the
disk is full, or gone, the bytes that did not fit wait in memory, from the very byte on, and go out
when there is room: the file is at every moment a prefix of what was appended.

Threads: `append` and `close` belong to one thread at a time (the journal's lock); `sync` may be
called beside them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from demon_live import faults
from demon_live.errors import FileError


def _write(fd: int, data: bytes) -> int:
    if faults.ON and faults.hit("disk.full") is not None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return os.write(fd, data)


class AppendLog:
    """Appends lines to a new file at `path`. Raises FileError if it exists or cannot be made.

    tell: gets one line when the file cannot be written, and one when it can again. alone: lock the
    file, so that others see that its writer lives (`locked`).
    """

    def __init__(
        self, path: Path, tell: Callable[[str], None] = lambda text: None, *, alone: bool = False
    ) -> None:
        self.path = path
        self._tell = tell
        self._waiting = b""
        self._failing = False
        self._dirty = False
        self._syncing = threading.Lock()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            raise FileError(
                f"{path} exists already", hint="choose another name: sets are never overwritten"
            ) from None
        except OSError as error:
            raise FileError(
                f"{path} cannot be written: {error.strerror}", hint="choose another name or folder"
            ) from None
        if alone:
            _lock(self._fd)

    def append(self, lines: str) -> bool:
        """Add whole lines. Never raises; False while something waits for room."""
        self._waiting += lines.encode("utf-8", "surrogatepass")
        return self._push()

    def _push(self) -> bool:
        try:
            while self._waiting:
                written = _write(self._fd, self._waiting)
                # From here on the file has these bytes, whatever happens next.
                self._waiting = self._waiting[written:]
                self._dirty = True
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._tell(
                    f"{self.path.name} cannot be written ({error.strerror}): it waits in memory; "
                    f"make room on {self.path.parent}"
                )
            return False
        if self._failing:
            self._failing = False
            self._tell(f"{self.path.name} is written again: nothing was lost")
        return True

    def sync(self) -> None:
        """Try again what waits, and put on the disk what is written. Never raises."""
        if self._fd < 0 or not (self._dirty or self._waiting):
            return
        with self._syncing:
            self._dirty = False
            with contextlib.suppress(OSError):
                (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._fd)

    def retry(self) -> bool:
        """Write what waits, if there is room now."""
        return self._push() if self._waiting else True

    @property
    def waiting(self) -> int:
        """Bytes that could not be written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Put everything on the disk and close. Twice is fine."""
        if self._fd < 0:
            return
        self._push()
        self._dirty = True
        self.sync()
        with self._syncing:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def locked(path: Path) -> bool:
    """Whether the process that writes `path` with `alone` is alive."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
