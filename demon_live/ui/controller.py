"""What the prompt and the stage view share: evaluating, polling, answering, the tour.

A face (repl.py, stage/app.py) gives it `say`, where pieces of text go; the desk stays when
the faces change, so that nothing is lost when the performer goes from one to the other.

Threads: made and used in the event loop. Statements are evaluated in order by one worker thread,
the session is polled by another, so that neither a slow evaluation nor a slow poll holds up a
keystroke.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from demon_live.errors import DemonError
from demon_live.session.session_api import Port
from demon_live.session.status import Outcome, Status, Words
from demon_live.ui import guide, show
from demon_live.ui.tour import Tour

__all__ = ["FACES", "LEAVE", "Desk"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: Words that leave, and those that go to the other face.
LEAVE = frozenset({"quit", "exit", "bye"})
FACES = ("prompt", "stage")


class Desk:
    """See the module. stop: leave when it is set. columns: width of the face."""

    def __init__(self, port: Port, *, stop: threading.Event | None = None) -> None:
        self.port = port
        self.stop = stop or threading.Event()
        self.say: Callable[[show.Pieces], None] = lambda pieces: None
        self.leave: Callable[[], None] = lambda: None
        self.switch: Callable[[str], None] = lambda face: None
        self.columns: Callable[[], int] = lambda: 80
        #: A line laid ready: an empty prompt shows it, Enter evaluates it, Tab takes it.
        self.offered = ""
        self.status: Status | None = None
        #: time.monotonic() of the status.
        self.polled_at = 0.0
        self.words = Words()
        self.tour = Tour()
        self._seen = 0
        self._asked_to_leave = False
        self._jobs: set[asyncio.Task[None]] = set()
        self._worker = ThreadPoolExecutor(1, "evaluate")
        self._poller = ThreadPoolExecutor(1, "poll")

    def close(self) -> None:
        """Wait for what is being evaluated; after `jobs_done`."""
        self._worker.shutdown(wait=True)
        self._poller.shutdown(wait=True)

    async def jobs_done(self) -> None:
        """Wait for the statements that were handed over."""
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)

    # --- polling --------------------------------------------------------------------------------

    async def poll(self) -> bool:
        """Fetch status and events. If the session fails to answer, the last picture stands."""
        try:
            self.status, self.words, lines, at = await self.in_poller(self._fetch)
        except Exception:  # noqa: BLE001 - a wall: the prompt outlives any session
            _log.exception("the session did not answer")
            return False
        self.polled_at = at
        for line in lines:
            self.say(show.event(line))
        return True

    def _fetch(self) -> tuple[Status, Words, tuple[str, ...], float]:
        self._seen, lines = self.port.events(self._seen)
        at = time.monotonic()
        return self.port.status(), self.port.words(), lines, at

    async def in_poller(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._poller, work)

    def heard(self, now: float) -> float:
        """The cycle at the ear at time.monotonic() = now, carried on from the last status."""
        status = self.status
        if status is None:
            return 0.0
        since = min(now - self.polled_at, 1.0) - status.ahead_ms / 1000
        return max(0.0, status.cycle + since * status.bpm / 60 / max(status.beats, 1))

    # --- evaluating -----------------------------------------------------------------------------

    def evaluate(self, text: str) -> None:
        """Hand a statement to the session, or answer it here; the reply is said later."""
        word = text.strip()
        self.offered = ""
        asked = guide.question(word)
        if word in LEAVE:
            self.ask_to_leave()
        elif word in FACES:
            self._start(self._switch(word))
        elif asked is not None:
            self.answer(lambda: guide.about(asked) if asked else guide.overview())
        elif word.split(" ")[0] == "tour":
            self.answer(lambda: self.tour.go(self.port, word[4:].strip(), self.columns()))
        else:
            self.answer(lambda: self._apply(text))

    async def _switch(self, face: str) -> None:
        # After what was evaluated before, as all statements.
        await asyncio.wrap_future(self._worker.submit(self.tour.heard))
        self.switch(face)

    def answer(self, work: Callable[[], show.Pieces]) -> None:
        """Do `work` in the worker thread, say its pieces or its error."""
        # Handed over here and now: the event loop may be about to draw.
        self._start(self._answer(self._worker.submit(work)))

    def attempt(
        self,
        work: Callable[[], Outcome],
        done: Callable[[DemonError | None], None],
        fix: Callable[[DemonError], DemonError] = lambda fault: fault,
    ) -> None:
        """Evaluate, and tell the face how it went: None, or the error, its places put right."""
        self._start(self._attempt(self._worker.submit(work), done, fix))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _answer(self, work: Future[show.Pieces]) -> None:
        try:
            pieces = await asyncio.wrap_future(work)
        except DemonError as fault:
            pieces = [*show.error(fault), *self.tour.heard()]
        except Exception as fault:  # noqa: BLE001 - a wall: no fault may end a set
            _log.exception("a statement failed")
            pieces = show.fault(fault)
        self.say(pieces)
        if line := self.tour.take():
            self.offered = line

    async def _attempt(
        self,
        work: Future[Outcome],
        done: Callable[[DemonError | None], None],
        fix: Callable[[DemonError], DemonError],
    ) -> None:
        wrong: DemonError | None = None
        try:
            outcome = await asyncio.wrap_future(work)
            pieces = self._told(outcome) or [("reply", "       nothing changes\n")]
        except DemonError as fault:
            wrong = fix(fault)
            pieces = show.error(wrong)
        except Exception as fault:  # noqa: BLE001 - a wall: no fault may end a set
            _log.exception("a statement failed")
            pieces = show.fault(fault)
        self.say(pieces)
        done(wrong)

    def _apply(self, text: str) -> show.Pieces:
        outcome = self.port.apply(text)
        self._asked_to_leave = False
        return [*self._told(outcome), *self.tour.heard()]

    def _told(self, outcome: Outcome) -> show.Pieces:
        return show.outcome(outcome.messages, outcome.warnings, self.columns())

    # --- leaving --------------------------------------------------------------------------------

    def ask_to_leave(self) -> None:
        """Leave; while a set is recorded, only when asked twice."""
        recording = self.status.recording if self.status else None
        if recording and not self._asked_to_leave:
            self._asked_to_leave = True
            line = f"       {recording} is being recorded: once more to close it and leave\n"
            self.say([("warning", line)])
            return
        self.leave()

    def mute(self, index: int) -> None:
        """Mute deck `index`, or unmute it."""
        decks = self.status.decks if self.status else ()
        if index < len(decks):
            deck = decks[index]
            self.evaluate(f"{'unmute' if deck.muted else 'mute'} {deck.name}")
