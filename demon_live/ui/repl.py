"""The prompt: type, hear, read the answer; the panel below it shows what plays.

One prompt_toolkit application runs as long as the set: it is not left between two statements, so
the panel never blinks away. Everything printed goes through `say`, which lifts prompt and panel,
writes above them and puts them back with what was being typed.

Threads: the event loop (main thread) owns buffer and screen. Statements are evaluated in order by
one worker thread; the session is polled by another, so that neither a slow evaluation nor a slow
poll holds up a keystroke.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout

from demon_live import places
from demon_live.errors import DemonError
from demon_live.lang import is_complete
from demon_live.lang.lexer import DemonLexer
from demon_live.perform.view import Status
from demon_live.ui import guide, keys, screen, show, toolbar
from demon_live.ui.complete import ScoreCompleter
from demon_live.ui.plain import Performance
from demon_live.ui.theme import STYLE

__all__ = ["Repl"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
_LEAVE = frozenset({"quit", "exit", "bye"})


class Repl:
    """The prompt of a session. `run` returns when the performer leaves.

    input, output: of prompt_toolkit, for tests. hz: how often events are printed and the panel is
    drawn. history: file of earlier lines; None = the user's. stop: leaves when it is set.
    """

    def __init__(
        self,
        session: Performance,
        *,
        banner: show.Pieces | None = None,
        input: Input | None = None,
        output: Output | None = None,
        history: Path | None = None,
        hz: float = 10.0,
        stop: threading.Event | None = None,
    ) -> None:
        self.session = session
        self._banner = banner or []
        self._hz = hz
        self._stop = stop or threading.Event()
        self._status: Status | None = None
        self._seen = 0
        self._lines: StyleAndTextTuples = []
        self._drain: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._tour = guide.Tour()
        self._warned_recording = False
        self._warned_cancel = False
        self._worker = ThreadPoolExecutor(1, "evaluate")
        self._poller = ThreadPoolExecutor(1, "poll")
        self.buffer = Buffer(
            multiline=True,
            completer=ScoreCompleter(self._names),
            complete_while_typing=True,
            history=_history(history),
            enable_history_search=False,
            name="score",
        )
        self.app: Application[None] = Application(
            layout=screen.layout(self.buffer, PygmentsLexer(DemonLexer), self._panel),
            key_bindings=keys.bindings(self),
            style=STYLE,
            include_default_pygments_style=False,
            input=input,
            output=output,
            erase_when_done=True,
            enable_page_navigation_bindings=False,
            editing_mode=keys.editing_mode(),
        )

    # --- running ----------------------------------------------------------------------------

    def run(self) -> None:
        """Show the prompt until the performer leaves. Errors of statements never end it."""
        try:
            with patch_stdout(raw=True):
                asyncio.run(self._run())
        except (EOFError, OSError):
            # The terminal is gone (window closed, line dropped): leave as if asked to.
            _log.warning("the terminal is gone", exc_info=True)
        finally:
            self._worker.shutdown(wait=True)
            self._poller.shutdown(wait=True)

    async def _run(self) -> None:
        self.say(self._banner)
        await self._poll()
        poll = asyncio.create_task(self._polling())
        try:
            await self.app.run_async()
        finally:
            poll.cancel()
            while self._jobs:
                await asyncio.gather(*self._jobs, return_exceptions=True)
            if self._drain is not None:
                await self._drain

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(1 / self._hz)
            await self._poll()
            if self._stop.is_set():
                self._exit()
            self.app.invalidate()

    async def _poll(self) -> None:
        """Fetch status and events. If the session fails to answer, the last panel stands."""
        try:
            self._status, lines = await self._in(self._poller, self._fetch)
        except Exception:  # noqa: BLE001 - a wall: the prompt outlives any session
            _log.exception("the session did not answer")
            return
        for line in lines:
            self.say(show.event(line))

    def _fetch(self) -> tuple[Status, tuple[str, ...]]:
        self._seen, lines = self.session.events(self._seen)
        return self.session.status(), lines

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    # --- printing ---------------------------------------------------------------------------

    def say(self, pieces: show.Pieces) -> None:
        """Print above the prompt, after all that was said before. Call it in the event loop."""
        self._lines += [(f"class:{kind}" if kind else "", text) for kind, text in pieces]
        if self._lines and self._drain is None:
            self._drain = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        # Many lines at once cost one lifting of the panel: a storm of events stays cheap.
        try:
            while self._lines:
                batch, self._lines = self._lines, []
                if self.app.is_running:
                    await run_in_terminal(functools.partial(self._print, batch))
                else:
                    self._print(batch)
        finally:
            self._drain = None

    def _print(self, batch: StyleAndTextTuples) -> None:
        self.app.print_text(FormattedText(batch), style=STYLE)

    def _names(self) -> dict[str, tuple[str, ...]]:
        decks = self._status.decks if self._status else ()
        return {"decks": tuple(d.name for d in decks), "scenes": self.session.scenes}

    @property
    def _columns(self) -> int:
        return self.app.output.get_size().columns

    def _panel(self) -> StyleAndTextTuples:
        size = self.app.output.get_size()
        if self._status is None:
            return []
        room = max(1, min(size.rows // 2, size.rows - 4 - self.buffer.document.line_count))
        plain = self.app.output.encoding().lower().replace("-", "") not in ("utf8", "utf16")
        rows = toolbar.panel(self._status, size.columns, room, ascii_only=plain)
        joined: StyleAndTextTuples = []
        for i, row in enumerate(rows):
            joined += [("", "\n"), *row] if i else row
        return joined

    # --- evaluating -------------------------------------------------------------------------

    def accept(self) -> None:
        """Evaluate what is typed, whether or not it looks complete."""
        text = self.buffer.text.strip("\n")
        if text.strip():
            self.buffer.append_to_history()
            self._echo(text)
            self.evaluate(text)
        self.buffer.reset()

    def complete_statement(self) -> bool:
        """Whether Enter should evaluate (and not open a new line)."""
        text = self.buffer.text
        return guide.question(text) is not None or is_complete(text)

    def _echo(self, text: str) -> None:
        code = screen.coloured(text.rstrip())
        # The newline that ends the last piece ends the echo; those before it go on with the margin.
        inner = [(kind, piece.replace("\n", f"\n{screen.MORE}")) for kind, piece in code[:-1]]
        self.say([("prompt", screen.PROMPT), *inner, *code[-1:]])

    def evaluate(self, text: str) -> None:
        """Hand a statement to the session, or answer it here; the reply is printed later."""
        word = text.strip()
        asked = guide.question(word)
        if word in _LEAVE:
            self.leave()
        elif asked is not None:
            self.answer(lambda: guide.about(asked) if asked else guide.overview())
        elif word.split(" ")[0] == "tour":
            self.answer(lambda: self._tour_step(word[4:].strip()))
        else:
            self.answer(lambda: self._apply(text))

    def answer(self, work: Callable[[], show.Pieces]) -> None:
        """Do `work` in the worker thread, print its pieces or its error."""
        job = asyncio.ensure_future(self._answer(work))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _answer(self, work: Callable[[], show.Pieces]) -> None:
        try:
            pieces = await self._in(self._worker, work)
        except DemonError as fault:
            pieces = show.error(fault)
        except Exception as fault:  # noqa: BLE001 - a wall: no fault may end a set
            _log.exception("a statement failed")
            pieces = show.fault(fault)
        self.say(pieces)

    def _apply(self, text: str) -> show.Pieces:
        outcome = self.session.apply(text)
        self._warned_recording = False
        return show.outcome(outcome.messages, outcome.warnings, self._columns)

    def _tour_step(self, word: str) -> show.Pieces:
        at, of, path = self._tour.step(word)
        text = path.read_text(encoding="utf-8")
        folder = self._tour.folder.resolve()
        # Every step is a whole score: what the step before said is given back first.
        for name in self.session.state.files:
            if Path(name).resolve().parent == folder and name != str(path):
                self.session.remove(name)
        outcome = self.session.load(path)
        more = "tour: the next step" if at + 1 < of else "that was the last step"
        return [
            ("heading", f"step {at} of {of - 1}: {path.name}\n"),
            *screen.coloured(text),
            *show.outcome(outcome.messages, outcome.warnings, self._columns),
            ("hint", f"       {more} · tour back · tour N\n"),
        ]

    # --- what the keys do -------------------------------------------------------------------

    def cancel(self) -> None:
        """Ctrl-C: forget what is typed. The sound goes on."""
        if not self.buffer.text and not self._warned_cancel:
            self._warned_cancel = True
            self.say([("hint", "       the sound goes on: Alt-. hushes, Ctrl-D leaves\n")])
        self.buffer.reset()

    def leave(self) -> None:
        """Ctrl-D: leave; while a set is recorded, only when asked twice."""
        recording = self._status.recording if self._status else None
        if recording and not self._warned_recording:
            self._warned_recording = True
            self.say(
                [
                    (
                        "warning",
                        f"       {recording} is being recorded: once more to close it and leave\n",
                    )
                ]
            )
            return
        self._exit()

    def _exit(self) -> None:
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    def mute(self, index: int) -> None:
        """Mute deck `index`, or unmute it."""
        decks = self._status.decks if self._status else ()
        if index < len(decks):
            deck = decks[index]
            self.answer(lambda: self._apply(f"{'unmute' if deck.muted else 'mute'} {deck.name}"))

    def explain(self) -> None:
        """Print help on the word under the cursor."""
        word: Any = (
            self.buffer.document.get_word_under_cursor()
            or self.buffer.document.get_word_before_cursor()
        )
        self.answer(lambda: guide.about(word) if word.strip() else guide.overview())


def _history(path: Path | None) -> History:
    """The file of earlier lines; without a place to write, memory."""
    try:
        path = path or places.state_dir() / "history"
        path.touch()
        return FileHistory(path)
    except OSError:
        return InMemoryHistory()
