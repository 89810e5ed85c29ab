"""A connection to another machine: whole messages, in order, both ways, over TCP; and its delay.

    up     states and control blocks (pickled; the server runs what the laptop says, as Ray itself
           does), beats
    down   JSON and sound only: what a laptop reads from another machine can run nothing

Both ends prove that they know a secret that came through Ray (HMAC, `multiprocessing.connection`);
nothing is encrypted. Ray carries the engine; the stream has a connection of its own because Ray
moves results of calls, each through a proxy and an object store, and reports a broken link after
half a minute, while this must know within two seconds and drop what is too old to be heard.

The kernel keeps little that is not sent (TCP_NOTSENT_LOWAT), so that what waits, waits here, where
it can be counted and replaced; BBR is asked for where the kernel has it, since others take each
lost packet for a full link (at 40 ms and 1 % loss, CUBIC sends 1.5 Mbit/s).

Delay: no clocks are compared. The laptop says with every beat which sample its mixer decides next;
the fastest of the recent beats is believed (`RemotePlayhead`). For each window the laptop says
where its mixer was when the window arrived; the difference to the estimate at its sending is added
to the lead (`Delay`). It holds both ways and every queue between, whatever the clocks' offset is.

Threads: `send` from any thread; one thread writes, one reads, both end with the connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

import numpy as np

from demon_live.core import RATES

#: Bytes that may lie unsent in the kernel; seconds for a handshake.
_UNSENT, _HANDSHAKE = 16384, 5.0
#: No message is longer: a source of ten minutes.
_LONGEST = 256 << 20

Message = bytes | Callable[[], bytes | None]


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A message down: JSON and bytes."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("!I", len(text)) + text + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """See `pack`. Raises ValueError for what is none."""
    if len(data) < 4:
        raise ValueError("a message of less than 4 bytes")
    (length,) = struct.unpack_from("!I", data)
    head = json.loads(data[4 : 4 + length])
    if not isinstance(head, dict):
        raise ValueError("a message without a head")
    return head, data[4 + length :]


def _tuned(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_NOTSENT_LOWAT", _UNSENT), ("TCP_CONGESTION", b"bbr")):
        option = getattr(socket, name, None)
        # Not every system has it, or allows it.
        with contextlib.suppress(OSError):
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def shake(sock: socket.socket, key: bytes, *, first: bool) -> Connection:
    """The socket as a connection whose other end knows the key. first: this end asks first.

    Raises OSError, EOFError or AuthenticationError, and the socket is closed.
    """
    limit = struct.pack("ll", int(_HANDSHAKE), 0)
    try:
        _tuned(sock)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, limit)
        sock.setblocking(True)
    except OSError:
        # Who called has hung up already.
        sock.close()
        raise
    conn = Connection(sock.detach())
    try:
        steps = (deliver_challenge, answer_challenge)
        for step in steps if first else reversed(steps):
            step(conn, key)
    except BaseException:
        conn.close()
        raise
    with socket.socket(fileno=_copy(conn)) as same:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 0))
    return conn


def _copy(conn: Connection) -> int:
    return os.dup(conn.fileno())


def dial(host: str, port: int, key: bytes, seconds: float = 2.0) -> Connection:
    """A connection to a far engine that listens. Raises OSError, EOFError, AuthenticationError."""
    return shake(socket.create_connection((host, port), timeout=seconds), key, first=False)


class Transport:
    """A connection with a thread that writes. heard: called for each message, by `read`.

    idle: makes a message to send every `every` seconds (a beat), when its turn has come.
    """

    def __init__(
        self,
        conn: Connection,
        idle: Callable[[], bytes | None] = lambda: None,
        every: float | None = None,
    ) -> None:
        self._conn = conn
        self._idle, self._every = idle, every
        self._waiting: deque[Message] = deque()
        # Of those, which may be dropped for newer ones.
        self._fleeting: deque[Message] = deque()
        self._keyed: dict[str, Message] = {}
        self._ready = threading.Condition()
        self._closed = self._last = False
        self.sent = self.received = self.dropped = 0
        self._writer = threading.Thread(target=self._write, name="line-out", daemon=True)
        self._writer.start()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def queued(self) -> int:
        """Messages that wait."""
        return len(self._waiting) + len(self._keyed) + len(self._fleeting)

    def send(self, message: Message, key: str = "", keep: int | None = None) -> None:
        """Queue a message, or a function that makes it when its turn comes (None: nothing to say).

        key: replaces the one of that key that still waits. keep: it may be dropped, and of such
        messages only the newest `keep` wait."""
        with self._ready:
            if key:
                self._keyed[key] = message
            elif keep is not None:
                self._fleeting.append(message)
                while len(self._fleeting) > keep:
                    self._fleeting.popleft()
                    self.dropped += 1
            else:
                self._waiting.append(message)
            self._ready.notify()

    def _next(self) -> Message | None:
        with self._ready:
            if not self.queued and not self._closed and not self._last:
                self._ready.wait(self._every)
            if self._waiting:
                return self._waiting.popleft()
            if self._keyed:
                return self._keyed.pop(next(iter(self._keyed)))
            if self._fleeting:
                return self._fleeting.popleft()
        return None

    def _write(self) -> None:
        due = 0.0
        try:
            while not self._closed:
                message = self._next()
                if message is None and self._last:
                    return
                data = message() if callable(message) else message
                if data is not None:
                    self._conn.send_bytes(data)
                    self.sent += len(data)
                if self._every is not None and time.monotonic() >= due:
                    due = time.monotonic() + self._every
                    if (beat := self._idle()) is not None:
                        self._conn.send_bytes(beat)
                        self.sent += len(beat)
        except (OSError, ValueError):
            self.close()

    def read(self) -> bytes:
        """The next message; waits for it. Raises EOFError or OSError when the line has ended."""
        data = self._conn.recv_bytes(_LONGEST)
        self.received += len(data)
        return data

    def close(self) -> None:
        """End the connection at once; threads that read or write wake up."""
        with self._ready:
            if self._closed:
                return
            self._closed = True
            self._ready.notify_all()
        with contextlib.suppress(OSError), socket.socket(fileno=_copy(self._conn)) as same:
            same.shutdown(socket.SHUT_RDWR)

    def finish(self, seconds: float) -> None:
        """Send what waits, for at most so long, and close."""
        with self._ready:
            self._last = True
            self._ready.notify_all()
        self._writer.join(seconds)
        self.close()

    def release(self) -> None:
        """After `close`, when no thread reads any more: close the descriptor."""
        self.close()
        self._writer.join(5)
        with contextlib.suppress(OSError):
            self._conn.close()


#: Seconds of beats that the playhead is estimated from: longer, and two clocks drift apart.
_MEMORY = 5.0


class RemotePlayhead:
    """The playhead of the laptop, estimated. See `clock.Clock`."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._beats: deque[tuple[float, float]] = deque()
        self._ahead: float | None = None
        self._last = 0

    def beat(self, mixed: int) -> None:
        """A beat came: the laptop's mixer decides sample `mixed` next."""
        now = self._seconds()
        self._beats.append((now, mixed - now * RATES.sample_rate))
        while self._beats[0][0] < now - _MEMORY:
            self._beats.popleft()
        self._ahead = max(ahead for _, ahead in self._beats)

    @property
    def known(self) -> bool:
        """Whether a beat has come."""
        return self._ahead is not None

    def now(self) -> int:
        if self._ahead is None:
            return self._last
        # Never back: what was decided stays decided.
        self._last = max(self._last, int(self._seconds() * RATES.sample_rate + self._ahead))
        return self._last


class Delay:
    """What windows take to arrive, samples. The lead covers the slowest of the last `memory` s."""

    #: The most that is added to the lead: later windows are dropped. The longest that is believed.
    CEILING = 2 * RATES.sample_rate

    def __init__(
        self,
        first: int = 9600,
        memory: float = 30.0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._memory, self._seconds = first, memory, seconds
        self._seen: deque[tuple[float, int]] = deque(maxlen=4096)

    def note(self, samples: int) -> None:
        """A window was on its way for so many samples."""
        now = self._seconds()
        self._seen.append((now, max(0, samples)))
        while self._seen[0][0] < now - self._memory:
            self._seen.popleft()

    @property
    def lead(self) -> int:
        """Samples to add to the lead: the slowest of late, and a tenth. Before anything is known,
        a guess."""
        if not self._seen:
            return self._first
        return min(self.CEILING, max(samples for _, samples in self._seen) * 11 // 10)

    def figures(self) -> tuple[float, float]:
        """(median, 95th percentile less the median) in ms."""
        if not self._seen:
            return 0.0, 0.0
        ms = np.array([samples for _, samples in self._seen]) * 1000 / RATES.sample_rate
        middle, late = np.percentile(ms, [50, 95])
        return round(float(middle), 1), round(float(late - middle), 1)
