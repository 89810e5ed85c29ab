"""Digits that are read from the last row of a hall: three rows high, or five.

Threads: pure functions.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["big", "width_of"]

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
        # Three rows of letters: the top, the middle and the foot of each digit.
        return tuple("".join("#" if p else " " for p in pixels[y]) for y in (0, 2, 4))
    blank = [False] * len(pixels[0])
    pairs = zip(pixels[::2], [*pixels[1::2], blank], strict=True)
    return tuple(
        "".join(_HALVES[a, b] for a, b in zip(upper, lower, strict=True)) for upper, lower in pairs
    )


def width_of(text: str, rows: int) -> int:
    """How many cells `big` takes."""
    return len(big(text, rows)[0])
