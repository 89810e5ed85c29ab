"""The engine process seen from the session: started, fed, listened to, replaced when it dies.

Neither a parse nor a fault of the model can touch the sound or the prompt: the engine lives in a
process of its own, the audio in another. The newest published state is kept here, so that another
process takes over: a *spare* that has loaded everything, where there is memory for one, else a new
one.

Threads: one thread reads the pipe and one writes it; `publish` may be called from any thread and
never blocks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from demon_live.children import Backoff, Child
from demon_live.core import EngineState, EngineStatus, Generation
from demon_live.paths import state_dir
from demon_live.runtime.memory import available
from demon_live.runtime.options import (
    REMOTE,
    EngineOptions,
    GenerationReport,
    Note,
    Opening,
    Progress,
    Ready,
    Report,
    Telemetry,
)
from demon_live.runtime.pace import TurnStats

#: Seconds without a sign of life after which an engine hangs: on a CPU, and on a GPU, where the
#: compiler of a kernel may hold Python's lock for long.
HUNG, _HUNG_GPU = 3.0, 12.0
#: A longer pause between two looks means that this machine slept: nothing can be said of others.
_SLEPT = 1.5
#: An engine that could not play is started again only after a pause, twice as long each time.
_PAUSE, _LONGEST_PAUSE = 2.0, 64.0
#: The first spare is begun so long after the engine plays (its start takes two seconds of a
#: processor), and each only where so much memory is left: it holds a second model.
_SPARE_AFTER, _SPARE_BYTES = 1.0, 1_500_000_000
#: An engine's log that is longer is put aside when a session starts.
_LOG_BYTES = 1_000_000
_HERE = "demon_live.runtime.engine_main:engine_main"
_ELSEWHERE = "demon_live.remote.client:remote_main"


def engine_log(folder: Path) -> Path:
    """Where the last words of engines go: a file that stays, or else in `folder`."""
    log = state_dir() / "engine.log"
    try:
        with open(log, "ab"):
            pass
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name("engine.log.1"))
    except OSError:
        return folder / "engine.log"
    return log


class EngineProcess(Child):
    """An engine process. ready: whether its model is open."""

    def __init__(self, opening: Opening, log: Path, target: str | None = None) -> None:
        if target is None:
            target = _ELSEWHERE if opening.options.engine.startswith(REMOTE) else _HERE
        with open(log, "ab") as stderr:
            super().__init__(target, stderr)
        self.ready = False
        self.send(opening)


class EngineSupervisor:
    """Keeps an engine process alive.

    Args:
        folder: where the bus, the PCM and the engine's log lie.
        options: how the engine is opened.
        tell: called with lines for the performer.
        made: called with generations, while the state asks for them.
        spare: keep a process in reserve; None = if it fits.
        start: makes a process of an Opening.
        to_bar: seconds to the next bar, at which another engine may take over.
    """

    def __init__(
        self,
        folder: Path,
        options: EngineOptions,
        tell: Callable[[str], None],
        made: Callable[[Generation], None] = lambda generation: None,
        spare: bool | None = None,
        start: Callable[[Opening, Path], EngineProcess] = EngineProcess,
        to_bar: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._folder, self._options, self._start = folder, options, start
        self._tell, self._made = tell, made
        self._log = engine_log(folder)
        self._started, self._to_bar = options, to_bar
        #: Another engine that is being opened, how, and when it takes over; one that cannot open.
        self._other: EngineProcess | None = None
        self._other_options, self._other_due = options, 0.0
        self._other_ready: Ready | None = None
        self._refused = ""
        self._state: EngineState | None = None
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self.status = EngineStatus(alive=False)
        self.turns = TurnStats()
        self.description = options.engine
        self.restarts = 0
        self._backoff = Backoff(_PAUSE, _LONGEST_PAUSE)
        self._spare_backoff = Backoff(_PAUSE, _LONGEST_PAUSE)
        self._patience = HUNG
        #: When the process was heard of last, and when it was looked at last.
        self._heard_at = self._looked_at = time.monotonic()
        self._may_spare = os.environ.get("DEMON_SPARE", "1") != "0" if spare is None else spare
        self._wants_spare = self._may_spare
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
        return self._start(Opening(str(self._folder), self._options, spare), self._log)

    @property
    def engine(self) -> str:
        """The engine that plays, as it was asked for."""
        return self._options.engine

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    @property
    def spare_pid(self) -> int | None:
        """Process id of the spare, if there is one."""
        spare = self._spare
        return None if spare is None else spare.pid

    @property
    def spare_ready(self) -> bool:
        """Whether the spare has opened its model."""
        spare = self._spare
        return spare is not None and spare.ready

    def publish(self, state: EngineState) -> None:
        """What the engine should be doing from now on. The newest wins."""
        with self._wake:
            self._state = state
            self._wake.notify()

    def _feed(self) -> None:
        """Send the newest state to the process that plays, each once."""
        receiver: EngineProcess | None = None
        sent: EngineState | None = None
        while not self._closing.is_set():
            with self._wake:
                process, state = self._process, self._state
                known = receiver is process and sent is state
                if state is None or not process.ready or known:
                    self._wake.wait(0.2)
                    continue
            receiver, sent = process, state
            process.send(state)

    def _listen(self) -> None:
        while not self._closing.is_set():
            process = self._process
            try:
                if process.poll(0.2):
                    self._hear(process.receive())
                    self._heard_at = self._looked_at = time.monotonic()
                elif self._hangs(time.monotonic()):
                    self._tell("the engine does not answer any more; it is replaced")
                    process.abort()
                    raise EOFError
            except (EOFError, OSError):
                if not self._closing.is_set():
                    self._restart()
                continue
            self._tend_spare()
            self._tend_other()

    def _hangs(self, now: float) -> bool:
        """Whether the process has given no sign of life for too long."""
        if now - self._looked_at > _SLEPT or not self._process.ready:
            self._heard_at = now
        self._looked_at = now
        return now - self._heard_at > self._patience

    def _hear(self, report: Report) -> None:
        match report:
            case Ready(description, notes, device):
                self.description = description
                self._open(self._process)
                self._patience = HUNG if device == "cpu" else _HUNG_GPU
                # A GPU's memory is for the model that plays.
                self._wants_spare = self._wants_spare and device == "cpu"
                for note in notes:
                    self._tell(note)
            case Telemetry(status, turns):
                self.status, self.turns = status, turns
                if status.generations and self._spare is None and self._spare_due is None:
                    self._spare_due = time.monotonic() + _SPARE_AFTER
            case Note(text):
                self._tell(text)
            case GenerationReport(generation):
                self._made(generation)
            case Progress(text):
                self.description = f"{self._options.engine} · {text}"

    def _open(self, process: EngineProcess) -> None:
        with self._wake:
            process.ready = True
            self._wake.notify()

    def _tend_spare(self) -> None:
        """Begin one when it is time; notice that it is ready, or gone."""
        if self._spare is not None:
            try:
                if self._spare.poll() and isinstance(self._spare.receive(), Ready):
                    self._spare.ready = True
            except (EOFError, OSError):
                # One that was ready is replaced; one that cannot open is tried more patiently.
                if self._spare.ready:
                    self._spare_backoff.worked()
                self._spare_due = time.monotonic() + self._spare_backoff.failed()
                self._spare.end()
                self._spare = None
        elif self._wants_spare and self._spare_due is not None:
            if time.monotonic() < self._spare_due or self._closing.is_set():
                return
            self._spare_due = float("inf")
            if available() >= _SPARE_BYTES:
                self._spare = self._start_process(spare=True)

    def _tend_other(self) -> None:
        """Prepare the engine that the state names beside the one that plays; then it takes over."""
        options = self._wanted()
        if self._other is not None and options != self._other_options:
            self._drop_other()
        if options == self._options:
            self._refused = ""
            return
        if self._other is None:
            if options.engine != self._refused and not self._closing.is_set():
                self._other_options, self._other_ready = options, None
                opening = Opening(str(self._folder), options, spare=True)
                self._other = self._start(opening, self._log)
            return
        try:
            while self._other.poll():
                self._hear_other(self._other.receive())
        except (EOFError, OSError):
            self._drop_other()
            self._refused = options.engine
            self._tell(
                f"{options.engine} cannot play; {self._options.engine} plays on; see {self._log}"
            )
            return
        if self._other_ready is not None and time.monotonic() >= self._other_due:
            self._take_over(self._other, self._other_ready)

    def _wanted(self) -> EngineOptions:
        """How the engine that should play is opened."""
        state = self._state
        if state is None or state.engine in ("", self._started.engine):
            return self._started
        return replace(self._started, engine=state.engine, backend="auto")

    def _hear_other(self, report: Report) -> None:
        match report:
            case Ready():
                self._other_ready = report
                self._other_due = time.monotonic() + self._to_bar()
            case Note(text):
                self._tell(text)
            case Progress(text):
                name, other = self._options.engine, self._other_options.engine
                self.description = f"{name} · {other}: {text}"

    def _drop_other(self) -> None:
        if self._other is not None:
            self._other.kill()
            self._other = None

    def _take_over(self, process: EngineProcess, ready: Ready) -> None:
        """The other engine plays from now on; the loops play on until it has made theirs."""
        old, spare = self._process, self._spare
        self._options, self._other, self._spare = self._other_options, None, None
        self._spare_due = None
        self._wants_spare = self._may_spare
        self.status = EngineStatus(alive=False)
        with self._wake:
            self._process = process
            self._heard_at = time.monotonic()
        self._hear(ready)
        self._tell(f"{ready.description} plays from here on")
        for gone in (old, spare):
            if gone is not None:
                gone.kill()

    def _restart(self) -> None:
        """Another process with the newest state. The loops play on meanwhile."""
        played = self._process.ready and self.status.generations > 0
        code = self._process.end()
        self.status = EngineStatus(alive=False)
        self.restarts += 1
        self._pause(code, played)
        if self._closing.is_set():
            return
        spare, self._spare = self._spare, None
        if not played and self._wanted() != self._options:
            self._drop_other()
            self._options = self._wanted()
        # The next spare at once: what kills twice may kill a third time. But not while nothing
        # plays, or what cannot start would be started twice.
        self._spare_due = time.monotonic() if played else None
        process = spare if spare is not None and spare.code is None else self._start_process()
        with self._wake:
            self._process = process
            self._heard_at = time.monotonic()
            self._wake.notify()

    def _pause(self, code: int | None, played: bool) -> None:
        """One that has played is replaced at once, one that cannot play ever more patiently."""
        if played:
            self._backoff.worked()
            self._tell(
                f"the engine ended (code {code}); the loops play on, it is started again; "
                f"see {self._log}"
            )
            return
        pause = self._backoff.failed()
        if self._backoff.failures < 4 or pause >= _LONGEST_PAUSE:
            self._tell(
                f"the engine does not start (code {code}); the loops play on, it is tried again in "
                f"{pause:.0f} s; see {self._log}"
            )
        self._wait(pause)

    def _wait(self, pause: float) -> None:
        """Wait so many seconds, or until another engine is asked for."""
        end, options = time.monotonic() + pause, self._wanted()
        while time.monotonic() < end and self._wanted() == options:
            if self._closing.wait(0.1):
                return

    def close(self) -> None:
        """End the processes; after two seconds by force."""
        self._closing.set()
        with self._wake:
            self._wake.notify()
        for thread in self._threads:
            thread.join(1)
        if self._spare is not None:
            self._spare.kill()
        self._drop_other()
        self._process.quit(2)
