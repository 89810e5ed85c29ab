"""The scores that are being edited on stage: which block is meant, and what of it sounds.

A block is what stands between blank lines. It is evaluated alone, in the deck that it stands in:
`block` finds both, so that an edit far away in the same score is left for later.

Threads: pure functions and plain values; a Page belongs to the event loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prompt_toolkit.buffer import Buffer

from demon_live.errors import DemonError, Span
from demon_live.lang.highlighting import BindingHighlight
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.split import split
from demon_live.session.status import Status

__all__ = ["Block", "Fault", "Page", "block_at", "faults", "moved", "sounding"]

_OPEN = re.compile(r"(deck|scene)\s+(\w+)\s*(\{)?$")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines [first, last] of a score, 0-based. head: what must be said before them (`deck x`)."""

    first: int
    last: int
    text: str
    head: str = ""

    @property
    def said(self) -> str:
        """What is evaluated."""
        return self.head + self.text


def block_at(text: str, row: int) -> Block | None:
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
    for opened in _opened(text, lines):
        whole = opened.scene or not (opened.first < first and last < opened.last)
        if opened.block and opened.first <= last and first <= opened.last:
            if whole:
                # A scene is one thing, and so is a brace without its other half.
                first, last = min(first, opened.first), max(last, opened.last)
            elif not opened.scene:
                deck = opened.name
        elif not opened.block and opened.first < first <= opened.last:
            deck = opened.name
    body = "\n".join(lines[first : last + 1])
    return Block(first, last, body, "" if deck == "main" else f"deck {deck}\n")


@dataclass(slots=True)
class _Opened:
    """A `deck x`, `deck x {` or `scene x {`: its lines, and how far it reaches."""

    name: str
    first: int
    last: int
    block: bool
    scene: bool


def _opened(text: str, lines: list[str]) -> list[_Opened]:
    """The outermost first: an inner one has the last word on the deck."""
    found: list[_Opened] = []
    waiting: list[_Opened] = []
    for chunk in split(text, KEYWORDS):
        row = text.count("\n", 0, chunk.start)
        if chunk.kind == "close":
            if waiting:
                waiting.pop().last = row
            continue
        match = _OPEN.match(chunk.text)
        if match is None:
            continue
        made = _Opened(match[2], row, len(lines) - 1, match[3] is not None, match[1] == "scene")
        if made.block:
            waiting.append(made)
        elif found and not found[-1].block:
            found[-1].last = row
        found.append(made)
    return found


def moved(fault: DemonError, block: Block, text: str, name: str) -> DemonError:
    """The errors of a block, with their places in the score that it stands in."""
    start = sum(len(line) + 1 for line in text.split("\n")[: block.first])
    shift = start - len(block.head)
    for one in fault.errors:
        if one.span is not None and one.source == block.said:
            one.span = Span.of(text, one.span.start + shift, one.span.end + shift)
            one.source = text
            one.name = name
    return fault


@dataclass(frozen=True, slots=True)
class Fault:
    """An error beside its line. row: 0-based; start, stop: columns that are marked."""

    row: int
    start: int
    stop: int
    message: str
    hint: str


def faults(error: DemonError | None) -> tuple[Fault, ...]:
    """The errors of a score by their lines."""
    found = []
    for one in error.errors if error is not None else ():
        if one.span is not None:
            start = one.span.col - 1
            stop = start + max(1, one.span.end - one.span.start)
            found.append(Fault(one.span.line - 1, start, stop, one.message, one.hint or ""))
    return tuple(found)


@dataclass(slots=True, eq=False)
class Page:
    """One score on stage. name: of its file, "" = only at the prompt. known: its text on disk.

    lines: its bindings with their places, `lines_for` says of which text. error: the last one.
    flash: lines that were just evaluated, until a time; failed: whether they were refused.
    """

    name: str
    buffer: Buffer
    known: str = ""
    lines: tuple[BindingHighlight, ...] = ()
    lines_for: str | None = None
    error: DemonError | None = None
    error_for: str = ""
    top: int = 0
    left: int = 0
    flash: tuple[int, int] = (-1, -1)
    flash_until: float = 0.0
    failed: bool = False
    stale: bool = field(default=False)

    @property
    def dirty(self) -> bool:
        """Whether the text differs from the file's."""
        return bool(self.name) and self.buffer.text != self.known


def sounding(lines: tuple[BindingHighlight, ...], status: Status | None) -> dict[int, str]:
    """For each of `lines` that plays or waits, by its number: "live" or "coming".

    Of several bindings of one control with the same words, all are marked: they say the same.
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
