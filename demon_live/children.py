"""Child processes: how they are started, spoken to, ended, and restarted.

Every child is a fresh interpreter that runs one function of ours. A multiprocessing child would
run the caller's main module again, and with it load torch.

Threads: `Child.send` may be called from any thread; the rest belongs to the thread that listens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import {function} as run; run{arguments}"


def command(target: str, *arguments: object) -> list[str]:
    """The command line of a fresh interpreter that runs a function, with this one's `sys.path`.

    Args:
        target: "package.module:function".
        arguments: of the function; each must have a literal.
    """
    module, _, function = target.partition(":")
    root = str(Path(__file__).resolve().parents[1])
    path = [root, *(p for p in sys.path if p and p != root)]
    values = f"({', '.join(map(repr, arguments))})"
    return [
        sys.executable,
        "-c",
        _CODE.format(path=path, module=module, function=function, arguments=values),
    ]


def last_line(log: Path) -> str:
    """The last line of a child's log in parentheses, for a message; "" if there is none."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            return f" ({lines[-1][:200]})"
    return ""


class Backoff:
    """Pauses before the next start: none after a child that worked, doubling for others.

    Args:
        first: seconds after the first failure.
        longest: seconds at most.
        free: failures in a row that cost no pause.
    """

    def __init__(self, first: float, longest: float, free: int = 0) -> None:
        self._first, self.longest, self._free = first, longest, free
        self.failures = 0

    def worked(self) -> None:
        """The child did its work before it ended."""
        self.failures = 0

    def failed(self) -> float:
        """The child ended without having worked. Returns the seconds to wait."""
        self.failures += 1
        if self.failures <= self._free:
            return 0.0
        return float(min(self._first * 2 ** (self.failures - self._free - 1), self.longest))


class SharedPipe:
    """A child's end of its pipe, which several threads may write to."""

    def __init__(self, fd: int) -> None:
        self._conn, self._lock = Connection(fd), threading.Lock()

    def poll(self, timeout: float | None = 0.0, /) -> bool:
        """Whether there is something to receive; None waits for it."""
        return self._conn.poll(timeout)

    def recv(self) -> Any:
        """The next object. Raises EOFError when the parent is gone."""
        return self._conn.recv()

    def send(self, message: object, /) -> None:
        """Send an object. Raises OSError when the parent is gone."""
        with self._lock:
            self._conn.send(message)

    def beat(self, message: object, every: float) -> None:
        """From now on send `message` every so many seconds, in a thread of its own."""

        def run() -> None:
            with contextlib.suppress(OSError, ValueError):
                while True:
                    self.send(message)
                    time.sleep(every)

        threading.Thread(target=run, name="beat", daemon=True).start()


class Child:
    """A child with a pipe: pickled objects both ways.

    Args:
        target: "module:function"; it is called with the number of its end of the pipe.
        log: where its stderr goes; None = ours.
        environ: variables on top of ours.
    """

    def __init__(
        self,
        target: str,
        log: IO[bytes] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        ours, theirs = Pipe()
        self._process = subprocess.Popen(
            command(target, theirs.fileno()),
            pass_fds=[theirs.fileno()],
            # Its own session: Ctrl-C belongs to the prompt.
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **(environ or {})},
        )
        theirs.close()
        self._conn, self._lock = ours, threading.Lock()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def send(self, message: object) -> bool:
        """Send an object; waits while the pipe is full. False if the process is gone."""
        # Sending and closing exclude each other: a message that is still being written into a
        # descriptor that was closed and given to the next pipe would garble that one.
        with self._lock:
            try:
                self._conn.send(message)
            except OSError:
                return False
        return True

    def poll(self, seconds: float = 0.0) -> bool:
        """Whether there is something to receive within that time. Raises EOFError once it ended."""
        if self._conn.poll(seconds):
            return True
        if self.code is not None:
            raise EOFError
        return False

    def receive(self) -> Any:
        """The next object; waits for it. Raises EOFError or OSError if the process is gone."""
        return self._conn.recv()

    def abort(self) -> None:
        """End a process that hangs, at once; `end` still has to be called."""
        self._process.kill()

    def end(self) -> int | None:
        """Wait a second for the end, then force it. Returns the exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self.code is None:
            self._process.kill()
            self._process.wait(5)
        # A send that still waits fails once there is no reader, and releases the lock.
        with self._lock:
            self._conn.close()
        return self.code

    def quit(self, seconds: float) -> None:
        """Close the pipe, which a child takes as the order to end; after `seconds` by force."""
        # Not under the lock: a send may be waiting for a process that no longer reads.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._conn.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it by force."""
        if self.code is None:
            self._process.kill()
        self.end()
