"""The engine process seen from the session: started, fed, listened to, and replaced when it dies.

Neither a parse nor a fault of the model can touch the sound or the prompt: the engine lives in a
process of its own, the audio in another. What the engine must know to play is kept here (the
newest stage of each deck, the ring's settings, the timbres), so that another process takes over: a
*spare* that has loaded everything already, where there is memory for one, else a new one.

Threads: `EngineSupervisor` has one thread that reads the pipe and one that writes; `send` may be
called from any thread and never blocks (a full queue drops blocks, never commands).
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from demon_live.runtime.engine_process import EngineProcess
from demon_live.runtime.memory import available
from demon_live.runtime.messages import (
    Block,
    Note,
    Ready,
    Report,
    ToEngine,
    ToSession,
)
from demon_live.runtime.options import EngineOptions, Opening
from demon_live.runtime.retold import Retold
from demon_live.runtime.tick_stats import TurnStats
from demon_live.session.status import EngineStatus

__all__ = ["EngineSupervisor"]

#: An engine that could not play is started again only after a pause, twice as long each time.
_RESTART_PAUSE, _LONGEST_PAUSE = 2.0, 64.0
#: The first spare is begun so long after the engine plays (its start takes two seconds of a
#: processor), and each only where so much memory is left: it holds a second model.
_SPARE_AFTER, _SPARE_BYTES = 1.0, 1_500_000_000


class EngineSupervisor:
    """The engine process as the session sees it. spare: keep one in reserve; None: if it fits."""

    def __init__(
        self,
        bus_path: str,
        options: EngineOptions,
        tell: Callable[[str], None],
        spare: bool | None = None,
    ) -> None:
        self._bus_path, self._options, self._tell = bus_path, options, tell
        self._log = open(Path(bus_path).with_suffix(".engine.log"), "ab")  # noqa: SIM115
        self._retold = Retold()
        self._out: queue.Queue[ToEngine] = queue.Queue(512)
        self._closing = threading.Event()
        self.status = EngineStatus(alive=False)
        self.turns = TurnStats()
        self.description = options.engine
        self.restarts = 0
        self._failures = 0
        self._wants_spare = os.environ.get("DEMON_SPARE", "1") != "0" if spare is None else spare
        self._spare: EngineProcess | None = None
        #: When the next spare may be begun, None: not before the engine plays.
        self._spare_due: float | None = None
        self._process = self._start_process()
        self._threads = [
            threading.Thread(target=self._listen, name="engine-in", daemon=True),
            threading.Thread(target=self._feed, name="engine-out", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _start_process(self, spare: bool = False) -> EngineProcess:
        return EngineProcess(Opening(self._bus_path, self._options, spare), self._log)

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    @property
    def spare_pid(self) -> int | None:
        """Process id of the engine in reserve, if there is one."""
        spare = self._spare
        return None if spare is None else spare.pid

    @property
    def spare_ready(self) -> bool:
        """Whether an engine in reserve has opened its model."""
        spare = self._spare
        return spare is not None and spare.ready

    def send(self, message: ToEngine) -> None:
        """Queue a message. A full queue drops blocks (a newer one follows), nothing else."""
        self._retold.note(message)
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
            process = self._process
            if process.ready or not isinstance(message, Block):
                process.send(message)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                message = self._process.receive(0.2)
            except (EOFError, OSError):
                if not self._closing.is_set():
                    self._restart()
                continue
            if message is not None:
                self._hear(message)
            self._tend_spare()

    def _hear(self, message: ToSession) -> None:
        match message:
            case Ready(description, notes, device):
                self.description = description
                self._process.ready = True
                # A GPU's memory is for the model that plays.
                self._wants_spare = self._wants_spare and device == "cpu"
                for note in notes:
                    self._tell(note)
            case Report(status, turns):
                self.status, self.turns = status, turns
                if status.generations and self._spare is None and self._spare_due is None:
                    self._spare_due = time.monotonic() + _SPARE_AFTER
            case Note(text):
                self._tell(text)

    # ------------------------------------------------------------------ the spare

    def _tend_spare(self) -> None:
        """Begin one when it is time; notice that it is ready, or gone."""
        if self._spare is not None:
            try:
                if isinstance(self._spare.receive(0), Ready):
                    self._spare.ready = True
            except (EOFError, OSError):
                # One that cannot open would not open the next time: not before the next restart.
                self._spare.end()
                self._spare = None
        elif self._wants_spare and self._spare_due is not None:
            if time.monotonic() < self._spare_due or self._closing.is_set():
                return
            self._spare_due = float("inf")
            if available() >= _SPARE_BYTES:
                self._spare = self._start_process(spare=True)

    # ------------------------------------------------------------------ when it dies

    def _restart(self) -> None:
        """Another process with the newest stages. The loops play on meanwhile."""
        played = self._process.ready and self.status.generations > 0
        code = self._process.end()
        self.status = EngineStatus(alive=False)
        self.restarts += 1
        self._patience(code, played)
        if self._closing.is_set():
            return
        spare, self._spare = self._spare, None
        # The next spare at once: what kills twice may kill a third time. But not while nothing
        # plays, or what cannot start would be started twice.
        self._spare_due = time.monotonic() if played else None
        process = spare if spare is not None and spare.code is None else self._start_process()
        self._process = process
        for message in self._retold.messages():
            self._out.put(message)

    def _patience(self, code: int | None, played: bool) -> None:
        """One that has played is replaced at once, one that cannot play ever more patiently."""
        if played:
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
        """End the processes; after two seconds by force."""
        self._closing.set()
        for thread in self._threads:
            thread.join(1)
        if self._spare is not None:
            self._spare.kill()
        self._process.quit(2)
        self._log.close()
