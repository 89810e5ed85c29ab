"""The engine process: opens the model, runs the generator, reports.

A *spare* opens the model, warms it and then waits: when the engine that plays dies, the spare takes
its place within a few ticks instead of loading torch first.

Threads: the main thread of a process of its own; `Generator` has one that prepares stages.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from demon_live import faults
from demon_live.audio.pcmring import Bus
from demon_live.children import SharedPipe
from demon_live.core import RATES, EngineState, Generation
from demon_live.errors import DemonError, EngineError, one_line
from demon_live.runtime.load_shedding import Shedding
from demon_live.runtime.memory import Trimmer, trim
from demon_live.runtime.options import (
    Beat,
    EngineOptions,
    GenerationReport,
    Note,
    Opening,
    Progress,
    Ready,
    Telemetry,
)
from demon_live.runtime.pace import TurnTimes
from demon_live.runtime.pcm_files import PcmFiles

if TYPE_CHECKING:
    from demon_live.engine.gpu_workers import ProcessLink
    from demon_live.models.engine import Engine
    from demon_live.runtime.generator import Generator

#: Seconds between two signs of life, and between two reports of the engine.
BEAT_EVERY, _REPORT_EVERY = 0.5, 0.1
#: Seconds between two returns of freed memory to the system.
_TRIM_EVERY = 10.0
#: Seconds between two looks while the ring rests.
_REST = 0.1
#: A turn of a CPU engine may fill the time but for this factor.
_HEADROOM = 1.15
#: Frames of the loop that a spare is warmed with: short, since its arrays are kept.
_WARM_FRAMES = 50


class BusPlayhead:
    """Time as the audio process decides it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def now(self) -> int:
        return int(self._bus.mixed)


def engine_main(fd: int) -> None:
    """The engine process, from opening the model to the end of the pipe `fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    conn = SharedPipe(fd)
    try:
        opening: Opening = conn.recv()
        engine = opened(opening, lambda text: conn.send(Progress(text)))
        conn.send(Ready(engine.describe(), tuple(engine.notes), engine.device.type))
        if opening.spare:
            # Until the first message, which is that its time has come.
            conn.poll(None)
        conn.beat(Beat(), BEAT_EVERY)
        _play(conn, opening, engine)
    except DemonError as error:
        with contextlib.suppress(OSError):
            conn.send(Note(f"engine: {error}"))
        raise SystemExit(error.exit_code) from None
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The main process is gone. The audio process ends the sound.
        return
    # A model, its libraries and the driver may fail in any way; all of it goes to the log.
    except Exception as error:
        with contextlib.suppress(OSError):
            conn.send(Note(f"engine: {one_line(error)}"))
        raise


def opened(opening: Opening, progress: Callable[[str], None] = lambda text: None) -> Engine:
    """The engine that is to be opened; progress: what is being done. Raises EngineError."""
    progress("loading the program")
    from demon_live.models.engine import open_engine
    from demon_live.runtime import (
        fault_engine,
        generator,  # noqa: F401 (a spare loads all that it needs)
    )

    options = opening.options
    if faults.ON:
        fault_engine.check_weights(options.engine)
    workers, notes = ([], []) if opening.spare else _workers(options)
    try:
        engine: Engine = open_engine(
            options.engine,
            backend=options.backend,
            device=options.device,
            threads=options.threads,
            random_weights=options.random_weights,
            progress=progress,
        )
    except BaseException:
        for link in workers:
            link.close()
        raise
    engine.notes += notes
    if opening.spare:
        engine.encode(np.zeros((_WARM_FRAMES * RATES.hop, 2), np.float32))
        engine.warm_up(_WARM_FRAMES, 1)
        trim()
    if faults.ON:
        engine = cast("Engine", fault_engine.Failing(engine))
    if workers:
        from demon_live.engine.gpu_workers import MultiGpuEngine

        progress("waiting for the other GPUs")
        engine = cast("Engine", MultiGpuEngine(engine, workers))
    return engine


def _workers(options: EngineOptions) -> tuple[list[ProcessLink], list[str]]:
    """(a worker on each further GPU, which opens beside this process; lines for the performer)."""
    if options.gpus <= 1:
        return [], []
    import torch

    from demon_live.engine.gpu_workers import ProcessLink, WorkerOptions

    count, notes = options.gpus, []
    if options.device != "cpu" and (there := torch.cuda.device_count()) < count:
        notes.append(f"--gpus {count}: this machine shows {there or 'none'}")
        count = there
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(n) for n in range(count)] if shown is None else shown.split(",")
    made = WorkerOptions(
        options.engine,
        options.backend,
        options.device,
        options.threads,
        options.random_weights,
    )
    links = [
        ProcessLink(made if options.device == "cpu" else replace(made, visible=names[n]))
        for n in range(1, count)
    ]
    return links, notes


def _play(conn: SharedPipe, opening: Opening, engine: Engine) -> None:
    from demon_live.runtime.generator import Generator

    options = opening.options
    files = PcmFiles(Path(opening.folder))
    generator = Generator(
        engine,
        BusPlayhead(Bus.open(Path(opening.folder) / "bus")),
        open_buffer=files.open,
        read_pcm=files.read,
        tick_samples=round(engine.manifest.tick_ms * RATES.sample_rate / 1000),
        depth=options.depth,
        steps=options.steps,
        seed=options.seed,
        background=True,
        tell=lambda text: conn.send(Note(text)),
    )
    turn_for_ever(conn, engine, generator, options.depth)


class Pipe(Protocol):
    """The way to the session: a pipe, or a link to another machine."""

    def poll(self, timeout: float | None = 0.0, /) -> bool: ...
    def recv(self) -> Any: ...
    def send(self, message: Any, /) -> None: ...


def turn_for_ever(conn: Pipe, engine: Engine, generator: Generator, depth: int | None) -> None:
    """Take states and make turns. Raises EOFError, or another OSError, when the pipe ends."""
    from demon_live.runtime import fault_engine

    tick_ms = engine.manifest.tick_ms if engine.device.type == "cpu" else 0.0
    shedding = Shedding(
        generator,
        _budget(engine),
        depth or engine.depth,
        lambda text: conn.send(Note(text)),
        getattr(engine, "cheaper", None),
    )
    drops, latents = Drops(), False

    def made(generation: Generation) -> None:
        if latents:
            conn.send(GenerationReport.of(generation))

    generator.made = made
    reported, times, trimmer = 0.0, TurnTimes(), Trimmer(_TRIM_EVERY)
    while True:
        latents = _take(conn, shedding.apply, latents)
        started = time.monotonic()
        generator.turn()
        if faults.ON:
            fault_engine.slow(time.monotonic() - started)
        ended = time.monotonic()
        if (trouble := generator.lost(ended)) is not None and engine.device.type == "cuda":
            raise EngineError(f"the GPU has failed and is opened anew: {one_line(trouble)}")
        if generator.tick_due:
            times.add(ended - started)
        # Turns of a ring that rests in between are late only if something is needed soon.
        hurry = generator.paced or generator.behind
        shedding.turn(ended, ended - started if hurry else 0.0)
        if started - reported >= _REPORT_EVERY:
            reported = started
            status = replace(generator.status(), shed=shedding.given_up)
            conn.send(Telemetry(status, times.stats()))
            if (text := drops.turn(started, status.dropped)) is not None:
                conn.send(Note(text))
        trimmer.turn()
        if not generator.tick_due:
            # The ring rests: until the score moves, or its windows have to be looked at.
            conn.poll(_REST)
            continue
        # A CPU engine leaves a part of the time to the prompt and the sound, and a ring that never
        # rests is paced to its nominal tick: more ticks would only heat the machine. Until there is
        # something to hear, and while a hand waits, every tick counts.
        took = time.monotonic() - started
        nominal = tick_ms / 1000 if generator.paced else 0.0
        leaves = tick_ms and generator.primed and not generator.hurried
        pace = max(nominal, took * _HEADROOM) if leaves else took
        due = started + pace
        while (rest := due - time.monotonic()) > 0:
            if conn.poll(rest):
                latents = _take(conn, shedding.apply, latents)


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


def _take(conn: Pipe, apply: Callable[[EngineState], None], latents: bool) -> bool:
    """Apply the newest state that waits. Raises EOFError if the session is gone.

    Returns: whether generations are reported; so far, they were if `latents`.
    """
    newest: EngineState | None = None
    while conn.poll(0):
        newest = conn.recv()
    if newest is None:
        return latents
    apply(newest)
    return newest.latents
