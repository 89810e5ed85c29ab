"""The stage view: keys in, frames out.

prompt_toolkit reads the keys and edits the texts (history, completion, vi or emacs keys); it draws
nothing. A frame is drawn after each key and `hz` times a second, and skipped while the terminal has
not taken the last one, so that a keystroke never waits for the screen.

Threads: the event loop owns texts and frames; see controller.py and painter.py for the others. The
polling thread looks for the steps to highlight when a text has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.input import Input
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl
from prompt_toolkit.layout.processors import Processor
from prompt_toolkit.mouse_events import MouseEvent, MouseEventType
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.widgets import SearchToolbar

from demon_live.errors import DemonError
from demon_live.session.status import Outcome
from demon_live.ui import keys, show, text
from demon_live.ui.complete import hint_at
from demon_live.ui.controller import FrontEnd, UiController
from demon_live.ui.mouse import PanelMouse, Spot
from demon_live.ui.stage import frame as frames
from demon_live.ui.stage.log import MARGIN, EventLog, explained, overlay, rows_of
from demon_live.ui.stage.painter import LogWriter, NoOutput, Painter, ascii_only
from demon_live.ui.stage.score import Buffers, Page, block_at, mark_lines, moved
from demon_live.ui.text import Row
from demon_live.ui.theme import depth, stage_style

_log = logging.getLogger(__name__)
_HINT = "F1 help · Alt-Enter plays the block · Ctrl-S all, saved · Shift-Tab prompt · Alt-. hush"
_SHORT = "F1 help · Alt-Enter play · Ctrl-S all · Shift-Tab prompt · Alt-. hush"
_FLASH = 0.25
#: Lines of a turn of the wheel.
_WHEEL = 3


class StageView(FrontEnd):
    """See the module.

    Args:
        controller: shared with the prompt.
        theme: dark or light.
        hz: frames a second.
        mouse: whether the view takes the mouse.
        input, fd, size, colours, history: for tests; None = those of the terminal.
    """

    name = "stage"
    margin = MARGIN

    def __init__(
        self,
        controller: UiController,
        *,
        theme: str = "dark",
        hz: float = 30.0,
        mouse: bool = True,
        input: Input | None = None,
        fd: int | None = None,
        size: tuple[int, int] | None = None,
        colours: ColorDepth | None = None,
        history: Path | None = None,
    ) -> None:
        super().__init__(controller, history)
        self._hz = hz
        self._takes_mouse = mouse
        self._mouse = PanelMouse(controller.drag, controller.mute_deck)
        self._targets: Mapping[int, tuple[Spot, ...]] = {}
        self._fd = fd
        self._colours = colours or depth()
        self._style = stage_style(theme, self._colours)
        self._painter: Painter | None = None
        self._log = EventLog()
        self._painted = False
        self._overlay: list[Row] = []
        self._polls = 0
        self.buffers = Buffers(self.completer, self._on_page)
        self._search = SearchToolbar()
        self.score_control = self._control(self.page.buffer)
        self.prompt_control = self._control(self.prompt)
        self.app: Application[None] = self._application(input, size)
        # A lone Escape acts at once: nobody types escape sequences by hand.
        self.app.ttimeoutlen = 0.05
        self.app.timeoutlen = 0.4

    def _control(self, buffer: Buffer) -> BufferControl:
        # No processors: prompt_toolkit draws nothing here.
        none: list[Processor] = []
        return BufferControl(
            buffer,
            search_buffer_control=self._search.control,
            include_default_input_processors=False,
            input_processors=none,
        )

    def _application(self, input: Input | None, size: tuple[int, int] | None) -> Application[None]:
        windows = [Window(c, height=1) for c in (self.score_control, self.prompt_control)]
        return Application(
            layout=Layout(HSplit([*windows, self._search]), focused_element=self.score_control),
            key_bindings=keys.stage_keys(self, self),
            input=input,
            output=NoOutput(size),
            full_screen=False,
            enable_page_navigation_bindings=False,
            editing_mode=keys.editing_mode(),
            after_render=lambda _: self.draw(),
        )

    # --- running --------------------------------------------------------------------------------

    @property
    def page(self) -> Page:
        """The score that is shown."""
        return self.buffers.page

    async def _show(self) -> None:
        fd = self._fd if self._fd is not None else sys.__stdout__.fileno()  # type: ignore[union-attr]
        self._painter = Painter(
            fd, self._style, self._colours, "class:ground", mouse=self._takes_mouse
        )
        self._painter.open()
        await self.controller.poll()
        await self._read_scores()
        tasks = [asyncio.create_task(self._polling()), asyncio.create_task(self._drawing())]
        writer = LogWriter(asyncio.get_running_loop(), self.say)
        try:
            with contextlib.redirect_stdout(writer), contextlib.redirect_stderr(writer):
                await self.app.run_async()
        finally:
            for task in tasks:
                task.cancel()
            await self.controller.jobs_done()
            painter, self._painter = self._painter, None
            painter.close()

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self.controller.poll()
            if self.controller.stop.is_set():
                self._exit()
            self._polls += 1
            if self._polls % 5 == 0:
                await self._read_scores()
            await self._mark()

    async def _mark(self) -> None:
        """Find the steps of the shown score again if its text has changed."""
        page, content = self.page, self.page.buffer.text
        if page.lines_for != content:
            page.lines = await self.controller.in_poller(lambda: mark_lines(content))
            page.lines_for = content

    async def _drawing(self) -> None:
        while True:
            await asyncio.sleep(1 / self._hz)
            self.draw()

    # --- scores ---------------------------------------------------------------------------------

    async def _read_scores(self) -> None:
        """Show the scores that play."""
        try:
            playing = await self.controller.in_poller(self.controller.session.scores)
        except Exception:  # noqa: BLE001 - a wall: the view outlives any session
            _log.exception("the session did not answer")
            return
        # What was just loaded is shown, unless another score is being edited.
        busy = self.editing and self.page.dirty
        self.buffers.update(playing, follow=self._painted and not busy)

    def _on_page(self) -> None:
        self.score_control.buffer = self.page.buffer

    def turn(self, by: int) -> None:
        """Go to another score."""
        self.buffers.turn(by)

    # --- saying ---------------------------------------------------------------------------------

    def say(self, pieces: show.Pieces) -> None:
        """Add to the log, one row a line; explanations open over the score instead."""
        rows = rows_of(pieces)
        if pieces and pieces[0][0] in ("topic", "heading"):
            size = self.app.output.get_size()
            self._overlay = explained(rows, size.columns, size.rows - 2)
        elif pieces and pieces[0][0] == "event":
            self._log.event(rows)
        else:
            self._log.answer(rows, time.monotonic())

    def _echo(self, text: str) -> None:
        self.say([("prompt", "demon> "), ("", text.split("\n")[0])])

    # --- commands of the keys -------------------------------------------------------------------

    @property
    def editing(self) -> bool:
        """Whether the score has the focus (and not the prompt)."""
        return self.app.layout.has_focus(self.score_control)

    def other_side(self) -> None:
        """Move the focus from the score to the prompt, or back."""
        self.app.layout.focus(self.prompt_control if self.editing else self.score_control)

    def play_block(self) -> None:
        """Evaluate the block under the cursor, in its deck."""
        page, content = self.page, self.page.buffer.text
        block = block_at(content, page.buffer.document.cursor_position_row)
        if block is None:
            self.say(
                [("hint", "       nothing here: put the cursor on a line that says something\n")]
            )
            return
        session = self.controller.session
        self._flash(page, block.first, block.last)
        self.controller.attempt(
            lambda: self.controller.own(
                "<stage>", block.source, lambda: session.apply(block.source, "<stage>")
            ),
            lambda fault: self._settle(page, content, block.first, block.last, fault),
            lambda fault: moved(fault, block, content, page.name or "<stage>"),
        )

    def play_all(self) -> None:
        """Evaluate the whole score as its file, and save it; if that was saved elsewhere meanwhile,
        only at the second call."""
        page, content = self.page, self.page.buffer.text
        if page.clash:
            page.clash = False
            line = f"       {page.name} was saved elsewhere: once more to overwrite that\n"
            self.say([("warning", line)])
            return
        page.sent = content
        last = content.count("\n")
        self._flash(page, 0, last)
        session, name = self.controller.session, page.name

        def work() -> Outcome:
            if name:
                return self.controller.own(
                    "<stage>", Path(name).name, lambda: session.save(name, content)
                )
            return self.controller.own(
                "<stage>", content, lambda: session.apply(content, "<stage>")
            )

        def done(fault: DemonError | None) -> None:
            if name:
                page.saved = content
            self._settle(page, content, 0, last, fault)

        self.controller.attempt(work, done)

    def _flash(self, page: Page, first: int, last: int) -> None:
        page.flash, page.failed = (first, last), False
        page.flash_until = time.monotonic() + _FLASH

    def _settle(
        self, page: Page, content: str, first: int, last: int, fault: DemonError | None
    ) -> None:
        if fault is None:
            # An error elsewhere in the score stays until that place is corrected.
            row = (page.error.span.line - 1) if page.error and page.error.span else -1
            if first <= row <= last:
                page.error = None
            return
        page.error, page.error_for, page.failed = fault, content, True
        page.flash_until = time.monotonic() + _FLASH

    def cancel(self) -> None:
        """Ctrl-C: close the help, clear the prompt. The sound goes on."""
        if self._overlay:
            self._overlay = []
        elif self.editing or not self.prompt.text:
            line = (
                f"       the sound goes on: Alt-. hushes, Ctrl-Q {self.controller.ctrl_d}, "
                "Alt-s goes to the prompt\n"
            )
            self.say([("hint", line)])
        self.page.buffer.exit_selection()
        self.page.buffer.cancel_completion()
        self.prompt.reset()

    def explain(self) -> None:
        """Open the help, on the word under the cursor first, or close it."""
        size = self.app.output.get_size()
        word = self.word_at_cursor()
        self._overlay = [] if self._overlay else overlay(word, size.columns, size.rows)

    def mouse(self, event: MouseEvent) -> None:
        """A click mutes, a drag moves a constant, the wheel moves the cursor."""
        kind = event.event_type
        if kind in (MouseEventType.SCROLL_UP, MouseEventType.SCROLL_DOWN):
            buffer = self.app.current_buffer
            move = buffer.cursor_up if kind == MouseEventType.SCROLL_UP else buffer.cursor_down
            move(_WHEEL)
        else:
            self._mouse.event(self._targets.get(event.position.y, ()), event)

    @property
    def helping(self) -> bool:
        """Whether the help is open."""
        return bool(self._overlay)

    def repaint(self) -> None:
        """Draw everything anew."""
        if self._painter is not None:
            self._painter.forget()

    # --- drawing --------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw a frame, unless the terminal has not taken the last one."""
        painter = self._painter
        if painter is None or painter.busy:
            return
        size = self.app.output.get_size()
        drawn = frames.frame(self._picture(size.columns, size.rows, time.monotonic()))
        painter.paint(drawn.rows, size.columns, drawn.cursor)
        self._targets = drawn.targets
        self._painted = True

    def _picture(self, columns: int, rows: int, now: float) -> frames.Picture:
        status, page = self.controller.status, self.page
        # Errors of the score's file stay, whatever led to them.
        if status is not None and (found := status.errors.get(page.name)) is not None:
            page.error = found
            page.error_for = found.source if found.source is not None else page.buffer.text
        buffer = self.app.current_buffer
        menu = buffer.complete_state
        return frames.Picture(
            columns=columns,
            rows=rows,
            status=status,
            cycle=self.controller.cycle_at(now),
            now=now,
            page=page,
            tabs=[(_title(p), p.dirty) for p in self.buffers.pages],
            tab=self.buffers.at,
            prompt=self.prompt.document,
            focus="score" if self.editing else "prompt",
            log=self._log.rows(now),
            offered=self.controller.offered,
            hint=self._hint(buffer, columns),
            menu=[(c.text, c.display_meta_text) for c in menu.completions] if menu else (),
            chosen=-1 if menu is None or menu.complete_index is None else menu.complete_index,
            overlay=self._overlay,
            ascii_only=ascii_only(),
        )

    def _hint(self, buffer: Buffer, columns: int) -> str:
        if self.app.layout.is_searching:
            return f"search: {self._search.search_buffer.text}"
        word = hint_at(buffer.document.current_line, buffer.document.cursor_position_col)
        keys_now = _HINT if columns > text.cells(_HINT) else _SHORT
        hint = word if word and buffer.document.current_line else keys_now
        return text.fit_to(hint, columns - 1)


def _title(page: Page) -> str:
    return page.name.rsplit("/", 1)[-1] if page.name else "scratch"
