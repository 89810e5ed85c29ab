"""smooth: straight lines where a pattern steps.

With a slew of s cycles the value at t is the mean over [t - s, t]: a step becomes a straight line
of length s that begins at the step. Without one, each event moves to the value of the next over its
whole length (Tidal's smooth). Rests hold the value before them.

Threads: pure functions; the cache of a table is its own business, and each thread counts for
itself how deep it is in averages of averages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from demon_live.lang.cycle_table import NUDGE, CycleTable
from demon_live.lang.pattern import Curve, Pattern, PatternError, Times
from demon_live.lang.registry import Numbers, Time, function
from demon_live.lang.sequence import signal

#: A curve (rather than steps) is averaged over this many readings.
_TAPS = 16
#: A curve that was averaged is averaged again at most so often: each time costs _TAPS times more.
_NESTED = 2
_asking = threading.local()
#: Keeps the readings away from bar lines, where a saw would be read on either side.
_OFF_GRID = 0.37
#: Cycles that are searched for the value that a rest goes on with.
_LOOK_BACK = 16


@function('noise = "0 .2 [0 .4]*2".smooth(.1)')
def smooth(pat: Numbers, cycles: Time | None = None) -> Pattern:
    """Straight lines instead of steps: for a time after each, or over each whole event."""
    if pat.text:
        raise PatternError("words cannot be smoothed")
    if pat.const is not None or cycles == 0:
        return pat
    if cycles is not None and (cycles < 0 or cycles > 64):
        raise PatternError("smooth takes 0 to 64 cycles")
    table = CycleTable(pat)
    if cycles is None:
        if pat.curve is not None:
            return pat
        line = _Line(table)
        return signal(Curve(lambda t: _wrapped(_to_next, line, t)), pat.period, pat.cost)
    width = float(cycles)
    if pat.curve is not None:
        return signal(Curve(_averaged(pat.curve.f, width)), pat.period)
    areas = _Areas(table)
    return signal(Curve(lambda t: _wrapped(_mean, areas, t, width)), pat.period, pat.cost)


def _averaged(f: Callable[[Any], Any], width: float) -> Callable[[Any], Any]:
    """The mean of f over [t - width, t], from _TAPS readings."""

    def averaged(t: Any) -> Any:
        depth = getattr(_asking, "depth", 0)
        if depth >= _NESTED:
            raise PatternError(f"smoothed more than {_NESTED + 1} times over")
        _asking.depth = depth + 1
        try:
            return sum(f(t - width * ((i + _OFF_GRID) / _TAPS)) for i in range(_TAPS)) / _TAPS
        finally:
            _asking.depth = depth

    return averaged


def _wrapped(fn: Any, source: Any, t: Any, *more: float) -> Any:
    out = fn(source, np.atleast_1d(np.asarray(t, dtype=np.float64)), *more)
    return out if np.ndim(t) else float(out[0])


def _knots(table: CycleTable, first: int, last: int) -> tuple[Times, Times]:
    """starts and values, float64 [m], of the steps in cycles [first, last), rests held."""
    if last - first > 4096:
        raise PatternError("smooth is asked for more than 4096 cycles at once")
    starts: list[float] = []
    values: list[float] = []
    for c in range(first, last):
        segments, shift = table.cycle(c)
        for s in segments:
            value = s.value.at(s.begin) if isinstance(s.value, Curve) else s.value
            if value is None:
                # A rest goes on with what was; at a bar line that is looked up, so that the
                # answer does not depend on where the question began.
                if s.begin + shift != c:
                    continue
                value = _held(table, c)
            starts.append(float(s.begin + shift))
            values.append(float(value))
    return np.array(starts), np.array(values)


def _held(table: CycleTable, c: int) -> float:
    """The last value before cycle c, 0 if there was none for a while."""
    for back in range(c - 1, c - 1 - _LOOK_BACK, -1):
        for s in reversed(table.cycle(back)[0]):
            if s.value is not None:
                return s.value.at(s.begin) if isinstance(s.value, Curve) else float(s.value)
    return 0.0


class _Areas:
    """Integrals of a pattern's steps, cycle by cycle: the answer at t depends on t alone, to the
    last bit, whatever else is asked with it. A replay may ask in other pieces than the stage did.
    """

    def __init__(self, table: CycleTable) -> None:
        self.table = table
        self._cycles: dict[int, tuple[Times, Times]] = {}

    def cycle(self, c: int) -> tuple[Times, Times]:
        """edges float64 [m + 1] from 0 to 1, and the area from 0 to each of them."""
        period = self.table.pattern.period
        key = c if period is None else c % period
        found = self._cycles.get(key)
        if found is None:
            starts, values = _knots(self.table, key, key + 1)
            edges = np.append(starts - key, 1.0)
            found = edges, np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])
            if len(self._cycles) >= 1024:
                self._cycles = {}
            self._cycles[key] = found
        return found

    def partial(self, t: Times, cycles: Times) -> Times:
        """The area from the beginning of t's cycle to t."""
        period = self.table.pattern.period
        keys = cycles if period is None else cycles - np.floor(cycles / period) * period
        out = np.empty_like(t)
        for key in np.unique(keys):
            here = keys == key
            out[here] = np.interp(t[here] - cycles[here], *self.cycle(int(key)))
        return out

    def between(self, first: Times, last: Times) -> Times:
        """The area of the whole cycles first, first + 1 ... last - 1."""
        out = np.zeros(len(first))
        totals = {c: self.cycle(int(c))[1][-1] for c in np.unique(np.concatenate([first, last]))}
        for step in range(int((last - first).max(initial=0))):
            c = first + step
            more = c < last
            values = [totals.get(x) or self.cycle(int(x))[1][-1] for x in c[more]]
            out[more] += values
        return out


def _mean(areas: _Areas, t: Times, width: float) -> Times:
    """The mean over [t - width, t]."""
    begin = t - width
    first, last = np.floor(begin), np.floor(t)
    upper = areas.partial(t, last) + areas.between(first, last)
    out: Times = (upper - areas.partial(begin, first)) / width
    return out


class _Line:
    """The steps of a pattern as points; those of the last question are kept."""

    def __init__(self, table: CycleTable) -> None:
        self.table = table
        self._kept: tuple[int, int, Times, Times] | None = None

    def points(self, first: int, last: int) -> tuple[Times, Times]:
        kept = self._kept
        if kept is None or kept[:2] != (first, last):
            kept = self._kept = (first, last, *_knots(self.table, first, last))
        return kept[2], kept[3]


def _to_next(line: _Line, t: Times) -> Times:
    """On the straight line from each step to the next."""
    points = line.points(int(np.floor(t.min())) - 1, int(np.floor(t.max())) + 3)
    out: Times = np.interp(t + NUDGE, *points)
    return out
