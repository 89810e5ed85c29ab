"""Plots as SVG: those of examples/latency.md, and the histograms of tests/rigs/jumps.py.

    python -m tests.tools.plots examples/pictures [HAND.json]

convergence.svg: how the completions after an edit approach the new state (a mock model, depth 8).
sweep.svg: which ticks complete a generation while denoise moves at every tick (depth 8).
hand.svg: from a hand to the ear by depth and policy, of the JSON of tests/rigs/hand.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.rigs.policies import convergence_table, sweep_ticks

_COLOURS = ("#2f81f7", "#a371f7", "#3fb950", "#d29922", "#f778ba")
_W, _H, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 240, 44, 34, 14, 150


def chart(
    rows: Sequence[tuple[str, Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> str:
    """Lines with dots as an SVG. rows: (name, xs, ys); ys in 0..1."""
    right = max(max(xs) for _, xs, _ in rows)
    wide, high = _W - _LEFT - _RIGHT, _H - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + wide * value / right

    def y(value: float) -> float:
        return _TOP + high * (1 - value)

    text = 'font-family="sans-serif" font-size="11" fill="#7d8590"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {_H}" width="{_W}">',
        f'<rect width="{_W}" height="{_H}" rx="6" fill="#16181d"/>',
    ]
    out += [
        f'<path d="M{_LEFT} {y(v):.1f}h{wide}" stroke="#30363d"/>'
        f'<text x="{_LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end" {text}>{v:g}</text>'
        for v in (0, 0.5, 1)
    ]
    out += [
        f'<text x="{x(tick):.1f}" y="{_H - 18}" text-anchor="middle" {text}>{tick}</text>'
        for tick in range(0, int(right) + 1, 4)
    ]
    out.append(
        f'<text x="{_LEFT + wide / 2}" y="{_H - 4}" text-anchor="middle" {text}>{x_label}</text>'
    )
    out.append(f'<text x="{_LEFT + 14}" y="{_TOP + 14}" {text}>{y_label}</text>')
    for i, (name, xs, ys) in enumerate(rows):
        colour = _COLOURS[i % len(_COLOURS)]
        points = " ".join(f"{x(a):.1f},{y(min(1, b)):.1f}" for a, b in zip(xs, ys, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [
            f'<circle cx="{x(a):.1f}" cy="{y(min(1, b)):.1f}" r="2.5" fill="{colour}"/>'
            for a, b in zip(xs, ys, strict=True)
        ]
        at = _TOP + 16 + 18 * i
        out.append(
            f'<circle cx="{_W - _RIGHT + 18}" cy="{at - 4}" r="4" fill="{colour}"/>'
            f'<text x="{_W - _RIGHT + 28}" y="{at}" {text}>{name}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def timeline(rows: Sequence[tuple[str, Sequence[int]]], x_label: str) -> str:
    """A row of marks for each name: a bar where a tick has a completion. counts: one each tick."""
    text = 'font-family="sans-serif" font-size="11" fill="#7d8590"'
    left, pitch, high = 150, 34, 40 + 34 * len(rows)
    wide = _W - left - 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {high}" width="{_W}">',
        f'<rect width="{_W}" height="{high}" rx="6" fill="#16181d"/>',
    ]
    for at, (name, counts) in enumerate(rows):
        top, step = 12 + pitch * at, wide / len(counts)
        label = f"{name}: {sum(counts)} of {len(counts)}"
        out.append(f'<text x="{left - 8}" y="{top + 14}" text-anchor="end" {text}>{label}</text>')
        out.append(f'<path d="M{left} {top + 20}h{wide}" stroke="#30363d"/>')
        out += [
            f'<rect x="{left + step * tick:.1f}" y="{top}" width="{step * 0.6:.1f}" height="18" '
            f'fill="{_COLOURS[2 * at]}"/>'
            for tick, count in enumerate(counts)
            if count
        ]
    out += [
        f'<text x="{left + wide * tick / 60:.1f}" y="{high - 14}" text-anchor="middle" {text}>'
        f"{tick}</text>"
        for tick in range(0, 61, 10)
    ]
    out.append(f'<text x="{left - 8}" y="{high - 14}" text-anchor="end" {text}>{x_label}</text>')
    return "\n".join([*out, "</svg>", ""])


_CLASS_COLOURS = {"mix": "#3fb950", "step": "#2f81f7", "slot": "#d29922"}
_WIDE, _HIGH, _HEAD, _GAP = 330, 150, 46, 50
_TEXT = 'font-family="sans-serif" font-size="11" fill="#7d8590"'

Rows = Sequence[Mapping[str, Any]]


def histogram(sent: Rows, knobs: Rows, sink: Rows = ()) -> str:
    """Two histograms of tests/rigs/jumps.py side by side, as an SVG. Left, as the instrument plays,
    in ms around the written moment; right, with anticipation switched off, on its own scale.

    Rows have `cls` and `ms`, a list of lateness with None for what was not heard."""
    right = max((v for row in knobs for v in row["ms"] if v is not None), default=100.0)
    end = float(np.ceil(right / 250) * 250)
    pairs: list[tuple[Rows, Rows, str]] = [(sent, knobs, "virtual clock")]
    if sink:
        on = [row for row in sink if row["anticipation"] == "on"]
        off = [row for row in sink if row["anticipation"] == "off"]
        pairs.append((on, off, "JACK, real time"))
    width = 2 * _WIDE + 3 * _GAP
    height = _HEAD + len(pairs) * (_HIGH + _GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f'<rect width="{width}" height="{height}" rx="6" fill="#16181d"/>',
        *_legend(),
    ]
    for i, (left, other, where) in enumerate(pairs):
        y = _HEAD + i * (_HIGH + _GAP)
        out += _panel(left, _GAP, y, -25.0, 25.0, 1.0, f"as it plays · {where}")
        x = 2 * _GAP + _WIDE
        out += _panel(other, x, y, -end / 10, end, end / 55, f"anticipation off · {where}")
    return "\n".join([*out, "</svg>", ""])


def _legend() -> list[str]:
    out = []
    for i, (cls, colour) in enumerate(_CLASS_COLOURS.items()):
        x = _GAP + 70 * i
        out.append(f'<rect x="{x}" y="12" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{x + 15}" y="21" {_TEXT}>{cls}</text>')
    label = "heard minus written, ms; how many jumps of the score"
    return [*out, f'<text x="{_GAP + 230}" y="21" {_TEXT}>{label}</text>']


def _panel(
    rows: Rows, left: float, top: float, low: float, high: float, step: float, title: str
) -> list[str]:
    """One histogram of `rows` over [low, high) in bins of `step` ms."""
    edges = np.arange(low, high + step / 2, step)
    counts = {
        cls: np.histogram([v for v in _values(rows, cls) if low <= v < high], edges)[0]
        for cls in _CLASS_COLOURS
    }
    most = max(1, int(np.sum(list(counts.values()), axis=0).max()))
    known = sum(len(_values(rows, cls)) for cls in _CLASS_COLOURS)
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
                f'height="{tall:.1f}" fill="{_CLASS_COLOURS[cls]}"/>'
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


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (f"{row['control']}, {row['policy']}", [0, *row["ticks"]][:13], [1, *row["remaining"]][:13])
        for row in convergence_table()
    ]
    drawn = chart(rows, "ticks after the edit", "distance to the new state")
    (folder / "convergence.svg").write_text(drawn, encoding="utf-8")
    sweep = [(row["policy"].split(",")[0], row["completions"]) for row in sweep_ticks()]
    (folder / "sweep.svg").write_text(timeline(sweep, "tick"), encoding="utf-8")
    if len(sys.argv) > 2:
        found = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))["hand"]
        (folder / "hand.svg").write_text(chart(hand(found), "depth", "of 3 s"), encoding="utf-8")


def hand(
    found: Sequence[Mapping[str, Any]],
) -> list[tuple[str, Sequence[float], Sequence[float]]]:
    """The medians of class slot, by depth, as parts of 3 s."""
    rows = []
    for policy in ("queue", "ours"):
        mine = [row for row in found if (row["policy"], row["class"]) == (policy, "slot")]
        for what in ("first", "settled"):
            times = [row[f"{what}_median_ms"] / 3000 for row in mine]
            rows.append((f"{policy}, {what}", [row["depth"] for row in mine], times))
    return rows


if __name__ == "__main__":
    main()
