"""The prompt: type, hear, read the answer; the panel below it shows what plays.

One prompt_toolkit application runs as long as the prompt is shown: it does not end between two
statements, so the panel never blinks. All output goes through `say`, which lifts prompt and panel,
writes above them and puts them back with the text that is being typed. From top to bottom: input, a
line of help on the word under the cursor, panel. The list of completions floats over the panel.

Threads: the event loop (main thread) owns buffer and screen; see controller.py for the others.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit.application import Application, run_in_terminal
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.layout import Float, FloatContainer, HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import (
    AfterInput,
    ConditionalProcessor,
    DisplayMultipleCursors,
    HighlightIncrementalSearchProcessor,
    HighlightMatchingBracketProcessor,
)
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import Output
from prompt_toolkit.widgets import SearchToolbar

from demon_live.lang.lexer import DemonLexer
from demon_live.ui import guide, keys, show
from demon_live.ui.complete import hint_at
from demon_live.ui.controller import FrontEnd, UiController
from demon_live.ui.mouse import PanelMouse
from demon_live.ui.panel import panel, targets
from demon_live.ui.theme import STYLE

_PROMPT, _MORE = "demon> ", "   ... "


class Repl(FrontEnd):
    """The prompt of a session.

    Args:
        controller: shared with the stage view.
        banner: shown once, above the first prompt.
        input, output: of prompt_toolkit, for tests.
        history: file of earlier lines; None = the user's.
        hz: how often events are printed and the panel is drawn.
        mouse: whether the panel takes the mouse.
    """

    name = "prompt"

    def __init__(
        self,
        controller: UiController,
        *,
        banner: show.Pieces | None = None,
        input: Input | None = None,
        output: Output | None = None,
        history: Path | None = None,
        hz: float = 10.0,
        mouse: bool = True,
    ) -> None:
        super().__init__(controller, history)
        self._banner = banner or []
        self._hz = hz
        self._mouse = PanelMouse(controller.drag, controller.mute_deck)
        self._lines: StyleAndTextTuples = []
        self._drain: asyncio.Task[None] | None = None
        self._warned_cancel = False
        self.app: Application[None] = Application(
            layout=_layout(self, self._panel),
            key_bindings=keys.prompt_keys(self),
            style=STYLE,
            include_default_pygments_style=False,
            input=input,
            output=output,
            erase_when_done=True,
            enable_page_navigation_bindings=False,
            mouse_support=mouse,
            editing_mode=keys.editing_mode(),
        )

    async def _show(self) -> None:
        self.say(self._banner)
        self._banner = []
        await self.controller.poll()
        poll = asyncio.create_task(self._polling())
        try:
            await self.app.run_async()
        finally:
            poll.cancel()
            await self.controller.jobs_done()
            if self._drain is not None:
                await self._drain

    async def _polling(self) -> None:
        while True:
            await asyncio.sleep(1 / self._hz)
            await self.controller.poll()
            if self.controller.stop.is_set():
                self._exit()
            self.app.invalidate()

    # --- printing ---------------------------------------------------------------------------

    def say(self, pieces: show.Pieces) -> None:
        """Print above the prompt, after all earlier pieces. Call it in the event loop."""
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
        if self.controller.status is None:
            return []
        room = max(1, min(size.rows // 2, size.rows - 4 - self.prompt.document.line_count))
        plain = self.app.output.encoding().lower().replace("-", "") not in ("utf8", "utf16")
        status = self.controller.status
        rows = panel(status, size.columns, room, ascii_only=plain)
        joined: StyleAndTextTuples = []
        for i, (row, found) in enumerate(
            zip(rows, targets(status, size.columns, rows), strict=True)
        ):
            reach = functools.partial(self._mouse.event, found)
            joined += [("", "\n")] * bool(i) + [(style, piece, reach) for style, piece in row]
        return joined

    def _echo(self, text: str) -> None:
        code = show.coloured(text.rstrip())
        # The newline that ends the last piece ends the echo; those before it go on with the margin.
        inner = [(kind, piece.replace("\n", f"\n{_MORE}")) for kind, piece in code[:-1]]
        self.say([("prompt", _PROMPT), *inner, *code[-1:]])

    # --- commands of the keys ---------------------------------------------------------------

    def cancel(self) -> None:
        """Ctrl-C: clear the prompt. The sound goes on."""
        if not self.prompt.text and not self._warned_cancel:
            self._warned_cancel = True
            self.say(
                [
                    (
                        "hint",
                        "       the sound goes on: Alt-. hushes, "
                        f"Ctrl-D {self.controller.ctrl_d}\n",
                    )
                ]
            )
        self.prompt.reset()

    def explain(self) -> None:
        """Print help on the word under the cursor."""
        word = self.word_at_cursor()
        self.controller.answer(lambda: guide.about(word) if word else guide.overview())

    def repaint(self) -> None:
        """Draw everything anew."""
        self.app.renderer.clear()


def _layout(repl: Repl, below: Callable[[], StyleAndTextTuples]) -> Layout:
    """The redrawn part of the screen. below: the panel."""
    buffer, controller = repl.prompt, repl.controller
    search = SearchToolbar()
    control = BufferControl(
        buffer,
        lexer=PygmentsLexer(DemonLexer),
        search_buffer_control=search.control,
        include_default_input_processors=False,
        input_processors=[
            HighlightIncrementalSearchProcessor(),
            HighlightMatchingBracketProcessor(chars="[](){}<>"),
            DisplayMultipleCursors(),
            ConditionalProcessor(
                AfterInput(lambda: [("class:hint", controller.offered)]),
                Condition(lambda: not buffer.text and bool(controller.offered)),
            ),
        ],
    )
    typed = Window(
        control,
        wrap_lines=True,
        dont_extend_height=True,
        height=Dimension(min=1),
        get_line_prefix=_prefix,
    )

    def help_line() -> StyleAndTextTuples:
        text = hint_at(buffer.text, buffer.cursor_position, controller.ctrl_d)
        return [("class:hint", f"       {text}")]

    hint = Window(FormattedTextControl(help_line), height=1, dont_extend_height=True)
    rows = Window(FormattedTextControl(below), dont_extend_height=True, height=Dimension(min=0))
    menu = Float(CompletionsMenu(max_height=8, scroll_offset=1), xcursor=True, ycursor=True)
    return Layout(
        FloatContainer(HSplit([typed, search, hint, rows]), [menu]), focused_element=control
    )


def _prefix(line: int, wrapped: int) -> StyleAndTextTuples:
    if line == 0 and wrapped == 0:
        return [("class:prompt", _PROMPT)]
    return [("class:prompt.more", _MORE)]
