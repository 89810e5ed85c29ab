"""One connection to a running session. Light on imports: `demon send` is one for every line.

Threads: a `Connection` may be used from any thread; its lock lets one request through at a time.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demon_live.control import wire
from demon_live.control.registry import DEFAULT, find, sessions, socket_path
from demon_live.errors import DemonError, FileError, UsageError

#: Seconds to wait for an answer; loading a long source may take that.
_PATIENCE = 30.0


class SessionGone(DemonError):
    """The session has ended, or cannot be reached any more."""

    exit_code = 3


class Connection:
    """Requests and replies, in order. Raises FileError if no session listens at `path`."""

    def __init__(self, path: Path, timeout: float = _PATIENCE) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with short_address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise FileError(
                f"no session answers at {path}: {error.strerror or error}",
                hint="demon doctor lists the sessions that run",
            ) from None

    def ask(self, verb: str, **args: Any) -> Any:
        """Send one request; the result of its reply.

        Args:
            verb: one of `wire.VERBS`.
            args: the arguments of the verb.

        Raises:
            DemonError: the session refused.
            SessionGone: it does not answer.
        """
        with self._lock:
            self._number += 1
            number = self._number
            try:
                self._socket.sendall(wire.request(number, verb, args))
                line = self._line()
            except OSError as error:
                self._socket.close()
                raise gone(str(error.strerror or error)) from None
        answered, result = wire.parse_reply(line)
        if answered != number:
            self.close()
            raise gone("its answers are out of step")
        return result

    def follow(self, kinds: str) -> Iterator[tuple[str, Any]]:
        """Ask for pushed events, then give each as (kind, value) until the connection ends.

        Nothing else can be asked afterwards. Raises as `ask` does.
        """
        self.ask("follow", kinds=kinds)
        self._socket.settimeout(None)

        def pushed() -> Iterator[tuple[str, Any]]:
            with contextlib.suppress(OSError, wire.WireError):
                while True:
                    kind, value = wire.parse_pushed(self._line())
                    if kind != wire.BEAT:
                        yield kind, value

        return pushed()

    def _line(self) -> bytes:
        rows = [self._buffer]
        size = len(self._buffer)
        while b"\n" not in rows[-1]:
            data = self._socket.recv(256 * 1024)
            size += len(data)
            if not data or size > wire.MAX_REPLY:
                raise OSError("it closed the connection" if not data else "its answer has no end")
            rows.append(data)
        line, _, self._buffer = b"".join(rows).partition(b"\n")
        return line

    def close(self) -> None:
        """Close the connection. The session plays on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def gone(why: str) -> SessionGone:
    """The error for a session that does not answer any more."""
    return SessionGone(
        f"the session does not answer ({why})",
        hint="demon doctor lists the sessions that run; demon live starts a new one",
    )


def connect(name: str | None = None, timeout: float = _PATIENCE) -> Connection:
    """A connection to the session of that name; None: the default one, or the only one."""
    return Connection(socket_path(choose(name)), timeout)


def author(name: str | None = None) -> str:
    """Who evaluates: `name`, or else the login name, without what no name may have.

    Raises UsageError for a malformed name.
    """
    if name is None:
        # A user without a name, as in some containers.
        with contextlib.suppress(OSError, KeyError):
            return re.sub(r"[^\w-]", "_", getpass.getuser())[:32]
        return ""
    if not wire.AUTHOR.fullmatch(name):
        raise UsageError(f"{name[:40]!r} is no name for a performer", hint=wire.NAME_HINT)
    return name


def choose(name: str | None) -> str:
    """The name of the running session to use: `name`, or the default one, or the only one.

    Raises FileError if it does not run; of the path of a socket a connection shows that.
    """
    if name is not None:
        if "/" in name or find(name) is not None:
            return name
    elif find(DEFAULT) is not None:
        return DEFAULT
    running = [info.name for info in sessions()]
    if name is None and len(running) == 1:
        return running[0]
    if not running:
        raise FileError("no session plays", hint="start one: demon live")
    what = "which session?" if name is None else f"no session called {name!r} plays"
    raise FileError(what, hint=f"there are: {', '.join(running)}; choose with --name NAME")


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """The path, or a short name for it: addresses of unix sockets have about 100 bytes."""
    address = os.fspath(path)
    if len(os.fsencode(address)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield address
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
