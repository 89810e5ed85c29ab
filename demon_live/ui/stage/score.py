"""The scores that are open in the stage view: their blocks, their errors, and what of them sounds.

A block is the text between two blank lines. It is evaluated alone, in the deck that it stands in:
`block_at` finds both, so that an edit elsewhere in the same score is left for later.

Threads: `Buffers` and `Page` belong to the event loop; `mark_lines` may run in any thread.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer
from prompt_toolkit.document import Document

from demon_live.controls import find
from demon_live.errors import DemonError, Span
from demon_live.lang.highlighting import BindingHighlight, highlights
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.split import split
from demon_live.session.status import Status
from demon_live.ui.controller import TextBuffer
from demon_live.ui.mouse import place_of

_log = logging.getLogger(__name__)
_CONSTANT = re.compile(r"(?:.*[{;]\s*|\s*)(?:\w+\.)?(\w+)\s*=\s*(-?(?:\d+\.?\d*|\.\d+))\s*\}?\s*$")
_AWAY = re.compile(r"(?:^|[{;])\s*to\s+\w")
_OPEN = re.compile(r"(deck|scene)\s+(\w+)\s*(\{)?$")


@dataclass(frozen=True, slots=True)
class ScoreBlock:
    """Lines [first, last] of a score, 0-based. head: precedes them when they are evaluated
    (`deck x`)."""

    first: int
    last: int
    text: str
    head: str = ""

    @property
    def source(self) -> str:
        """The text to evaluate."""
        return self.head + self.text


def block_at(text: str, row: int) -> ScoreBlock | None:
    """The block around line `row` (0-based), None where the line is blank."""
    lines = text.split("\n")
    if not 0 <= row < len(lines) or not lines[row].strip():
        return None
    first = last = row
    while first > 0 and lines[first - 1].strip():
        first -= 1
    while last + 1 < len(lines) and lines[last + 1].strip():
        last += 1
    deck = "main"
    for section in _sections(text, lines):
        whole = section.scene or not (section.first < first and last < section.last)
        if section.block and section.first <= last and first <= section.last:
            if whole:
                # A scene is one thing, and so is a brace without its other half.
                first, last = min(first, section.first), max(last, section.last)
            elif not section.scene:
                deck = section.name
        elif not section.block and section.first < first <= section.last:
            deck = section.name
    body = "\n".join(lines[first : last + 1])
    return ScoreBlock(first, last, body, "" if deck == "main" else f"deck {deck}\n")


@lru_cache(maxsize=16)
def places(text: str) -> Mapping[int, float]:
    """The lines (0-based) that end with a constant, and where it lies in its control's range, 0 to
    1. Names in decks that go elsewhere have no range, nor has a seed."""
    lines = text.split("\n")
    found: dict[int, float] = {}
    for row, line in enumerate(lines):
        match = _CONSTANT.match(line)
        control = find(match[1]) if match else None
        if match and control is not None and control.numeric and control.cls != "notes":
            span = control.high - control.low
            if 0 < span <= 1000 or control.unit == "Hz":
                found[row] = place_of(control, float(match[2]))
    for section in _sections(text, lines) if found else ():
        rows = range(section.first, section.last + 1)
        if any(_AWAY.search(lines[row]) for row in rows):
            for row in rows:
                found.pop(row, None)
    return found


@dataclass(slots=True)
class _Section:
    """A `deck x`, `deck x {` or `scene x {`: its lines, and how far it reaches."""

    name: str
    first: int
    last: int
    block: bool
    scene: bool


def _sections(text: str, lines: list[str]) -> list[_Section]:
    """The outermost first: an inner one decides on the deck."""
    found: list[_Section] = []
    waiting: list[_Section] = []
    for chunk in split(text, KEYWORDS):
        row = text.count("\n", 0, chunk.start)
        if chunk.kind == "close":
            if waiting:
                waiting.pop().last = row
            continue
        match = _OPEN.match(chunk.text)
        if match is None:
            continue
        section = _Section(match[2], row, len(lines) - 1, match[3] is not None, match[1] == "scene")
        if section.block:
            waiting.append(section)
        elif found and not found[-1].block:
            found[-1].last = row
        found.append(section)
    return found


def moved(fault: DemonError, block: ScoreBlock, text: str, name: str) -> DemonError:
    """The errors of a block, with their places in the score that it stands in."""
    start = sum(len(line) + 1 for line in text.split("\n")[: block.first])
    shift = start - len(block.head)
    for one in fault.errors:
        if one.span is not None and one.source == block.source:
            one.span = Span.of(text, one.span.start + shift, one.span.end + shift)
            one.source = text
            one.name = name
    return fault


@dataclass(frozen=True, slots=True)
class LineError:
    """An error beside its line. row: 0-based; start, stop: columns that are marked."""

    row: int
    start: int
    stop: int
    message: str
    hint: str


def line_errors(error: DemonError | None) -> tuple[LineError, ...]:
    """The errors of a score by their lines."""
    found = []
    for one in error.errors if error is not None else ():
        if one.span is not None:
            start = one.span.col - 1
            stop = start + max(1, one.span.end - one.span.start)
            found.append(LineError(one.span.line - 1, start, stop, one.message, one.hint or ""))
    return tuple(found)


@dataclass(slots=True, eq=False)
class Page:
    """One open score.

    Attributes:
        name: of its file; "" = no file.
        saved: its text on disk.
        lines: its bindings with their places in the text `lines_for`.
        error: the last error, in the text `error_for`.
        top, left: scrolling, in a window of `width` columns.
        sent: the text that was last given to the session to be saved.
        clash: its file was saved elsewhere while this text was being edited.
        flash: lines that were just evaluated, lit until `flash_until`.
        failed: they were refused.
    """

    name: str
    buffer: Buffer
    saved: str = ""
    lines: tuple[BindingHighlight, ...] = ()
    lines_for: str | None = None
    error: DemonError | None = None
    error_for: str = ""
    top: int = 0
    left: int = 0
    width: int = 0
    sent: str | None = None
    clash: bool = False
    flash: tuple[int, int] = (-1, -1)
    flash_until: float = 0.0
    failed: bool = False

    @property
    def dirty(self) -> bool:
        """Whether the text differs from the file's."""
        return bool(self.name) and self.buffer.text != self.saved


def sounding(lines: tuple[BindingHighlight, ...], status: Status | None) -> dict[int, str]:
    """The number of each line that plays or waits -> "live" or "coming".

    Bindings of one control with the same text are all marked.
    """
    if status is None:
        return {}
    now = {(d.name, v.control): v for d in status.decks for v in d.lanes}
    found: dict[int, str] = {}
    for i, line in enumerate(lines):
        lane = now.get((line.deck, line.control))
        if lane is None:
            continue
        if lane.text == line.text:
            found[i] = "live"
        elif lane.coming == line.text:
            found[i] = "coming"
    return found


class Buffers:
    """The pages of the view, in the order in which they were opened.

    completer: of each page. shown: called when another page is shown.
    """

    def __init__(self, completer: Completer, shown: Callable[[], None]) -> None:
        self._completer = completer
        self._shown = shown
        self.pages: list[Page] = [self._page("")]
        self.at = 0

    @property
    def page(self) -> Page:
        """The score that is shown."""
        return self.pages[self.at]

    def show(self, at: int) -> None:
        """Show the page of that number."""
        self.at = at
        self._shown()

    def turn(self, by: int) -> None:
        """Go to another score."""
        self.show((self.at + by) % len(self.pages))

    def update(self, playing: Mapping[str, str], *, follow: bool) -> None:
        """Open the scores that play, reload those that were saved elsewhere unless they are being
        edited, close those that are gone.

        Args:
            playing: name -> text.
            follow: show a score that has just been opened.
        """
        gone = [p for p in self.pages if p.name and p.name not in playing and not p.dirty]
        if gone:
            shown = self.page
            self.pages = [p for p in self.pages if p not in gone] or [self._page("")]
            self.show(self.pages.index(shown) if shown in self.pages else len(self.pages) - 1)
        known = {page.name: page for page in self.pages}
        for name, content in playing.items():
            page = known.get(name)
            if page is None:
                self._open(name, content, follow)
            elif page.saved != content:
                if not page.dirty:
                    _replace(page.buffer, content)
                elif content not in (page.buffer.text, page.sent):
                    page.clash = True
                page.saved = content

    def _open(self, name: str, content: str, follow: bool) -> None:
        page, empty = self._page(name, content), self.pages[0]
        if len(self.pages) == 1 and not empty.name and not empty.buffer.text:
            self.pages = [page]
        else:
            self.pages.append(page)
            if follow:
                self.show(len(self.pages) - 1)
                return
        self.show(min(self.at, len(self.pages) - 1))

    def _page(self, name: str, content: str = "") -> Page:
        buffer = TextBuffer(
            multiline=True, completer=self._completer, complete_while_typing=True, name="score"
        )
        buffer.set_document(Document(content, 0), bypass_readonly=True)
        return Page(name, buffer, saved=content)


def _replace(buffer: Buffer, content: str) -> None:
    """Set another text; the cursor stays in its line and column, if these still exist."""
    row, col = buffer.document.cursor_position_row, buffer.document.cursor_position_col
    buffer.text = content
    row = min(row, buffer.document.line_count - 1)
    buffer.cursor_position = buffer.document.translate_row_col_to_index(row, col)


def mark_lines(content: str) -> tuple[BindingHighlight, ...]:
    """The bindings of a score with the places of their steps; none if marking fails."""
    try:
        return tuple(highlights(content))
    except Exception:  # noqa: BLE001 - a wall: highlighting must not cost an edit
        _log.exception("marking a score failed")
        return ()
