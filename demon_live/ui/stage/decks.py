"""The decks of the stage view: each lane a curve over the loop, the playhead running through it.

Right of the playhead stands this lap, left of it the next, and so do the bar numbers. Curves are
drawn once for each new sampling and only cut anew at the playhead in each frame.

Threads: pure functions; drawn curves are cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from demon_live.controls import find
from demon_live.session.status import DeckView, LaneView, Status
from demon_live.ui import text
from demon_live.ui.stage.painter import Row
from demon_live.ui.theme import DECK_STYLES

__all__ = ["decks", "wanted"]

_TALLEST = 8
#: Rank of the slots among the rows.
_SLOTS = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """width: cells of a row; name, value: of its first and last column. cycle: the heard one."""

    width: int
    cycle: float
    ascii_only: bool

    @property
    def name(self) -> int:
        return 9 if self.width < 60 else 11

    @property
    def value(self) -> int:
        return 6 if self.width < 60 else 7

    @property
    def graph(self) -> int:
        return max(4, self.width - self.name - self.value - 1)

    def glyph(self, fancy: str, plain: str) -> str:
        return plain if self.ascii_only else fancy


def wanted(status: Status | None) -> int:
    """Rows that would show everything once."""
    if status is None:
        return 1
    lanes = sum(len(d.lanes) + 2 for d in status.decks)
    return max(1, lanes) + (1 if status.slots else 0) + 1


def decks(
    status: Status, cycle: float, columns: int, rows: int, *, ascii_only: bool = False
) -> list[Row]:
    """At most `rows` rows; what is least urgent goes first, what is left over makes curves tall."""
    if rows <= 0:
        return []
    grid = Grid(columns, cycle, ascii_only)
    flat = sum(1 for d in status.decks for lane in d.lanes if _moves(lane))
    fixed = len(_ranked(status, grid, 1)) - flat
    tall = max(1, min(_TALLEST, (rows - fixed) // flat)) if flat else 1
    ranked = _ranked(status, grid, tall)
    spare = rows - len(ranked)
    if len(status.slots) + 1 <= spare:
        ranked = [row for row in ranked if row[0] != _SLOTS]
        ranked += [(_SLOTS, [("", "")]), *((_SLOTS, row) for row in _tall_slots(status, grid))]
    order = sorted(range(len(ranked)), key=lambda i: (ranked[i][0], i))[:rows]
    return [ranked[i][1] for i in sorted(order)]


def _ranked(status: Status, grid: Grid, tall: int) -> list[tuple[int, Row]]:
    """All rows, each with its rank: the higher, the sooner it goes."""
    ranked: list[tuple[int, Row]] = []
    for deck in status.decks:
        ranked.append((0, _title(grid, status, deck)))
        held = []
        for lane in deck.lanes:
            if _moves(lane):
                at = _playhead(deck, status, grid.cycle)
                ranked += [(1, row) for row in _curve(grid, lane, at, tall)]
            elif lane.samples is None:
                ranked.append((2, _words(grid, lane)))
            else:
                held.append(f"{lane.control} {_value(lane)}")
        if deck.source:
            held.append(f"source {deck.source}")
        if held:
            row: Row = [
                ("class:held", text.fit("held", grid.name)),
                ("class:held", text.fit(" · ".join(held), grid.width - grid.name)),
            ]
            ranked.append((4, row))
    if status.slots:
        ranked.append((_SLOTS, _slots(grid, status)))
    return ranked


def _moves(lane: LaneView) -> bool:
    if lane.samples is None:
        return False
    return bool(lane.next) or float(np.ptp(np.asarray(lane.samples))) >= 1e-4


def _value(lane: LaneView) -> str:
    return text.number(lane.value) if isinstance(lane.value, (int, float)) else str(lane.value)


def _playhead(deck: DeckView, status: Status, cycle: float) -> float:
    """0..1 of the loop at the heard cycle."""
    return (deck.playhead + (cycle - status.cycle) / max(deck.cycles, 1)) % 1.0


def _title(grid: Grid, status: Status, deck: DeckView) -> Row:
    """The deck's name, the bars of its loop, the playhead above them."""
    line = grid.glyph("─", "-")
    at = _playhead(deck, status, grid.cycle)
    here = at * deck.cycles
    begun = round(grid.cycle - here)
    bars = [begun + k + (deck.cycles if k + 1 <= here else 0) for k in range(deck.cycles)]
    ruler = text.ruler(bars, grid.graph, line)
    mark = min(int(at * grid.graph), grid.graph - 1)
    name = text.fit_to(deck.name, grid.name - 2)
    state = "muted" if deck.muted else "solo" if deck.soloed else f"loop {deck.cycles}"
    style = "class:muted" if deck.muted or deck.soloed else "class:quiet"
    return [
        ("class:stage.deck", f" {name} "),
        ("class:frame", line * (grid.name - 2 - text.cells(name))),
        ("class:ruler", ruler[:mark]),
        ("class:head", grid.glyph("▼", "v")),
        ("class:ruler", ruler[mark + 1 :]),
        (style, text.fit(f" {state}", grid.value + 1)),
    ]


def _curve(grid: Grid, lane: LaneView, at: float, tall: int) -> list[Row]:
    assert lane.samples is not None
    control = find(lane.control)
    fine = control is None or control.shape == "curve"
    octaves = control is not None and control.unit == "Hz"
    samples = np.asarray(lane.samples, np.float32).tobytes()
    drawn = _drawn(
        samples, grid.graph, tall, fine, (lane.low, lane.high) if octaves else None, grid.ascii_only
    )
    mark = min(int(at * grid.graph), grid.graph - 1)
    rows: list[Row] = []
    for i, line in enumerate(drawn):
        # The value stands beside the lowest row, where the eye follows the curve's foot.
        last = i == len(drawn) - 1
        rows.append(
            [
                ("class:stage.name", text.fit(lane.control if last else "", grid.name)),
                ("class:lane.next", line[:mark]),
                ("class:lane.head", line[mark]),
                ("class:lane", line[mark + 1 :]),
                (
                    "class:stage.value",
                    text.fit(_value(lane) if last else "", grid.value, right=True),
                ),
                ("", " "),
            ]
        )
    return rows


@lru_cache(maxsize=512)
def _drawn(
    samples: bytes,
    width: int,
    tall: int,
    fine: bool,
    octaves: tuple[float, float] | None,
    ascii_only: bool,
) -> list[str]:
    x = np.frombuffer(samples, np.float32)
    if octaves is not None:
        # Pitch is heard in octaves: drawn in Hz, a filter would lie flat at the bottom.
        low, high = octaves
        x = np.log((low + np.clip(x, 0, 1) * (high - low)) / low) / np.log(high / low)
    return text.curve(x, width, tall, fine=fine, ascii_only=ascii_only)


def _words(grid: Grid, lane: LaneView) -> Row:
    room = grid.width - grid.name
    arrow = grid.glyph("→", "->")
    tail = text.fit_to(f" {arrow} {lane.next}", room // 2) if lane.next else ""
    value = f"'{lane.value}'" if lane.value else "none"
    return [
        ("class:stage.name", text.fit(lane.control, grid.name)),
        ("class:word", text.fit(value, room - text.cells(tail))),
        ("class:next", tail),
    ]


def _slots(grid: Grid, status: Status) -> Row:
    """Each generation in flight: how many of its steps are done, and its denoise."""
    order = [deck.name for deck in status.decks]
    room = grid.width - grid.name
    row: list[tuple[str, str]] = [("class:stage.name", text.fit("slots", grid.name))]
    full = [
        f"{text.steps(s.step, s.steps, ascii_only=grid.ascii_only)} {text.number(s.denoise):<4}"
        for s in status.slots
    ]
    if sum(text.cells(piece) for piece in full) > room:
        full = [f"{s.step}/{s.steps} {text.number(s.denoise):<4}" for s in status.slots]
    for slot, piece in zip(status.slots, full, strict=True):
        room -= text.cells(piece)
        if room < 0:
            break
        at = order.index(slot.deck) if slot.deck in order else 0
        row.append((DECK_STYLES[at % len(DECK_STYLES)], piece))
    return row


def _tall_slots(status: Status, grid: Grid) -> list[Row]:
    """A row for each generation in flight, where there is room for that."""
    order = [deck.name for deck in status.decks]
    rows: list[Row] = []
    for i, slot in enumerate(status.slots):
        at = order.index(slot.deck) if slot.deck in order else 0
        done = text.meter_of(slot.step / max(slot.steps, 1), grid.graph // 2, grid.ascii_only)
        said = f" step {slot.step}/{slot.steps} · denoise {text.number(slot.denoise)} · {slot.deck}"
        rows.append(
            [
                ("class:stage.name", text.fit(f"slot {i + 1}", grid.name)),
                (f"{DECK_STYLES[at % len(DECK_STYLES)]} class:stage.slot", done),
                ("class:quiet", text.fit_to(said, grid.width - grid.name - grid.graph // 2)),
            ]
        )
    return rows
