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
import io
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import Input
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import Processor
from prompt_toolkit.output import ColorDepth, DummyOutput
from prompt_toolkit.widgets import SearchToolbar

from demon_live.errors import DemonError
from demon_live.lang import is_complete
from demon_live.lang.marks import Line, marked_lines
from demon_live.perform.view import Outcome
from demon_live.ui import guide, keys, show, text
from demon_live.ui.complete import ScoreCompleter, hint_at
from demon_live.ui.desk import Desk
from demon_live.ui.repl import open_history
from demon_live.ui.stage import frame as frames
from demon_live.ui.stage.head import Trouble
from demon_live.ui.stage.help import CLOSE, explained, overlay
from demon_live.ui.stage.keys import bindings
from demon_live.ui.stage.painter import Painter, Row
from demon_live.ui.stage.score import Page, block_at, moved
from demon_live.ui.theme import depth, stage_style

__all__ = ["StageView"]

_log = logging.getLogger(__name__)
_HINT = "F1 help · Alt-Enter plays the block · Ctrl-S all, saved · Shift-Tab prompt · Alt-. hush"
_SHORT = "F1 help · Alt-Enter play · Ctrl-S all · Shift-Tab prompt · Alt-. hush"
_EXCERPT = re.compile(r"  +\d+ \| ")
_FLASH = 0.25
_LOG = 64
#: How long the answer to a key keeps its place, in seconds.
_ANSWER = 5.0


class _Aside(io.TextIOBase):
    """What anything prints while the view is shown goes into its log, whatever thread it is in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, say: Callable[[show.Pieces], None]) -> None:
        self._loop, self._say, self._open = loop, say, ""

    def write(self, words: str) -> int:
        *lines, self._open = (self._open + words).split("\n")
        for line in lines:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._say, [("event", f"{line}\n")])
        return len(words)

    def writable(self) -> bool:
        return True


class _Quiet(DummyOutput):
    """prompt_toolkit's own drawing goes nowhere; it only asks for the size."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = size

    def get_size(self) -> Size:
        if self._size is not None:
            return Size(columns=self._size[0], rows=self._size[1])
        return Size(*reversed(_terminal_size()))


def _terminal_size() -> tuple[int, int]:
    try:
        found = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except (OSError, ValueError):
        return 80, 24
    return found.columns or 80, found.lines or 24


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
        self._log: deque[Row] = deque(maxlen=_LOG)
        self._painted = False
        self._answer: list[Row] = []
        self._answer_until = 0.0
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
        self._completer = completer
        self.pages: list[Page] = [self._page("")]
        self.at = 0
        self._search = SearchToolbar()
        self.score_control = self._control(self.pages[0].buffer)
        self.prompt_control = self._control(self.prompt)
        self._output = _Quiet(size)
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

    def _page(self, name: str, content: str = "") -> Page:
        buffer = Buffer(
            multiline=True, completer=self._completer, complete_while_typing=True, name="score"
        )
        buffer.set_document(buffer.document.__class__(content, 0), bypass_readonly=True)
        return Page(name, buffer, known=content)

    # --- running --------------------------------------------------------------------------------

    @property
    def page(self) -> Page:
        """The score that is shown."""
        return self.pages[self.at]

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
        aside = _Aside(asyncio.get_running_loop(), self.say)
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
            page.lines = await self.desk.in_poller(lambda: _marked(content))
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
        """Open what plays; take over what was saved elsewhere where nothing is being edited."""
        try:
            playing = await self.desk.in_poller(self.desk.port.scores)
        except Exception:  # noqa: BLE001 - a wall: the view outlives any session
            _log.exception("the session did not tell its scores")
            return
        gone = [p for p in self.pages if p.name and p.name not in playing and not p.dirty]
        if gone:
            shown = self.page
            self.pages = [p for p in self.pages if p not in gone] or [self._page("")]
            self._show(self.pages.index(shown) if shown in self.pages else len(self.pages) - 1)
        known = {page.name: page for page in self.pages}
        for name, content in playing.items():
            page = known.get(name)
            if page is None:
                self._open(name, content)
            elif page.known != content:
                if not page.dirty:
                    row = page.buffer.document.cursor_position_row
                    col = page.buffer.document.cursor_position_col
                    page.buffer.text = content
                    document = page.buffer.document
                    row = min(row, document.line_count - 1)
                    page.buffer.cursor_position = document.translate_row_col_to_index(row, col)
                page.known = content

    def _open(self, name: str, content: str) -> None:
        page = self._page(name, content)
        empty = self.pages[0]
        if len(self.pages) == 1 and not empty.name and not empty.buffer.text:
            self.pages = [page]
        else:
            self.pages.append(page)
            # What was just loaded is what one wants to see, unless another is being worked on.
            if self._painted and not self.page.dirty:
                self._show(len(self.pages) - 1)
                return
        self._show(min(self.at, len(self.pages) - 1))

    def _show(self, at: int) -> None:
        self.at = at
        self.score_control.buffer = self.page.buffer

    def turn(self, by: int) -> None:
        """Go to another score."""
        self._show((self.at + by) % len(self.pages))

    # --- saying ---------------------------------------------------------------------------------

    def say(self, pieces: show.Pieces) -> None:
        """Add to the log, one row a line; explanations open over the score instead."""
        rows = _said(pieces)
        if pieces and pieces[0][0] in ("topic", "heading"):
            columns, most = self._output.get_size().columns, self._output.get_size().rows - 2
            self._overlay = [*explained(rows, columns)[: most - 2], [("", "")], CLOSE]
        elif pieces and pieces[0][0] == "event":
            self._log.extend(rows)
        else:
            # The answer to a key stays for a while, whatever else is told meanwhile.
            self._log.extend(self._answer)
            self._answer, self._answer_until = rows, time.monotonic() + _ANSWER

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
        if self._answer and now > self._answer_until:
            self._log.extend(self._answer)
            self._answer = []
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
            tabs=[(_title(p), p.dirty) for p in self.pages],
            tab=self.at,
            prompt=self.prompt.document,
            focus="score" if self.editing else "prompt",
            log=[*self._log, *self._answer],
            offered=self.desk.offered,
            hint=self._hint(buffer, size.columns),
            dry=self._dry(status.dry, now) if status else "fine",
            menu=[(c.text, c.display_meta_text) for c in menu.completions] if menu else (),
            chosen=-1 if menu is None or menu.complete_index is None else menu.complete_index,
            overlay=self._overlay,
            ascii_only=_ascii_only(),
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


def _said(pieces: show.Pieces) -> list[Row]:
    """Pieces as rows. Excerpts of a score are left out, it stands above."""
    rows: list[Row] = []
    row: list[tuple[str, str]] = []
    for kind, words in pieces:
        if kind.startswith(("pygments", "error.caret")) or (not kind and _EXCERPT.match(words)):
            continue
        for i, part in enumerate(words.split("\n")):
            if i:
                rows.append(row)
                row = []
            if part:
                row.append((f"class:{kind}" if kind else "", part))
    rows.append(row)
    return [row for row in rows if any(t.strip() for _, t in row)]


def _marked(content: str) -> tuple[Line, ...]:
    try:
        return tuple(marked_lines(content))
    except Exception:  # noqa: BLE001 - a wall: what is only for the eye must not cost the hand
        _log.exception("marking a score failed")
        return ()


def _source_of(fault: DemonError, page: Page) -> str:
    """The text that the places of an error are of."""
    return fault.source if fault.source is not None else page.buffer.text


def _title(page: Page) -> str:
    return page.name.rsplit("/", 1)[-1] if page.name else "scratch"


def _ascii_only() -> bool:
    encoding = (getattr(sys.__stdout__, "encoding", "") or "utf-8").lower().replace("-", "")
    return encoding not in ("utf8", "utf16")
