"""The engine process: started, fed, listened to, and started again when it dies.

Neither a parse nor a fault of the model can touch the sound or the prompt: the engine lives in a
process of its own, the audio in another. What the engine must know to play is kept here (the
newest stage of each deck, the ring's settings), so that a new process takes over within seconds.

Threads: `EngineHost` has one thread that reads the pipe; `send` may be called from any thread and
never blocks (a full pipe drops blocks, never commands). `engine_main` is the other process.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, cast

from demon_live import faults
from demon_live.audio.pcmring import Bus, LoopRing
from demon_live.core import RATES, Floats
from demon_live.errors import DemonError
from demon_live.perform.memory import Trimmer
from demon_live.perform.messages import (
    Block,
    DropDeck,
    MoveStage,
    Note,
    PrepareStage,
    Quit,
    Ready,
    Report,
    SetRing,
    ToEngine,
    ToSession,
)
from demon_live.perform.shed import Shedding
from demon_live.perform.turns import TurnStats, TurnTimes
from demon_live.perform.view import EngineStatus

if TYPE_CHECKING:
    from demon_live.backends import Engine

__all__ = ["EngineHost", "EngineOptions", "engine_main"]

log = logging.getLogger(__name__)

#: Seconds between two reports of the engine.
_REPORT_EVERY = 0.1
#: Seconds between two returns of freed memory to the system.
_TRIM_EVERY = 10.0
#: An engine that dies sooner than this after its start is started again only after a pause.
_RESTART_PAUSE, _LONGEST_PAUSE = 2.0, 64.0
#: A turn of a CPU engine may fill the time but for this factor.
_HEADROOM = 1.15


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine is opened; None and "auto" leave the choice to its manifest."""

    engine: str = "imp"
    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    depth: int | None = None
    steps: int | None = None
    seed: int = 0
    random_weights: bool = False


class _BusClock:
    """Time as the audio process decides it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def now(self) -> int:
        return int(self._bus.mixed)


def _read_loop(path: str) -> Floats:
    ring = LoopRing.open(path)
    audio = ring.audio.copy()
    ring.close()
    return audio


def _open_loop(rings: dict[str, LoopRing], path: str) -> Floats:
    # The mapping must outlive the array: keep the rings that may still be written.
    rings[path] = LoopRing.open(path)
    for old in list(rings)[:-16]:
        del rings[old]
    return rings[path].audio


_CHILD = (
    "import sys; sys.path[:] = {path!r}; "
    "from demon_live.perform.host import engine_main; engine_main({fd})"
)


def engine_main(fd: int) -> None:
    """The engine process, from opening the model to Quit or the end of the pipe `fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    conn = Connection(fd)
    bus_path, options = conn.recv()
    try:
        _play(conn, bus_path, options)
    except DemonError as error:
        with contextlib.suppress(OSError):
            conn.send(Note(f"engine: {error}"))
        raise SystemExit(error.exit_code) from None
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The main process is gone. The audio process ends the sound.
        return


def _play(conn: Connection, bus_path: str, options: EngineOptions) -> None:
    from demon_live.backends import open_engine
    from demon_live.perform import failing
    from demon_live.perform.player import Player

    if faults.ON:
        failing.check_weights(options.engine)
    engine: Engine = open_engine(
        options.engine,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        random_weights=options.random_weights,
    )
    if faults.ON:
        engine = cast("Engine", failing.Failing(engine))
    conn.send(Ready(engine.describe(), tuple(engine.notes)))
    tick_ms = engine.manifest.tick_ms if engine.device.type == "cpu" else 0.0
    rings: dict[str, LoopRing] = {}
    player = Player(
        engine,
        _BusClock(Bus.open(bus_path)),
        open_loop=lambda path: _open_loop(rings, path),
        read_source=_read_loop,
        tick_samples=round(engine.manifest.tick_ms * RATES.sample_rate / 1000),
        depth=options.depth,
        steps=options.steps,
        seed=options.seed,
        background=True,
        tell=lambda text: conn.send(Note(text)),
    )
    shedding = Shedding(
        player,
        _budget(engine),
        options.depth or engine.depth,
        lambda text: conn.send(Note(text)),
        getattr(engine, "cheaper", None),
    )
    drops = Drops()
    reported, times, trimmer = 0.0, TurnTimes(), Trimmer(_TRIM_EVERY)
    while _take(conn, shedding.handle):
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
            if conn.poll(rest) and not _take(conn, shedding.handle):
                return


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


def _take(conn: Connection, handle: Callable[[ToEngine], None]) -> bool:
    """Take all that waits: of blocks only the newest of each deck. False: quit."""
    blocks: dict[str, Block] = {}
    while conn.poll(0):
        message = conn.recv()
        if isinstance(message, Quit):
            return False
        if isinstance(message, Block):
            blocks[message.block.deck] = message
        else:
            handle(message)
    for block in blocks.values():
        handle(block)
    return True


class EngineHost:
    """The engine process as the session sees it."""

    def __init__(self, bus_path: str, options: EngineOptions, tell: Callable[[str], None]) -> None:
        self._bus_path, self._options, self._tell = bus_path, options, tell
        self._log = open(Path(bus_path).with_suffix(".engine.log"), "ab")  # noqa: SIM115
        self._stages: dict[str, PrepareStage] = {}
        self._settings = SetRing()
        self._out: queue.Queue[ToEngine] = queue.Queue(512)
        self._closing = threading.Event()
        self._ready = threading.Event()
        self.status = EngineStatus(alive=False)
        self.turns = TurnStats()
        self.description = options.engine
        self.restarts = 0
        self._failures, self._was_ready = 0, False
        self._start_process()
        self._threads = [
            threading.Thread(target=self._listen, name="engine-in", daemon=True),
            threading.Thread(target=self._feed, name="engine-out", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _start_process(self) -> None:
        ours, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        path = [root, *(p for p in sys.path if p and p != root)]
        code = _CHILD.format(path=path, fd=theirs.fileno())
        # A fresh interpreter: a multiprocessing child would run the caller's main module again.
        # Its own session: Ctrl-C belongs to the prompt.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        theirs.close()
        ours.send((self._bus_path, self._options))
        self._conn, self._started = ours, time.monotonic()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Queue a message. A full queue drops blocks (a newer one follows), nothing else."""
        if isinstance(message, PrepareStage):
            self._stages[message.stage.deck] = message
        elif isinstance(message, MoveStage):
            if (known := self._stages.get(message.stage.deck)) is not None:
                self._stages[message.stage.deck] = replace(known, stage=message.stage)
        elif isinstance(message, DropDeck):
            self._stages.pop(message.deck, None)
        elif isinstance(message, SetRing):
            self._settings = replace(
                self._settings,
                **{k: v for k in ("depth", "steps") if (v := getattr(message, k)) is not None},
            )
        if isinstance(message, Block):
            with contextlib.suppress(queue.Full):
                self._out.put_nowait(message)
        else:
            self._out.put(message, timeout=2)

    def _feed(self) -> None:
        while not self._closing.is_set():
            try:
                message = self._out.get(timeout=0.2)
            except queue.Empty:
                continue
            if not self._ready.is_set() and isinstance(message, Block):
                continue
            with contextlib.suppress(OSError):
                self._conn.send(message)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if self._conn.poll(0.2):
                    self._hear(self._conn.recv())
                elif self._process.poll() is not None:
                    self._restart()
            except (EOFError, OSError):
                if not self._closing.is_set():
                    self._restart()

    def _hear(self, message: ToSession) -> None:
        match message:
            case Ready(description, notes):
                self.description = description
                self._ready.set()
                for note in notes:
                    self._tell(note)
            case Report(status, turns):
                self.status, self.turns = status, turns
            case Note(text):
                self._tell(text)

    def _restart(self) -> None:
        """A new process with the newest stages. The loops play on meanwhile."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.poll()
        self._was_ready = self._ready.is_set()
        self._ready.clear()
        self.status = replace(self.status, alive=False)
        self.restarts += 1
        self._patience(code)
        if self._closing.is_set():
            return
        self._conn.close()
        self._start_process()
        if self._settings != SetRing():
            self._out.put(self._settings)
        for stage in list(self._stages.values()):
            self._out.put(stage)

    def _patience(self, code: int | None) -> None:
        """One that has played is started at once, one that cannot play ever more patiently."""
        lived = time.monotonic() - self._started
        if self._was_ready and lived >= _RESTART_PAUSE:
            self._failures = 0
            self._tell(f"the engine ended (code {code}); the loops play on, it is started again")
            return
        pause = min(_RESTART_PAUSE * 2**self._failures, _LONGEST_PAUSE)
        self._failures += 1
        if self._failures < 4 or pause >= _LONGEST_PAUSE:
            self._tell(
                f"the engine does not start (code {code}); the loops play on, it is tried again in "
                f"{pause:.0f} s"
            )
        self._closing.wait(pause)

    def close(self) -> None:
        """End the process; after two seconds by force."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._conn.send(Quit())
        for thread in self._threads:
            thread.join(1)
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(1)
        self._conn.close()
        self._log.close()
