"""The score and the prompt as rows: colours, what sounds, what is wrong, the cursor.

Threads: called in the event loop; coloured lines are cached by their text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prompt_toolkit.document import Document
from prompt_toolkit.utils import get_cwidth
from pygments import lex

from demon_live.lang.lexer import DemonLexer
from demon_live.ui import text
from demon_live.ui.stage.painter import Row
from demon_live.ui.stage.score import Fault

__all__ = ["Sheet", "Stretch", "coloured", "prompt", "sheet"]

_TAB = "    "
_LEXER = DemonLexer()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Columns [start, stop) of line `row` (characters, not cells) in a style."""

    row: int
    start: int
    stop: int
    style: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A drawn score. cursor: (row, column) in it, None if it is not on it. top, left: scrolled."""

    rows: list[Row]
    cursor: tuple[int, int] | None
    top: int
    left: int


@lru_cache(maxsize=4096)
def coloured(line: str) -> tuple[tuple[str, str], ...]:
    """One line of score, character by character: (what is shown, style)."""
    out: list[tuple[str, str]] = []
    for token, piece in lex(line, _LEXER):
        style = "class:pygments" + "".join(f".{part}" for part in token).lower()
        out += [(_shown(c), style) for c in piece.rstrip("\n")]
    return tuple(out)


def _shown(c: str) -> str:
    if c == "\t":
        return _TAB
    return c if c.isprintable() else f"^{chr(ord(c) ^ 64)}" if ord(c) < 32 else "?"


def sheet(
    document: Document,
    columns: int,
    rows: int,
    *,
    top: int,
    left: int,
    focused: bool,
    stretches: Iterable[Stretch] = (),
    gutter: dict[int, tuple[str, str]] | None = None,
    faults: Sequence[Fault] = (),
    flash: tuple[int, int, str] = (-1, -1, ""),
    ascii_only: bool = False,
) -> Sheet:
    """`rows` rows of the score around its cursor.

    top, left: as scrolled before; they move only as far as the cursor needs. gutter: (mark, style)
    of lines. flash: lines first..last in a style.
    """
    lines = document.lines
    digits = len(str(len(lines))) if columns >= 60 else 0
    margin = digits + (3 if digits else 2)
    row, col = document.cursor_position_row, document.cursor_position_col
    room = max(1, columns - margin)
    top = _scrolled(top, row, rows, len(lines))
    at = sum(get_cwidth(c) for shown, _ in coloured(lines[row])[:col] for c in shown)
    left = _aside(left, at, room)
    marks: dict[int, list[Stretch]] = {}
    for stretch in stretches:
        marks.setdefault(stretch.row, []).append(stretch)
    wrong = {fault.row: fault for fault in reversed(faults)}
    drawn: list[Row] = []
    for y in range(top, top + rows):
        if y >= len(lines):
            drawn.append([("", "")])
            continue
        fault = wrong.get(y)
        mark, style = (gutter or {}).get(y, (" ", ""))
        if fault is not None:
            mark, style = ("x" if ascii_only else "✗"), "class:error"
        number = f"{y + 1:>{digits}} " if digits else ""
        under = flash[2] if flash[0] <= y <= flash[1] else ""
        here = "class:stage.here" if y == row and focused else ""
        style_under = f"{here} {under}".strip()
        lit = tuple(marks.get(y, ()))
        body = _body(lines[y], lit, fault, style_under, bool(under), left, room, ascii_only)
        drawn.append([("class:stage.number", number), (style, mark), ("", " "), *body])
    cursor = (row - top, margin + at - left) if focused and top <= row < top + rows else None
    return Sheet(drawn, cursor, top, left)


def _scrolled(top: int, row: int, rows: int, of: int) -> int:
    keep = 1 if rows >= 6 else 0
    top = min(top, max(0, row - keep))
    top = max(top, row - rows + 1 + keep)
    return max(0, min(top, max(0, of - rows)))


def _aside(left: int, at: int, room: int) -> int:
    if at < left:
        return max(0, at - room // 4)
    return at - room + room // 4 if at - left >= room else left


@lru_cache(maxsize=2048)
def _body(
    line: str,
    marks: tuple[Stretch, ...],
    fault: Fault | None,
    style: str,
    fill: bool,
    left: int,
    room: int,
    ascii_only: bool,
) -> tuple[tuple[str, str], ...]:
    """One line of the score behind its margin."""
    body = _window(_line(line, marks, fault, style), left, room)
    if fault is not None:
        body = _beside(body, fault, room, ascii_only)
    elif fill:
        body = [*body, (style, " " * (room - sum(text.cells(t) for _, t in body)))]
    return tuple(body)


def _line(
    line: str, marks: Iterable[Stretch], fault: Fault | None, under: str
) -> list[tuple[str, str]]:
    """(style, shown) of each character, marks on top."""
    cells = [(style, shown) for shown, style in coloured(line)]
    if under:
        cells = [(f"{style} {under}", shown) for style, shown in cells]
    for mark in marks:
        for i in range(max(0, mark.start), min(mark.stop, len(cells))):
            cells[i] = (f"{cells[i][0]} {mark.style}", cells[i][1])
    if fault is not None:
        for i in range(max(0, fault.start), min(fault.stop, len(cells))):
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
    body: list[tuple[str, str]], fault: Fault, room: int, ascii_only: bool
) -> list[tuple[str, str]]:
    """The message at the end of its line as far as there is room, the remedy if all of it fits."""
    used = sum(text.cells(t) for _, t in body)
    if room - used < 12:
        return body
    arrow = "<-" if ascii_only else "←"
    told, remedy = f"  {arrow} {fault.message}", f" · {fault.hint}" if fault.hint else ""
    if used + text.cells(told + remedy) <= room:
        return [*body, ("class:error", told), ("class:error.hint", remedy)]
    return [*body, ("class:error", text.fit_to(told, room - used))]


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
        at = sum(get_cwidth(c) for shown, _ in coloured(line)[:col] for c in shown)
        left = max(0, at - room + 1) if y == row else 0
        style = "class:prompt" if focused else "class:quiet"
        start = (style, lead) if y == 0 else ("class:prompt.more", " " * (margin - 2) + ". ")
        drawn.append([start, *_window(_line(line, (), None, ""), left, room)])
        if y == row and focused:
            cursor = (y - top, margin + at - left)
    return drawn, cursor
