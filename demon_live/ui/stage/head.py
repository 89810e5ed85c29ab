"""The head of the stage view: where we are in the music, and whether the instrument keeps up.

Bar and beat in big digits, the beats as lamps, the level of the output, the grade. No colour
carries a meaning alone: each lamp is also a word.
"""

from __future__ import annotations

import math
from functools import lru_cache

from demon_live.session.status import Status
from demon_live.ui import text
from demon_live.ui.panel import grade_word, input_meter, level_meters, record_mark
from demon_live.ui.text import Row

#: A lead under so many steps of the ring is tight.
_STEPS = 1.5
#: Three by five pixels each, a row of pixels a word.
_FONT = {
    "0": "### #.# #.# #.# ###",
    "1": "##. .#. .#. .#. ###",
    "2": "### ..# ### #.. ###",
    "3": "### ..# .## ..# ###",
    "4": "#.# #.# ### ..# ..#",
    "5": "### #.. ### ..# ###",
    "6": "### #.. ### #.# ###",
    "7": "### ..# ..# .#. .#.",
    "8": "### #.# ### #.# ###",
    "9": "### #.# ### ..# ###",
    ".": ". . . . #",
    "-": "... ... ### ... ...",
    " ": ". . . . .",
}
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def lead_grade(status: Status) -> str:
    """The lamp of the lead, how far ahead new sound is written; "" without an engine."""
    if not status.telemetry.alive:
        return ""
    if status.lead_ms < 0 or status.grade == "late":
        return "late"
    return "tight" if 0 < status.lead_ms < _STEPS * status.telemetry.period_ms else "fine"


def dry_grade(status: Status) -> str:
    """The lamp of dry blocks: red while the session's grade is, then amber for good."""
    if not status.dry:
        return "fine"
    return "late" if status.grade == "late" and status.telemetry.alive else "tight"


def head(status: Status, cycle: float, columns: int, rows: int, *, ascii_only: bool) -> list[Row]:
    """`rows` rows (1, 3 or 6) at the heard `cycle`."""
    if rows == 1:
        return [_slim(status, cycle, columns, ascii_only)]
    digits = 5 if rows > 3 else 3
    bar = text.bar_beat(cycle, status.beats)
    number = big(bar, digits, ascii_only=ascii_only)
    width = len(number[0])
    facts = _facts(status, cycle, digits, ascii_only)
    levels = _levels(status, 24 if columns >= 120 else 12, digits, ascii_only)
    room = columns - 4 - width - max(map(text.width, levels))
    drawn: list[Row] = []
    for y in range(digits):
        middle = _cut(facts[y], room - 2)
        used = text.width(middle)
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


def _cut(row: Row, width: int) -> list[tuple[str, str]]:
    """The fragments of `row` that fit whole into `width` cells."""
    out: list[tuple[str, str]] = []
    for style, words in row:
        width -= text.cells(words)
        if width < 0:
            break
        out.append((style, words))
    return out


def _lamp(grade: str, words: str) -> tuple[str, str]:
    if not grade:
        return ("class:quiet", f" {words} ")
    known = grade if grade in ("fine", "tight", "late") else "tight"
    return (f"class:lamp.{known}", f" {words} ")


def _beats(status: Status, cycle: float, ascii_only: bool) -> list[tuple[str, str]]:
    here = int((cycle % 1) * status.beats)
    on, off = ("#", ".") if ascii_only else ("●", "○")
    lamps = [on if i == here else off for i in range(min(math.ceil(status.beats), 16))]
    return [
        ("class:stage.beat" if i == here else "class:quiet", f"{lamp} ")
        for i, lamp in enumerate(lamps)
    ]


def _facts(status: Status, cycle: float, rows: int, ascii_only: bool) -> list[Row]:
    """The middle: beats and tempo, lamps, engine."""
    dot = "|" if ascii_only else "·"
    lamps: list[tuple[str, str]] = [
        _lamp(status.grade if status.telemetry.alive else "tight", grade_word(status).upper()),
        ("", " "),
        _lamp(lead_grade(status), f"lead {status.lead_ms:.0f} ms"),
        ("", " "),
        _lamp(dry_grade(status), f"dry {status.dry}"),
    ]
    if status.recording:
        mark = record_mark(status, ascii_only)
        lamps += [("", " "), ("class:recording", f"{mark} {text.fit_to(status.recording, 16)}")]
    lamps += [("", " "), *input_meter(status, 8, ascii_only=ascii_only)]
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
    meters, words = level_meters(status, width, ascii_only=ascii_only)
    number: Row = [("class:quiet", text.fit(words, width + 2, right=True)), ("", " ")]
    if rows == 3:
        return [*meters, number]
    (_, *left), (_, *right) = meters
    blank = ("", "  ")
    return [meters[0], [blank, *left], meters[1], [blank, *right], number]


def _slim(status: Status, cycle: float, columns: int, ascii_only: bool) -> Row:
    """All in one row, for small screens: bar, grade, and what else fits."""
    bar = f" {text.bar_beat(cycle, status.beats)} "
    row: list[tuple[str, str]] = [("class:stage.slim", bar), ("", " ")]
    rest = [
        _lamp(status.grade if status.telemetry.alive else "tight", grade_word(status).upper()),
        ("class:lamp.late" if status.dry else "class:quiet", f" dry {status.dry} "),
        ("class:deck", f" {status.bpm:.4g} bpm "),
        ("class:quiet", f" {max(status.peak_db):.0f} dB "),
    ]
    used = text.width(row)
    for piece in rest:
        used += text.cells(piece[1])
        if used > columns:
            break
        row.append(piece)
    return row


# --- big digits ---------------------------------------------------------------------------------


def _pixels(text: str) -> list[list[bool]]:
    """Five rows of pixels, one empty column after each character."""
    rows: list[list[bool]] = [[] for _ in range(5)]
    for c in text:
        for row, bits in zip(rows, _FONT[c].split(" "), strict=True):
            row += [b == "#" for b in bits] + [False]
    return [row[:-1] for row in rows]


@lru_cache(maxsize=256)
def big(text: str, rows: int, *, ascii_only: bool = False) -> tuple[str, ...]:
    """`text` (digits, "." and "-") in exactly 1, 3 or 5 rows of cells, top row first."""
    if rows == 1:
        return (text,)
    pixels = _pixels(text)
    if rows == 5:
        mark = "##" if ascii_only else "██"
        return tuple("".join(mark if p else "  " for p in row) for row in pixels)
    if ascii_only:
        # Three rows of characters: the top, the middle and the foot of each digit.
        return tuple("".join("#" if p else " " for p in pixels[y]) for y in (0, 2, 4))
    blank = [False] * len(pixels[0])
    pairs = zip(pixels[::2], [*pixels[1::2], blank], strict=True)
    return tuple(
        "".join(_HALVES[a, b] for a, b in zip(upper, lower, strict=True)) for upper, lower in pairs
    )
