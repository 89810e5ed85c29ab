"""The parts that the prompt and the stage view share.

    UiController   evaluates, polls, answers, and holds the tour
    FrontEnd       base of both views: a prompt with completion and history, and its commands

The controller outlives the views: running evaluations go on when the performer changes the view.

Threads: both belong to the event loop. One worker thread evaluates statements in order, another
polls the session, so that neither a slow evaluation nor a slow poll holds up a keystroke.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from demon_live.controls import SETTINGS
from demon_live.errors import DemonError
from demon_live.lang import is_complete
from demon_live.paths import state_dir
from demon_live.session.session_api import SessionApi
from demon_live.session.status import Outcome, Status, Words, came_in
from demon_live.ui import guide, show
from demon_live.ui.complete import ScoreCompleter, bound_at
from demon_live.ui.tour import Tour

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: Words that end the session, and words that go to the other view.
END = frozenset({"quit", "exit", "bye"})
VIEWS = ("prompt", "stage")
Leaving = Literal["detach", "ask", "end"]
#: Seconds in which a tempo that was asked for may take over.
_TEMPO_WAITS = 5.0


class UiController:
    """Everything between a view and its session.

    Attributes:
        session: evaluates and answers.
        stop: leave when it is set.
        leaving: what Ctrl-D does. detach: leave a session that others have, too. ask: end the
            session or leave it playing, after a question. end: end it, after a question.
        say: shows pieces; set by the view, as are the next three.
        leave: ends the view.
        switch: goes to the view of that name.
        columns: width of the view.
        offered: a suggested line: an empty prompt shows it, Enter evaluates it, Tab takes it.
        status: the last status, None before the first poll; polled_at: its time.monotonic().
        words: names for completion.
    """

    def __init__(
        self,
        session: SessionApi,
        *,
        stop: threading.Event | None = None,
        leaving: Leaving = "end",
    ) -> None:
        self.session = session
        self.leaving = leaving
        self.stop = stop or threading.Event()
        self.say: Callable[[show.Pieces], None] = lambda pieces: None
        self.leave: Callable[[], None] = lambda: None
        self.switch: Callable[[str], None] = lambda view: None
        self.columns: Callable[[], int] = lambda: 80
        self.offered = ""
        self.status: Status | None = None
        self.polled_at = 0.0
        self.words = Words()
        self.tour = Tour(own=self.own)
        self._seen = 0
        #: Events that others get of what was typed here.
        self._mine: deque[str] = deque(maxlen=64)
        self._asked = False
        #: The tempo that was asked for last, and until when it counts.
        self._tempo = 0.0, 0.0
        self._jobs: set[asyncio.Task[None]] = set()
        self._worker = ThreadPoolExecutor(1, "evaluate")
        self._poller = ThreadPoolExecutor(1, "poll")

    def close(self) -> None:
        """Wait for running evaluations; after `jobs_done`."""
        self._worker.shutdown(wait=True)
        self._poller.shutdown(wait=True)

    async def jobs_done(self) -> None:
        """Wait for all statements so far."""
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)

    # --- polling --------------------------------------------------------------------------------

    async def poll(self) -> bool:
        """Fetch status and events. If the session fails to answer, the last status stays."""
        try:
            self.status, self.words, lines, at = await self.in_poller(self._fetch)
        except DemonError as fault:
            # A session that has ended sets `stop`.
            _log.info("no status: %s", fault.message)
            return False
        except Exception:  # noqa: BLE001 - a wall: the prompt outlives any session
            _log.exception("the session did not answer")
            return False
        self.polled_at = at
        for line in lines:
            # What was typed here has its answer here.
            if line not in self._mine:
                self.say(show.event(line))
            self._forget(line)
        return True

    def _fetch(self) -> tuple[Status, Words, tuple[str, ...], float]:
        self._seen, lines = self.session.events(self._seen)
        at = time.monotonic()
        return self.session.status(), self.session.words(), lines, at

    async def in_poller(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._poller, work)

    def cycle_at(self, now: float) -> float:
        """The cycle at the ear at time.monotonic() = now, extrapolated from the last status."""
        status = self.status
        if status is None:
            return 0.0
        since = min(now - self.polled_at, 1.0) - status.ahead_ms / 1000
        return max(0.0, status.cycle + since * status.bpm / 60 / max(status.beats, 1))

    # --- evaluating -----------------------------------------------------------------------------

    def evaluate(self, text: str) -> None:
        """Send a statement to the session, or answer it here; the reply is shown later."""
        word = text.strip()
        self.offered = ""
        topic = guide.question(word)
        asked, self._asked = self._asked, False
        if word in END or (asked and word == "end"):
            self._end(asked)
        elif word in VIEWS:
            self._start(self._switch(word))
        elif topic is not None:
            self.answer(lambda: guide.about(topic, self.session) if topic else guide.overview())
        elif word.split(" ")[0] == "tour":
            self.answer(lambda: self.tour.go(self.session, word[4:].strip(), self.columns()))
        else:
            self.answer(lambda: self._apply(text, "<prompt>"))

    async def _switch(self, view: str) -> None:
        # After the statements before it, as all statements.
        await asyncio.wrap_future(self._worker.submit(self.tour.follow_up))
        self.switch(view)

    def answer(self, work: Callable[[], show.Pieces]) -> None:
        """Do `work` in the worker thread, show its pieces or its error."""
        # Submitted here and now: the event loop may be about to draw.
        self._start(self._answer(self._worker.submit(work)))

    def attempt(
        self,
        work: Callable[[], Outcome],
        done: Callable[[DemonError | None], None],
        fix: Callable[[DemonError], DemonError] = lambda fault: fault,
    ) -> None:
        """Evaluate, and report the result to the view.

        Args:
            work: evaluates, in the worker thread.
            done: called with None, or with the error.
            fix: corrects the places of an error.
        """
        self._start(self._attempt(self._worker.submit(work), done, fix))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _answer(self, work: Future[show.Pieces]) -> None:
        try:
            pieces = await asyncio.wrap_future(work)
        except DemonError as fault:
            pieces = [*show.error(fault), *self.tour.follow_up()]
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
            pieces = self._pieces(outcome) or [("reply", "       nothing changes\n")]
        except DemonError as fault:
            wrong = fix(fault)
            pieces = show.error(wrong)
        except Exception as fault:  # noqa: BLE001 - a wall: no fault may end a set
            _log.exception("a statement failed")
            pieces = show.fault(fault)
        self.say(pieces)
        done(wrong)

    def _apply(self, text: str, door: str) -> show.Pieces:
        outcome = self.own(door, text, lambda: self.session.apply(text, door))
        return [*self._pieces(outcome), *self.tour.follow_up()]

    def own(self, door: str, text: str, work: Callable[[], Outcome]) -> Outcome:
        """Evaluate what is typed here: others get it as an event, here it has its answer."""
        line = came_in(door, text, self.session.by)
        self._mine.append(line)
        try:
            return work()
        except BaseException:
            self._forget(line)
            raise

    def _forget(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            self._mine.remove(line)

    def _pieces(self, outcome: Outcome) -> show.Pieces:
        return show.outcome(outcome.messages, outcome.warnings, self.columns())

    # --- commands of both views -----------------------------------------------------------------

    def ask_to_leave(self, key: str) -> None:
        """Leave a session that others have; ask before it ends. key: the one that was pressed."""
        if self.leaving == "detach":
            self.evaluate("detach")
        elif self._asked:
            self.leave()
        else:
            self._asked = True
            ways = f"{key} again, or end, ends it"
            if self.leaving == "ask":
                ways += " · detach leaves it playing"
            what = f"{self._recording} is being recorded" if self._recording else "the music plays"
            self.say([("warning", f"       {what}: {ways} · anything else stays\n")])

    def _end(self, asked: bool) -> None:
        """End the session; while a set is recorded, only when asked twice."""
        if self._recording and not asked:
            self._asked = True
            line = f"       {self._recording} is being recorded: once more to close it and end\n"
            self.say([("warning", line)])
            return
        self.leave()

    @property
    def _recording(self) -> str | None:
        return self.status.recording if self.status else None

    @property
    def ctrl_d(self) -> str:
        """What Ctrl-D and Ctrl-Q do, in a word."""
        return "leaves" if self.leaving == "detach" else "ends"

    def mute(self, index: int) -> None:
        """Mute deck `index`, or unmute it."""
        decks = self.status.decks if self.status else ()
        if index < len(decks):
            self.mute_deck(decks[index].name)

    def mute_deck(self, name: str) -> None:
        """Mute a deck, or unmute it."""
        muted = self.status is not None and any(
            d.muted for d in self.status.decks if d.name == name
        )
        self.evaluate(f"{'unmute' if muted else 'mute'} {name}")

    def drag(self, text: str, drag: str, last: bool) -> None:
        """Evaluate a value of a drag; only the answer to the last one is shown, and errors.

        drag: its name, "<drag ...>"; all its values are one step of undo.
        """

        def work() -> show.Pieces:
            pieces = self._apply(text, drag)
            return pieces if last else []

        self.answer(work)

    def change_tempo(self, by: float) -> None:
        """Go `by` beats a minute faster; each press adds to one that waits for its bar."""
        if self.status is None:
            return
        limits, now = SETTINGS["tempo"], time.monotonic()
        wanted, until = self._tempo
        bpm = (wanted if now < until else round(self.status.bpm, 2)) + by
        bpm = min(max(bpm, limits.low), limits.high)
        self._tempo = bpm, now + _TEMPO_WAITS
        self.evaluate(f"tempo {bpm:g}")


class TextBuffer(Buffer):
    """A text without control characters, however they come: typed, quoted or pasted."""

    def insert_text(self, data: str, *args: Any, **options: Any) -> None:
        kept = "".join(c for c in data if c in "\n\t" or unicodedata.category(c) != "Cc")
        if kept or not data:
            super().insert_text(kept, *args, **options)


class FrontEnd:
    """A view with a prompt. history: file of earlier lines; None = the user's."""

    #: Of `VIEWS`.
    name = ""
    #: Columns beside an explanation.
    margin = 0
    app: Application[None]

    def __init__(self, controller: UiController, history: Path | None) -> None:
        self.controller = controller
        self.completer = ScoreCompleter(lambda: controller.words)
        self.prompt = TextBuffer(
            multiline=True,
            completer=self.completer,
            complete_while_typing=True,
            history=_history(history),
            name="prompt",
        )
        self._next = ""

    async def run(self) -> str:
        """Show the view until the performer leaves; returns the view to go to, "" to leave."""
        controller = self.controller
        controller.say, controller.leave, controller.switch = self.say, self._exit, self._switch
        controller.columns = lambda: self.app.output.get_size().columns - self.margin
        self._next = ""
        await self._show()
        return self._next

    async def _show(self) -> None:
        raise NotImplementedError

    def _switch(self, view: str) -> None:
        if view != self.name:
            self._next = view
            self._exit()

    def _exit(self) -> None:
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    def say(self, pieces: show.Pieces) -> None:
        """Show pieces after all earlier ones. Call it in the event loop."""
        raise NotImplementedError

    def accept(self) -> None:
        """Evaluate the text in the prompt, whether or not it looks complete."""
        text = self.prompt.text.strip("\n") or self.controller.offered
        if text.strip():
            self.prompt.text = text
            self.prompt.append_to_history()
            self._echo(text)
            self.controller.evaluate(text)
        self.prompt.reset()

    def _echo(self, text: str) -> None:
        raise NotImplementedError

    def complete_statement(self) -> bool:
        """Whether Enter should evaluate (and not open a new line)."""
        text = self.prompt.text
        return guide.question(text) is not None or is_complete(text)

    def word_at_cursor(self) -> str:
        """The word under the cursor, or before it, in whatever is being edited; on a number, the
        control that is bound to it."""
        document = self.app.current_buffer.document
        word = (document.get_word_under_cursor() or document.get_word_before_cursor()).strip()
        if word.strip(".0123456789"):
            return word
        return bound_at(document.text, document.cursor_position) or word

    def explain(self) -> None:
        """Show help on the word under the cursor."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ctrl-C: clear the prompt. The sound goes on."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Draw everything anew."""
        raise NotImplementedError


def _history(path: Path | None) -> History:
    """The file of earlier lines; without a place to write, memory."""
    try:
        path = path or state_dir() / "history"
        path.touch()
        return FileHistory(path)
    except OSError:
        return InMemoryHistory()
