"""The panel: what plays, where the playhead is, what comes next, and how the engine keeps up.

    ╭ main ──────9───────────6──────▼────7───────────8────────── 128 bpm · bar 6.3 ╮
    │ blend      ⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣄⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤⣀⣀⣠⣤⣶⣾⣿⣿⣷⣶⣤  .62                │
    │ prompt     'acid techno, 303'                            → 'dub' in 2 bars      │
    │ slots      ▮▮▮▮▮▮▮▯ .8  ▮▮▮▮▮▯▯▯ .8  ▮▮▮▯▯▯▯▯ .8  ▮▯▯▯▯▯▯▯ .8                   │
    ╰ L █████▍ R █████▏ -8 dB ─── imp · tick 61 ms · lead 180 ms · dry 0 · fine ──────╯

A lane shows the loop as it will next be heard: right of the playhead this lap, left of it the
next, and so do the bar numbers above it. The prompt shows the panel in a frame, the stage view its
lanes alone. Rows that do not fit go in the order of their rank; rows that are left over make curves
taller. Curves are drawn once for each new sampling, and only cut at the playhead in each frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from demon_live.controls import find
from demon_live.ui import text
from demon_live.ui.mouse import Spot, constant
from demon_live.ui.text import Row
from demon_live.ui.theme import DECK_STYLES

if TYPE_CHECKING:
    from demon_live.errors import DemonError
    from demon_live.session.status import DeckView, LaneView, Status

_NARROW = 60
#: Ranks of rows: the higher, the sooner a row is dropped.
_TITLE, _NEWS, _CURVE, _SLOTS, _STILL = range(5)
_Ranked = list[tuple[int, Row]]
#: For each row of a panel, what lies where in it.
Targets = list[tuple[Spot, ...]]


@dataclass(frozen=True, slots=True)
class LaneGrid:
    """The columns of a lane: name, graph, value.

    Attributes:
        width: cells of a row.
        name, value: cells of the first and of the last column.
        cycle: the cycle at the ear.
        framed: between side borders.
    """

    width: int
    name: int
    value: int
    cycle: float
    framed: bool
    ascii_only: bool

    @property
    def inner(self) -> int:
        """Cells between the borders."""
        return self.width - 4 if self.framed else self.width

    @property
    def graph(self) -> int:
        return max(4, self.inner - self.name - self.value)

    def glyph(self, fancy: str, plain: str) -> str:
        return plain if self.ascii_only else fancy

    def boxed(self, row: Row) -> Row:
        """`row`, between its borders if there are any."""
        if not self.framed:
            return row
        side, pad = self.glyph("│", "|"), " " * (self.inner - text.width(row))
        return [("class:frame", f"{side} "), *row, ("", pad), ("class:frame", f" {side}")]

    def held(self, name: str, words: str) -> Row:
        """A row of values that stand still."""
        shown = text.fit(name, self.name) + text.fit(words, self.inner - self.name)
        return self.boxed([("class:held", shown)])

    def playhead(self, status: Status, deck: DeckView) -> float:
        """0..1 of the deck's loop at the ear."""
        return (deck.playhead + (self.cycle - status.cycle) / max(deck.cycles, 1)) % 1.0


def panel(status: Status, columns: int, rows: int, *, ascii_only: bool = False) -> list[Row]:
    """The panel of the prompt: at most `rows` rows of exactly `columns` cells."""
    if columns < _NARROW or rows < 3:
        return [_one_line(status, columns)]
    grid = _grid(status, status.cycle, columns, framed=True, ascii_only=ascii_only)
    errors = [(_NEWS, _error(grid, *row)) for row in list(status.errors.items())[:3]]
    if status.decks:
        ranked = _stretched(grid, status, rows - 1 - len(errors), tallest=3)
    else:
        ranked = [(_TITLE, _empty_title(grid, status)), *_decks(grid, status, 1)]
    return [*_trimmed([*ranked, *errors], rows - 1), _foot(grid, status)]


def targets(status: Status, columns: int, drawn: Iterable[Row]) -> Targets:
    """What a mouse finds in rows of a view: the titles of decks, and their constants."""
    decks, deck = list(status.decks), None
    found: Targets = []
    for row in drawn:
        styles = {style for style, _ in row}
        line = "".join(piece for _, piece in row)
        if "class:deck.title" in styles:
            deck = decks.pop(0) if decks else None
            found.append((Spot(0, columns, deck.name),) if deck is not None else ())
        elif "class:held" in styles and deck is not None and "held" in line[:8]:
            found.append(tuple(_constants(deck, line)))
        else:
            found.append(())
    return found


def _constants(deck: DeckView, line: str) -> Iterable[Spot]:
    for lane in deck.lanes:
        shown = values([lane])
        found = re.search(rf"(?<!\S){re.escape(shown)}(?!\S)", line)
        if found is not None and constant(deck, lane):
            yield Spot(*found.span(), deck.name, lane.control, float(lane.value))


def lanes(
    status: Status, cycle: float, columns: int, rows: int, *, ascii_only: bool = False
) -> list[Row]:
    """The lanes of the stage view at the heard `cycle`: at most `rows` rows."""
    if rows <= 0:
        return []
    grid = _grid(status, cycle, columns, framed=False, ascii_only=ascii_only)
    ranked = _stretched(grid, status, rows, tallest=8)
    if status.slots and len(status.slots) + 1 <= rows - len(ranked):
        ranked = [row for row in ranked if row[0] != _SLOTS]
        ranked += [(_SLOTS, [("", "")]), *((_SLOTS, row) for row in _tall_slots(status, grid))]
    return _trimmed(ranked, rows)


def wanted(status: Status | None) -> int:
    """Rows in which `lanes` shows everything once."""
    if status is None:
        return 1
    rows = sum(len(d.lanes) + 2 for d in status.decks)
    return max(1, rows) + bool(status.master) + _has_slots(status) + 1


def _grid(
    status: Status, cycle: float, columns: int, *, framed: bool, ascii_only: bool
) -> LaneGrid:
    longest = max((len(lane.control) for deck in status.decks for lane in deck.lanes), default=0)
    name = 9 if columns < _NARROW else max(8, min(longest, 14)) + 1
    value = (21 if columns >= 76 else 9) if framed else (7 if columns < _NARROW else 8)
    return LaneGrid(columns, name, value, cycle, framed, ascii_only)


def _stretched(grid: LaneGrid, status: Status, rows: int, tallest: int) -> _Ranked:
    """The rows of all decks, curves as tall as fits."""
    ranked = _decks(grid, status, 1)
    curves = sum(_moves(lane) for deck in status.decks for lane in deck.lanes)
    tall = min(tallest, (rows - len(ranked) + curves) // curves) if curves else 1
    return _decks(grid, status, tall) if tall > 1 else ranked


def _trimmed(ranked: _Ranked, rows: int) -> list[Row]:
    """The rows that fit, in their order. Dropped first: the last of those ranked highest."""
    order = sorted(range(len(ranked)), key=lambda i: (ranked[i][0], i))[: max(rows, 1)]
    return [ranked[i][1] for i in sorted(order)]


# --- decks --------------------------------------------------------------------------------------


def _decks(grid: LaneGrid, status: Status, tall: int) -> _Ranked:
    """All rows of all decks, each with its rank; curves have `tall` rows."""
    ranked: _Ranked = []
    # Where there is little room the prompt shows words first, the stage view curves.
    words, curve = (_NEWS, _CURVE) if grid.framed else (_CURVE, _NEWS)
    for i, deck in enumerate(status.decks):
        ranked.append((_TITLE, _title(grid, status, deck, first=i == 0)))
        at, still = grid.playhead(status, deck), []
        for lane in deck.lanes:
            if lane.notes is not None:
                beats = int(deck.cycles * status.beats)
                ranked.append((curve, grid.boxed(_notes(grid, lane, at, beats))))
            elif isinstance(lane.value, str):
                ranked.append((words, grid.boxed(_words(grid, lane))))
            elif _moves(lane):
                rank = _NEWS if lane.next else curve
                ranked += [(rank, grid.boxed(row)) for row in _curve(grid, lane, at, tall)]
            else:
                still.append(values([lane]))
        if deck.source:
            still.append(f"source {deck.source}" + f" ({deck.read})" * bool(deck.read))
        if deck.to:
            still.append(f"to {deck.to}")
        still += [deck.taken] * bool(deck.taken)
        if still:
            ranked.append((_STILL, grid.held("held", " · ".join(still))))
    if status.master:
        ranked.append((_NEWS, grid.held("master", values(status.master))))
    if _has_slots(status):
        ranked.append((_SLOTS, grid.boxed(_slots(grid, status))))
    return ranked


def _title(grid: LaneGrid, status: Status, deck: DeckView, *, first: bool) -> Row:
    """The deck's name, the bars of its loop, the playhead above them, its state."""
    line = grid.glyph("─", "-")
    at = grid.playhead(status, deck)
    ruler = text.ruler(_bar_numbers(grid.cycle, deck, at), grid.graph, line)
    mark = min(int(at * grid.graph), grid.graph - 1)
    name = text.fit_to(deck.name, grid.name - (1 if grid.framed else 2))
    room = grid.name - 2 - text.cells(name) + (1 if grid.framed else 0)
    graph: Row = [
        ("class:deck.title", f" {name} "),
        ("class:frame", line * room),
        ("class:ruler", ruler[:mark]),
        ("class:head", grid.glyph("▼", "v")),
        ("class:ruler", ruler[mark + 1 :]),
    ]
    words, style = _deck_state(grid, status, deck, first)
    if not grid.framed:
        return [*graph, (style, text.fit(f" {words}", grid.value))]
    corner, end = ("╭", "╮") if first else ("├", "┤")
    return [
        ("class:frame", grid.glyph(corner, "+")),
        *graph,
        ("class:frame", line * (grid.value - 1 - text.cells(words))),
        (style, f" {words} "),
        ("class:frame", grid.glyph(end, "+")),
    ]


def _bar_numbers(cycle: float, deck: DeckView, at: float) -> list[int]:
    """For each bar of the loop, its number when it is next heard; a set begins with bar 0."""
    here = at * deck.cycles
    begun = round(cycle - here)
    return [begun + k + (deck.cycles if k + 1 <= here else 0) for k in range(deck.cycles)]


def _deck_state(grid: LaneGrid, status: Status, deck: DeckView, first: bool) -> tuple[str, str]:
    """The words beside the title, and their style."""
    if status.hushed:
        return "hushed", "class:muted"
    if deck.muted:
        return "muted", "class:muted"
    if deck.soloed:
        return "solo", "class:muted"
    if not (grid.framed and first):
        return "out" if deck.to else f"loop {deck.cycles}", "class:quiet"
    bar = f"bar {text.bar_beat(status.cycle, status.beats)}"
    full = f"{status.bpm:.4g} bpm · {bar}"
    # Past bar 9999 the tempo gives way, not the frame.
    return full if len(full) < grid.value else bar[-grid.value + 1 :], "class:deck"


def _empty_title(grid: LaneGrid, status: Status) -> Row:
    line = grid.glyph("─", "-")
    right = f" {status.bpm:.4g} bpm · bar {text.bar_beat(status.cycle, status.beats)} "
    left = " nothing plays yet "
    return [
        ("class:frame", grid.glyph("╭", "+")),
        ("class:quiet", left),
        ("class:frame", line * (grid.width - 2 - len(left) - len(right))),
        ("class:deck", right),
        ("class:frame", grid.glyph("╮", "+")),
    ]


# --- lanes --------------------------------------------------------------------------------------


def _moves(lane: LaneView) -> bool:
    """Whether a lane has a curve to show."""
    if lane.samples is None:
        return False
    x = np.asarray(lane.samples)
    return bool(lane.next) or not (x.size == 0 or bool(np.ptp(x) < 1e-4))


def values(lanes: Iterable[LaneView]) -> str:
    """Controls with their values, in a row."""
    return " · ".join(f"{lane.control} {_value(lane)}" for lane in lanes)


def _value(lane: LaneView) -> str:
    return text.number(lane.value) if isinstance(lane.value, (int, float)) else str(lane.value)


def _curve(grid: LaneGrid, lane: LaneView, at: float, tall: int) -> list[Row]:
    samples = np.asarray(lane.samples, np.float32).tobytes()
    drawn = _drawn(samples, lane.control, grid.graph, tall, grid.ascii_only)
    mark = min(int(at * grid.graph), grid.graph - 1)
    # Name and value stand beside the lowest row, where the eye follows the curve's foot.
    foot = len(drawn) - 1
    value = text.fit_to(f" {_value(lane)}", grid.value)
    coming = f" {grid.glyph('→', '->')} {lane.next}" if lane.next else ""
    return [
        [
            ("class:control", text.fit(lane.control if i == foot else "", grid.name)),
            ("class:lane.next", line[:mark]),
            ("class:lane.head", line[mark]),
            ("class:lane", line[mark + 1 :]),
            ("class:value", value if i == foot else " " * text.cells(value)),
            ("class:next", text.fit(coming if i == foot else "", grid.value - text.cells(value))),
        ]
        for i, line in enumerate(drawn)
    ]


def _notes(grid: LaneGrid, lane: LaneView, at: float, beats: int) -> Row:
    """Hits as a grid of steps, notes as a piano roll of one row: the higher, the taller."""
    drawn = text.roll(lane.notes or (), grid.graph, beats, ascii_only=grid.ascii_only)
    mark = min(int(at * grid.graph), grid.graph - 1)
    coming = f" {grid.glyph('→', '->')} {lane.coming}" if lane.coming else ""
    return [
        ("class:control", text.fit(lane.control, grid.name)),
        ("class:lane.next", drawn[:mark]),
        ("class:lane.head", drawn[mark]),
        ("class:lane", drawn[mark + 1 :]),
        ("class:next", text.fit(coming, grid.value)),
    ]


@lru_cache(maxsize=512)
def _drawn(samples: bytes, name: str, width: int, tall: int, ascii_only: bool) -> list[str]:
    control = find(name)
    x = np.frombuffer(samples, np.float32) if samples else np.zeros(0, np.float32)
    if control is not None and control.unit == "Hz":
        # Pitch is heard in octaves: drawn in Hz, a filter would lie flat at the bottom.
        hertz = control.low + np.clip(x, 0, 1) * (control.high - control.low)
        x = np.log(hertz / control.low) / np.log(control.high / control.low)
    fine = control is None or control.shape == "curve"
    return text.curve(x, width, tall, fine=fine, ascii_only=ascii_only)


def _words(grid: LaneGrid, lane: LaneView) -> Row:
    room = grid.inner - grid.name
    coming = f"{grid.glyph('→', '->')} {lane.next}" if lane.next else ""
    tail = min(text.cells(coming), room // 2)
    value = f"'{lane.value}'" if lane.value else "none"
    return [
        ("class:control", text.fit(lane.control, grid.name)),
        ("class:word", text.fit(value, room - tail - 1) + " "),
        ("class:next", _announcement(coming, tail)),
    ]


def _announcement(words: str, width: int) -> str:
    """`words` in `width` cells: what comes may be cut, when it comes may not."""
    what, mark, when = words.rpartition(" in ")
    if not mark or text.cells(words) <= width or text.cells(mark + when) > width // 2:
        return text.fit(words, width)
    return text.fit(what, width - text.cells(mark + when)) + mark + when


# --- engine and sound ---------------------------------------------------------------------------


def _slot_styles(status: Status) -> list[str]:
    """The style of each slot, by its deck."""
    order = [deck.name for deck in status.decks]
    at = [order.index(slot.deck) if slot.deck in order else 0 for slot in status.slots]
    return [DECK_STYLES[i % len(DECK_STYLES)] for i in at]


def _has_slots(status: Status) -> bool:
    return bool(status.slots) or status.telemetry.resting


def _slots(grid: LaneGrid, status: Status) -> Row:
    """Each generation in flight: how many of its steps are done, and its denoise."""
    room, told = grid.inner - grid.name, status.telemetry
    name = f"slots {told.depth}" if told.depth else "slots"
    if not status.slots:
        words = f"resting · {told.generations} made, {told.from_store} known already"
        return [
            ("class:control", text.fit(name, grid.name)),
            ("class:quiet", text.fit_to(words, room)),
        ]
    drawn = [
        f"{text.steps(s.step, s.steps, ascii_only=grid.ascii_only)} {text.number(s.denoise):<4}"
        for s in status.slots
    ]
    if sum(map(text.cells, drawn)) > room:
        drawn = [f"{s.step}/{s.steps} {text.number(s.denoise):<4}" for s in status.slots]
    row = [("class:control", text.fit(name, grid.name))]
    for style, piece in zip(_slot_styles(status), drawn, strict=True):
        room -= text.cells(piece)
        if room < 0:
            break
        row.append((style, piece))
    return row


def _tall_slots(status: Status, grid: LaneGrid) -> list[Row]:
    """A row for each generation in flight."""
    meter = grid.graph // 2
    rows: list[Row] = []
    for i, (slot, style) in enumerate(zip(status.slots, _slot_styles(status), strict=True)):
        done = text.meter_of(slot.step / max(slot.steps, 1), meter, grid.ascii_only)
        step = f" step {slot.step}/{slot.steps}"
        words = f"{step} · denoise {text.number(slot.denoise)} · {slot.deck}"
        rows.append(
            [
                ("class:control", text.fit(f"slot {i + 1}", grid.name)),
                (style, done),
                ("class:quiet", text.fit_to(words, grid.width - grid.name - meter)),
            ]
        )
    return rows


def _error(grid: LaneGrid, name: str, error: DemonError) -> Row:
    place = f":{error.span.line}:{error.span.col}" if error.span else ""
    file = name.rsplit("/", 1)[-1]
    playing = f" ({error.playing} plays on)" if " as saved " in (error.playing or "") else ""
    what = error.message.removeprefix(f"{name}: ") + playing
    message = f"{grid.glyph('✗', 'x')} {file}{place}: {what}"
    return grid.boxed([("class:error", text.fit(message, grid.inner))])


def record_mark(status: Status, ascii_only: bool) -> str:
    """The lamp of a recording; crossed while its sound cannot be written."""
    if status.recording_lost:
        return "x" if ascii_only else "✗"
    return "*" if ascii_only else "●"


def _foot(grid: LaneGrid, status: Status) -> Row:
    line = grid.glyph("─", "-")
    meters, loudest = level_meters(status, 6, ascii_only=grid.ascii_only)
    left = [*meters[0], *meters[1], ("class:quiet", f"{loudest:>6} ")]
    left += input_meter(status, 4, ascii_only=grid.ascii_only)
    if status.recording:
        name = text.fit(status.recording, min(text.cells(status.recording), 12))
        left.append(("class:recording", f"{record_mark(status, grid.ascii_only)} {name} "))
    word = grade_word(status)
    facts = [
        status.engine.split(" ")[0],
        f"tick {status.tick_ms:.0f} ms",
        f"lead {status.lead_ms:.0f} ms",
        f"dry {status.dry}",
    ]
    room = grid.width - 4 - text.width(left) - len(word) - 1
    while facts and len(" · ".join(facts)) + 3 > room:
        facts.pop(0)
    right = [
        ("class:quiet", f" {' · '.join(facts)} · " if facts else " "),
        (f"class:grade.{status.grade}", word),
        ("", " "),
    ]
    return [
        ("class:frame", grid.glyph("╰", "+")),
        ("", " "),
        *left,
        ("class:frame", line * (grid.width - 3 - text.width([*left, *right]))),
        *right,
        ("class:frame", grid.glyph("╯", "+")),
    ]


def grade_word(status: Status) -> str:
    """The grade in one word; while hushed, or while there is no engine, that."""
    if status.hushed:
        return "hushed"
    if status.telemetry.alive:
        return status.grade
    return "restarting" if status.telemetry.ticks else "starting"


def input_meter(status: Status, width: int, *, ascii_only: bool = False) -> Row:
    """The level of what is played in, `width` cells, or that the input is lost or closed; nothing
    without one."""
    heard = status.sound_in
    if heard is None:
        return []
    if heard.state != "open":
        style = "class:grade.late" if heard.state == "lost" else "class:quiet"
        return [("class:quiet", "in "), (style, heard.state), ("", " ")]
    style = "class:meter.hot" if heard.peak_db > -0.5 else "class:meter"
    late = f" {heard.latency_ms:.0f} ms " if heard.latency_ms else " "
    drawn = text.meter(heard.peak_db, width, ascii_only=ascii_only)
    return [("class:quiet", "in "), (style, drawn), ("class:quiet", late)]


def level_meters(
    status: Status, width: int, *, ascii_only: bool = False
) -> tuple[list[list[tuple[str, str]]], str]:
    """Meters of left and right, `width` cells each, and the louder level in words."""
    meters = [
        [
            ("class:quiet", f"{label} "),
            (
                "class:meter.hot" if db > -0.5 else "class:meter",
                text.meter(db, width, ascii_only=ascii_only),
            ),
            ("", " "),
        ]
        for label, db in zip("LR", status.peak_db, strict=True)
    ]
    loudest = max(status.peak_db)
    return meters, f"{loudest:.0f} dB" if loudest > -60 else "silent"


def _one_line(status: Status, columns: int) -> Row:
    bar = text.bar_beat(status.cycle, status.beats)
    facts = f"bar {bar} · {status.bpm:.4g} bpm · lead {status.lead_ms:.0f} ms · dry {status.dry} · "
    if text.cells(facts) + len(status.grade) > columns:
        facts = f"bar {bar} · "
    row: Row = [("class:quiet", facts), (f"class:grade.{status.grade}", status.grade)]
    return row if text.width(row) <= columns else [("class:quiet", text.fit(f"bar {bar}", columns))]
