"""Pictures as SVG: curves, waves and latents, for notebooks and for `demon set show`.

Threads: a Drawing belongs to the call that draws on it; the rest are pure functions.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Points (x, share of the height 0..1); None: the line is interrupted.
Curve = list[tuple[float, float] | None]
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#edc948", "#9c755f")
#: Of a small picture: width, left margin, height of what is drawn, and values drawn.
_WIDTH, _LEFT, _HEIGHT, _POINTS = 640, 60, 80, 1120


@dataclass(frozen=True, slots=True)
class SvgPicture:
    """A picture. A notebook shows it. svg: its text."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


class Drawing:
    """Rows of a picture, from top to bottom, over cycles or seconds.

    Args:
        length: where the right end lies.
        width, left: of the picture and of its margin for names, in pixels.

    Attributes:
        y: where the next row begins.
    """

    def __init__(self, length: float, width: int = 1200, left: int = 110) -> None:
        self.length = max(length, 1e-9)
        self.width, self.left = width, left
        self.rows: list[str] = []
        self.y = 40

    def x(self, place: float) -> float:
        """The pixel of a cycle or second."""
        share = min(1.0, max(0.0, place / self.length))
        return round(self.left + share * (self.width - self.left - 20), 2)

    def axis(self) -> None:
        """Whole numbers along the top."""
        step = 1
        while self.length / step > 24:
            step *= 2
        for place in range(0, int(self.length) + 1, step):
            self.text(self.x(place), 36, str(place), 9, "#888")

    def text(self, x: float, y: float, text: str, size: int = 11, colour: str = "#ddd") -> None:
        """A text that begins at x, y."""
        self.rows.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
        )

    def tick(self, x: float, top: float, bottom: float, colour: str, title: str = "") -> None:
        """An upright line."""
        hover = f"<title>{escape(title)}</title>" if title else ""
        line = f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{colour}" '
        self.rows.append(f'{line}stroke-width="1.5">{hover}</line>')

    def curve(self, curve: Curve, y: float, height: float, colour: str) -> None:
        """Straight lines from point to point, interrupted where there is none."""
        runs: list[list[str]] = [[]]
        for point in curve:
            if point is None:
                runs.append([])
            else:
                runs[-1].append(f"{self.x(point[0]):g},{y + height * (1 - point[1]):.1f}")
        for run in (r for r in runs if len(r) > 1):
            self.rows.append(
                f'<polyline points="{" ".join(run)}" fill="none" stroke="{colour}" '
                f'stroke-width="1.3" stroke-linejoin="round"/>'
            )

    def bar(self, a: float, b: float, y: float, height: float, colour: str, title: str) -> None:
        """A block from pixel a to pixel b."""
        self.rows.append(
            f'<rect x="{a}" y="{y}" width="{max(0.5, b - a):.2f}" height="{height}" '
            f'fill="{colour}" fill-opacity=".75"><title>{escape(title)}</title></rect>'
        )

    def image(self, png: bytes, height: float) -> None:
        """An image as wide as the row, one block a pixel."""
        data = base64.b64encode(png).decode()
        self.rows.append(
            f'<image x="{self.left}" y="{self.y}" width="{self.width - self.left - 20}" '
            f'height="{height}" preserveAspectRatio="none" style="image-rendering: pixelated" '
            f'href="data:image/png;base64,{data}"/>'
        )

    def svg(self, title: str) -> str:
        """The picture, under a title."""
        height = self.y + 10
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height}" '
            f'width="{self.width}" height="{height}" font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="#1b1d22"/>'
        )
        label = f'<text x="8" y="20" font-size="13" fill="#fff">{escape(title)}</text>'
        return "\n".join([head, label, *self.rows, "</svg>"]) + "\n"


def places(length: float) -> NDArray[np.float64]:
    """The times at which a curve over `length` cycles is drawn."""
    return np.linspace(0, length, _POINTS, endpoint=False)


def of_curve(values: NDArray[Any], length: float, title: str) -> SvgPicture:
    """A curve of its values at `places(length)`, its lowest and highest beside it."""
    drawing = Drawing(length, _WIDTH, _LEFT)
    drawing.axis()
    low, high = float(values.min()), float(values.max())
    shares = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    drawing.text(8, drawing.y + 9, f"{high:.4g}", 10, "#999")
    if high > low:
        drawing.text(8, drawing.y + _HEIGHT, f"{low:.4g}", 10, "#999")
    points = zip(places(length).tolist(), shares.tolist(), strict=True)
    drawing.curve(list(points), drawing.y, _HEIGHT, COLOURS[0])
    drawing.y += _HEIGHT
    return SvgPicture(drawing.svg(title))


def of_sound(audio: NDArray[np.float32], rate: int, title: str) -> SvgPicture:
    """The peaks of a sound float32 [n, 2], left above and right below, over seconds."""
    drawing = Drawing(len(audio) / rate, _WIDTH, _LEFT)
    drawing.axis()
    columns = np.array_split(np.abs(audio).clip(max=1), min(len(audio), _WIDTH - _LEFT - 20) or 1)
    peaks = [column.max(axis=0, initial=0).tolist() for column in columns]
    half, middle = _HEIGHT / 2, drawing.y + _HEIGHT / 2
    for i, (left, right) in enumerate(peaks):
        x = drawing.x(drawing.length * i / len(peaks))
        drawing.tick(x, round(middle - half * left, 1), round(middle + half * right, 1), COLOURS[0])
    drawing.y += _HEIGHT
    return SvgPicture(drawing.svg(title))


def of_latent(latent: NDArray[np.float32], title: str) -> SvgPicture:
    """A latent [T, C]: frames from left to right, channels from top to bottom, -3 to 3 from dark
    to bright."""
    drawing = Drawing(len(latent), _WIDTH, _LEFT)
    drawing.image(_png(np.clip(latent.T / 6 + 0.5, 0, 1)), _HEIGHT)
    drawing.y += _HEIGHT
    return SvgPicture(drawing.svg(title))


def _png(shares: NDArray[np.float32]) -> bytes:
    """Shares of brightness [rows, columns], 0..1, as an image of greys."""
    rows, columns = shares.shape
    grey = np.round(np.nan_to_num(shares) * 255).astype(np.uint8)
    # Each row of a PNG begins with its filter: 0, none.
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), grey], axis=1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))
        )

    head = struct.pack("!2I5B", columns, rows, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body
