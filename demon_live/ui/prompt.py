"""The prompt: type, hear, read the answer; the panel below it shows what plays.

One prompt_toolkit application runs as long as the prompt is shown: it is not left between two
statements, so the panel never blinks away. Everything printed goes through `say`, which lifts
prompt and panel, writes above them and puts them back with what was being typed.

Threads: the event loop (main thread) owns buffer and screen; see desk.py for the others.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from pathlib import Path
from typing import Any

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout

from demon_live import paths as places
from demon_live.lang import is_complete
from demon_live.lang.lexer import DemonLexer
from demon_live.session.session_api import Port
from demon_live.ui import guide, keys, screen, show
from demon_live.ui import panel as toolbar
from demon_live.ui.complete import ScoreCompleter
from demon_live.ui.controller import Desk
from demon_live.ui.theme import STYLE

__all__ = ["Repl", "open_history"]

_log = logging.getLogger(__name__)


class Repl:
    """The prompt of a session. `run` returns when the performer leaves.

    input, output: of prompt_toolkit, for tests. hz: how often events are printed and the panel is
    drawn. history: file of earlier lines; None = the user's. stop: leaves when it is set.
    desk: shared with the stage view; None = its own.
    """

    def __init__(
        self,
        session: Port,
        *,
        banner: show.Pieces | None = None,
        input: Input | None = None,
        output: Output | None = None,
        history: Path | None = None,
        hz: float = 10.0,
        stop: threading.Event | None = None,
        desk: Desk | None = None,
    ) -> None:
        self.desk = desk or Desk(session, stop=stop)
        self._banner = banner or []
        self._hz = hz
        self._lines: StyleAndTextTuples = []
        self._drain: asyncio.Task[None] | None = None
        self._warned_cancel = False
        self._next = ""
        self.buffer = Buffer(
            multiline=True,
            completer=ScoreCompleter(lambda: self.desk.words),
            complete_while_typing=True,
            history=open_history(history),
            enable_history_search=False,
            name="score",
        )
        self.app: Application[None] = Application(
            layout=screen.layout(
                self.buffer, PygmentsLexer(DemonLexer), self._panel, lambda: self.desk.offered
            ),
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
            self.desk.close()

    async def _run(self) -> str:
        """Show the prompt; returns the face that the performer goes to, "" to leave."""
        desk = self.desk
        desk.say, desk.leave = self.say, self._exit
        desk.columns, desk.switch = lambda: self.app.output.get_size().columns, self._switch
        self._next = ""
        self.say(self._banner)
        self._banner = []
        await desk.poll()
        poll = asyncio.create_task(self._polling())
        try:
            await self.app.run_async()
        finally:
            poll.cancel()
            await desk.jobs_done()
            if self._drain is not None:
                await self._drain
        return self._next

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(1 / self._hz)
            await self.desk.poll()
            if self.desk.stop.is_set():
                self._exit()
            self.app.invalidate()

    def _switch(self, face: str) -> None:
        if face == "stage":
            self._next = face
            self._exit()

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

    def _panel(self) -> StyleAndTextTuples:
        size = self.app.output.get_size()
        if self.desk.status is None:
            return []
        room = max(1, min(size.rows // 2, size.rows - 4 - self.buffer.document.line_count))
        plain = self.app.output.encoding().lower().replace("-", "") not in ("utf8", "utf16")
        rows = toolbar.panel(self.desk.status, size.columns, room, ascii_only=plain)
        joined: StyleAndTextTuples = []
        for i, row in enumerate(rows):
            joined += [("", "\n"), *row] if i else row
        return joined

    # --- evaluating -------------------------------------------------------------------------

    def accept(self) -> None:
        """Evaluate what is typed, whether or not it looks complete."""
        text = self.buffer.text.strip("\n") or self.desk.offered
        if text.strip():
            self.buffer.text = text
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
        self.desk.evaluate(text)

    # --- what the keys do -------------------------------------------------------------------

    def cancel(self) -> None:
        """Ctrl-C: forget what is typed. The sound goes on."""
        if not self.buffer.text and not self._warned_cancel:
            self._warned_cancel = True
            self.say([("hint", "       the sound goes on: Alt-. hushes, Ctrl-D leaves\n")])
        self.buffer.reset()

    def leave(self) -> None:
        """Ctrl-D: leave; while a set is recorded, only when asked twice."""
        self.desk.ask_to_leave()

    def _exit(self) -> None:
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    def mute(self, index: int) -> None:
        """Mute deck `index`, or unmute it."""
        self.desk.mute(index)

    def explain(self) -> None:
        """Print help on the word under the cursor."""
        word: Any = (
            self.buffer.document.get_word_under_cursor()
            or self.buffer.document.get_word_before_cursor()
        )
        self.desk.answer(lambda: guide.about(word) if word.strip() else guide.overview())


def open_history(path: Path | None) -> History:
    """The file of earlier lines; without a place to write, memory."""
    try:
        path = path or places.state_dir() / "history"
        path.touch()
        return FileHistory(path)
    except OSError:
        return InMemoryHistory()
