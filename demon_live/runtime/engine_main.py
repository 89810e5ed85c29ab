"""The engine process: opens the model, turns the player for ever, reports.

A *spare* opens the model, warms it and then waits: when the engine that plays dies, the spare takes
its place within a few ticks instead of loading torch first.

Threads: the main thread of a process of its own; `Generator` has one that prepares stages.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from demon_live import faults
from demon_live.audio.pcmring import Bus, LoopBuffer
from demon_live.core import RATES, Floats
from demon_live.errors import DemonError
from demon_live.runtime.load_shedding import Shedding
from demon_live.runtime.memory import Trimmer, trim
from demon_live.runtime.messages import Block, Note, Ready, Report, ToEngine
from demon_live.runtime.options import REMOTE, Opening
from demon_live.runtime.tick_stats import TurnTimes

if TYPE_CHECKING:
    from demon_live.models.engine import Engine
    from demon_live.runtime.generator import Generator

__all__ = [
    "BusClock", "Drops", "engine_main", "open_loop", "opened",
    "read_loop", "turn_for_ever",
]  # fmt: skip

#: Seconds between two reports of the engine.
_REPORT_EVERY = 0.1
#: Seconds between two returns of freed memory to the system.
_TRIM_EVERY = 10.0
#: A turn of a CPU engine may fill the time but for this factor.
_HEADROOM = 1.15
#: Frames of the loop that a spare is warmed with: short, since its arrays are kept.
_WARM_FRAMES = 50


class BusClock:
    """Time as the audio process decides it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def now(self) -> int:
        return int(self._bus.mixed)


def read_loop(path: str) -> Floats:
    """A copy of the loop in a file, float32 [n, 2]."""
    ring = LoopBuffer.open(path)
    audio = ring.audio.copy()
    ring.close()
    return audio


def open_loop(rings: dict[str, LoopBuffer], path: str) -> Floats:
    """The loop in a file, to be written to. rings: those that are open."""
    # The mapping must outlive the array: keep the rings that may still be written.
    rings[path] = LoopBuffer.open(path)
    for old in list(rings)[:-16]:
        del rings[old]
    return rings[path].audio


def engine_main(fd: int) -> None:
    """The engine process, from opening the model to the end of the pipe `fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    conn = Connection(fd)
    try:
        opening: Opening = conn.recv()
        if opening.options.engine.startswith(REMOTE):
            from demon_live.remote.client import play_near

            play_near(conn, opening)
            return
        engine = opened(opening)
        conn.send(Ready(engine.describe(), tuple(engine.notes), engine.device.type))
        if opening.spare:
            # Until the first message, which is that its time has come.
            conn.poll(None)
        _play(conn, opening, engine)
    except DemonError as error:
        with contextlib.suppress(OSError):
            conn.send(Note(f"engine: {error}"))
        raise SystemExit(error.exit_code) from None
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The main process is gone. The audio process ends the sound.
        return


def opened(opening: Opening) -> Engine:
    """The engine that is to be opened. Raises EngineError."""
    from demon_live.models.engine import open_engine
    from demon_live.runtime import fault_engine as failing
    from demon_live.runtime import generator as player  # noqa: F401 (a spare loads all that it needs)

    options = opening.options
    if faults.ON:
        failing.check_weights(options.engine)
    engine: Engine = open_engine(
        options.engine,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        random_weights=options.random_weights,
    )
    if opening.spare:
        engine.encode(np.zeros((_WARM_FRAMES * RATES.hop, 2), np.float32))
        engine.warm_up(_WARM_FRAMES, 1)
        trim()
    if faults.ON:
        engine = cast("Engine", failing.Failing(engine))
    return engine


def _play(conn: Connection, opening: Opening, engine: Engine) -> None:
    from demon_live.runtime.generator import Generator

    options = opening.options
    rings: dict[str, LoopBuffer] = {}
    player = Generator(
        engine,
        BusClock(Bus.open(opening.bus)),
        open_loop=lambda path: open_loop(rings, path),
        read_source=read_loop,
        tick_samples=round(engine.manifest.tick_ms * RATES.sample_rate / 1000),
        depth=options.depth,
        steps=options.steps,
        seed=options.seed,
        background=True,
        tell=lambda text: conn.send(Note(text)),
    )
    turn_for_ever(conn, engine, player, options.depth)


class Wire(Protocol):
    """The way to the session: a pipe, or a link to another machine."""

    def poll(self, timeout: float | None = 0.0, /) -> bool: ...
    def recv(self) -> Any: ...
    def send(self, message: Any, /) -> None: ...


def turn_for_ever(conn: Wire, engine: Engine, player: Generator, depth: int | None) -> None:
    """Take messages and make turns. Raises EOFError, or another OSError, when the way ends."""
    from demon_live.runtime import fault_engine as failing

    tick_ms = engine.manifest.tick_ms if engine.device.type == "cpu" else 0.0
    shedding = Shedding(
        player,
        _budget(engine),
        depth or engine.depth,
        lambda text: conn.send(Note(text)),
        getattr(engine, "cheaper", None),
    )
    drops = Drops()
    reported, times, trimmer = 0.0, TurnTimes(), Trimmer(_TRIM_EVERY)
    while True:
        _take(conn, shedding.handle)
        started = time.monotonic()
        player.turn()
        if faults.ON:
            failing.slow(time.monotonic() - started)
        ended = time.monotonic()
        if player.tick_due:
            times.add(ended - started)
            shedding.turn(ended, ended - started)
        if started - reported >= _REPORT_EVERY:
            reported = started
            status = replace(player.status(), shed=shedding.given_up)
            conn.send(Report(status, times.stats()))
            if (text := drops.turn(started, status.dropped)) is not None:
                conn.send(Note(text))
        trimmer.turn()
        # A CPU engine is paced to its nominal tick: more ticks would only heat the machine. Where
        # that is too short, a part of the time is left to the prompt and the sound.
        took = time.monotonic() - started
        # Until there is something to hear, every tick counts.
        paced = tick_ms and player.primed
        pace = max(tick_ms / 1000, took * _HEADROOM) if paced else took
        due = started + (pace if player.tick_due else 0.02)
        while (rest := due - time.monotonic()) > 0:
            if conn.poll(rest):
                _take(conn, shedding.handle)


class Drops:
    """Tells of generations and windows that could not be heard: at once, then now and then."""

    EVERY = 10.0  #: seconds

    def __init__(self) -> None:
        self._told, self._next = 0, 0.0

    def turn(self, now: float, dropped: int) -> str | None:
        """now: seconds. dropped: all so far. A line for the performer, or None."""
        if dropped <= self._told or now < self._next:
            return None
        new, self._told, self._next = dropped - self._told, dropped, now + self.EVERY
        return (
            f"the model gave {new} that cannot be heard (not finite, or exploding): dropped, the "
            "last good ones play on; calmer values of guide, velocity and momentum help"
        )


def _budget(engine: Engine) -> float:
    """Seconds that a turn may take: a nominal tick, and half as much again for its decodes."""
    return engine.manifest.tick_ms * 1.5 / 1000


def _take(conn: Wire, handle: Callable[[ToEngine], None]) -> None:
    """Take all that waits: of blocks only the newest of each deck. EOFError: nobody is there."""
    blocks: dict[str, Block] = {}
    while conn.poll(0):
        message = conn.recv()
        if isinstance(message, Block):
            blocks[message.block.deck] = message
        else:
            handle(message)
    for block in blocks.values():
        handle(block)
