"""A connection to another machine: whole messages, in order, both ways, over TCP; and its delay.

    up     states and control blocks (pickled; the server runs what the laptop says, as Ray itself
           does), beats
    down   JSON and sound only: what a laptop reads from another machine can run nothing

The connection is TLS 1.3. The server makes a certificate for itself; the client has its fingerprint
through Ray and takes no other. Then the client sends a key that the server has through Ray. Nothing
else is read before that, and all of it takes at most five seconds.

Ray carries the engine; the stream has a connection of its own because Ray
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
import datetime
import hashlib
import hmac
import json
import secrets
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.core import RATES
from demon_live.errors import EngineError

#: Bytes that may lie unsent in the kernel; seconds for a whole handshake.
_UNSENT, _HANDSHAKE = 16384, 5.0
#: Bytes of a key; what the server says to a client that knows it; bytes read or written at once.
KEY, _WELCOME, _PIECE = 32, b"welcome", 1 << 16
#: No message is longer: a source of ten minutes.
_LONGEST = 256 << 20

Message = bytes | Callable[[], bytes | None]


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A message down: JSON and bytes."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("!I", len(text)) + text + body


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """See `pack`. Raises ValueError if malformed."""
    if len(data) < 4:
        raise ValueError("a message of less than 4 bytes")
    (length,) = struct.unpack_from("!I", data)
    head = json.loads(data[4 : 4 + length])
    if not isinstance(head, dict):
        raise ValueError("a message without a head")
    return head, data[4 + length :]


def _tuned(sock: socket.socket) -> None:
    options = (("TCP_NODELAY", 1), ("TCP_NOTSENT_LOWAT", _UNSENT), ("TCP_CONGESTION", b"bbr"))
    for name, value in options:
        option = getattr(socket, name, None)
        # Not every system has it, or allows it.
        with contextlib.suppress(OSError):
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


class TlsConnection:
    """Whole messages over TLS. One thread may read while another writes.

    Args:
        sock: connected; it is closed if the handshake fails.
        context: of this end.
        server: whether this end is the server.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        self._sock = sock
        self._until: float | None = time.monotonic() + _HANDSHAKE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        # TLS itself is for one thread at a time; this is never held while the socket is waited for.
        self._lock = threading.Lock()

    def handshake(self, key: bytes, fingerprint: bytes | None = None) -> TlsConnection:
        """Make sure who the other end is: of the client by its key, of the server by the
        fingerprint of its certificate. Raises ConnectionRefusedError, and closes the socket."""
        try:
            _tuned(self._sock)
            self._begin()
            if fingerprint is None:
                if not hmac.compare_digest(self._read(KEY), key):
                    raise ValueError("another key")
                self._write(_WELCOME)
            else:
                certificate = self._tls.getpeercert(binary_form=True) or b""
                if not hmac.compare_digest(hashlib.sha256(certificate).digest(), fingerprint):
                    raise ValueError("another certificate")
                self._write(key)
                if self._read(len(_WELCOME)) != _WELCOME:
                    raise ValueError("no welcome")
            self._until = None
            self._sock.settimeout(None)
        # Whatever a stranger sends, and however it fails.
        except Exception as error:
            self.close()
            raise ConnectionRefusedError(f"refused: {error or 'it hung up'}") from error
        return self

    def _begin(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                pass
            finally:
                self._send(self._outgoing.read())
            self._receive()

    def _limit(self) -> None:
        """Before each wait of a handshake: the time that is left."""
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the handshake takes too long")
            self._sock.settimeout(left)

    def _receive(self) -> None:
        self._limit()
        data = self._sock.recv(_PIECE)
        if not data:
            raise EOFError
        with self._lock:
            self._incoming.write(data)

    def _send(self, data: bytes) -> None:
        self._limit()
        self._sock.sendall(data)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                with self._lock:
                    piece = self._tls.read(min(size - len(data), _PIECE))
            except ssl.SSLWantReadError:
                self._receive()
                continue
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            with self._lock:
                rest = rest[self._tls.write(rest[:_PIECE]) :]
                sealed = self._outgoing.read()
            self._send(sealed)

    def send_bytes(self, data: bytes) -> None:
        """One message. Raises OSError."""
        self._write(struct.pack("!I", len(data)) + data)

    def recv_bytes(self, longest: int = _LONGEST) -> bytes:
        """The next message; waits for it. Raises EOFError or OSError."""
        (size,) = struct.unpack("!I", self._read(4))
        if size > longest:
            raise OSError(f"a message of {size} bytes")
        return self._read(size)

    def shutdown(self) -> None:
        """End the connection; threads that read or write wake up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


def dial(
    host: str, port: int, key: bytes, fingerprint: bytes, seconds: float = 2.0
) -> TlsConnection:
    """A connection to a far engine that listens. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # No authority vouches for it, and no name: the fingerprint does.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = socket.create_connection((host, port), timeout=seconds)
    return TlsConnection(sock, context, server=False).handshake(key, fingerprint)


def server_tls() -> tuple[ssl.SSLContext, bytes]:
    """A server's TLS with a certificate made now, and the certificate's fingerprint (SHA-256).

    Raises EngineError.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise EngineError(
            "no certificate can be made: cryptography is not installed at the engine's machine",
            hint="pip install 'demon-live[ray]' there",
        ) from error
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "demon-live")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + 3650 * day)
        .sign(private, hashes.SHA256())
    )
    pem, password = serialization.Encoding.PEM, secrets.token_bytes(32)
    sealed = private.private_bytes(
        pem,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # ssl reads certificates from files only.
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(sealed + certificate.public_bytes(pem))
        context.load_cert_chain(chain, password=password)
    return context, certificate.fingerprint(hashes.SHA256())


class Transport:
    """A connection with a thread that writes. heard: called for each message, by `read`.

    idle: makes a message to send every `every` seconds (a beat), when its turn has come.
    """

    def __init__(
        self,
        conn: TlsConnection,
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
        self._conn.shutdown()

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
