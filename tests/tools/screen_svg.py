"""A terminal's screen as an SVG, for pictures in the README.

    tmux capture-pane -ep -t SESSION | python tests/tools/screen_svg.py > screen.svg

Blocks, braille dots and frames are drawn as shapes, so that the picture does not depend on the
fonts of whoever looks at it; words are text, stretched to the cells they stand in.

Threads: pure functions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

W, H, PAD = 8.4, 18.0, 14.0
BACK, FORE = "#16181d", "#d7dae0"
PALETTE = (
    "#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#abb2bf",
    "#7f8694", "#ff7b86", "#b5e890", "#ffd68a", "#7cc4ff", "#e19bff", "#7fdde8", "#ffffff",
)  # fmt: skip
_SGR = re.compile(r"\x1b\[([\d;]*)m|\x1b[()][A-Z0-9]|\x0f|\x0e")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_LEFT_BLOCKS = " ▏▎▍▌▋▊▉█"
#: Dots of a braille cell by bit: (column, row).
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
#: Frames: does a stroke leave the middle to the left, right, top, bottom?
_FRAMES = {
    "─": "lr", "│": "tb", "╭": "rb", "╮": "lb", "╰": "rt", "╯": "lt", "├": "rtb", "┤": "ltb",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    fore: str = FORE
    back: str | None = None
    bold: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    char: str
    look: Look


def parse(text: str) -> list[list[Cell]]:
    """Rows of cells of a capture with SGR codes. Trailing empty rows are dropped."""
    rows = []
    look = Look()
    for line in text.rstrip("\n").split("\n"):
        row: list[Cell] = []
        at = 0
        for found in [*_SGR.finditer(line), None]:
            end = found.start() if found else len(line)
            row += [Cell(c, look) for c in line[at:end]]
            if found is not None:
                at = found.end()
                if found.group(1) is not None:
                    look = _styled(look, found.group(1))
        rows.append(row)
    while rows and not "".join(c.char for c in rows[-1]).strip():
        rows.pop()
    return rows


def _styled(look: Look, codes: str) -> Look:
    numbers = iter([int(c or 0) for c in codes.split(";")])
    for n in numbers:
        if n == 0:
            look = Look()
        elif n in (1, 22):
            look = replace(look, bold=n == 1)
        elif n in (7, 27):
            look = replace(look, reverse=n == 7)
        elif 30 <= n <= 37 or 90 <= n <= 97:
            look = replace(look, fore=PALETTE[n - 30 if n < 90 else n - 82])
        elif 40 <= n <= 47 or 100 <= n <= 107:
            look = replace(look, back=PALETTE[n - 40 if n < 100 else n - 92])
        elif n == 39:
            look = replace(look, fore=FORE)
        elif n == 49:
            look = replace(look, back=None)
        elif n in (38, 48):
            look = replace(look, **{"fore" if n == 38 else "back": _extended(numbers)})
    return look


def _extended(numbers: Iterator[int]) -> str:
    if next(numbers, 5) == 2:
        return "#" + "".join(f"{next(numbers, 0):02x}" for _ in range(3))
    n = next(numbers, 7)
    if n < 16:
        return PALETTE[n]
    if n >= 232:
        return f"#{8 + 10 * (n - 232):02x}" * 1 + f"{8 + 10 * (n - 232):02x}" * 2
    levels = (0, 95, 135, 175, 215, 255)
    n -= 16
    return "#" + "".join(f"{levels[n // d % 6]:02x}" for d in (36, 6, 1))


def _colours(look: Look) -> tuple[str, str | None]:
    return (look.back or BACK, look.fore) if look.reverse else (look.fore, look.back)


def _shape(char: str, x: float, y: float, colour: str) -> str | None:
    """The character as a shape, or None if it is to be set as text."""
    if char == " ":
        return ""
    if char in _BLOCKS:
        high = H * _BLOCKS.index(char) / 8
        return _rect(x, y + H - high, W, high, colour)
    if char in _LEFT_BLOCKS:
        return _rect(x, y, W * _LEFT_BLOCKS.index(char) / 8, H, colour)
    if char in "▮▯":
        box = f'x="{x + 1.2:.1f}" y="{y + 4:.1f}" width="{W - 2.4:.1f}" height="{H - 8:.1f}"'
        how = f'fill="{colour}"' if char == "▮" else f'fill="none" stroke="{colour}"'
        return f"<rect {box} {how}/>"
    if "\u2800" <= char <= "\u28ff":
        bits = ord(char) - 0x2800
        lit = [spot for bit, spot in enumerate(_DOTS) if bits >> bit & 1]
        at = [(x + W * (0.28 + 0.44 * c), y + H * (0.14 + 0.24 * r)) for c, r in lit]
        # A stroke of no length with a round end is a dot, and the shortest to write.
        dots = "".join(f"M{cx:.1f} {cy:.1f}h0" for cx, cy in at)
        return f'<path class="d" stroke="{colour}" d="{dots}"/>'
    if char in _FRAMES:
        return _frame(_FRAMES[char], x, y, colour)
    return None


def _rect(x: float, y: float, w: float, h: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w + 0.3:.1f}" height="{h:.1f}" fill="{colour}"/>'


def _frame(sides: str, x: float, y: float, colour: str) -> str:
    cx, cy = x + W / 2, y + H / 2
    ends = {"l": (x, cy), "r": (x + W, cy), "t": (cx, y), "b": (cx, y + H)}
    strokes = "".join(f"M{cx:.1f} {cy:.1f}L{ends[s][0]:.1f} {ends[s][1]:.1f}" for s in sides)
    return f'<path d="{strokes}" stroke="{colour}" fill="none" stroke-width="1.2"/>'


def _merged(shapes: Iterable[str]) -> Iterator[str]:
    """Shapes, those side by side that are of one kind and colour as one."""
    before = ""
    for shape in shapes:
        dots = _DOTTED.fullmatch(before), _DOTTED.fullmatch(shape)
        bars = _BAR.fullmatch(before), _BAR.fullmatch(shape)
        if dots[0] and dots[1] and dots[0][1] == dots[1][1]:
            before = f"{dots[0][1]}{dots[0][2]}{dots[1][2]}{dots[0][3]}"
        elif bars[0] and bars[1] and _touch(bars[0], bars[1]):
            x, end = float(bars[0]["x"]), float(bars[1]["x"]) + float(bars[1]["w"])
            before = _rect(x, float(bars[0]["y"]), end - x - 0.3, float(bars[0]["h"]), bars[0]["c"])
        else:
            if before:
                yield before
            before = shape
    if before:
        yield before


_DOTTED = re.compile(r'(<path class="d" stroke="[^"]*" d=")([^"]*)("/>)')
_BAR = re.compile(
    r'<rect x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)" width="(?P<w>[\d.]+)" height="(?P<h>[\d.]+)" '
    r'fill="(?P<c>[^"]*)"/>'
)


def _touch(left: re.Match[str], right: re.Match[str]) -> bool:
    same = all(left[key] == right[key] for key in "yhc")
    return same and abs(float(left["x"]) + float(left["w"]) - float(right["x"])) < 0.6


def _row(cells: list[Cell], y: float, ground: str) -> Iterator[str]:
    x = PAD
    for look, group in groupby(cells, key=lambda c: c.look):
        run = "".join(c.char for c in group)
        fore, back = _colours(look)
        if back is not None and back != ground:
            yield _rect(x, y, W * len(run), H, back)
        words = ""
        for i, char in enumerate(f"{run}\n"):
            shape = None if char == "\n" else _shape(char, x + W * i, y, fore)
            # Single blanks stay inside words: a line of text is one element.
            if (shape is None and char != "\n") or (
                char == " " and words and run[i + 1 : i + 2].strip()
            ):
                words += char
                continue
            if words.strip():
                yield _words(words, x + W * (i - len(words)), y, fore, look.bold)
            words = ""
            if shape:
                yield shape
        x += W * len(run)


def _words(words: str, x: float, y: float, colour: str, bold: bool) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y + H * 0.74:.1f}" fill="{colour}"{weight} '
        f'textLength="{W * len(words):.1f}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
    )


def svg(text: str, back: str = BACK) -> str:
    """The picture of a capture. back: colour of the ground."""
    rows = parse(text)
    columns = max((len(row) for row in rows), default=1)
    width, height = 2 * PAD + W * columns, 2 * PAD + H * len(rows)
    drawn = "\n".join(
        piece for i, row in enumerate(rows) for piece in _merged(_row(row, PAD + H * i, back))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="14" '
        f'xml:space="preserve">\n'
        f"<style>.d{{fill:none;stroke-width:3.4;stroke-linecap:round}}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{back}"/>\n{drawn}\n</svg>\n'
    )


if __name__ == "__main__":
    sys.stdout.write(svg(sys.stdin.read()))
