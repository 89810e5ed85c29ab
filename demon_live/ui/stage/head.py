"""The head of the stage view: where we are in the music, and whether the instrument keeps up.

Bar and beat in digits for the last row of the hall, the beats as lamps, the level of the output,
the grade. No colour carries a meaning alone: each lamp is also a word.

Threads: pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from demon_live.session.status import Status
from demon_live.ui import text
from demon_live.ui.stage.digits import big, width_of
from demon_live.ui.stage.painter import Row

__all__ = ["Trouble", "grade_of", "head"]

#: A lead under so many steps of the ring is tight.
_STEPS = 1.5


@dataclass(slots=True)
class Trouble:
    """Remembers when blocks ran dry: the lamp stays red for a while, then amber for good."""

    dry: int = 0
    at: float = -1e9

    def __call__(self, dry: int, now: float) -> str:
        """The grade of the dry lamp at time `now` in seconds: fine, tight or late."""
        if dry > self.dry:
            self.at = now
        self.dry = dry
        return "fine" if not dry else "late" if now - self.at < 10 else "tight"


def grade_of(status: Status) -> str:
    """The grade in one word; while the engine is not there, that."""
    if status.hushed:
        return "hushed"
    if status.telemetry.alive:
        return status.grade
    return "restarting" if status.telemetry.ticks else "starting"


def lead_grade(status: Status) -> str:
    """The latency lamp: does new sound come well before it is needed? "" while nothing comes."""
    if not status.telemetry.alive:
        return ""
    if status.lead_ms < 0 or status.grade == "late":
        return "late"
    return "tight" if 0 < status.lead_ms < _STEPS * status.telemetry.period_ms else "fine"


def head(
    status: Status, cycle: float, columns: int, rows: int, *, dry: str, ascii_only: bool
) -> list[Row]:
    """`rows` rows (1, 3 or 6) at the heard `cycle`. dry: grade of the dry lamp."""
    if rows == 1:
        return [_slim(status, cycle, columns, ascii_only)]
    digits = 5 if rows > 3 else 3
    bar = text.bars(cycle, status.beats)
    number = big(bar, digits, ascii_only=ascii_only)
    width = width_of(bar, digits)
    facts = _facts(status, cycle, digits, dry, ascii_only)
    levels = _levels(status, 24 if columns >= 120 else 12, digits, ascii_only)
    room = columns - 4 - width - max(text.cells(_plain(r)) for r in levels)
    drawn: list[Row] = []
    for y in range(digits):
        middle = _cut(facts[y], room - 2)
        used = text.cells(_plain(middle))
        drawn.append(
            [
                ("", " "),
                ("class:stage.bar", number[y]),
                ("", "   "),
                *middle,
                ("", " " * max(0, room - used)),
                *levels[y],
            ]
        )
    return [*drawn, [("", "")]] if rows > digits else drawn


def _plain(row: Row) -> str:
    return "".join(t for _, t in row)


def _cut(row: Row, width: int) -> list[tuple[str, str]]:
    """The fragments of `row` that fit whole into `width` cells."""
    kept: list[tuple[str, str]] = []
    for style, words in row:
        width -= text.cells(words)
        if width < 0:
            break
        kept.append((style, words))
    return kept


def _lamp(grade: str, words: str) -> tuple[str, str]:
    if not grade:
        return ("class:quiet", f" {words} ")
    known = grade if grade in ("fine", "tight", "late") else "tight"
    return (f"class:lamp.{known}", f" {words} ")


def _beats(status: Status, cycle: float, ascii_only: bool) -> list[tuple[str, str]]:
    here = int((cycle % 1) * status.beats)
    on, off = ("#", ".") if ascii_only else ("●", "○")
    lamps = [on if i == here else off for i in range(min(status.beats, 16))]
    return [
        ("class:stage.beat" if i == here else "class:quiet", f"{lamp} ")
        for i, lamp in enumerate(lamps)
    ]


def _facts(status: Status, cycle: float, rows: int, dry: str, ascii_only: bool) -> list[Row]:
    """The middle: beats and tempo, lamps, engine."""
    dot = "|" if ascii_only else "·"
    lamps: list[tuple[str, str]] = [
        _lamp(status.grade if status.telemetry.alive else "tight", grade_of(status).upper()),
        ("", " "),
        _lamp(lead_grade(status), f"lead {status.lead_ms:.0f} ms"),
        ("", " "),
        _lamp(dry, f"dry {status.dry}"),
    ]
    if status.recording:
        mark = "*" if ascii_only else "●"
        lamps += [("", " "), ("class:recording", f"{mark} {text.fit_to(status.recording, 16)}")]
    tempo: list[tuple[str, str]] = [
        *_beats(status, cycle, ascii_only),
        ("class:deck", f" {status.bpm:.4g} bpm"),
    ]
    engine: list[tuple[str, str]] = [
        ("class:quiet", status.engine.split(" ")[0]),
        ("class:quiet", f" {dot} tick {status.tick_ms:.0f} ms"),
        ("class:quiet", f" {dot} depth {len(status.slots)}"),
        ("class:quiet", f" {dot} {status.device}"),
    ]
    if rows == 3:
        return [tempo, lamps, engine]
    return [tempo, [], lamps, [], engine]


def _levels(status: Status, width: int, rows: int, ascii_only: bool) -> list[Row]:
    """The right: level meters and the level as a number."""
    meters: list[Row] = []
    for label, db in zip("LR", status.peak_db, strict=True):
        style = "class:meter.hot" if db > -0.5 else "class:meter"
        meter = text.meter(db, width, ascii_only=ascii_only)
        meters.append([("class:quiet", f"{label} "), (style, meter), ("", " ")])
    loudest = max(status.peak_db)
    words = f"{loudest:.0f} dB" if loudest > -60 else "silent"
    number: Row = [("class:quiet", text.fit(words, width + 2, right=True)), ("", " ")]
    if rows == 3:
        return [*meters, number]
    (_, *left), (_, *right) = meters
    blank = ("", "  ")
    return [meters[0], [blank, *left], meters[1], [blank, *right], number]


def _slim(status: Status, cycle: float, columns: int, ascii_only: bool) -> Row:
    """All in one row, for small screens: bar, grade, and what else fits."""
    bar = f" {text.bars(cycle, status.beats)} "
    row: list[tuple[str, str]] = [("class:stage.slim", bar), ("", " ")]
    rest = [
        _lamp(status.grade if status.telemetry.alive else "tight", grade_of(status).upper()),
        ("class:lamp.late" if status.dry else "class:quiet", f" dry {status.dry} "),
        ("class:deck", f" {status.bpm:.4g} bpm "),
        ("class:quiet", f" {max(status.peak_db):.0f} dB "),
    ]
    used = text.cells(_plain(row))
    for piece in rest:
        used += text.cells(piece[1])
        if used > columns:
            break
        row.append(piece)
    return row
