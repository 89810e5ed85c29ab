"""The picture of `demon bench latency --score`: two histograms, side by side, as an SVG.

Left, as the instrument plays it, in ms around the written moment; right, the same score with
anticipation switched off, on its own scale. Classes are stacked.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["draw"]

_COLOURS = {"mix": "#3fb950", "step": "#2f81f7", "slot": "#d29922"}
_WIDE, _HIGH, _TOP, _GAP = 330, 150, 46, 50
_TEXT = 'font-family="sans-serif" font-size="11" fill="#7d8590"'

Rows = Sequence[Mapping[str, Any]]


def draw(sent: Rows, knobs: Rows, sink: Rows = ()) -> str:
    """Rows have `cls` and `ms`, a list of lateness with None for what was not heard."""
    right = max((v for row in knobs for v in row["ms"] if v is not None), default=100.0)
    end = float(np.ceil(right / 250) * 250)
    pairs: list[tuple[Rows, Rows, str]] = [(sent, knobs, "virtual clock")]
    if sink:
        on = [row for row in sink if row["anticipation"] == "on"]
        off = [row for row in sink if row["anticipation"] == "off"]
        pairs.append((on, off, "JACK, real time"))
    width = 2 * _WIDE + 3 * _GAP
    height = _TOP + len(pairs) * (_HIGH + _GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f'<rect width="{width}" height="{height}" rx="6" fill="#16181d"/>',
        *_legend(),
    ]
    for i, (left, other, where) in enumerate(pairs):
        y = _TOP + i * (_HIGH + _GAP)
        out += _panel(left, _GAP, y, -25.0, 25.0, 1.0, f"as it plays · {where}")
        x = 2 * _GAP + _WIDE
        out += _panel(other, x, y, -end / 10, end, end / 55, f"anticipation off · {where}")
    return "\n".join([*out, "</svg>", ""])


def _legend() -> list[str]:
    out = []
    for i, (cls, colour) in enumerate(_COLOURS.items()):
        x = _GAP + 70 * i
        out.append(f'<rect x="{x}" y="12" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{x + 15}" y="21" {_TEXT}>{cls}</text>')
    label = "heard minus written, ms; how many jumps of the score"
    return [*out, f'<text x="{_GAP + 230}" y="21" {_TEXT}>{label}</text>']


def _panel(
    rows: Rows, left: float, top: float, low: float, high: float, step: float, title: str
) -> list[str]:
    """One histogram of `rows` over [low, high) in bins of `step` ms; what is outside is told."""
    edges = np.arange(low, high + step / 2, step)
    counts = {
        cls: np.histogram([v for v in _values(rows, cls) if low <= v < high], edges)[0]
        for cls in _COLOURS
    }
    most = max(1, int(np.sum(list(counts.values()), axis=0).max()))
    known = sum(len(_values(rows, cls)) for cls in _COLOURS)
    shown = int(sum(int(c.sum()) for c in counts.values()))
    bottom, bar = top + _HIGH, _WIDE / len(edges)
    out = [
        f'<text x="{left}" y="{top - 6}" {_TEXT}>{title} · {known} jumps, '
        f"{known - shown} outside</text>",
        f'<path d="M{left} {bottom}h{_WIDE}" stroke="#30363d"/>',
    ]
    base = np.zeros(len(edges) - 1)
    for cls, count in counts.items():
        for i in np.flatnonzero(count):
            tall = count[i] * (_HIGH - 12) / most
            y = bottom - base[i] - tall
            out.append(
                f'<rect x="{left + i * bar:.1f}" y="{y:.1f}" width="{bar - 0.5:.1f}" '
                f'height="{tall:.1f}" fill="{_COLOURS[cls]}"/>'
            )
        base += count * (_HIGH - 12) / most
    for value in np.linspace(low, high, 6) if low < -high / 2 else np.linspace(0, high, 6):
        x = left + (value - low) / (high - low) * _WIDE
        out.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#30363d"/>')
        out.append(
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" {_TEXT}>{value:g}</text>'
        )
    return out


def _values(rows: Rows, cls: str) -> list[float]:
    return [v for row in rows if row["cls"] == cls for v in row["ms"] if v is not None]
