"""Workers of a multi-GPU ring: an engine each, in a process or a Ray actor of its own.

    GpuWorker           opens an engine and carries out orders
    ProcessLink         a GpuWorker in a fresh process of this machine, over a pipe
    InlineLink          a GpuWorker in this thread: tests, and a ring of one worker
    ConditionArguments  a condition as it is sent; each worker makes its own of it
    MultiGpuEngine      an engine of this process, and workers on further GPUs, as one engine

remote/gpu_worker.py has the link to a Ray actor.

Threads: a link belongs to the thread of its ring.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from demon_live.children import Child
from demon_live.core import Floats, Request
from demon_live.engine.guidance import Dcw
from demon_live.engine.multi_gpu import (
    MultiGpuRing,
    TickOrder,
    WorkerLink,
    WorkerLost,
    WorkerReply,
    WorkerRing,
)
from demon_live.errors import DemonError, EngineError

if TYPE_CHECKING:
    from demon_live.models.engine import Engine


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker opens its engine. visible: its GPU, as CUDA_VISIBLE_DEVICES; None: unchanged."""

    engine: str = "imp"
    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    random_weights: bool = False
    visible: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's engine: what the ring must know of it."""

    text: str
    notes: tuple[str, ...]
    adapters: tuple[str, ...]
    shift: float
    steps: int
    depth: int
    channels: int


@dataclass(frozen=True, slots=True)
class ConditionArguments:
    """Arguments of `Engine.condition`. silent: made `unconditioned`."""

    prompt: str
    more: tuple[tuple[str, Any], ...]
    silent: bool = False


class GpuWorker:
    """An engine and a ring on it. Raises EngineError if the engine does not open.

    engine: one that this process has opened already, and tells its timbres itself.
    """

    def __init__(self, options: WorkerOptions, engine: Engine | None = None) -> None:
        set_timbre = _no_timbre
        if engine is None:
            from demon_live.models.engine import open_engine

            engine = open_engine(
                options.engine,
                backend=options.backend,
                device=options.device,
                threads=options.threads,
                random_weights=options.random_weights,
            )
            set_timbre = getattr(engine, "set_timbre", _no_timbre)
        self.engine = engine
        mode: Any = getattr(engine, "dcw", "")
        self._ring = WorkerRing(
            engine,
            shift=engine.shift,
            device=engine.device,
            resolve=self._resolve,
            set_timbre=set_timbre,
            dcw=Dcw(mode) if mode else None,
        )
        self._conditions = functools.lru_cache(maxsize=256)(self._condition)

    def info(self) -> WorkerInfo:
        """Facts of the engine."""
        engine = self.engine
        return WorkerInfo(
            engine.describe(),
            tuple(engine.notes),
            tuple(getattr(getattr(engine, "weights", None), "names", ())),
            engine.shift,
            engine.steps,
            engine.depth,
            engine.channels,
        )

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self.engine.warm_up(frames, depth)

    def run(self, order: TickOrder) -> WorkerReply:
        """See `WorkerRing.run`."""
        return self._ring.run(order)

    def _condition(self, words: ConditionArguments) -> Any:
        if words.silent:
            return self.engine.unconditioned(self._conditions(replace(words, silent=False)))
        return self.engine.condition(words.prompt, **dict(words.more))

    def _resolve(self, request: Request) -> Request:
        def real(condition: Any) -> Any:
            return (
                self._conditions(condition)
                if isinstance(condition, ConditionArguments)
                else condition
            )

        rest = tuple((real(c), *more) for c, *more in request.conditions)
        return replace(
            request,
            condition=real(request.condition),
            negative=real(request.negative),
            conditions=rest,
        )

    def close(self) -> None:
        """Close ring and engine."""
        self._ring.close()
        self.engine.close()


def _no_timbre(name: str, audio: Floats) -> None:
    """An engine without timbres."""


class InlineLink:
    """A worker in this thread: it makes its tick in `receive`."""

    def __init__(self, worker: GpuWorker) -> None:
        self._worker = worker
        self._orders: deque[TickOrder] = deque()

    def send(self, order: TickOrder) -> None:
        self._orders.append(order)

    def receive(self) -> WorkerReply:
        return self._worker.run(self._orders.popleft())

    def close(self) -> None:
        self._worker.close()


def worker_main(fd: int, change: Callable[[Engine], None] = lambda engine: None) -> None:
    """The process of a worker: open the engine, serve the pipe `fd` to its end.

    change: applied to the open engine (measurements).
    """
    conn = Connection(fd)
    options: WorkerOptions = conn.recv()
    if options.visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = options.visible
    try:
        worker = GpuWorker(options)
        change(worker.engine)
        conn.send(worker.info())
    except DemonError as error:
        conn.send(error.message)
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = conn.recv()
            if isinstance(message, tuple):
                worker.warm_up(*message)
                conn.send(None)
                continue
            reply = worker.run(message)
            if "CUDA error" in reply.trouble:
                # It spoils the GPU's context for the life of the process: the others play on.
                raise EngineError(reply.trouble)
            conn.send(reply)
    worker.close()


class ProcessLink:
    """A worker in a process of its own on this machine. `info` waits until it is open."""

    #: Where the process finds its `worker_main`.
    MODULE = "demon_live.engine.gpu_workers"

    def __init__(self, options: WorkerOptions, environ: Mapping[str, str] | None = None) -> None:
        self._child = Child(f"{self.MODULE}:worker_main", environ=environ)
        self._send(options)
        self._info: WorkerInfo | None = None

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._child.pid

    def info(self) -> WorkerInfo:
        """Facts of its engine. Raises EngineError if it does not open."""
        if self._info is None:
            reply = self._receive()
            if not isinstance(reply, WorkerInfo):
                raise EngineError(f"a GPU worker does not open: {reply}")
            self._info = reply
        return self._info

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self._send((frames, depth))
        self._receive()

    def _send(self, message: object) -> None:
        if not self._child.send(message):
            raise self._lost()

    def _receive(self) -> Any:
        try:
            return self._child.receive()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> WorkerLost:
        return WorkerLost(f"its process ended (code {self._child.code})")

    def send(self, order: TickOrder) -> None:
        self._send(order)

    def receive(self) -> WorkerReply:
        reply: WorkerReply = self._receive()
        return reply

    def close(self) -> None:
        self._child.quit(2.0)


class MultiGpuEngine:
    """An engine of this process and workers on further GPUs, as one engine of N times the depth.

    Sources, timbres and windows are encoded and decoded here; generations are made by all. A worker
    that does not open, or dies, is named, and the others play on.

    Threads: as `models.protocol.Engine`.
    """

    def __init__(self, engine: Engine, workers: Sequence[ProcessLink]) -> None:
        self._engine = engine
        self._ring: MultiGpuRing | None = None
        self._news = deque[tuple[Any, ...]]()
        self._links: list[WorkerLink] = [InlineLink(GpuWorker(WorkerOptions(), engine))]
        for number, link in enumerate(workers, 1):
            try:
                link.info()
            except EngineError as error:
                link.close()
                engine.notes.append(f"GPU {number} does not play along: {error.message}")
            else:
                self._links.append(link)
        self._others = [link for link in workers if link in self._links]
        self.depth = engine.depth * len(self._links)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def describe(self) -> str:
        """Of the engine, with the number of GPUs."""
        return f"{self._engine.describe()} on {len(self._links)} GPUs"

    def condition(self, prompt: str, **more: Any) -> ConditionArguments:
        """See `Engine.condition`: each worker makes its own."""
        return ConditionArguments(prompt, tuple(sorted(more.items())))

    def unconditioned(self, condition: ConditionArguments) -> ConditionArguments:
        """See `Engine.unconditioned`."""
        return replace(condition, silent=True)

    def set_timbre(self, name: str, audio: Floats) -> None:
        """See `models.acestep.engine.AceEngine.set_timbre`: all workers get it."""
        self._engine.set_timbre(name, audio)  # type: ignore[attr-defined]
        self._news.append(("timbre", name, audio))

    def new_ring(self, **how: Any) -> MultiGpuRing:
        """A ring over all that are left. how: arguments of `MultiGpuRing`."""
        if self._ring is not None:
            self._links = self._ring.links
        names = tuple(getattr(getattr(self._engine, "weights", None), "names", ()))
        self._ring = MultiGpuRing(
            self._links, shift=self._engine.shift, adapters=names, news=self._news, **how
        )
        return self._ring

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`: all at the same time."""
        each = -(-depth // len(self._links))
        with ThreadPoolExecutor(max(1, len(self._others))) as pool:
            waiting = [pool.submit(link.warm_up, frames, each) for link in self._others]
            self._engine.warm_up(frames, each)
            for one in waiting:
                # A worker that is lost here is missed, and named, by the first tick.
                with contextlib.suppress(WorkerLost):
                    one.result()

    def close(self) -> None:
        """End the workers, then the engine."""
        for link in self._others:
            link.close()
        self._engine.close()
