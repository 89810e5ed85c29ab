"""One engine process as its host holds it: started, spoken to, listened to, ended.

Threads: `send` from any thread, `receive`, `alive` and `close` from the host's listening thread.
What is sent and what is closed exclude each other: a message that goes on being written into a
descriptor that was closed, and given to the pipe of the next process, would garble that one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from multiprocessing import Pipe
from pathlib import Path
from typing import IO

from demon_live.runtime.messages import ToEngine, ToSession
from demon_live.runtime.options import Opening

__all__ = ["EngineProcess"]


class EngineProcess:
    """A fresh interpreter that opens an engine. log: where its stderr goes."""

    CODE = (
        "import sys; sys.path[:] = {path!r}; "
        "from demon_live.runtime.engine_main import engine_main; engine_main({fd})"
    )

    def __init__(self, opening: Opening, log: IO[bytes]) -> None:
        ours, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        path = [root, *(p for p in sys.path if p and p != root)]
        code = self.CODE.format(path=path, fd=theirs.fileno())
        # A fresh interpreter: a multiprocessing child would run the caller's main module again.
        # Its own session: Ctrl-C belongs to the prompt.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        theirs.close()
        self._conn, self._lock = ours, threading.Lock()
        #: Whether its model is open.
        self.ready = False
        with contextlib.suppress(OSError):
            ours.send(opening)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def send(self, message: ToEngine) -> None:
        """Waits while the pipe is full. A process that is gone takes no message, and none is owed:
        the next one is told everything."""
        with self._lock, contextlib.suppress(OSError):
            self._conn.send(message)

    def receive(self, seconds: float) -> ToSession | None:
        """What it says, None if nothing within that time. EOFError or OSError: it is gone."""
        if not self._conn.poll(seconds):
            if self.code is not None:
                raise EOFError
            return None
        message: ToSession = self._conn.recv()
        return message

    def end(self) -> int | None:
        """It is gone, or must go. Its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self.code is None:
            self._process.kill()
            self._process.wait(5)
        # A write that still waits fails once there is no reader, and lets the lock go.
        with self._lock:
            self._conn.close()
        return self.code

    def quit(self, seconds: float) -> None:
        """Let it end by itself, which it does when nobody speaks to it any more; then by force."""
        # Not `send`: that may be waiting for a process that no longer reads.
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
