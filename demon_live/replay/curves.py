"""What each control of a deck did over a set, as curves: sampled from the states along the way."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction

from demon_live.controls import find
from demon_live.runtime.dry_run import Moment

#: Samples over the whole set: about two for each pixel of the picture's curves.
SAMPLES = 1600

#: Points (cycle, share of the range 0..1); None where the control is not bound.
Curve = list[tuple[float, float] | None]


def _cycle(moment: Moment) -> float:
    return float(moment.state.tempo.cycle_at(moment.sample))


def _share(name: str, value: float) -> float:
    """Where a value lies between the ends of its control's range; Hz are shown by octaves."""
    control = find(name)
    if control is None:
        return 0.0
    low, high = control.low, control.high
    if control.unit == "Hz" and low > 0 and value > 0:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def curves(moments: Sequence[Moment], deck: str, end: float) -> dict[str, Curve]:
    """Control -> its curve over cycles 0 .. end, for the controls that move at all.

    A pattern faster than the samples (some ten steps a bar in an hour's set) is seen as its range.
    """
    begins = [_cycle(m) for m in moments]
    found: dict[str, Curve] = {}
    for k in range(SAMPLES + 1):
        cycle = end * k / SAMPLES
        state = moments[max(0, bisect.bisect_right(begins, cycle) - 1)].state
        here, playing = Fraction(cycle), state.decks.get(deck)
        lanes = state.lanes(playing, here) if playing is not None else {}
        for name, lane in lanes.items():
            value = lane.at(here)
            if isinstance(value, float):
                curve = found.setdefault(name, [None] * (SAMPLES + 1))
                curve[k] = (cycle, _share(name, value))
    return {name: curve for name, curve in sorted(found.items()) if _moves(curve)}


def _moves(curve: Curve) -> bool:
    shares = [point[1] for point in curve if point is not None]
    return max(shares) - min(shares) > 0.005


def words(moments: Sequence[Moment], deck: str, end: float) -> list[tuple[float, float, str]]:
    """(begin, end, text) of each stretch in which the deck's prompt is the same."""
    begins = [_cycle(m) for m in moments]
    out: list[tuple[float, float, str]] = []
    for k in range(SAMPLES):
        cycle = end * k / SAMPLES
        state = moments[max(0, bisect.bisect_right(begins, cycle) - 1)].state
        playing = state.decks.get(deck)
        lane = state.lanes(playing, Fraction(cycle)).get("prompt") if playing else None
        text = str(lane.at(Fraction(cycle))) if lane is not None else ""
        if out and out[-1][2] == text:
            out[-1] = (out[-1][0], end * (k + 1) / SAMPLES, text)
        else:
            out.append((cycle, end * (k + 1) / SAMPLES, text))
    return [row for row in out if row[2]]
