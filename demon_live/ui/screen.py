"""The prompt's layout: input line, a line of help on the word under the cursor, the panel.

The list of completions floats over the panel, so that no room is kept empty for it.

Threads: built and drawn in the prompt's event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
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
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.widgets import SearchToolbar
from pygments import lex

from demon_live.lang.lexer import DemonLexer
from demon_live.ui.complete import hint_at
from demon_live.ui.show import Pieces

__all__ = ["MORE", "PROMPT", "coloured", "layout"]

PROMPT = "demon> "
MORE = "   ... "


def layout(
    buffer: Buffer,
    lexer: Lexer,
    panel: Callable[[], StyleAndTextTuples],
    offered: Callable[[], str] = str,
) -> Layout:
    """The whole screen part that is redrawn; focus is on the input.

    offered: a line that an empty input shows, laid ready.
    """
    search = SearchToolbar()
    control = BufferControl(
        buffer,
        lexer=lexer,
        search_buffer_control=search.control,
        include_default_input_processors=False,
        input_processors=[
            HighlightIncrementalSearchProcessor(),
            HighlightMatchingBracketProcessor(chars="[](){}<>"),
            DisplayMultipleCursors(),
            ConditionalProcessor(
                AfterInput(lambda: [("class:hint", offered())]),
                Condition(lambda: not buffer.text and bool(offered())),
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
    hint = Window(FormattedTextControl(lambda: _hint(buffer)), height=1, dont_extend_height=True)
    below = Window(FormattedTextControl(panel), dont_extend_height=True, height=Dimension(min=0))
    menu = Float(CompletionsMenu(max_height=8, scroll_offset=1), xcursor=True, ycursor=True)
    return Layout(
        FloatContainer(HSplit([typed, search, hint, below]), [menu]), focused_element=control
    )


def _prefix(line: int, wrapped: int) -> StyleAndTextTuples:
    if line == 0 and wrapped == 0:
        return [("class:prompt", PROMPT)]
    return [("class:prompt.more", MORE)]


def _hint(buffer: Buffer) -> StyleAndTextTuples:
    return [("class:hint", f"       {hint_at(buffer.text, buffer.cursor_position)}")]


def coloured(text: str) -> Pieces:
    """A score with its colours, for printing; kinds are pygments' classes. Ends with a newline."""
    return [
        ("pygments" + "".join(f".{part}" for part in token).lower(), piece)
        for token, piece in lex(text, DemonLexer())
    ]
