"""The README's plots, from the same functions that `demon bench` calls.

    python tests/tools/plots.py examples/pictures

convergence.svg: how the completions after an edit approach the new state (a mock model, depth 8).
sweep.svg: which ticks complete a generation while denoise moves at every tick (depth 8).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from demon_live.bench.ring_tables import convergence_table, sweep_ticks

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


if __name__ == "__main__":
    main()
