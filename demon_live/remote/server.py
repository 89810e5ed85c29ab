"""The server of a remote engine: the ring in a Ray actor on another machine.

One laptop at a time. Its playhead is estimated from its beats (`away`), the time that windows are
on their way is added to the generator's lead, and with it to the anticipation: what is scheduled is
generated and sent that much earlier. When the line breaks the engine stays open and waits for the
next call; after ten minutes without one it ends.

Threads: `open` and `listen` are called by Ray; one thread plays, one accepts; each handshake has a
thread, and a line has its writer and a reader.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import socket
import ssl
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.core import RATES, ControlBlock, EngineState, Floats, Loop
from demon_live.errors import DemonError, EngineError, one_line
from demon_live.remote.codec import BlockOpener, close_generation, close_window, open_pcm
from demon_live.remote.transport import (
    Delay,
    RemotePlayhead,
    TlsConnection,
    Transport,
    pack,
    server_tls,
)
from demon_live.runtime.engine_main import opened, turn_for_ever
from demon_live.runtime.options import (
    EngineOptions,
    GenerationReport,
    Note,
    Opening,
    Ready,
    Telemetry,
)

if TYPE_CHECKING:
    from demon_live.models.engine import Engine
    from demon_live.runtime.generator import Generator
    from demon_live.runtime.placement import Window

#: Seconds: without a call for so long the engine ends; without beats a connection is broken.
IDLE, SILENCE = 600.0, 2.0
#: Seconds between two beats to the laptop.
BEAT = 0.2
#: PCM that is kept though nothing names it; windows that may wait to be sent.
_SPARE, _WAITING = 8, 6
#: Handshakes at a time: for one more, the oldest is ended.
HANDSHAKES = 8
_LONGEST = 600 * RATES.sample_rate


class EngineServer:
    """The actor. Plain data in, plain data out: errors come back as values."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._options: EngineOptions | None = None
        self._key = b""
        self._server: socket.socket | None = None
        self._tls: tuple[ssl.SSLContext, bytes] | None = None
        self._progress = ""

    def progress(self) -> str:
        """What `open` is doing."""
        return self._progress

    def _note_progress(self, text: str) -> None:
        self._progress = text

    def open(self, options: EngineOptions) -> str | DemonError:
        """Open the model; what it is, or why not."""
        if self._engine is None:
            try:
                self._tls = server_tls()
                self._engine = opened(Opening("", options), self._note_progress)
                self._engine.notes.extend(_in_front())
            except DemonError as error:
                return EngineError(error.message, hint=error.hint)
        return self._engine.describe()

    def listen(self, key: bytes) -> tuple[str, int, bytes]:
        """Wait for a client that knows the key; one that plays now is sent away.

        Returns:
            host, port, fingerprint of the certificate.
        """
        from demon_live.remote.ray import node_address

        self._key = key
        assert self._tls is not None
        host = node_address()
        if self._server is None:
            # The client may know the machine by another address than Ray does.
            everywhere = not host.startswith("127.")
            self._server = socket.create_server(("" if everywhere else host, 0), backlog=64)
            threading.Thread(target=self._run, name="far", daemon=True).start()
        return host, self._server.getsockname()[1], self._tls[1]

    def _run(self) -> None:
        from demon_live.remote.ray import end_actor

        assert self._engine is not None
        assert self._server is not None
        assert self._tls is not None
        try:
            serve(self._engine, self._server, lambda: self._key, self._tls[0], IDLE)
        finally:
            self._engine.close()
            end_actor()


def _in_front() -> list[str]:
    """Ray begins its workers at niceness 15, behind everything else: not for one that must be in
    time. A line for the performer where that cannot be changed from here."""
    if not hasattr(os, "setpriority") or os.getpriority(os.PRIO_PROCESS, 0) <= 0:
        return []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        # On Linux a thread has a niceness of its own.
        for thread in os.listdir("/proc/self/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), 0)
    except OSError:
        return ["the far engine runs behind other programs: start Ray with RAY_worker_niceness=0"]
    return []


class Listener:
    """Accepts clients; strangers cost a thread for some seconds and nothing else.

    Args:
        server: listens.
        key: what a client must know now.
        tls: of this end.
    """

    def __init__(
        self, server: socket.socket, key: Callable[[], bytes], tls: ssl.SSLContext
    ) -> None:
        self._server, self._key, self._tls = server, key, tls
        self._changed = threading.Condition()
        self._handshakes: list[TlsConnection] = []
        self._newest: tuple[TlsConnection, bytes] | None = None
        self.closed = False
        server.settimeout(0.5)
        threading.Thread(target=self._accept, name="far-door", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether somebody knocks."""
        return bool(self._handshakes)

    @property
    def waiting(self) -> bool:
        """Whether a client that knows the key waits to be served."""
        return self._newest is not None

    def next(self, seconds: float) -> tuple[TlsConnection, bytes] | None:
        """The newest client and the key that it knew, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting, seconds)
            newest, self._newest = self._newest, None
        return newest

    def _accept(self) -> None:
        while not self.closed:
            try:
                sock, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._server.fileno() < 0:
                    self.close()
                # Without descriptors or memory: later, perhaps.
                time.sleep(0.1)
                continue
            conn = TlsConnection(sock, self._tls, server=True)
            with self._changed:
                if len(self._handshakes) == HANDSHAKES:
                    self._handshakes.pop(0).shutdown()
                self._handshakes.append(conn)
            threading.Thread(
                target=self._greet, args=(conn,), name="far-knock", daemon=True
            ).start()

    def _greet(self, conn: TlsConnection) -> None:
        key = self._key()
        try:
            conn.handshake(key)
        except ConnectionRefusedError:
            return
        finally:
            with self._changed, contextlib.suppress(ValueError):
                self._handshakes.remove(conn)
        with self._changed:
            before, self._newest = self._newest, (conn, key)
            self._changed.notify()
        if before is not None:
            before[0].close()
        if self.closed:
            self.close()

    def close(self) -> None:
        """Accept no more."""
        self.closed = True
        if (newest := self.next(0)) is not None:
            newest[0].close()


def serve(
    engine: Engine,
    server: socket.socket,
    key: Callable[[], bytes],
    tls: ssl.SSLContext,
    idle: float = IDLE,
) -> None:
    """Serve clients one at a time until Quit or `idle` seconds without one. A client that dials
    again takes the place of its old connection."""
    listener = Listener(server, key, tls)
    try:
        _serve(engine, listener, key, idle)
    finally:
        listener.close()


def _serve(engine: Engine, listener: Listener, key: Callable[[], bytes], idle: float) -> None:
    pcm: dict[str, Floats] = {}
    before = b""
    last, warm = time.monotonic(), False
    while time.monotonic() - last < idle and not listener.closed:
        called = listener.next(0.5)
        if called is None:
            if listener.busy:
                last = time.monotonic()
            continue
        conn, mine = called
        # A beat of its own: a turn may take long, and the line is none the worse for it.
        line = Transport(conn, lambda: pack({"kind": "beat"}), BEAT)
        if mine != before:
            # Another laptop: what the last one asked for is of no use to it.
            pcm, before = {}, mine
        wanted = lambda mine=mine: key() == mine and not listener.waiting  # noqa: E731
        played = _Caller(engine, line, pcm, wanted)
        if played.run(warm):
            break
        warm = True
        last = time.monotonic()


class _Caller:
    """One line: the wire that the turning loop takes messages from."""

    def __init__(
        self,
        engine: Engine,
        line: Transport,
        pcm: dict[str, Floats],
        wanted: Callable[[], bool],
    ) -> None:
        self._engine, self._line, self._wanted = engine, line, wanted
        self._pcm, self._state = pcm, EngineState()
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._next: list[Any] = []
        self._openers: dict[str, BlockOpener] = {}
        self._playhead, self._delay = RemotePlayhead(), Delay()
        self._sent: OrderedDict[int, int] = OrderedDict()
        self._seq = 0
        self._beaten = time.monotonic()
        self._quit = False
        self._generator: Generator | None = None

    def run(self, warm: bool) -> bool:
        """Play until the line ends. True: the caller said Quit. warm: the engine has run before."""
        from demon_live.runtime.generator import Generator

        reader = threading.Thread(target=self._read, name="far-in", daemon=True)
        reader.start()
        generator: Generator | None = None
        try:
            hello = self._hello()
            engine = self._engine
            generator = Generator(
                engine,
                self._playhead,
                open_buffer=lambda name: np.zeros((1, 2), np.float32),
                read_pcm=self._pcm.__getitem__,
                tick_samples=round(engine.manifest.tick_ms * RATES.sample_rate / 1000),
                depth=hello["depth"],
                steps=hello["steps"],
                seed=hello["seed"],
                background=True,
                tell=lambda text: self.send(Note(text)),
                ship=self._ship,
            )
            self._generator, generator.warm = generator, warm
            generator.away = self._delay.lead
            generator.may_refresh = lambda: self._line.queued == 0
            self.send(Ready(engine.describe(), tuple(engine.notes)))
            turn_for_ever(self, engine, generator, hello["depth"])
        except (EOFError, OSError, ValueError, KeyError):
            pass
        # Whatever ends the engine, the performer reads why it is opened anew.
        except Exception as error:
            why = str(error) if isinstance(error, DemonError) else one_line(error)
            self.send(Note(f"engine: {why}"))
            self._line.finish(1.0)
            raise
        finally:
            if generator is not None:
                generator.leave()
            # Nobody may be reading when the descriptor goes: its number may serve the next call.
            self._line.close()
            reader.join(5)
            self._line.release()
        return self._quit

    def _hello(self) -> dict[str, Any]:
        """The caller's first word, once its playhead is known."""
        hello: dict[str, Any] | None = None
        while hello is None or not self._playhead.known:
            if self.poll(0.1):
                hello = self.recv()
        return hello

    # ------------------------------------------------------------------ the wire

    def poll(self, timeout: float | None = 0.0, /) -> bool:
        """See `engine_main.Wire`. Raises EOFError when the line has ended."""
        if self._next:
            return True
        if time.monotonic() - self._beaten > SILENCE or not self._wanted():
            raise EOFError
        with contextlib.suppress(queue.Empty):
            self._next.append(self._inbox.get(bool(timeout), timeout or None))
        return bool(self._next)

    def recv(self) -> Any:
        message = self._next.pop(0)
        if message is None:
            raise EOFError
        return message

    def send(self, message: Any, /) -> None:
        match message:
            case Ready(description, notes):
                head: dict[str, Any] = {"kind": "ready", "description": description}
                self._line.send(pack(head | {"notes": notes, "has": list(self._pcm)}))
            case Note(text):
                self._line.send(pack({"kind": "note", "text": text}))
            case GenerationReport(generation):
                head, body = close_generation(generation)
                self._line.send(pack({"kind": "made", **head}, body), keep=_WAITING)
            case Telemetry(status, turns):
                link, jitter = self._delay.figures()
                said = asdict(status) | {"link_ms": link, "jitter_ms": jitter}
                said["slots"] = [list(asdict(slot).values()) for slot in status.slots]
                report = {"kind": "report", "status": said, "turns": asdict(turns)}
                self._line.send(pack(report), key="report")

    def _read(self) -> None:
        try:
            while True:
                self._hear(self._line.read())
        # The line ended, or the client is of another version.
        except Exception:  # noqa: BLE001
            self._line.close()
            self._inbox.put(None)

    def _hear(self, data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind == b"B":
            self._beat(rest)
        elif kind == b"K":
            deck = rest[1 : 1 + rest[0]].decode()
            opener = self._openers.setdefault(deck, BlockOpener())
            self._set_block(deck, opener.open(rest[1 + rest[0] :]))
        elif kind == b"S":
            name, scale, flac = pickle.loads(rest)
            self._pcm[name] = open_pcm(scale, flac, _LONGEST)
        elif kind == b"Q":
            self._quit = True
            self._inbox.put(None)
        elif kind == b"H":
            self._inbox.put(pickle.loads(rest))
        else:
            self._set_state(pickle.loads(rest))

    def _set_state(self, state: EngineState) -> None:
        """A state without blocks: those that are here still hold."""
        blocks = {name: deck.block for name, deck in self._state.decks.items()}
        decks = {n: replace(deck, block=blocks.get(n)) for n, deck in state.decks.items()}
        self._state = replace(state, decks=decks)
        unnamed = [name for name in self._pcm if name not in state.inputs]
        for name in unnamed[: max(0, len(unnamed) - _SPARE)]:
            del self._pcm[name]
        self._inbox.put(self._state)

    def _set_block(self, name: str, block: ControlBlock) -> None:
        deck = self._state.decks.get(name)
        if deck is not None:
            decks = {**self._state.decks, name: replace(deck, block=block)}
            self._state = replace(self._state, decks=decks)
            self._inbox.put(self._state)

    def _beat(self, data: bytes) -> None:
        self._beaten = time.monotonic()
        mixed, *acks = struct.unpack(f"!{len(data) // 8}q", data)
        self._playhead.beat(mixed)
        for seq, arrived in zip(acks[::2], acks[1::2], strict=True):
            sent = self._sent.pop(seq, None)
            if sent is not None:
                self._delay.note(arrived - sent)
        if (generator := self._generator) is not None:
            generator.away = self._delay.lead

    # ------------------------------------------------------------------ windows

    def _ship(self, loop: Loop, window: Window) -> None:
        from demon_live.runtime.placement import HALF

        self._seq += 1
        seq = self._seq
        self._sent[seq] = self._playhead.now()
        while len(self._sent) > 256:
            self._sent.popitem(last=False)

        def message() -> bytes:
            head, flac = close_window(window, HALF)
            place = {"kind": "window", "seq": seq, "deck": loop.deck, "epoch": loop.epoch}
            return pack(place | head, flac)

        # What has waited so long that it cannot be heard any more only keeps the rest waiting.
        self._line.send(message, keep=_WAITING)
