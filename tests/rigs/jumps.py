"""Written against heard, for a jump of each control.

A score lets one control jump between two values every two bars. How each value sounds by itself is
known from two runs that hold it; the jump is heard at the sample where the run that jumps is best
explained as the old sound before it and the new one from it on.

Measured on the virtual clock with the times of an engine's ticks and decodes on this machine
(simulated.py), at several depths; once as the instrument plays it, and once with anticipation
switched off: every control then takes the value of the moment, as a knob does. With `--jack`, the
engine itself plays through a JACK server without hardware, in real time (jumps_live.py). `--plot`
draws the histograms.

    python -m tests.rigs.jumps [--engine E] [--depth D] [--jack] [--plot FILE.svg] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.bench.common import Figures, Options, machine, opened
from demon_live.bench.latency import Times, measure_times
from demon_live.controls import CONTROLS
from demon_live.core import RATES, ControlBlock, EngineState, Floats
from tests.rigs.simulated import Alter, Simulated, Telltale
from tests.tools.plots import histogram

DEPTHS = (1, 4, 8)
SOURCE = 'source "loops/dub_120.flac"'
#: Samples between two jumps: two bars at 160.
SPACING = 3 * RATES.sample_rate
#: Jumps of each run.
COUNT = 5


@dataclass(frozen=True, slots=True)
class Jump:
    """A control, two values of it, and what else must be said for them to sound different."""

    control: str
    low: str
    high: str
    beside: tuple[str, ...] = ()

    def score(self, value: str) -> str:
        """The score in which the control is `value` throughout, or a pattern."""
        lines = ("tempo 160", "loop 2", SOURCE, *self.beside, f"{self.control} = {value}")
        return "\n".join(lines)

    @property
    def pattern(self) -> str:
        return f'"<{self.low} {self.high}>/2"'


_GUIDED = ("guide = 8", "cfg = 'full'", "prompt = 'acid'")
JUMPS = (
    Jump("gain", "1", ".4"),
    Jump("pan", "-.8", ".8"),
    Jump("lpf", "20000", "700"),
    Jump("hpf", "20", "1500"),
    Jump("blend", "1", ".2"),
    Jump("velocity", "1", ".6"),
    Jump("noise", "0", ".8"),
    Jump("morph", "0", ".9"),
    Jump("guide", "1", "6", ("cfg = 'full'", "prompt = 'acid'")),
    Jump("rescale", "0", "1", _GUIDED),
    Jump("energy", "1", "2.5"),
    Jump("hint", "0", "1"),
    Jump("prompt_mix", "0", "1", ("prompt = 'acid'", "prompt2 = 'dub'")),
    Jump("denoise", ".3", "1"),
    Jump("seed", "1", "2"),
    Jump("shift", "1", "6", ("denoise = .6",)),
    Jump("init", "1", ".3"),
    Jump("prompt", "'acid'", "'dub'"),
    Jump("prompt2", "'acid'", "'dub'", ("prompt_mix = .7", "prompt = 'house'")),
    Jump("key", "'A minor'", "'C major'", ("prompt = 'house'",)),
    Jump("cfg", "'off'", "'full'", ("guide = 5", "prompt = 'acid'")),
)
# Not here: feedback and feedback_depth. They feed on themselves, so that no value of theirs has a
# sound of its own to compare with; their first effect is that of any request (tests). Nor momentum:
# it acts through norms over a second around each frame (engine/guidance.py): its edge is a slope.


# ------------------------------------------------------------------ from sound to moments


def crossings(
    audio: Floats, low: Floats, high: Floats, written: Sequence[int], rising: Sequence[bool]
) -> list[int | None]:
    """For each written jump the sample at which it is heard; None: not before the next one.

    The change point of least squares, among the samples from a quarter of a spacing before the jump
    to three quarters after it: old sound up to there, new sound from there on. audio, low, high:
    float32 [n, 2], of one length. In the middle of a cross-fade the two explain equally well.
    """
    found: list[int | None] = []
    for at, up in zip(written, rising, strict=True):
        begin, end = max(0, at - SPACING // 4), min(len(audio), at + SPACING * 3 // 4)
        piece = np.asarray(audio[begin:end], np.float64)
        old, new = (low, high) if up else (high, low)
        gain = np.sum((piece - old[begin:end]) ** 2 - (piece - new[begin:end]) ** 2, axis=1)
        total = np.concatenate(([0.0], np.cumsum(gain)))
        best = int(np.argmin(total))
        # Where the last sample still sounds old, the best place for the change is the end.
        found.append(begin + best if best < end - begin else None)
    return found


# ------------------------------------------------------------------ runs


def knob(state: EngineState) -> EngineState:
    """The state of an instrument without a score: every control has the value of this moment."""
    decks = {
        name: replace(deck, block=None if deck.block is None else _momentary(deck.block))
        for name, deck in state.decks.items()
    }
    return replace(state, decks=decks)


def _momentary(block: ControlBlock) -> ControlBlock:
    _, position = block.loop.locate(block.sampled_at)
    # The frame that sounds next is the first whose lane holds this moment's value.
    here = min(position // RATES.hop + 1, block.loop.frames - 1)
    lanes = {name: np.full_like(lane, lane[here]) for name, lane in block.lanes.items()}
    return replace(block, lanes=lanes, plan=block.plan[:1])


def _run(jump: Jump, value: str, depth: int, times: Times, seconds: float, alter: Alter) -> Floats:
    instrument = Simulated(Telltale(depth), times, alter=alter)
    instrument.session.apply(jump.score(value), "bench.demon", "file")
    return instrument.play(seconds)


def _held(jump: Jump, value: str, times: Times) -> Floats:
    """The settled sound of a value, from the beginning of a lap: float32 [SPACING, 2]."""
    settled = 2 * SPACING / RATES.sample_rate
    audio = _run(jump, value, 4, times, settled, lambda state: state)
    return audio[SPACING : 2 * SPACING]


def _late(jump: Jump, depth: int, times: Times, low: Floats, high: Floats, alter: Alter) -> Figures:
    """Heard minus written, in ms, for each jump of one run; None where it was not heard at all."""
    seconds = (COUNT + 1) * SPACING / RATES.sample_rate
    audio = _run(jump, jump.pattern, depth, times, seconds, alter)
    laps = -(-len(audio) // SPACING)
    low, high = (np.tile(x, (laps, 1))[: len(audio)] for x in (low, high))
    written = [SPACING * (i + 1) for i in range(COUNT)]
    rising = [i % 2 == 0 for i in range(COUNT)]
    heard = crossings(audio, low, high, written, rising)
    late = [
        None if h is None else (h - w) * 1000 / RATES.sample_rate
        for h, w in zip(heard, written, strict=True)
    ]
    return {"control": jump.control, "cls": CONTROLS[jump.control].cls, "depth": depth, "ms": late}


def table(
    times: dict[int, Times], jumps: Sequence[Jump] = JUMPS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(as it plays, anticipation off): rows control, cls, depth, ms [COUNT]."""
    sent: list[dict[str, Any]] = []
    knobs: list[dict[str, Any]] = []
    fastest = times[min(times)]
    for jump in jumps:
        low, high = (_held(jump, value, fastest) for value in (jump.low, jump.high))
        for depth, cost in times.items():
            sent.append({**_late(jump, depth, cost, low, high, lambda state: state)})
            knobs.append({**_late(jump, depth, cost, low, high, knob)})
    return sent, knobs


def _condensed(
    sent: Sequence[dict[str, Any]], knobs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each control: the worst of all depths as it plays, and what a knob would do."""
    out = []
    for jump in dict.fromkeys(row["control"] for row in sent):
        mine = [row for row in sent if row["control"] == jump]
        other = [row for row in knobs if row["control"] == jump]
        row: dict[str, Any] = {"control": jump, "cls": mine[0]["cls"]}
        for r in mine:
            row[f"depth_{r['depth']}_worst_ms"] = _worst(r["ms"])
        for r in other:
            row[f"knob_{r['depth']}_median_ms"] = _median(r["ms"])
        out.append(row)
    return out


def _worst(ms: Sequence[float | None]) -> float | str:
    known = [abs(v) for v in ms if v is not None]
    return round(max(known), 2) if len(known) == len(ms) else f"{len(ms) - len(known)} unheard"


def _median(ms: Sequence[float | None]) -> float | str:
    known = [v for v in ms if v is not None]
    return round(float(np.median(known)), 1) if known else "unheard"


def _all(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [v for row in rows for v in row["ms"] if v is not None]


def figures(options: Options, jack: bool = False, plot: Path | None = None) -> Figures:
    """|written - heard| of every control and depth, beside a knob's.

    Args:
        options: engine, backend, loop and, if only one, the depth.
        jack: also play in real time through a JACK server.
        plot: where to draw the histograms.
    """
    depths = (options.depth,) if options.depth else DEPTHS
    with opened(options) as engine:
        times = {depth: measure_times(engine, depth, options.frames) for depth in depths}
        name = engine.describe()
    sent, knobs = table(times)
    on, off = np.abs(_all(sent)), np.abs(_all(knobs))
    out: dict[str, Any] = {
        "times_of": name,
        "times": [{"depth": d, **t.summary()} for d, t in times.items()],
        "jumps": len(on),
        "unheard": sum(v is None for row in sent for v in row["ms"]),
        "worst_ms": round(float(on.max()), 2),
        "median_ms": round(float(np.median(on)), 3),
        "within_20_ms_percent": round(100 * float((on <= 20).mean()), 2),
        "knob_median_ms": round(float(np.median(off)), 1),
        "knob_worst_ms": round(float(off.max()), 1),
        "by_control": _condensed(sent, knobs),
    }
    if jack:
        from tests.rigs.jumps_live import figures as in_real_time

        out.update(in_real_time(options))
    if plot is not None:
        plot.write_text(histogram(sent, knobs, out.get("sink", [])), encoding="utf-8")
    return out


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.jumps")
    parser.add_argument("--engine", default="imp")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--depth", type=int, help="one depth; else 1, 4, 8")
    parser.add_argument("--loop", type=float, default=16.0, help="seconds of the loop")
    parser.add_argument("--jack", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    options = Options(args.engine, args.backend, args.depth, args.loop)
    found = {"machine": machine(), **figures(options, args.jack, args.plot)}
    text = json.dumps(found, indent=2, default=str) + "\n"
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
