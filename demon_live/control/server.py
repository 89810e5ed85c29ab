"""The control socket of a session: who may connect, the limits, and the replies.

Only processes of the same user may connect (the folder is 0700, the socket 0600, and the kernel
says who connects). Bounded: clients, length of requests, time to finish one, requests a second; a
client that is too fast waits, one that does not read is dropped. None of this holds up another
client, nor the sound, which other processes make.

Threads: one accepts, one serves each client; the session's own lock puts statements in order.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from demon_live.control import wire
from demon_live.control.client import short_address
from demon_live.control.wire import ControlRequest, WireError, pack
from demon_live.errors import DemonError
from demon_live.session.agenda import Handle
from demon_live.session.scores import score_name
from demon_live.session.session_api import SessionApi
from demon_live.session.status import came_in
from demon_live.session.undo import AUTHOR, speaking_as

log = logging.getLogger(__name__)

#: Clients, and pushed events that wait for one of them.
MAX_CLIENTS, MAX_PUSHED = 32, 1024
#: Seconds of silence after which a client makes room for another.
SILENCE = 60.0
#: Seconds in which a request that has begun must end, and in which a reply must be taken.
REQUEST_TIME = 5.0
#: Requests a second of one client, and how many it may be ahead.
RATE, BURST = 400.0, 400.0
#: The same for statements, of all clients together.
EVAL_RATE, EVAL_BURST = 100.0, 200.0
#: Seconds without an event after which a client that follows is sent a sign of life.
_BEAT = 1.0


class RateLimit:
    """A token bucket, for any thread: a request that comes too soon waits (`wait`) or is refused
    (`allow`)."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Count a request; the seconds until it is due."""
        with self._lock:
            self._fill()
            self._tokens -= 1
            return max(0.0, -self._tokens / self._rate)

    def allow(self) -> bool:
        """Whether a request is due now; it counts only if it is."""
        with self._lock:
            self._fill()
            allowed = self._tokens >= 1
            self._tokens -= allowed
            return allowed

    def _fill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class ControlServer:
    """Serves `session` at the socket `path` until `close`.

    who: answers `hello`. tell: called with a line about what came in. quit: called when a client
    asks for the end. Raises OSError if the socket cannot be made.
    """

    def __init__(
        self,
        session: SessionApi,
        path: Path,
        *,
        who: Callable[[], Mapping[str, Any]] = dict,
        tell: Callable[[str], None] = lambda text: None,
        quit: Callable[[], None] = lambda: None,
    ) -> None:
        self._session, self._path = session, path
        self._quit, self._tell = quit, tell
        self._ending = threading.Event()
        self._closed = threading.Event()
        self._evaluations = RateLimit(EVAL_RATE, EVAL_BURST)
        #: Since when each waits for its next request; infinity while one is answered.
        self._clients: dict[socket.socket, float] = {}
        #: What each client that follows is still to be sent.
        self._pushes: dict[socket.socket, tuple[Handle, queue.Queue[tuple[str, Any]]]] = {}
        self._lock = threading.Lock()
        self._verbs: dict[str, Callable[..., Any]] = {
            "hello": lambda: {"protocol": wire.PROTOCOL, **who()},
            "apply": self._apply,
            "at": self._at,
            "load": self._load,
            "save": self._save,
            "remove": lambda name: pack(session.remove(name)),
            "status": lambda: pack(session.status()),
            "events": self._events,
            "scores": lambda: dict(session.scores()),
            "score": lambda folder: session.score(Path(folder) if folder else None),
            "words": lambda: pack(session.words()),
            "quit": self._end,
        }
        self._listener = _listen(path)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    # --- clients ------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                # Closed; or out of file descriptors, which must not become a busy loop.
                if self._closed.wait(0.1):
                    return
                continue
            client.settimeout(REQUEST_TIME)
            refusal = self._refuse(client)
            if refusal is not None:
                with contextlib.suppress(OSError):
                    client.sendall(wire.reply(0, error=refusal))
                client.close()
                continue
            threading.Thread(
                target=self._serve, args=(client,), name="control-client", daemon=True
            ).start()

    def _refuse(self, client: socket.socket) -> WireError | None:
        """Why this client may not connect; None: it may, and it is counted."""
        if not same_user(client):
            return WireError("this session belongs to another user")
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS and not self._drop_silent():
                return WireError(
                    f"{MAX_CLIENTS} programs are connected to this session already",
                    hint="close one of them",
                )
            self._clients[client] = time.monotonic()
        return None

    def _drop_silent(self) -> bool:
        """Hang up on the client that has been silent longest, if that is long enough."""
        silent, since = min(self._clients.items(), key=lambda item: item[1])
        if time.monotonic() - since < SILENCE:
            return False
        del self._clients[silent]
        with contextlib.suppress(OSError):
            silent.shutdown(socket.SHUT_RDWR)
        return True

    def _note(self, client: socket.socket, since: float) -> None:
        with self._lock:
            if client in self._clients:
                self._clients[client] = since

    def _serve(self, client: socket.socket) -> None:
        limit, buffer = RateLimit(RATE, BURST), b""
        try:
            while not self._closed.is_set():
                line, buffer = _read_line(client, buffer)
                if line is None:
                    return
                if self._closed.wait(limit.wait()):
                    return
                self._note(client, math.inf)
                answer = self._answer(line, client)
                # Before it is sent: who asks next, having read it, is silent for a shorter time.
                if client not in self._pushes:
                    self._note(client, time.monotonic())
                client.sendall(answer)
                if client in self._pushes:
                    self._push(client)
                # Only now: the end closes this connection, too.
                if self._ending.is_set():
                    self._quit()
        except WireError as error:
            # The request has no end: nothing shows where the next one begins.
            with contextlib.suppress(OSError):
                client.sendall(wire.reply(0, error=error))
        except OSError:
            pass
        finally:
            with self._lock:
                self._clients.pop(client, None)
            if client in self._pushes:
                self._pushes.pop(client)[0].cancel()
            client.close()

    # --- pushed events ------------------------------------------------------------------------

    def _follow(self, client: socket.socket, kinds: str) -> bool:
        """Let what happens wait for this client from now on."""
        events: queue.Queue[tuple[str, Any]] = queue.Queue(MAX_PUSHED)

        def happened(kind: str, value: Any) -> None:
            try:
                events.put_nowait((kind, value))
            except queue.Full:
                # It does not read.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

        self._pushes[client] = self._session.watch(kinds.split(), happened), events
        return True

    def _push(self, client: socket.socket) -> None:
        """Send what happens until the connection ends, which raises OSError."""
        _, events = self._pushes[client]
        while not self._closed.is_set():
            try:
                event = events.get(timeout=_BEAT)
            except queue.Empty:
                # Else nothing would show that the client has left.
                event = wire.BEAT, None
            client.sendall(wire.pushed(*event))

    # --- answers ------------------------------------------------------------------------------

    def _answer(self, line: bytes, client: socket.socket) -> bytes:
        number = 0
        try:
            request = wire.parse_request(line)
            number = request.id
            return wire.reply(number, ok=self._do(request, client))
        except DemonError as error:
            return wire.reply(number, error=error)
        # A wall: no request, however strange, may end the server.
        except Exception as error:
            log.exception("a request failed")
            return wire.reply(number, error=error)

    def _do(self, request: ControlRequest, client: socket.socket) -> Any:
        if self._ending.is_set():
            raise WireError("the session is ending")
        if request.do in wire.EVALUATIONS:
            self._closed.wait(self._evaluations.wait())
        if request.do == "follow":
            return self._follow(client, **request.args)
        args = dict(request.args)
        with speaking_as(args.pop("by", "") or None):
            return self._verbs[request.do](**args)

    def _apply(self, text: str, name: str, origin: str) -> Any:
        # A file has one name, whatever path it was sent by.
        name = score_name(name) if origin == "file" else name
        outcome = self._session.apply(text, name, origin)
        door, what = ("<send>", name) if origin == "file" else (name, text)
        self._came_in(door, what)
        return pack(outcome)

    def _load(self, path: str) -> Any:
        outcome = self._session.load(Path(path))
        self._came_in("<send>", score_name(path))
        return pack(outcome)

    def _save(self, path: str, text: str) -> Any:
        outcome = self._session.save(Path(path), text)
        self._came_in("<stage>", Path(path).name)
        return pack(outcome)

    def _came_in(self, door: str, what: str) -> None:
        self._tell(came_in(door, what, AUTHOR.get() or ""))

    def _at(self, text: str, name: str, cycle: str) -> Any:
        if not wire.CYCLE.fullmatch(cycle):
            raise WireError(f"{cycle!r} is no cycle", hint="write 8 or 17/2")
        return pack(self._session.apply(text, name, at=Fraction(cycle)))

    def _events(self, since: int) -> Mapping[str, Any]:
        newest, lines = self._session.events(since)
        # Events are numbered without gaps: the missing ones were forgotten, and are counted.
        lost = max(0, newest - since - len(lines)) if since else 0
        return {"newest": newest, "lines": list(lines), "lost": lost}

    def _end(self) -> bool:
        self._ending.set()
        return True

    def close(self) -> None:
        """Close every connection and the socket. Twice is fine."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):
            self._path.unlink()
        # A blocked accept is not woken by close alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join(1)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(path) as address:
            listener.bind(address)
        # The folder is ours alone, so nobody slips in between the two.
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


def same_user(client: socket.socket) -> bool:
    """Whether the process at the other end is ours, as far as the kernel can tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # there, the modes of the socket and its folder protect it
    data = client.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", data)
    return bool(user == os.getuid())


def _read_line(client: socket.socket, buffer: bytes) -> tuple[bytes | None, bytes]:
    """(a line or None at the end, what came after it). Raises WireError, OSError."""
    rows, size = [buffer], len(buffer)
    end = None if not buffer else time.monotonic() + REQUEST_TIME
    while b"\n" not in rows[-1]:
        if size > wire.MAX_REQUEST:
            raise WireError(
                f"a frame is longer than {wire.MAX_REQUEST} bytes", hint="split the score"
            )
        # Between two requests a client may be silent for as long as it likes.
        client.settimeout(None if end is None else max(0.001, end - time.monotonic()))
        data = client.recv(64 * 1024)
        if not data:
            return None, b""
        end = end or time.monotonic() + REQUEST_TIME
        rows.append(data)
        size += len(data)
    client.settimeout(REQUEST_TIME)
    line, _, rest = b"".join(rows).partition(b"\n")
    return line, rest
