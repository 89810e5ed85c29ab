"""The stage view: keys in, frames out.

prompt_toolkit reads the keys and keeps the texts (editing, history, completion, vi or emacs keys);
it draws nothing. A frame is made after each key and `hz` times a second, and skipped while the
terminal has not taken the one before, so that a keystroke never waits for the screen.

Threads: the event loop owns texts and frames; see desk.py and painter.py for the others. Steps are
marked (lang.marks) in the polling thread, when a text has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.input import Input
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import Processor
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.widgets import SearchToolbar

from demon_live.errors import DemonError
from demon_live.lang import is_complete
from demon_live.session.status import Outcome
from demon_live.ui import guide, keys, show, text
from demon_live.ui.complete import ScoreCompleter, hint_at
from demon_live.ui.controller import Desk
from demon_live.ui.prompt import open_history
from demon_live.ui.stage import frame as frames
from demon_live.ui.stage.buffers import Shelf, marked
from demon_live.ui.stage.head import Trouble
from demon_live.ui.stage.help import CLOSE, explained, overlay
from demon_live.ui.stage.keys import bindings
from demon_live.ui.stage.log import Told, rows_of
from demon_live.ui.stage.painter import Painter, Row
from demon_live.ui.stage.score import Page, block_at, moved
from demon_live.ui.stage.terminal import Aside, Quiet, ascii_only
from demon_live.ui.theme import depth, stage_style

__all__ = ["StageView"]

_log = logging.getLogger(__name__)
_HINT = "F1 help · Alt-Enter plays the block · Ctrl-S all, saved · Shift-Tab prompt · Alt-. hush"
_SHORT = "F1 help · Alt-Enter play · Ctrl-S all · Shift-Tab prompt · Alt-. hush"
_FLASH = 0.25


class StageView:
    """See the module. theme: dark or light.

    input, fd, size, colours, history: for tests; None = the terminal's.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        theme: str = "dark",
        hz: float = 30.0,
        input: Input | None = None,
        fd: int | None = None,
        size: tuple[int, int] | None = None,
        colours: ColorDepth | None = None,
        history: Path | None = None,
    ) -> None:
        self.desk = desk
        self._hz = hz
        self._fd = fd
        self._colours = colours or depth()
        self._style = stage_style(theme, self._colours)
        self._painter: Painter | None = None
        self._next = ""
        self._told = Told()
        self._painted = False
        self._overlay: list[Row] = []
        self._dry = Trouble()
        self._polls = 0
        completer = ScoreCompleter(lambda: desk.words)
        self.prompt = Buffer(
            multiline=True,
            completer=completer,
            complete_while_typing=True,
            history=open_history(history),
            name="prompt",
        )
        self.shelf = Shelf(completer, self._shown)
        self._search = SearchToolbar()
        self.score_control = self._control(self.page.buffer)
        self.prompt_control = self._control(self.prompt)
        self._output = Quiet(size)
        self.app: Application[None] = Application(
            layout=Layout(
                HSplit(
                    [
                        Window(self.score_control, height=1),
                        Window(self.prompt_control, height=1),
                        self._search,
                    ]
                ),
                focused_element=self.score_control,
            ),
            key_bindings=bindings(self),
            input=input,
            output=self._output,
            full_screen=False,
            enable_page_navigation_bindings=False,
            editing_mode=keys.editing_mode(),
            after_render=lambda _: self.draw(),
        )
        # A lone Escape is seen at once: nobody types escape sequences by hand.
        self.app.ttimeoutlen = 0.05
        self.app.timeoutlen = 0.4

    def _control(self, buffer: Buffer) -> BufferControl:
        # No processors: nothing is drawn from here.
        none: list[Processor] = []
        return BufferControl(
            buffer,
            search_buffer_control=self._search.control,
            include_default_input_processors=False,
            input_processors=none,
        )

    # --- running --------------------------------------------------------------------------------

    @property
    def page(self) -> Page:
        """The score that is shown."""
        return self.shelf.page

    async def run(self) -> str:
        """Show the view; returns the face that the performer goes to, "" to leave."""
        desk = self.desk
        desk.say, desk.leave = self.say, self._exit
        desk.columns, desk.switch = lambda: self._output.get_size().columns, self._switch
        self._next = ""
        fd = self._fd if self._fd is not None else sys.__stdout__.fileno()  # type: ignore[union-attr]
        self._painter = Painter(fd, self._style, self._colours, "class:ground")
        self._painter.open()
        await desk.poll()
        await self._read_scores()
        tasks = [asyncio.create_task(self._polling()), asyncio.create_task(self._drawing())]
        aside = Aside(asyncio.get_running_loop(), self.say)
        try:
            with contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
                await self.app.run_async()
        finally:
            for task in tasks:
                task.cancel()
            await desk.jobs_done()
            painter, self._painter = self._painter, None
            painter.close()
        return self._next

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self.desk.poll()
            if self.desk.stop.is_set():
                self._exit()
            self._polls += 1
            if self._polls % 5 == 0:
                await self._read_scores()
            await self._mark()

    async def _mark(self) -> None:
        """Find the steps of the shown score anew if its text has changed."""
        page, content = self.page, self.page.buffer.text
        if page.lines_for != content:
            page.lines = await self.desk.in_poller(lambda: marked(content))
            page.lines_for = content

    async def _drawing(self) -> None:
        while True:
            await asyncio.sleep(1 / self._hz)
            self.draw()

    def _exit(self) -> None:
        if self.app.is_running and not self.app.is_done:
            self.app.exit()

    def _switch(self, face: str) -> None:
        if face == "prompt":
            self._next = face
            self._exit()

    # --- scores ---------------------------------------------------------------------------------

    async def _read_scores(self) -> None:
        """Show the scores that play."""
        try:
            playing = await self.desk.in_poller(self.desk.port.scores)
        except Exception:  # noqa: BLE001 - a wall: the view outlives any session
            _log.exception("the session did not tell its scores")
            return
        self.shelf.take(playing, follow=self._painted)

    def _shown(self) -> None:
        self.score_control.buffer = self.page.buffer

    def turn(self, by: int) -> None:
        """Go to another score."""
        self.shelf.turn(by)

    # --- saying ---------------------------------------------------------------------------------

    def say(self, pieces: show.Pieces) -> None:
        """Add to the log, one row a line; explanations open over the score instead."""
        rows = rows_of(pieces)
        if pieces and pieces[0][0] in ("topic", "heading"):
            columns, most = self._output.get_size().columns, self._output.get_size().rows - 2
            self._overlay = [*explained(rows, columns)[: most - 2], [("", "")], CLOSE]
        elif pieces and pieces[0][0] == "event":
            self._told.event(rows)
        else:
            self._told.answer(rows, time.monotonic())

    # --- what the keys do -----------------------------------------------------------------------

    @property
    def editing(self) -> bool:
        """Whether the score has the keys (and not the prompt)."""
        return self.app.layout.has_focus(self.score_control)

    def other_side(self) -> None:
        """From the score to the prompt, and back."""
        self.app.layout.focus(self.prompt_control if self.editing else self.score_control)

    def accept(self) -> None:
        """Evaluate the prompt."""
        typed = self.prompt.text.strip("\n") or self.desk.offered
        if typed.strip():
            self.prompt.text = typed
            self.prompt.append_to_history()
            self.say([("prompt", "demon> "), ("", typed.split("\n")[0])])
            self.desk.evaluate(typed)
        self.prompt.reset()

    def complete_statement(self) -> bool:
        """Whether Enter in the prompt should evaluate (and not open a new line)."""
        typed = self.prompt.text
        return guide.question(typed) is not None or is_complete(typed)

    def play_block(self) -> None:
        """Evaluate the block under the cursor, in its deck."""
        page, content = self.page, self.page.buffer.text
        block = block_at(content, page.buffer.document.cursor_position_row)
        if block is None:
            self.say(
                [("hint", "       nothing here: put the cursor on a line that says something\n")]
            )
            return
        port = self.desk.port
        self._flash(page, block.first, block.last)
        self.desk.attempt(
            lambda: port.apply(block.said, "<stage>"),
            lambda fault: self._played(page, content, block.first, block.last, fault),
            lambda fault: moved(fault, block, content, page.name or "<stage>"),
        )

    def play_all(self) -> None:
        """Evaluate the whole score as its file, and save it."""
        page, content = self.page, self.page.buffer.text
        last = content.count("\n")
        self._flash(page, 0, last)
        port, name = self.desk.port, page.name

        def work() -> Outcome:
            if name:
                return port.save(name, content)
            return port.apply(content, "<stage>")

        def done(fault: DemonError | None) -> None:
            if name:
                page.known = content
            self._played(page, content, 0, last, fault)

        self.desk.attempt(work, done)

    def _flash(self, page: Page, first: int, last: int) -> None:
        page.flash, page.failed = (first, last), False
        page.flash_until = time.monotonic() + _FLASH

    def _played(
        self, page: Page, content: str, first: int, last: int, fault: DemonError | None
    ) -> None:
        if fault is None:
            # An error elsewhere in the score stays until that place is mended.
            row = (page.error.span.line - 1) if page.error and page.error.span else -1
            if first <= row <= last:
                page.error = None
            return
        page.error, page.error_for, page.failed = fault, content, True
        page.flash_until = time.monotonic() + _FLASH

    def cancel(self) -> None:
        """Ctrl-C: close what is open, forget what is typed in the prompt. The sound goes on."""
        if self._overlay:
            self._overlay = []
        elif self.editing or not self.prompt.text:
            line = (
                "       the sound goes on: Alt-. hushes, Ctrl-Q leaves, Alt-s goes to the prompt\n"
            )
            self.say([("hint", line)])
        self.page.buffer.exit_selection()
        self.page.buffer.cancel_completion()
        self.prompt.reset()

    def help(self) -> None:
        """Open or close the help."""
        if self._overlay:
            self._overlay = []
            return
        buffer = self.app.current_buffer
        word = buffer.document.get_word_under_cursor() or buffer.document.get_word_before_cursor()
        size = self._output.get_size()
        self._overlay = overlay(word.strip(), size.columns, size.rows)

    @property
    def helping(self) -> bool:
        """Whether the help is open."""
        return bool(self._overlay)

    def repaint(self) -> None:
        """Draw everything anew: something else wrote on the screen."""
        if self._painter is not None:
            self._painter.forget()

    # --- drawing --------------------------------------------------------------------------------

    def draw(self) -> None:
        """Make a frame and hand it to the painter, unless that still has one."""
        painter = self._painter
        if painter is None or painter.busy:
            return
        now = time.monotonic()
        size = self._output.get_size()
        status, page = self.desk.status, self.page
        # What is said of the score itself stays: errors of its file, wherever they came from.
        if status is not None and (found := status.errors.get(page.name)) is not None:
            page.error, page.error_for = found, _source_of(found, page)
        buffer = self.app.current_buffer
        menu = buffer.complete_state
        picture = frames.Picture(
            columns=size.columns,
            rows=size.rows,
            status=status,
            cycle=self.desk.heard(now),
            now=now,
            page=page,
            tabs=[(_title(p), p.dirty) for p in self.shelf.pages],
            tab=self.shelf.at,
            prompt=self.prompt.document,
            focus="score" if self.editing else "prompt",
            log=self._told.rows(now),
            offered=self.desk.offered,
            hint=self._hint(buffer, size.columns),
            dry=self._dry(status.dry, now) if status else "fine",
            menu=[(c.text, c.display_meta_text) for c in menu.completions] if menu else (),
            chosen=-1 if menu is None or menu.complete_index is None else menu.complete_index,
            overlay=self._overlay,
            ascii_only=ascii_only(),
        )
        drawn = frames.frame(picture)
        painter.paint(drawn.rows, size.columns, drawn.cursor)
        self._painted = True

    def _hint(self, buffer: Buffer, columns: int) -> str:
        if self.app.layout.is_searching:
            return f"search: {self._search.search_buffer.text}"
        word = hint_at(buffer.document.current_line, buffer.document.cursor_position_col)
        keys_now = _HINT if columns > text.cells(_HINT) else _SHORT
        hint = word if word and buffer.document.current_line else keys_now
        return text.fit_to(hint, columns - 1)


def _source_of(fault: DemonError, page: Page) -> str:
    """The text that the places of an error are of."""
    return fault.source if fault.source is not None else page.buffer.text


def _title(page: Page) -> str:
    return page.name.rsplit("/", 1)[-1] if page.name else "scratch"
