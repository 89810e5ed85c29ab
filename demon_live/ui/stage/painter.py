"""The terminal of the stage view.

    Painter     rows of styled text onto the terminal: only the cells that changed are written
    LogWriter   anything that is printed while the view is shown goes into its log
    NoOutput    prompt_toolkit's own drawing goes nowhere

`Painter.paint` compares the rows with those of the frame before; a thread writes the difference.
While that thread is still writing (a slow line, a stopped terminal), `busy` is True and the view
skips the next frame: a keystroke never waits for the screen.

Threads: `paint` belongs to the event loop; one daemon thread writes. `LogWriter` may be written to
from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence

from prompt_toolkit.data_structures import Size
from prompt_toolkit.output import ColorDepth, DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import BaseStyle
from prompt_toolkit.utils import get_cwidth

from demon_live.ui import show
from demon_live.ui.text import Row

#: (text of the cell, style). The second cell of a wide character is empty.
Cell = tuple[str, str]

_BEGIN = "\x1b[?2026h\x1b[?25l"
_END = "\x1b[?2026l"
_OPEN = "\x1b[?1049h\x1b[?2004h\x1b[?7l\x1b[2J"
#: Presses, and moves while a button is held, in numbers of any size.
_MOUSE, _NO_MOUSE = "\x1b[?1002h\x1b[?1006h", "\x1b[?1006l\x1b[?1002l"
_CLOSE = "\x1b[0m\x1b[?7h\x1b[?2004l\x1b[?25h\x1b[?1049l"


def cells_of(row: Row, width: int) -> list[Cell]:
    """A row as exactly `width` cells, cut or padded."""
    out: list[Cell] = []
    for style, text in row:
        if text.isascii():
            out += [(c, style) for c in text]
            continue
        for c in text:
            size = get_cwidth(c)
            if size == 1:
                out.append((c, style))
            elif size == 2:
                out += [(c, style), ("", style)]
            elif out and out[-1][0]:
                # A combining mark belongs to the character in front of it.
                out[-1] = (out[-1][0] + c, out[-1][1])
    if len(out) > width:
        del out[width:]
        if out and out[-1][0] and get_cwidth(out[-1][0][0]) == 2:
            out[-1] = (" ", out[-1][1])
    elif len(out) < width:
        out += [(" ", out[-1][1] if out else "")] * (width - len(out))
    return out


class Painter:
    """Draws on the terminal at the file descriptor `fd`.

    style, depth: how style strings become colours. base: style under everything. mouse: whether
    the terminal tells of the mouse.
    """

    def __init__(
        self, fd: int, style: BaseStyle, depth: ColorDepth, base: str = "", *, mouse: bool = False
    ) -> None:
        self._fd = fd
        self._style = style
        self._depth = depth
        self._base = base
        self._mouse = mouse
        self._codes: dict[str, str] = {}
        self._scratch = io.StringIO()
        self._encoder = Vt100_Output(
            self._scratch, lambda: Size(rows=24, columns=80), term="xterm", enable_cpr=False
        )
        self._rows: list[Row] = []
        self._cells: list[list[Cell]] = []
        self._width = 0
        self._slot: bytes | None = None
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="paint", daemon=True)
        self._thread.start()

    # --- frames ---------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the terminal has not taken the last frame yet."""
        return self._slot is not None

    def open(self) -> None:
        """Switch to the whole screen."""
        self.forget()
        self._queue(_OPEN + _MOUSE * self._mouse)

    def forget(self) -> None:
        """Draw the next frame whole: the screen holds something else."""
        self._rows, self._cells = [], []

    def paint(self, rows: Sequence[Row], width: int, cursor: tuple[int, int] | None) -> int:
        """Draw `rows`, then show the cursor. Call it only when not `busy`.

        Args:
            rows: all rows of the screen.
            width: of the screen, in cells.
            cursor: (row, column); None hides it.

        Returns:
            The number of cells written.
        """
        if width != self._width or len(rows) != len(self._rows):
            self.forget()
            self._width = width
        out: list[str] = [_BEGIN]
        if not self._rows:
            out.append(f"{self._code('')}\x1b[2J")
        written = 0
        for y, row in enumerate(rows):
            if self._rows and row == self._rows[y]:
                continue
            cells = cells_of(row, width)
            written += self._row(out, y, cells, self._cells[y] if self._rows else None)
            if self._rows:
                self._cells[y] = cells
            else:
                self._cells.append(cells)
        self._rows = list(rows)
        if cursor is not None:
            out.append(f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H\x1b[?25h")
        out.append(_END)
        self._queue("".join(out))
        return written

    def _row(self, out: list[str], y: int, cells: list[Cell], before: list[Cell] | None) -> int:
        """Append the codes that change row y from `before` to `cells`; the number of cells."""
        written, style, at = 0, None, -1
        for x, cell in enumerate(cells):
            if before is not None and before[x] == cell:
                continue
            text = cell[0]
            if not text:
                continue
            if at != x:
                out.append(f"\x1b[{y + 1};{x + 1}H")
            if cell[1] != style:
                style = cell[1]
                out.append(self._code(style))
            out.append(text)
            wide = x + 1 < len(cells) and not cells[x + 1][0]
            at = x + 2 if wide else x + 1
            written += 1
        return written

    def _code(self, style: str) -> str:
        code = self._codes.get(style)
        if code is None:
            attrs = self._style.get_attrs_for_style_str(f"{self._base} {style}")
            self._encoder.set_attributes(attrs, self._depth)
            self._encoder.flush()
            code = self._codes[style] = self._scratch.getvalue()
            self._scratch.seek(0)
            self._scratch.truncate()
        return code

    # --- writing --------------------------------------------------------------------------------

    def _queue(self, text: str) -> None:
        with self._ready:
            data = text.encode("utf-8", "replace")
            self._slot = data if self._slot is None else self._slot + data
            self._ready.notify()

    def _write_all(self) -> None:
        while True:
            with self._ready:
                while self._slot is None and not self._closing:
                    self._ready.wait()
                data = self._slot
            if data is None:
                return
            self._write(data)
            with self._ready:
                if self._slot is not None:
                    self._slot = self._slot[len(data) :] or None
                self._ready.notify_all()

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                # The terminal is gone; the input side notices and leaves.
                return

    def close(self) -> None:
        """Restore the screen."""
        self._queue(_NO_MOUSE * self._mouse + _CLOSE)
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        self._thread.join(1.0)


# --- the other ends of a terminal ---------------------------------------------------------------


class LogWriter(io.TextIOBase):
    """A stream whose lines go into the log of the view."""

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


class NoOutput(DummyOutput):
    """An output without drawing, for prompt_toolkit, which still needs the size."""

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


def ascii_only() -> bool:
    """Whether the terminal shows only ASCII."""
    encoding = (getattr(sys.__stdout__, "encoding", "") or "utf-8").lower().replace("-", "")
    return encoding not in ("utf8", "utf16")
