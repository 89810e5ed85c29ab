"""The web view: read-only pages for the projector, served by the session itself on loopback: what
plays, and visuals that follow it.

The token in its address is the only key. The page brings its own style and script, loads nothing
from elsewhere (its Content-Security-Policy says so) and opens one websocket: JSON, and binary for
pictures of the sound. A slow page misses messages, the newest of each kind counts; it never holds
up the session or another page. Without a page nothing is computed.

Checked before each answer: the Host (against DNS rebinding), the token (in constant time), the
Origin of the websocket. Bounded: pages, length of messages, messages a second. The token is stored,
so that an open page finds the next session, too. A sketch for the visuals is a file that the
command line named; as code that is made at run time (Hydra's shaders) needs it, its page allows
`eval`.

Threads: one, with an event loop of its own; `parse_web` is pure.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import importlib
import json
import logging
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from demon_live._version import __version__
from demon_live.control.server import RateLimit
from demon_live.control.web_state import PageState
from demon_live.control.wire import WireError
from demon_live.errors import DeviceError, UsageError
from demon_live.paths import install, state_dir

if TYPE_CHECKING:
    from demon_live.session.session import Session

log = logging.getLogger(__name__)
# A broken handshake is no news for a performer.
_quiet = logging.getLogger("demon_live.control.web.handshakes")
_quiet.setLevel(logging.CRITICAL)
_quiet.propagate = False

#: The default port.
PORT = 8808
MAX_PAGES = 16
#: Connections that have not shown a token yet; for one more, the oldest is ended.
MAX_STRANGERS = 64
MAX_MESSAGE = 1024
#: Frames a second; looks at the status; pictures of the sound.
FRAMES, LOOKS, SOUNDS = 30, 10, 3

_SCRIPTS = ("app", "draw", "inputs", "moment", "sketch", "visuals")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/visuals": ("visuals.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
#: What is not the same for everybody.
_SECRET = ("/", "/visuals", "/sketch.js")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'{code}; style-src 'self'; "
    "connect-src 'self' {sockets}; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The only message of a page: how many frames a second it wants."""

    frames: int = FRAMES


def parse_web(data: bytes) -> PageRequest:
    """Read the message of a page. Raises WireError if malformed."""
    if len(data) > MAX_MESSAGE:
        raise WireError(f"a message has {len(data)} bytes; the limit is {MAX_MESSAGE}")
    try:
        row = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"this is not JSON: {str(error)[:80]}") from None
    if not isinstance(row, dict) or set(row) != {"frames"}:
        raise WireError("a page may say how many frames it wants, and nothing else")
    frames = row["frames"]
    if type(frames) is not int or not 1 <= frames <= 60:
        raise WireError("frames: 1 to 60 a second")
    return PageRequest(frames)


def token() -> str:
    """The secret of this user's pages; created once, in a file that only the user can read."""
    path = state_dir() / "web-token"
    with contextlib.suppress(OSError):
        known = path.read_text(encoding="ascii").strip()
        if len(known) >= 32 and not path.stat().st_mode & 0o077:
            return known
        path.unlink()
    secret = secrets.token_urlsafe(24)
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w", encoding="ascii") as out:
            out.write(secret)
    return secret


@dataclass(eq=False)
class _Page:
    """An open page. waiting: the newest message of each kind, still to be sent."""

    waiting: dict[str, str | bytes] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    frames: int = FRAMES

    def put(self, kind: str, message: str | bytes) -> None:
        self.waiting[kind] = message
        self.wake.set()


class WebServer:
    """Serves the view of `session`, which runs in this process, until `close`.

    port: None = the usual one, or any free one. sketch: a script for the visuals; None = our own.

    Raises UsageError if the package websockets is not installed, DeviceError for a taken port.
    """

    def __init__(
        self,
        session: Session,
        port: int | None = None,
        *,
        secret: str | None = None,
        sketch: Path | None = None,
    ) -> None:
        require()
        self._sketch = sketch
        self._state = PageState(session)
        self._secret = secret or token()
        self._pages: set[_Page] = set()
        self._strangers: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._ready: threading.Event = threading.Event()
        self._failed: list[OSError] = []
        self._stop = asyncio.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, args=(port,), name="web", daemon=True)
        self._thread.start()
        self._ready.wait(10)
        if self._failed:
            self._thread.join(1)
            raise DeviceError(
                f"the web view cannot be served at port {port}: {self._failed[0].strerror}",
                hint="choose another: --web 8809",
            )

    @property
    def url(self) -> str:
        """The page's address, token included."""
        return f"http://127.0.0.1:{self.port}/?t={self._secret}"

    @property
    def visuals(self) -> str:
        """The address of the visuals, token included."""
        return f"http://127.0.0.1:{self.port}/visuals?t={self._secret}"

    # --- the thread ---------------------------------------------------------------------------

    def _run(self, port: int | None) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(port))
        except OSError as error:
            self._failed.append(error)
        except Exception:
            log.exception("the web view ended")
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self, port: int | None) -> None:
        async with await self._listen(port) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            sending = asyncio.create_task(self._send())
            await self._stop.wait()
            sending.cancel()

    async def _listen(self, port: int | None) -> Any:
        serve = _package("asyncio.server").serve
        options = {
            "create_connection": self._connection_type(),
            "process_request": self._admit,
            "max_size": MAX_MESSAGE,
            "compression": None,
            "open_timeout": 5,
            "close_timeout": 1,
            "write_limit": 64 * 1024,
            "server_header": None,
            "logger": _quiet,
        }
        try:
            return await serve(self._talk, "127.0.0.1", PORT if port is None else port, **options)
        except OSError:
            if port is not None:
                raise
            return await serve(self._talk, "127.0.0.1", 0, **options)

    def _connection_type(self) -> type:
        """The package's connection, counted until it is a page or gone."""
        strangers = self._strangers

        class Counted(_package("asyncio.server").ServerConnection):  # type: ignore[misc]
            def connection_made(self, transport: asyncio.Transport) -> None:
                if len(strangers) >= MAX_STRANGERS:
                    strangers.pop(0).transport.abort()
                strangers.append(self)
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                with contextlib.suppress(ValueError):
                    strangers.remove(self)
                super().connection_lost(exc)

        return Counted

    # --- who may see ----------------------------------------------------------------------------

    def _admit(self, connection: Any, request: Any) -> Any:
        """Answer a request for a file; None lets a websocket open."""
        try:
            return self._judge(connection, request)
        # An address that is none, a header that is there twice.
        except (ValueError, LookupError):
            return self._answer(connection, http.HTTPStatus.BAD_REQUEST)

    def _judge(self, connection: Any, request: Any) -> Any:
        hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        host = request.headers.get("Host", "")
        address = urlsplit(request.path)
        if host not in hosts:
            return self._answer(connection, http.HTTPStatus.FORBIDDEN)
        key = parse_qs(address.query).get("t", [""])[0]
        known = hmac.compare_digest(key.encode(), self._secret.encode())
        if address.path == "/ws":
            origin = request.headers.get("Origin", "")
            full = len(self._pages) >= MAX_PAGES
            if not known or origin != f"http://{host}":
                return self._answer(connection, http.HTTPStatus.FORBIDDEN)
            return self._answer(connection, http.HTTPStatus.SERVICE_UNAVAILABLE) if full else None
        if address.path not in _FILES:
            return self._answer(connection, http.HTTPStatus.NOT_FOUND)
        if address.path in _SECRET and not known:
            return self._answer(connection, http.HTTPStatus.FORBIDDEN)
        name, kind = _FILES[address.path]
        path = Path(__file__).parent / "page" / name
        if name == "sketch.js" and self._sketch is not None:
            path = self._sketch
        try:
            body = path.read_bytes()
        except OSError:
            return self._answer(connection, http.HTTPStatus.NOT_FOUND)
        code = " 'unsafe-eval'" if name == "visuals.html" and self._sketch is not None else ""
        return self._answer(connection, http.HTTPStatus.OK, body, kind, code)

    def _answer(
        self,
        connection: Any,
        status: http.HTTPStatus,
        body: bytes = b"",
        kind: str = "text/plain",
        code: str = "",
    ) -> Any:
        response = connection.respond(status, "")
        response.body = body or f"{status.value} {status.phrase}\n".encode()
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        response.headers["Content-Type"] = kind
        response.headers["Content-Length"] = str(len(response.body))
        for name, value in _HEADERS.items():
            # Not every browser counts a websocket to the same host and port as 'self'.
            sockets = f"ws://127.0.0.1:{self.port} ws://localhost:{self.port}"
            response.headers[name] = value.replace("{sockets}", sockets).replace("{code}", code)
        return response

    # --- pages ----------------------------------------------------------------------------------

    async def _talk(self, connection: Any) -> None:
        page = _Page()
        self._pages.add(page)
        with contextlib.suppress(ValueError):
            self._strangers.remove(connection)
        self._state.forget()
        page.put("hello", json.dumps({"k": "hello", "version": __version__}))
        for kind, message in self._state.all().items():
            page.put(kind, message)
        writing = asyncio.create_task(self._write(connection, page))
        try:
            await self._read(connection, page)
        except WireError as error:
            await connection.close(1008, error.message[:100])
        except _package("exceptions").ConnectionClosed:
            pass
        finally:
            self._pages.discard(page)
            writing.cancel()

    async def _read(self, connection: Any, page: _Page) -> None:
        limit = RateLimit(5.0, 10.0)
        async for message in connection:
            if not limit.allow():
                raise WireError("a page that says too much")
            data = message if isinstance(message, bytes) else message.encode()
            page.frames = parse_web(data).frames

    async def _write(self, connection: Any, page: _Page) -> None:
        with contextlib.suppress(_package("exceptions").ConnectionClosed):
            while True:
                await page.wake.wait()
                page.wake.clear()
                waiting, page.waiting = page.waiting, {}
                for message in waiting.values():
                    await connection.send(message)

    # --- sending -------------------------------------------------------------------------------

    async def _send(self) -> None:
        turn = 0
        due = self._loop.time()
        while True:
            due = max(due + 1 / FRAMES, self._loop.time())
            await asyncio.sleep(due - self._loop.time())
            if not self._pages:
                continue
            turn += 1
            # A wall: a message that cannot be made must not end the others.
            try:
                self._send_once(turn)
            except Exception:
                log.exception("the web view")
                await asyncio.sleep(1.0)

    def _send_once(self, turn: int) -> None:
        if turn % (FRAMES // LOOKS) == 1:
            for kind, message in self._state.look().items():
                self._show(kind, message)
        frame = self._state.frame()
        for page in self._pages:
            # A change of the lit steps is sent once: its frame may not be lost.
            kind = "lit" if '"L":' in frame else "frame"
            if kind == "lit" or turn % max(1, FRAMES // page.frames) == 0:
                page.put(kind, frame)
        if turn % (FRAMES // SOUNDS) == 0:
            sound = self._state.sound()
            if sound is not None:
                self._show(f"sound{sound[1]}", sound)

    def _show(self, kind: str, message: str | bytes) -> None:
        for page in self._pages:
            page.put(kind, message)

    def close(self) -> None:
        """Stop serving. Twice is fine."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(3)


def require() -> None:
    """Raise UsageError where the package is missing."""
    _package("asyncio.server")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(f"websockets.{name}")
    except ImportError:
        raise UsageError("the web view needs the package websockets", hint=install("web")) from None
