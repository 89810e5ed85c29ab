"""The panel: what plays, where the playhead is, what comes next, and how the engine keeps up.

    ╭ main ──────9───────────6──────▼────7───────────8────────── 128 bpm · bar 6.3 ╮
    │ blend      ⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤  .62                │
    │ prompt     'acid techno, 303'                            → 'dub' in 2 bars      │
    │ slots      ▮▮▮▮▮▮▮▯ .8  ▮▮▮▮▮▯▯▯ .8  ▮▮▮▯▯▯▯▯ .8  ▮▯▯▯▯▯▯▯ .8                   │
    ╰ L █████▍ R █████▏ -8 dB ─── imp · tick 61 ms · lead 180 ms · dry 0 · fine ──────╯

A lane shows the loop as it will next be heard: right of the playhead this lap, left of it the
next, and so do the bar numbers above it.
`panel` is a pure function of a status and a size; it never returns more rows than asked, and each
row has exactly the width asked for.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demon_live.controls import find
from demon_live.ui import text
from demon_live.ui.theme import DECK_STYLES

if TYPE_CHECKING:
    from demon_live.errors import DemonError
    from demon_live.session.status import DeckView, LaneView, Status

__all__ = ["Fragment", "Row", "panel"]

Fragment = tuple[str, str]
Row = list[Fragment]

_NARROW = 60


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns of the panel: border, name, graph, value, border. tall: rows of a curve."""

    width: int
    name: int
    tall: int
    ascii_only: bool

    @property
    def value(self) -> int:
        return 21 if self.width >= 76 else 9

    @property
    def graph(self) -> int:
        return self.width - self.name - self.value - 5

    def glyph(self, fancy: str, plain: str) -> str:
        return plain if self.ascii_only else fancy

    def boxed(self, row: Row) -> Row:
        """`row` between the side borders; it must be self.width - 4 cells wide."""
        side = self.glyph("│", "|")
        return [("class:frame", f"{side} "), *row, ("class:frame", f" {side}")]


def panel(status: Status, columns: int, rows: int, *, ascii_only: bool = False) -> list[Row]:
    """The panel of `status` in at most `rows` rows of `columns` cells.

    Where there is no room for all, the least urgent rows go first: controls that stand still, the
    slots, then curves from the last on. Errors and what is announced stay.
    """
    if columns < _NARROW or rows < 3:
        return [_one_line(status, columns)]
    longest = max((len(lane.control) for deck in status.decks for lane in deck.lanes), default=0)
    ranked: list[tuple[int, Row]] = []
    for tall in (3, 2, 1):
        grid = Grid(columns, max(8, min(longest, 14)), tall, ascii_only)
        ranked = _body(grid, status)
        if len(ranked) < rows:
            break
    return [*_trim(ranked, rows - 1), _foot(grid, status)]


def _body(grid: Grid, status: Status) -> list[tuple[int, Row]]:
    """All rows but the last, each with its rank: the higher, the sooner it is dropped."""
    ranked: list[tuple[int, Row]] = []
    for i, deck in enumerate(status.decks):
        ranked += [(0, _head(grid, status, deck, first=i == 0)), *_lanes(grid, deck)]
    if not status.decks:
        ranked.append((0, _plain_head(grid, status)))
    if status.slots:
        ranked.append((3, _slots(grid, status)))
    for name, error in list(status.errors.items())[:3]:
        ranked.append((1, _broken(grid, name, error)))
    return ranked


def _trim(ranked: list[tuple[int, Row]], rows: int) -> list[Row]:
    """The rows that fit, in their order. Dropped first: the last of those ranked highest."""
    keep = sorted(range(len(ranked)), key=lambda i: (ranked[i][0], i))[: max(rows, 1)]
    return [ranked[i][1] for i in sorted(keep)]


# --- one deck ---------------------------------------------------------------------------------


def _head(grid: Grid, status: Status, deck: DeckView, *, first: bool) -> Row:
    line = grid.glyph("─", "-")
    corner, end = ("╭", "╮") if first else ("├", "┤")
    label = f" {text.fit(deck.name, min(text.cells(deck.name), grid.name))} "
    ruler = text.ruler(_bar_numbers(status.cycle, deck), grid.graph, line)
    at = min(int(deck.playhead * grid.graph), grid.graph - 1)
    right, style = _head_right(grid, status, deck, first)
    right = f" {right} "
    return [
        ("class:frame", grid.glyph(corner, "+")),
        ("class:deck", label),
        ("class:frame", line * (grid.name + 2 - text.cells(label))),
        ("class:ruler", ruler[:at]),
        ("class:head", grid.glyph("▼", "v")),
        ("class:ruler", ruler[at + 1 :]),
        ("class:frame", line * (grid.value + 1 - text.cells(right))),
        (style, right),
        ("class:frame", grid.glyph(end, "+")),
    ]


def _bar_numbers(cycle: float, deck: DeckView) -> list[int]:
    """For each bar of the loop, its number when it is next heard; a set begins with bar 0."""
    begun = round(cycle - deck.playhead * deck.cycles)
    here = deck.playhead * deck.cycles
    return [begun + k + (deck.cycles if k + 1 <= here else 0) for k in range(deck.cycles)]


def _head_right(grid: Grid, status: Status, deck: DeckView, first: bool) -> tuple[str, str]:
    if status.hushed:
        return "hushed", "class:muted"
    if deck.muted:
        return "muted", "class:muted"
    if deck.soloed:
        return "solo", "class:muted"
    if not first:
        return f"loop {deck.cycles}", "class:quiet"
    bar = f"bar {text.bars(status.cycle, status.beats)}"
    full = f"{status.bpm:.4g} bpm · {bar}"
    # Past bar 9999 the tempo gives way, not the frame.
    return full if len(full) < grid.value else bar[-grid.value + 1 :], "class:deck"


def _plain_head(grid: Grid, status: Status) -> Row:
    line = grid.glyph("─", "-")
    right = f" {status.bpm:.4g} bpm · bar {text.bars(status.cycle, status.beats)} "
    left = " nothing plays yet "
    fill = line * (grid.width - 2 - len(left) - len(right))
    return [
        ("class:frame", grid.glyph("╭", "+")),
        ("class:quiet", left),
        ("class:frame", fill),
        ("class:deck", right),
        ("class:frame", grid.glyph("╮", "+")),
    ]


def _lanes(grid: Grid, deck: DeckView) -> list[tuple[int, Row]]:
    """Rows of a deck's lanes with their ranks: words and announcements 1, curves 2, the rest 4."""
    ranked: list[tuple[int, Row]] = []
    held: list[str] = []
    for lane in deck.lanes:
        if lane.samples is None:
            ranked.append((1, grid.boxed(_words(grid, lane))))
        elif lane.next or not _flat(lane.samples):
            rank = 1 if lane.next else 2
            ranked += [(rank, grid.boxed(row)) for row in _curve(grid, lane, deck.playhead)]
        else:
            held.append(f"{lane.control} {_value(lane)}")
    if deck.source:
        held.append(f"source {deck.source}")
    if held:
        row: Row = [
            ("class:held", text.fit("held", grid.name + 1)),
            ("class:held", text.fit(" · ".join(held), grid.width - grid.name - 5)),
        ]
        ranked.append((4, grid.boxed(row)))
    return ranked


def _flat(samples: Sequence[float] | np.ndarray) -> bool:
    x = np.asarray(samples)
    return x.size == 0 or bool(np.ptp(x) < 1e-4)


def _value(lane: LaneView) -> str:
    return text.number(lane.value) if isinstance(lane.value, (int, float)) else str(lane.value)


def _curve(grid: Grid, lane: LaneView, playhead: float) -> list[Row]:
    control = find(lane.control)
    fine = control is None or control.shape == "curve"
    plain = grid.ascii_only
    graph = text.curve(_heights(lane), grid.graph, grid.tall, fine=fine, ascii_only=plain)
    at = min(int(playhead * grid.graph), grid.graph - 1)
    value = _value(lane)
    announced = f" {grid.glyph('→', '->')} {lane.next}" if lane.next else ""
    room = text.cells(value) if announced else 5
    rows: list[Row] = []
    for i, line in enumerate(graph):
        first = i == 0
        row: Row = [
            ("class:name", text.fit(lane.control if first else "", grid.name + 1)),
            ("class:lane.next", line[:at]),
            ("class:lane.head", line[at]),
            ("class:lane", line[at + 1 :]),
            ("class:deck", f" {text.fit(value if first else '', room)}"),
            ("class:next", text.fit(announced if first else "", grid.value - 1 - room)),
        ]
        rows.append(row)
    return rows


def _heights(lane: LaneView) -> np.ndarray:
    """A lane's samples as heights of its picture, 0..1."""
    control = find(lane.control)
    x = np.asarray(lane.samples, dtype=np.float64)
    if control is None or control.unit != "Hz":
        return x
    # Pitch is heard in octaves: drawn in Hz, a filter would lie flat at the bottom.
    hertz = control.low + np.clip(x, 0, 1) * (control.high - control.low)
    heights: np.ndarray = np.log(hertz / control.low) / np.log(control.high / control.low)
    return heights


def _words(grid: Grid, lane: LaneView) -> Row:
    room = grid.width - grid.name - 5
    announced = f"{grid.glyph('→', '->')} {lane.next}" if lane.next else ""
    tail = min(text.cells(announced), room // 2)
    value = f"'{lane.value}'" if lane.value else "none"
    return [
        ("class:name", text.fit(lane.control, grid.name + 1)),
        ("class:word", text.fit(value, room - tail - 1) + " "),
        ("class:next", _announcement(announced, tail)),
    ]


def _announcement(words: str, width: int) -> str:
    """Cut in what is coming, not in when it comes."""
    what, mark, when = words.rpartition(" in ")
    if not mark or text.cells(words) <= width or text.cells(mark + when) > width // 2:
        return text.fit(words, width)
    return text.fit(what, width - text.cells(mark + when)) + mark + when


# --- engine and sound ---------------------------------------------------------------------------


def _slots(grid: Grid, status: Status) -> Row:
    order = [deck.name for deck in status.decks]
    room = grid.width - grid.name - 5
    drawn: list[Fragment] = []
    for slot in status.slots:
        style = DECK_STYLES[order.index(slot.deck) % len(DECK_STYLES) if slot.deck in order else 0]
        bar = text.steps(slot.step, slot.steps, ascii_only=grid.ascii_only)
        drawn.append((style, f"{bar} {text.number(slot.denoise):<3} "))
    if sum(text.cells(piece) for _, piece in drawn) > room:
        drawn = [
            (style, f"{s.step}/{s.steps}  ")
            for (style, _), s in zip(drawn, status.slots, strict=True)
        ]
    row: Row = [("class:name", text.fit("slots", grid.name + 1))]
    used = 0
    for style, piece in drawn:
        if used + text.cells(piece) > room:
            break
        row.append((style, piece))
        used += text.cells(piece)
    return grid.boxed([*row, ("", " " * (room - used))])


def _broken(grid: Grid, name: str, error: DemonError) -> Row:
    place = f":{error.span.line}:{error.span.col}" if error.span else ""
    file = name.rsplit("/", 1)[-1]
    saved = error.playing if error.playing and " as saved " in error.playing else ""
    playing = f" ({saved} plays on)" if saved else ""
    message = f"{grid.glyph('✗', 'x')} {file}{place}: {error.message}{playing}"
    return grid.boxed([("class:error", text.fit(message, grid.width - 4))])


def _foot(grid: Grid, status: Status) -> Row:
    line = grid.glyph("─", "-")
    left = _levels(grid, status)
    if status.recording:
        name = text.fit(status.recording, min(text.cells(status.recording), 12))
        left.append(("class:recording", f"{grid.glyph('●', '*')} {name} "))
    right: Row = []
    grade, word = status.grade, _grade(status)
    facts = [
        status.engine.split(" ")[0],
        f"tick {status.tick_ms:.0f} ms",
        f"lead {status.lead_ms:.0f} ms",
        f"dry {status.dry}",
    ]
    room = grid.width - 4 - sum(text.cells(t) for _, t in left) - len(word) - 1
    while facts and len(" · ".join(facts)) + 3 > room:
        facts.pop(0)
    right.append(("class:quiet", f" {' · '.join(facts)} · " if facts else " "))
    right.append((f"class:grade.{grade}", word))
    right.append(("", " "))
    used = sum(text.cells(t) for _, t in (*left, *right))
    return [
        ("class:frame", grid.glyph("╰", "+")),
        ("", " "),
        *left,
        ("class:frame", line * (grid.width - 3 - used)),
        *right,
        ("class:frame", grid.glyph("╯", "+")),
    ]


def _grade(status: Status) -> str:
    """The grade; while the engine is not there yet, or not there again, that."""
    if status.telemetry.alive:
        return status.grade
    return "restarting" if status.telemetry.ticks else "starting"


def _levels(grid: Grid, status: Status) -> Row:
    row: Row = []
    for label, db in zip("LR", status.peak_db, strict=True):
        style = "class:meter.hot" if db > -0.5 else "class:meter"
        row += [
            ("class:quiet", f"{label} "),
            (style, text.meter(db, 6, ascii_only=grid.ascii_only)),
            ("", " "),
        ]
    loudest = max(status.peak_db)
    row.append(("class:quiet", f"{loudest:3.0f} dB " if loudest > -60 else "silent "))
    return row


def _one_line(status: Status, columns: int) -> Row:
    bar = text.bars(status.cycle, status.beats)
    facts = f"bar {bar} · {status.bpm:.4g} bpm · lead {status.lead_ms:.0f} ms · dry {status.dry} · "
    if text.cells(facts) + len(status.grade) > columns:
        facts = f"bar {bar} · "
    row: Row = [("class:quiet", facts), (f"class:grade.{status.grade}", status.grade)]
    used = text.cells(facts) + len(status.grade)
    return row if used <= columns else [("class:quiet", text.fit(f"bar {bar}", columns))]
