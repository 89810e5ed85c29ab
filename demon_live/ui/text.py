"""Curves, meters and widths as text, without colour.

Every function returns exactly as many cells as requested, so that a panel never wraps. For a
terminal without UTF-8 the same shapes come in ASCII.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from prompt_toolkit.utils import get_cwidth

Samples = Sequence[float] | NDArray[np.float32]
#: A row of the screen: (style, text) pieces.
Row = Sequence[tuple[str, str]]

#: Fillings of one cell, from empty to full.
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " _.-=+*%#"
#: Braille dots of the left and right column, filled from the bottom: 0 to 4 dots high.
_LEFT = (0, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0, 0x80, 0xA0, 0xB0, 0xB8)
_FLOOR_DB = -48.0


def cells(text: str) -> int:
    """How many terminal cells `text` takes (a wide character takes two)."""
    return sum(get_cwidth(c) for c in text)


def width(row: Row) -> int:
    """How many terminal cells a row takes."""
    return sum(cells(text) for _, text in row)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells: cut with an ellipsis, or padded (on the left if `right`)."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if width <= 0:
        return ""
    size = cells(text)
    if size > width:
        out, used = [], 0
        for c in text:
            used += get_cwidth(c)
            if used > width - 1:
                break
            out.append(c)
        text = "".join(out) + "…"
        size = cells(text)
    pad = " " * (width - size)
    return pad + text if right else text + pad


def fit_to(text: str, width: int) -> str:
    """`text` in at most `width` cells."""
    return fit(text, min(cells(text), width))


def number(value: float) -> str:
    """A value as a performer writes it: `.62`, `1`, `2.5`, `8000`."""
    if not np.isfinite(value):
        return "?"
    if abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    if text in ("-0", ""):
        return "0"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _spread(samples: Samples, n: int) -> NDArray[np.float32]:
    """`n` values picked from `samples`, not interpolated, so that steps stay steps."""
    x = np.asarray(samples, dtype=np.float32)
    if x.size == 0:
        return np.zeros(n, dtype=np.float32)
    at = np.arange(n) * x.size // n
    return np.clip(np.nan_to_num(x[at]), 0.0, 1.0)


def curve(
    samples: Samples, width: int, rows: int = 1, *, fine: bool = True, ascii_only: bool = False
) -> list[str]:
    """Values in 0..1 as a filled curve in `rows` rows of `width` cells, top row first.

    fine: braille, two columns a cell and four heights a row; otherwise blocks, one column and eight
    heights. The lowest value still shows a line, so that a curve at 0 is not mistaken for none.
    """
    fine = fine and not ascii_only
    columns, heights = (2 * width, 4) if fine else (width, 8)
    filled = 1 + np.rint(_spread(samples, columns) * (heights * rows - 1)).astype(int)
    drawn = []
    for row in range(rows):
        here = np.clip(filled - heights * (rows - 1 - row), 0, heights)
        if fine:
            pairs = zip(here[::2], here[1::2], strict=True)
            cells_of = (_LEFT[a] + _RIGHT[b] for a, b in pairs)
            # A blank, not the empty braille cell: some fonts draw that as eight rings.
            drawn.append("".join(chr(0x2800 + dots) if dots else " " for dots in cells_of))
        else:
            glyphs = _ASCII if ascii_only else _BLOCKS
            drawn.append("".join(glyphs[i] for i in here))
    return drawn


def roll(
    notes: Iterable[tuple[float, float, float, float]],
    width: int,
    beats: int,
    *,
    ascii_only: bool = False,
) -> str:
    """Notes (begin, length, height 0..1, velocity), in parts of the row, in `width` cells.

    Notes of a pitch are as tall as they are high, for their length; hits (height 0) are marks. A
    dot stands on each of the beats.
    """
    glyphs = _ASCII if ascii_only else _BLOCKS
    soft, loud = ("o", "x") if ascii_only else ("▯", "▮")
    dots = {i * width // beats for i in range(beats)} if 0 < beats < width else set()
    out = [" " if i not in dots else "." if ascii_only else "·" for i in range(width)]
    for begin, length, height, velocity in notes:
        first = min(int(begin * width + 1e-6), width - 1)
        if not height:
            out[first] = loud if velocity > 0.5 else soft
            continue
        last = max(first + 1, int((begin + length) * width + 1e-6))
        mark = glyphs[1 + round(min(max(height, 0.0), 1.0) * (len(glyphs) - 2))]
        for i in range(first, min(last, width)):
            out[i] = mark
    return "".join(out)


def meter(db: float, width: int, *, ascii_only: bool = False) -> str:
    """A level meter from -48 dB (empty) to 0 dB (full)."""
    share = (db - _FLOOR_DB) / -_FLOOR_DB if np.isfinite(db) else 0.0
    return meter_of(share, width, ascii_only)


def meter_of(share: float, width: int, ascii_only: bool = False) -> str:
    """A bar from empty (0) to full (1)."""
    eighths = int(np.clip(round(share * width * 8), 0, width * 8))
    full, rest = divmod(eighths, 8)
    if ascii_only:
        return ("#" * full).ljust(width, ".")
    return ("█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")).ljust(width)


def bar_of(place: float, width: int, *, ascii_only: bool = False) -> str:
    """A place in a range, 0 to 1, as a line: `━━━───`."""
    full, rest = ("=", "-") if ascii_only else ("━", "─")
    done = int(np.clip(round(place * width), 0, width))
    return full * done + rest * (width - done)


def steps(done: int, of: int, *, ascii_only: bool = False) -> str:
    """Progress of one slot: `▮▮▮▯▯▯▯▯`."""
    full, empty = ("#", ".") if ascii_only else ("▮", "▯")
    done = max(0, min(done, of))
    return full * done + empty * (of - done)


def bar_beat(cycle: float, beats: float) -> str:
    """Bar and beat: bars are cycles, so that `at 8` is bar 8; beats count from 1."""
    bar = int(np.floor(cycle))
    beat = int((cycle - bar) * beats)
    return f"{bar}.{beat + 1}"


def ruler(labels: Sequence[int], width: int, line: str = "─") -> str:
    """Bar numbers, evenly spread over `width` cells of a border line; crowded ones are left out."""
    out = [line] * width
    free = 0
    for k, value in enumerate(labels):
        at, label = k * width // len(labels), str(value)
        if at >= free and at + len(label) < width:
            out[at : at + len(label)] = label
            free = at + len(label) + 3
    return "".join(out)
