"""The client of a remote engine: it runs in the place of the engine process.

    session --pipe--> client --transport--> remote.server      states, control blocks, beats
    loops   <--land-- client <--transport-- remote.server      windows, reports, notes

Windows land in the loops by the same splices as ever, judged by the laptop's own playhead. When
the connection breaks the loops play on; it is dialled again and gets the newest state, so that the
same program goes on. Ray is needed to begin, and again only if the engine itself is gone.

Threads: the main thread reads the pipe; one connects and reads the connection; one writes it.
`_lock` guards the placements and the newest state.
"""

from __future__ import annotations

import contextlib
import pickle
import secrets
import signal
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.audio.files import retimed
from demon_live.audio.pcmring import Bus
from demon_live.children import SharedPipe
from demon_live.core import (
    ControlBlock,
    EngineDeck,
    EngineState,
    EngineStatus,
    Floats,
    Loop,
    SlotStatus,
)
from demon_live.errors import DemonError
from demon_live.remote.codec import BlockPacker, open_generation, open_window, pack_pcm
from demon_live.remote.ray import Ray
from demon_live.remote.transport import KEY, TlsConnection, Transport, dial, unpack
from demon_live.runtime.engine_main import BEAT_EVERY, BusPlayhead, Pipe
from demon_live.runtime.options import (
    Beat,
    EngineOptions,
    GenerationReport,
    Note,
    Opening,
    Progress,
    Ready,
    Report,
    Telemetry,
    parse_remote,
)
from demon_live.runtime.pace import GUARD, TurnStats
from demon_live.runtime.pcm_files import PcmFiles
from demon_live.runtime.placement import HALF, DeckPlacement, plays_on
from demon_live.session.tempo import Playhead

#: Seconds between two beats; a line that is silent for so long is broken.
BEAT, SILENCE = 0.05, 2.0
#: Failed calls at the known address before Ray is asked again; seconds between calls.
_CALLS, _BETWEEN = 8, 0.5
#: Seconds that an engine there may take to open.
_OPENING = 600

Address = tuple[str, int, bytes]
"""Host, port, fingerprint of the certificate."""
Reach = Callable[[bytes], Sequence[Address]]
"""key -> addresses at which the engine listens for a client that knows the key."""


def remote_main(fd: int) -> None:
    """The engine process of an engine on another machine; ends when the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    conn = SharedPipe(fd)
    try:
        opening = conn.recv()
        conn.beat(Beat(), BEAT_EVERY)
        _run(conn, opening)
    except DemonError as error:
        with contextlib.suppress(OSError):
            conn.send(Note(f"engine: {error}"))
        raise SystemExit(error.exit_code) from None


def _run(conn: Pipe, opening: Opening) -> None:
    place = parse_remote(opening.options.engine)
    assert place is not None
    options = replace(opening.options, engine=place.engine)

    def reach(key: bytes) -> Sequence[Address]:
        from demon_live.remote.server import EngineServer

        with Ray(place.address) as ray:
            actor = ray.lasting(EngineServer, f"engine:{place.engine}")
            open_there(ray, actor, options, lambda text: conn.send(Progress(text)))
            host, port, fingerprint = ray.get(actor.listen.remote(key), 60)
        # The address that the machine knows itself by, and the one that it is known by here.
        return [(place.host, port, fingerprint), (host, port, fingerprint)]

    folder = Path(opening.folder)
    playhead = BusPlayhead(Bus.open(folder / "bus"))
    EngineClient(conn, playhead, options, reach, place.host, PcmFiles(folder)).run()


def open_there(
    ray: Any, actor: Any, options: EngineOptions, progress: Callable[[str], None]
) -> None:
    """Let an `EngineServer` open the model. progress: what it is doing. Raises DemonError."""
    opening, told = actor.open.remote(options), ""
    end = time.monotonic() + _OPENING
    while not ray.wait([opening], 1.0) and time.monotonic() < end:
        text = ray.get(actor.progress.remote(), 60)
        if text != told:
            told = text
            progress(text)
    opened = ray.get(opening, 1)
    if isinstance(opened, DemonError):
        raise opened


class EngineClient:
    """See the module.

    Args:
        conn: to the session.
        playhead: of the laptop.
        options: how the engine is opened.
        reach: gives the addresses at which the engine listens.
        host: its name, for messages.
        files: the PCM.
    """

    def __init__(
        self,
        conn: Pipe,
        playhead: Playhead,
        options: EngineOptions,
        reach: Reach,
        host: str,
        files: PcmFiles,
    ) -> None:
        self._conn, self._playhead, self._options = conn, playhead, options
        self._files = files
        self._reach, self._host = reach, host
        self._key = secrets.token_bytes(KEY)
        self._addresses: Sequence[Address] = ()
        self._lock, self._sending = threading.RLock(), threading.Lock()
        self._placements: dict[tuple[str, int], DeckPlacement] = {}
        self._state, self._sent = EngineState(), EngineState()
        self._line: Transport | None = None
        self._packers: dict[str, BlockPacker] = {}
        self._has: set[str] = set()
        self._acks: list[tuple[int, int]] = []
        self._heard = 0.0
        self._closing = threading.Event()
        self._told: set[str] = set()
        self._was_ready = False
        self._status, self._turns = EngineStatus(), TurnStats()
        self.landed = 0
        self.breaks = 0

    def run(self) -> None:
        """Until the pipe ends."""
        keeper = threading.Thread(target=self._keep, name="line-in", daemon=True)
        keeper.start()
        try:
            while True:
                if self._conn.poll(BEAT):
                    self.apply(self._conn.recv())
                line = self._line
                if line is not None and time.monotonic() - self._heard > SILENCE:
                    line.close()
        except (EOFError, OSError):
            if (line := self._line) is not None:
                line.send(b"Q")
                line.finish(0.5)
            self._closing.set()
            if (line := self._line) is not None:
                line.close()
            keeper.join(1)

    def _tell(self, message: Report) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._conn.send(message)

    def apply(self, state: EngineState) -> None:
        """A state that the session published."""
        with self._lock:
            before, self._state = self._state, state
            for name, deck in state.decks.items():
                placement = self._placements.get((name, deck.loop.epoch))
                if placement is None:
                    placement = self._prepare(deck.loop, before.decks.get(name))
                elif placement.loop != deck.loop:
                    placement.move(deck.loop)
                if deck.block is not None and deck.block.loop.epoch == deck.loop.epoch:
                    placement.note(deck.block.sampled_at, deck.block.jumps)
            for key in [key for key in self._placements if key[0] not in state.decks]:
                del self._placements[key]
            if self._line is not None and self._was_ready:
                self._forward(self._line)

    def _prepare(self, loop: Loop, before: EngineDeck | None) -> DeckPlacement:
        buffer = self._files.open(loop.file)
        old = None
        if before is not None:
            old = self._placements.get((loop.deck, before.loop.epoch))
        coming = self._playhead.now() < loop.from_sample
        if old is not None and coming and self.landed and plays_on(old.loop, loop):
            # At another tempo what plays goes on until it is generated again.
            buffer[:] = retimed(old.buffer.copy(), len(buffer))
        placement = self._placements[loop.deck, loop.epoch] = DeckPlacement(loop, buffer, _never, 1)
        mine = [key for key in self._placements if key[0] == loop.deck]
        for key in mine[:-2]:
            del self._placements[key]
        return placement

    def _forward(self, line: Transport) -> None:
        """Send what is new since the last time: PCM, the state without its blocks, blocks."""
        state, before = self._state, self._sent
        self._sent = state
        # The server forgets what nothing names.
        self._has &= set(state.inputs)
        for name in state.inputs:
            self._send_pcm(line, name)
        head = _without_blocks(state)
        if _outline(head) != _outline(before):
            self._packers = {
                name: packer
                for name, packer in self._packers.items()
                if name in before.decks
                and name in state.decks
                and before.decks[name].loop.epoch == state.decks[name].loop.epoch
            }
            line.send(b"C" + pickle.dumps(head, protocol=5))
        for name, deck in state.decks.items():
            block, known = deck.block, before.decks.get(name)
            if block is not None and (known is None or known.block is not block):
                self._send_block(line, name, block)

    def _send_block(self, line: Transport, deck: str, block: ControlBlock) -> None:
        packer = self._packers.setdefault(deck, BlockPacker())
        name = deck.encode()
        head = b"K" + bytes([len(name)]) + name
        line.send(lambda: head + packer.pack(block), key=deck)

    def _send_pcm(self, line: Transport, name: str) -> None:
        if name not in self._has:
            self._has.add(name)
            scale, data = pack_pcm(self._files.read(name), 24)
            line.send(b"S" + pickle.dumps((name, scale, data), protocol=5))

    def _beat(self) -> bytes:
        acks, self._acks = self._acks, []
        flat = [number for ack in acks for number in ack]
        return struct.pack(f"!cq{len(flat)}q", b"B", self._playhead.now(), *flat)

    def _keep(self) -> None:
        """Connect, read until it breaks, connect again, until the session ends."""
        calls = 0
        while not self._closing.is_set():
            pause = _BETWEEN
            try:
                if not self._addresses or calls >= _CALLS:
                    calls = 0
                    self._addresses = self._reach(self._key)
                calls += 1
                conn = self._dial()
                calls = 0
                self._talk(conn)
                continue
            except OSError as error:
                self._once(f"{self._host} does not answer ({error}); the loops play on")
            except DemonError as error:
                pause *= 8
                self._once(f"engine: {error}")
            # Whatever else Ray or the other machine does ends an attempt, and not this thread.
            except Exception as error:  # noqa: BLE001
                pause *= 8
                self._once(f"{self._host}: {type(error).__name__}: {error}; the loops play on")
            self._closing.wait(pause)

    def _dial(self) -> TlsConnection:
        problem: OSError = ConnectionError("no address")
        for host, port, fingerprint in self._addresses:
            try:
                return dial(host, port, self._key, fingerprint)
            except OSError as error:
                problem = error
        raise problem

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(Note(text))

    def _talk(self, conn: TlsConnection) -> None:
        line = Transport(conn, self._beat, BEAT)
        self._heard = time.monotonic()
        options = self._options
        hello = {"seed": options.seed, "depth": options.depth, "steps": options.steps}
        line.send(b"H" + pickle.dumps(hello))
        with self._lock:
            self._line, self._packers, self._acks = line, {}, []
        try:
            while not self._closing.is_set():
                data = line.read()
                self._heard = time.monotonic()
                self._hear(line, *unpack(data))
        # What a machine sends that is none of ours ends the line, too.
        except Exception as error:  # noqa: BLE001
            with self._lock:
                ready, self._line, self._was_ready = self._was_ready, None, False
            if not self._closing.is_set() and ready:
                self.breaks += 1
                self._told.clear()
                why = "" if isinstance(error, OSError | EOFError) else f" ({error})"
                self._tell(Telemetry(replace(self._status, alive=False), self._turns))
                self._tell(Note(f"the link to {self._host} is broken{why}; the loops play on"))
        finally:
            line.release()

    def _hear(self, line: Transport, head: dict[str, Any], body: bytes) -> None:
        match head.get("kind"):
            case "window":
                self._land(head, body)
            case "report":
                self._report(head)
            case "note":
                self._tell(Note(str(head["text"])[:2000]))
            case "made":
                self._tell(GenerationReport(open_generation(head, body)))
            case "ready":
                self._ready(line, head)

    def _ready(self, line: Transport, head: dict[str, Any]) -> None:
        notes = tuple(str(note) for note in head["notes"])
        text = f"{head['description']} at {self._host}"
        self._tell(Ready(text, () if self.breaks else notes, "far"))
        if self.breaks:
            self._tell(Note(f"the link to {self._host} is back; the same program goes on"))
        with self._lock:
            self._has = {str(key) for key in head["has"]}
            self._was_ready = True
            self._sent = EngineState()
            self._forward(line)

    def _land(self, head: dict[str, Any], body: bytes) -> None:
        window = open_window(head, body, HALF)
        with self._lock:
            self._acks.append((int(head["seq"]), self._playhead.now()))
            placement = self._placements.get((str(head["deck"]), int(head["epoch"])))
            if placement is None:
                return
            self.landed += placement.land(window, self._playhead.now, GUARD)

    def _report(self, head: dict[str, Any]) -> None:
        said = dict(head["status"])
        said["slots"] = tuple(SlotStatus(*slot) for slot in said["slots"])
        with self._lock:
            late = sum(p.late for p in self._placements.values())
            jumps = [p.jump_late for p in self._placements.values()]
        # Whether windows come in time is known here alone.
        self._status = replace(
            EngineStatus(**said), late=late, on_time_ms=max(jumps, default=0) / 48
        )
        self._turns = TurnStats(**head["turns"])
        self._tell(Telemetry(self._status, self._turns))


def _never(latent: Floats, first: int, frames: int) -> Floats:
    return np.zeros((0, 2), np.float32)


def _without_blocks(state: EngineState) -> EngineState:
    return replace(state, decks={k: replace(d, block=None) for k, d in state.decks.items()})


def _outline(state: EngineState) -> tuple[object, ...]:
    """What a state says apart from its blocks, to be compared."""
    decks = tuple((name, deck.loop, dict(deck.moves)) for name, deck in state.decks.items())
    steered = (state.depth, state.steps, state.timbres, state.panics)
    return (decks, *steered, state.always, state.latents, state.detail)
