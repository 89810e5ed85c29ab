"""The laptop's end of an engine on another machine: in the place of the engine process.

    session --pipe--> here --line--> remote.server        commands, control blocks, beats
    loops   <--land-- here <--line-- remote.server        windows, reports, notes

Windows land in the loops by the same splices as ever, judged by the laptop's own playhead. When
the line breaks the loops play on; it is dialled again, and told the newest loops, settings and
timbres, so that the same program goes on. Ray is needed to begin, and again only if the engine
itself is gone.

Threads: the main thread reads the pipe; one connects and reads the line; one writes it. `_lock`
guards the placements and what is known of the loops.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import secrets
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from demon_live.audio.files import retimed
from demon_live.audio.pcmring import Bus, LoopBuffer
from demon_live.core import Floats, SlotStatus
from demon_live.errors import DemonError
from demon_live.remote.codec import BlockPacker, open_window, pack_pcm
from demon_live.remote.ray import Ray
from demon_live.remote.transport import Line, dial, unpack
from demon_live.runtime.engine_main import BusClock, open_loop, read_loop
from demon_live.runtime.messages import (
    Block,
    DropDeck,
    DropTimbre,
    MoveLoop,
    Note,
    PrepareLoop,
    Ready,
    Report,
    SetTimbre,
    ToEngine,
    ToSession,
)
from demon_live.runtime.options import EngineOptions, Opening, parse_remote
from demon_live.runtime.placement import HALF, DeckPlacement, plays_on
from demon_live.runtime.retold import Retold
from demon_live.runtime.tick_stats import TurnStats
from demon_live.session.status import EngineStatus
from demon_live.session.tempo import Clock

__all__ = ["BEAT", "SILENCE", "EngineClient", "play_near"]

#: Seconds between two beats; a line that is silent for so long is broken.
BEAT, SILENCE = 0.05, 2.0
#: Nothing is written nearer than this to the playhead, in samples (5 ms).
GUARD = 240
#: Failed calls at the known address before Ray is asked again; seconds between calls.
_CALLS, _BETWEEN = 8, 0.5

Reach = Callable[[bytes], Sequence[tuple[str, int]]]
"""key -> addresses at which the engine listens for whoever knows the key."""


def play_near(conn: Connection, opening: Opening) -> None:
    """The engine process of an engine that is elsewhere; ends when the pipe does."""
    place = parse_remote(opening.options.engine)
    assert place is not None
    options = replace(opening.options, engine=place.engine)

    def reach(key: bytes) -> Sequence[tuple[str, int]]:
        from demon_live.remote.server import EngineServer

        with Ray(place.address) as ray:
            actor = ray.lasting(EngineServer, f"engine:{place.engine}")
            opened = ray.get(actor.open.remote(options), 600)
            if isinstance(opened, DemonError):
                raise opened
            host, port = ray.get(actor.listen.remote(key), 60)
        # The address that the machine knows itself by, and the one that it is known by here.
        return [(place.host, port), (host, port)]

    EngineClient(conn, BusClock(Bus.open(opening.bus)), options, reach, place.host).run()


class EngineClient:
    """See the module. conn: to the session. clock: the playhead."""

    def __init__(
        self, conn: Connection, clock: Clock, options: EngineOptions, reach: Reach, host: str
    ) -> None:
        self._conn, self._clock, self._options = conn, clock, options
        self._reach, self._host = reach, host
        self._key = secrets.token_bytes(32)
        self._addresses: Sequence[tuple[str, int]] = ()
        self._lock, self._sending = threading.RLock(), threading.Lock()
        self._placements: dict[tuple[str, int], DeckPlacement] = {}
        self._rings: dict[str, LoopBuffer] = {}
        self._retold = Retold()
        self._line: Line | None = None
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
                    self.take(self._conn.recv())
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

    def _tell(self, message: ToSession) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._conn.send(message)

    # ------------------------------------------------------------------ up

    def take(self, message: ToEngine) -> None:
        """A message of the session."""
        with self._lock:
            match message:
                case Block(block):
                    placement = self._placements.get((block.deck, block.loop.epoch))
                    if placement is not None:
                        placement.note(block)
                case PrepareLoop():
                    self._prepare(message)
                case MoveLoop(loop):
                    placement = self._placements.get((loop.deck, loop.epoch))
                    if placement is not None:
                        placement.move(loop)
                case DropTimbre(name):
                    self._has.discard(name)
                case DropDeck(deck):
                    gone = [key for key in self._placements if key[0] == deck]
                    for key in gone:
                        del self._placements[key]
            self._retold.note(message)
            if self._line is not None and self._was_ready:
                self._forward(self._line, message)

    def _prepare(self, message: PrepareLoop) -> None:
        loop = message.loop
        buffer = open_loop(self._rings, message.buffer)
        before = self._retold.loops.get(loop.deck)
        old = None if before is None else self._placements.get((loop.deck, before.loop.epoch))
        coming = self._clock.now() < loop.from_sample
        if old is not None and coming and self.landed and plays_on(old.loop, loop):
            # At another tempo what plays goes on until it is generated anew.
            buffer[:] = retimed(old.buffer.copy(), len(buffer))
        self._placements[loop.deck, loop.epoch] = DeckPlacement(loop, buffer, _never, 1)
        mine = [key for key in self._placements if key[0] == loop.deck]
        for key in mine[:-2]:
            del self._placements[key]

    def _forward(self, line: Line, message: ToEngine) -> None:
        if isinstance(message, Block):
            block, name = message.block, message.block.deck.encode()
            packer = self._packers.setdefault(block.deck, BlockPacker())
            head = b"K" + bytes([len(name)]) + name
            line.send(lambda: head + packer.pack(block), key=block.deck)
            return
        if isinstance(message, PrepareLoop):
            key = self._source(line, message.source)
            message = replace(message, buffer="", source=key)
            self._packers.pop(message.loop.deck, None)
        if isinstance(message, SetTimbre):
            # By the name that no other sound has: one that is there is not sent again.
            if message.name not in self._has:
                self._has.add(message.name)
                scale, data = pack_pcm(read_loop(message.audio), 24)
                line.send(b"T" + pickle.dumps((message.name, scale, data), protocol=5))
            message = replace(message, audio=message.name)
        line.send(b"C" + pickle.dumps(message, protocol=5))

    def _source(self, line: Line, path: str | None) -> str | None:
        """The name of a source at the far end, which is sent unless it is there."""
        if path is None:
            return None
        audio = read_loop(path)
        key = hashlib.sha256(audio.tobytes()).hexdigest()[:32]
        if key not in self._has:
            self._has.add(key)
            scale, data = pack_pcm(audio, 24)
            line.send(b"S" + pickle.dumps((key, scale, data), protocol=5))
        return key

    def _beat(self) -> bytes:
        acks, self._acks = self._acks, []
        flat = [number for ack in acks for number in ack]
        return struct.pack(f"!cq{len(flat)}q", b"B", self._clock.now(), *flat)

    # ------------------------------------------------------------------ the line

    def _keep(self) -> None:
        """Connect, read until it breaks, connect again."""
        calls = 0
        while not self._closing.is_set():
            try:
                if not self._addresses or calls >= _CALLS:
                    calls = 0
                    self._addresses = self._reach(self._key)
                conn = self._dial()
            except (OSError, EOFError, AuthenticationError) as error:
                calls += 1
                self._once(f"{self._host} does not answer ({error}); the loops play on")
                self._closing.wait(_BETWEEN)
                continue
            except DemonError as error:
                self._once(f"engine: {error}")
                self._closing.wait(_BETWEEN * 8)
                continue
            calls = 0
            self._talk(conn)

    def _dial(self) -> Connection:
        problem: OSError | EOFError | AuthenticationError = ConnectionError("no address")
        for host, port in self._addresses:
            try:
                return dial(host, port, self._key)
            except (OSError, EOFError, AuthenticationError) as error:
                problem = error
        raise problem

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(Note(text))

    def _talk(self, conn: Connection) -> None:
        line = Line(conn, self._beat, BEAT)
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
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            with self._lock:
                ready, self._line, self._was_ready = self._was_ready, None, False
            if not self._closing.is_set() and ready:
                self.breaks += 1
                self._told.clear()
                why = "" if isinstance(error, OSError | EOFError) else f" ({error})"
                self._tell(Report(replace(self._status, alive=False), self._turns))
                self._tell(Note(f"the link to {self._host} is broken{why}; the loops play on"))
        finally:
            line.release()

    def _hear(self, line: Line, head: dict[str, Any], body: bytes) -> None:
        match head.get("kind"):
            case "window":
                self._land(head, body)
            case "report":
                self._report(head)
            case "note":
                self._tell(Note(str(head["text"])[:2000]))
            case "ready":
                self._ready(line, head)

    def _ready(self, line: Line, head: dict[str, Any]) -> None:
        notes = tuple(str(note) for note in head["notes"])
        text = f"{head['description']} at {self._host}"
        self._tell(Ready(text, () if self.breaks else notes, "far"))
        if self.breaks:
            self._tell(Note(f"the link to {self._host} is back; the same program goes on"))
        with self._lock:
            self._has = {str(key) for key in head["has"]}
            self._was_ready = True
            for message in self._retold.messages():
                self._forward(line, message)

    def _land(self, head: dict[str, Any], body: bytes) -> None:
        window = open_window(head, body, HALF)
        with self._lock:
            self._acks.append((int(head["seq"]), self._clock.now()))
            placement = self._placements.get((str(head["deck"]), int(head["epoch"])))
            if placement is None:
                return
            self.landed += placement.land(window, self._clock.now, GUARD)

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
        self._tell(Report(self._status, self._turns))


def _never(latent: Floats, first: int, frames: int) -> Floats:
    return np.zeros((0, 2), np.float32)
