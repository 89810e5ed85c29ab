"""The score and the prompt as rows: colours, steps that sound, errors, the cursor.

Coloured lines are cached by their text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from prompt_toolkit.document import Document

from demon_live.ui import show, text
from demon_live.ui.stage.score import LineError
from demon_live.ui.text import Row

_TAB = "    "
#: Cells of the bar beside a constant.
_BAR = 6


@dataclass(frozen=True, slots=True)
class Stretch:
    """Columns [start, stop) of line `row` (characters, not cells) in a style."""

    row: int
    start: int
    stop: int
    style: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A drawn score. cursor: (row, column) in it, or None. top, left: its scrolling."""

    rows: list[Row]
    cursor: tuple[int, int] | None
    top: int
    left: int


@lru_cache(maxsize=4096)
def _coloured(line: str) -> tuple[tuple[str, str], ...]:
    """The characters of a line of score, as shown: (style, text)."""
    pieces = show.coloured(line)
    return tuple((f"class:{kind}", _shown(c)) for kind, piece in pieces for c in piece.rstrip("\n"))


def _shown(c: str) -> str:
    if c == "\t":
        return _TAB
    return c if c.isprintable() else f"^{chr(ord(c) ^ 64)}" if ord(c) < 32 else "?"


def _cell(line: str, column: int) -> int:
    """The cell at which character `column` of a line begins."""
    return text.width(_coloured(line)[:column])


def sheet(
    document: Document,
    columns: int,
    rows: int,
    *,
    top: int,
    left: int,
    focused: bool,
    stretches: Sequence[Stretch] = (),
    gutter: Mapping[int, tuple[str, str]] = MappingProxyType({}),
    places: Mapping[int, float] = MappingProxyType({}),
    errors: Sequence[LineError] = (),
    flash: tuple[int, int, str] = (-1, -1, ""),
    ascii_only: bool = False,
) -> Sheet:
    """`rows` rows of the score around its cursor.

    Args:
        top, left: the last scrolling; it moves only as far as the cursor needs.
        stretches, errors: shown on and beside their lines. gutter: line -> (mark, style).
        places: line -> a bar beside it, 0 to 1.
        flash: lines first..last, and their style.
    """
    lines = document.lines
    digits = len(str(len(lines))) if columns >= 60 else 0
    margin = digits + (3 if digits else 2)
    room = max(1, columns - margin)
    row = document.cursor_position_row
    at = _cell(document.current_line, document.cursor_position_col)
    top, left = _scrolled(top, row, rows, len(lines)), _scrolled_aside(left, at, room)

    def draw(y: int) -> Row:
        error = next((e for e in errors if e.row == y), None)
        lit = flash[2] if flash[0] <= y <= flash[1] else ""
        under = f"{'class:stage.here' if y == row and focused else ''} {lit}".strip()
        marks = tuple(s for s in stretches if s.row == y)
        bar = places.get(y)
        body = _body(lines[y], marks, error, under, bool(lit), left, room, bar, ascii_only)
        return [*_margin(y, digits, gutter, error, ascii_only), *body]

    drawn = [draw(y) if y < len(lines) else [("", "")] for y in range(top, top + rows)]
    cursor = (row - top, margin + at - left) if focused and top <= row < top + rows else None
    return Sheet(drawn, cursor, top, left)


def _margin(
    y: int,
    digits: int,
    gutter: Mapping[int, tuple[str, str]],
    error: LineError | None,
    ascii_only: bool,
) -> Row:
    """The number of line `y`, if there is room for numbers, and its mark."""
    mark, style = gutter.get(y, (" ", ""))
    if error is not None:
        mark, style = ("x" if ascii_only else "✗"), "class:error"
    number = f"{y + 1:>{digits}} " if digits else ""
    return [("class:stage.number", number), (style, mark), ("", " ")]


def _scrolled(top: int, row: int, rows: int, of: int) -> int:
    keep = 1 if rows >= 6 else 0
    top = min(top, max(0, row - keep))
    top = max(top, row - rows + 1 + keep)
    return max(0, min(top, max(0, of - rows)))


def _scrolled_aside(left: int, at: int, room: int) -> int:
    if at < left:
        return max(0, at - room // 4)
    return at - room + room // 4 if at - left >= room else left


@lru_cache(maxsize=2048)
def _body(
    line: str,
    marks: tuple[Stretch, ...],
    error: LineError | None,
    style: str,
    fill: bool,
    left: int,
    room: int,
    bar: float | None,
    ascii_only: bool,
) -> tuple[tuple[str, str], ...]:
    """One line of the score behind its margin."""
    body = _window(_line(line, marks, error, style), left, room)
    if bar is not None and error is None and text.width(body) + _BAR + 4 <= room:
        drawn = text.bar_of(bar, _BAR, ascii_only=ascii_only)
        body = [*body, (style, "  "), (f"class:stage.number {style}".strip(), drawn)]
    if error is not None:
        body = _beside(body, error, room, ascii_only)
    elif fill:
        body = [*body, (style, " " * (room - text.width(body)))]
    return tuple(body)


def _line(
    line: str, marks: Iterable[Stretch], error: LineError | None, under: str
) -> list[tuple[str, str]]:
    """(style, shown) of each character, marks on top."""
    cells = list(_coloured(line))
    if under:
        cells = [(f"{style} {under}", shown) for style, shown in cells]
    for mark in marks:
        for i in range(max(0, mark.start), min(mark.stop, len(cells))):
            cells[i] = (f"{cells[i][0]} {mark.style}", cells[i][1])
    if error is not None:
        for i in range(max(0, error.start), min(error.stop, len(cells))):
            cells[i] = (f"{cells[i][0]} class:stage.fault", cells[i][1])
    return cells


def _window(cells: list[tuple[str, str]], left: int, room: int) -> list[tuple[str, str]]:
    """The characters that lie in cells [left, left + room)."""
    if not left and len(cells) <= room // 2:
        return cells
    out, at = [], 0
    for style, shown in cells:
        size = text.cells(shown)
        if at >= left and at + size <= left + room:
            out.append((style, shown))
        at += size
    return out


def _beside(
    body: list[tuple[str, str]], error: LineError, room: int, ascii_only: bool
) -> list[tuple[str, str]]:
    """Add the message to the end of its line, cut to fit, and the remedy if it fits whole."""
    used = text.width(body)
    if room - used < 12:
        return body
    arrow = "<-" if ascii_only else "←"
    message, remedy = f"  {arrow} {error.message}", f" · {error.hint}" if error.hint else ""
    if used + text.cells(message + remedy) <= room:
        return [*body, ("class:error", message), ("class:error.hint", remedy)]
    return [*body, ("class:error", text.fit_to(message, room - used))]


def prompt(
    document: Document, columns: int, rows: int, *, focused: bool, lead: str
) -> tuple[list[Row], tuple[int, int] | None]:
    """The prompt's last `rows` lines around its cursor, and where the cursor is."""
    margin = text.cells(lead)
    room = max(1, columns - margin - 1)
    row, col = document.cursor_position_row, document.cursor_position_col
    top = max(0, row - rows + 1)
    drawn: list[Row] = []
    cursor = None
    for y in range(top, top + rows):
        line = document.lines[y] if y < len(document.lines) else ""
        at = _cell(line, col)
        left = max(0, at - room + 1) if y == row else 0
        style = "class:prompt" if focused else "class:quiet"
        start = (style, lead) if y == 0 else ("class:prompt.more", " " * (margin - 2) + ". ")
        drawn.append([start, *_window(_line(line, (), None, ""), left, room)])
        if y == row and focused:
            cursor = (y - top, margin + at - left)
    return drawn, cursor
