"""smooth: straight lines where a pattern steps.

With a slew of s cycles the value at t is the mean over [t - s, t]: a step becomes a straight line
of length s that begins at the step. Without one, each event moves to the value of the next over its
whole length (Tidal's smooth). Rests hold the value before them.

Threads: pure functions; the cache of a layout is its own business.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang.layout import NUDGE, Layout
from demon_live.lang.pattern import Curve, Pattern, PatternError, Times, signal

__all__ = ["smooth"]

#: A curve (rather than steps) is averaged over this many readings.
_TAPS = 16
#: Keeps the readings away from bar lines, where a saw would be read on either side.
_OFF_GRID = 0.37
#: Cycles that are searched for the value that a rest goes on with.
_LOOK_BACK = 16


def smooth(pat: Pattern, slew: Fraction | None) -> Pattern:
    """See the module. slew: cycles >= 0, None = each event's own length."""
    if pat.text:
        raise PatternError("words cannot be smoothed")
    if pat.const is not None or slew == 0:
        return pat
    if slew is not None and (slew < 0 or slew > 64):
        raise PatternError("smooth takes 0 to 64 cycles")
    layout = Layout(pat)
    if slew is None:
        if pat.curve is not None:
            return pat
        return signal(Curve(lambda t: _wrapped(_to_next, layout, t)), pat.period, pat.cost)
    width = float(slew)
    if pat.curve is not None:
        f = pat.curve.f

        def averaged(t: Any) -> Any:
            return sum(f(t - width * ((i + _OFF_GRID) / _TAPS)) for i in range(_TAPS)) / _TAPS

        return signal(Curve(averaged), pat.period)
    return signal(Curve(lambda t: _wrapped(_mean, layout, t, width)), pat.period, pat.cost)


def _wrapped(fn: Any, layout: Layout, t: Any, *more: float) -> Any:
    out = fn(layout, np.atleast_1d(np.asarray(t, dtype=np.float64)), *more)
    return out if np.ndim(t) else float(out[0])


def _knots(layout: Layout, first: int, last: int) -> tuple[Times, Times]:
    """starts and values, float64 [m], of the steps in cycles [first, last), rests held."""
    if last - first > 4096:
        raise PatternError("smooth is asked for more than 4096 cycles at once")
    starts: list[float] = []
    values: list[float] = []
    for c in range(first, last):
        segments, shift = layout.cycle(c)
        for s in segments:
            value = s.value.at(s.begin) if isinstance(s.value, Curve) else s.value
            if value is None:
                # A rest goes on with what was; at a bar line that is looked up, so that the
                # answer does not depend on where the question began.
                if s.begin + shift != c:
                    continue
                value = _held(layout, c)
            starts.append(float(s.begin + shift))
            values.append(float(value))
    return np.array(starts), np.array(values)


def _held(layout: Layout, c: int) -> float:
    """The last value before cycle c, 0 if there was none for a while."""
    for back in range(c - 1, c - 1 - _LOOK_BACK, -1):
        for s in reversed(layout.cycle(back)[0]):
            if s.value is not None:
                return s.value.at(s.begin) if isinstance(s.value, Curve) else float(s.value)
    return 0.0


def _mean(layout: Layout, t: Times, width: float) -> Times:
    first = int(np.floor(t.min() - width)) - 1
    last = int(np.floor(t.max())) + 2
    starts, values = _knots(layout, first, last)
    edges = np.append(starts, float(last))
    area = np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])
    out: Times = (np.interp(t, edges, area) - np.interp(t - width, edges, area)) / width
    return out


def _to_next(layout: Layout, t: Times) -> Times:
    first, last = int(np.floor(t.min())) - 1, int(np.floor(t.max())) + 3
    starts, values = _knots(layout, first, last)
    out: Times = np.interp(t + NUDGE, starts, values)
    return out
