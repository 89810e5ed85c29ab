"""The voices of a choir where they live: an engine each, in a process or a Ray actor of its own.

    Singer       opens an engine and obeys orders          (at the voice's end)
    ProcessLink  a Singer in a fresh process of this machine, over a pipe
    HereLink     a Singer in this thread: tests, and a choir of one
    Words        conditions as the desk has them: what was asked for, made real by each voice


Threads: a link belongs to the thread of its choir.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demon_live.core import Request
from demon_live.engine.multi_gpu import Answer, Lost, Order, Voice
from demon_live.errors import DemonError, EngineError

if TYPE_CHECKING:
    from demon_live.models.engine import Engine

__all__ = ["About", "HereLink", "Plan", "ProcessLink", "Singer", "Words", "voice_main"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a voice opens its engine. visible: the GPU it sees, as CUDA_VISIBLE_DEVICES; None: as
    the process finds them."""

    engine: str = "imp"
    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    random_weights: bool = False
    visible: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a voice says of its engine."""

    text: str
    notes: tuple[str, ...]
    adapters: tuple[str, ...]
    shift: float
    steps: int
    depth: int
    channels: int


@dataclass(frozen=True, slots=True)
class Words:
    """Arguments of `Engine.condition`. silent: made `unconditioned`."""

    prompt: str
    more: tuple[tuple[str, Any], ...]
    silent: bool = False


class Singer:
    """A voice: its engine, and the ring on it. Raises EngineError when the engine does not open."""

    def __init__(self, plan: Plan, engine: Engine | None = None) -> None:
        if engine is None:
            from demon_live.models.engine import open_engine

            engine = open_engine(
                plan.engine,
                backend=plan.backend,
                device=plan.device,
                threads=plan.threads,
                random_weights=plan.random_weights,
            )
        self.engine = engine
        self._voice = Voice(
            engine, shift=engine.shift, device=engine.device, resolve=self._resolved
        )
        self._real = functools.lru_cache(maxsize=256)(self._made)

    def about(self) -> About:
        """What the desk must know."""
        engine = self.engine
        return About(
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

    def obey(self, order: Order) -> Answer:
        """See `Voice.obey`."""
        return self._voice.obey(order)

    def _made(self, words: Words) -> Any:
        if words.silent:
            return self.engine.unconditioned(self._real(replace(words, silent=False)))
        return self.engine.condition(words.prompt, **dict(words.more))

    def _resolved(self, request: Request) -> Request:
        def real(condition: Any) -> Any:
            return self._real(condition) if isinstance(condition, Words) else condition

        rest = tuple((real(c), *more) for c, *more in request.conditions)
        return replace(
            request,
            condition=real(request.condition),
            negative=real(request.negative),
            conditions=rest,
        )

    def close(self) -> None:
        """Give the engine back."""
        self._voice.close()
        self.engine.close()


class HereLink:
    """A voice in this thread: it makes its tick when it is asked for the answer."""

    def __init__(self, singer: Singer) -> None:
        self._singer = singer
        self._orders: deque[Order] = deque()

    def send(self, order: Order) -> None:
        self._orders.append(order)

    def receive(self) -> Answer:
        return self._singer.obey(self._orders.popleft())

    def close(self) -> None:
        self._singer.close()


_CHILD = "import sys; sys.path[:] = {path!r}; from {module} import voice_main; voice_main({fd})"


def voice_main(fd: int, change: Callable[[Engine], None] = lambda engine: None) -> None:
    """The process of a voice, from opening the engine to the end of the pipe `fd`. change: done to
    the engine when it is open (measurements)."""
    conn = Connection(fd)
    plan: Plan = conn.recv()
    if plan.visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = plan.visible
    try:
        singer = Singer(plan)
        change(singer.engine)
        conn.send(singer.about())
    except DemonError as error:
        conn.send(error.message)
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            what = conn.recv()
            if isinstance(what, tuple):
                singer.warm_up(*what)
                conn.send(None)
            else:
                conn.send(singer.obey(what))
    singer.close()


class ProcessLink:
    """A voice in a process of its own on this machine. `about` waits until it is open."""

    #: Where the process finds its `voice_main`.
    MODULE = "demon_live.engine.gpu_workers"

    def __init__(self, plan: Plan, environ: Mapping[str, str] | None = None) -> None:
        self._conn, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        path = [root, *(p for p in sys.path if p and p != root)]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _CHILD.format(path=path, module=self.MODULE, fd=theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**os.environ, **(environ or {})},
        )
        theirs.close()
        self._conn.send(plan)
        self._about: About | None = None

    @property
    def pid(self) -> int:
        """Process id of the voice."""
        return self._process.pid

    def about(self) -> About:
        """What its engine is. Raises EngineError when it does not open."""
        if self._about is None:
            said = self._receive()
            if not isinstance(said, About):
                raise EngineError(f"a voice of the choir does not open: {said}")
            self._about = said
        return self._about

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self._send((frames, depth))
        self._receive()

    def _send(self, what: object) -> None:
        try:
            self._conn.send(what)
        except OSError as error:
            raise Lost(f"its process ended (code {self._process.poll()})") from error

    def _receive(self) -> Any:
        try:
            return self._conn.recv()
        except (EOFError, OSError) as error:
            raise Lost(f"its process ended (code {self._process.poll()})") from error

    def send(self, order: Order) -> None:
        self._send(order)

    def receive(self) -> Answer:
        answer: Answer = self._receive()
        return answer

    def close(self) -> None:
        self._conn.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(1)
