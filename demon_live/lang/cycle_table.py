"""Patterns as tables: exact once a cycle, then arrays. And smoothing, which reads the tables.

The events of a cycle become segments without gaps or overlaps (exact Fractions), cached by cycle
modulo the period; segments become sorted float64 arrays that searchsorted looks up. Of several
events that sound together the one that began last holds; of those that began together, the last in
the text.

Threads: caches are filled by single assignments of equal values; each thread counts for itself how
deep it is in averages of averages.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from demon_live.lang.pattern import LIMIT, Curve, Event, Pattern, PatternError, Times, cycle_of
from demon_live.lang.registry import Numbers, Time, function
from demon_live.lang.transform import signal

#: Rounding may put a frame just before the edge that it belongs behind: 1e-9 cycles is 2 ns at
#: 120 bpm.
NUDGE = 1e-9


#: Periods up to this are tabulated whole; longer ones cycle by cycle.
WHOLE = 16


_KEEP = 1024


@dataclass(frozen=True, slots=True)
class CycleSegment:
    """[begin, end) in cycles and its value: a number, a text, a Curve, or None for a rest."""

    begin: Fraction
    end: Fraction
    value: Any


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Segments as arrays. starts, values: float64 [m], NaN = rest.

    curves: (index, curve, offset of its time).
    """

    starts: Times
    values: Times
    curves: tuple[tuple[int, Curve, float], ...]
    rests: bool


class CycleTable:
    """The values of a pattern in time, cached cycle by cycle."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._cycles: dict[int, tuple[CycleSegment, ...]] = {}
        self._table: tuple[int, int, SampleTable] | None = None

    def cycle(self, c: int) -> tuple[tuple[CycleSegment, ...], int]:
        """The segments that cover a cycle, and the number of cycles to add to their times."""
        period = self.pattern.period
        key = c % period if period is not None else c
        found = self._cycles.get(key)
        if found is None:
            found = _segments(self.pattern, key)
            if len(self._cycles) >= _KEEP:
                self._cycles = {}
            self._cycles[key] = found
        return found, c - key

    def at(self, time: Fraction) -> Any:
        """The value from `time` on: a number, a text, or None in a rest."""
        segments, shift = self.cycle(time.numerator // time.denominator)
        local = time - shift
        segment = segments[max(0, bisect_right(segments, local, key=lambda s: s.begin) - 1)]
        return segment.value.at(local) if isinstance(segment.value, Curve) else segment.value

    def sample(self, t: Times) -> tuple[Times, bool]:
        """Values at float64 [n] cycles (NaN = rest), and whether there may be rests among them."""
        pattern = self.pattern
        if pattern.curve is not None:
            out = np.asarray(pattern.curve.f(t), dtype=np.float64)
            return (out if out.shape == t.shape else np.broadcast_to(out, t.shape).copy()), False
        period = pattern.period
        if period is not None and period <= WHOLE:
            u = t - np.floor(t) if period == 1 else t - np.floor(t / period) * period
            return _look_up(self._whole(0, period), u)
        cycles = np.floor(t)
        first, last = int(cycles.min()), int(cycles.max()) + 1
        if last - first <= 4 * len(t) + 64:
            return _look_up(self._whole(first, last), t)
        out = np.empty_like(t)
        for c in np.unique(cycles):
            mask = cycles == c
            out[mask] = _look_up(self._whole(int(c), int(c) + 1), t[mask])[0]
        return out, True

    def _whole(self, first: int, last: int) -> SampleTable:
        found = self._table
        if found is not None and found[0] == first and found[1] == last:
            return found[2]
        table = _tabulate([self.cycle(c) for c in range(first, last)])
        self._table = (first, last, table)
        return table


def _segments(pattern: Pattern, c: int) -> tuple[CycleSegment, ...]:
    """The segments of cycle c, without gaps or overlaps."""
    begin, end = cycle_of(c), cycle_of(c + 1)
    events = pattern.raw(begin, end)
    events.sort(key=lambda e: e.begin)
    out: list[CycleSegment] = []
    at = begin
    for event in events:
        if event.begin < at:
            return tuple(_swept(events, begin, end))
        if event.begin > at:
            out.append(CycleSegment(at, event.begin, None))
        out.append(CycleSegment(event.begin, event.end, event.value))
        at = event.end
    if at < end:
        out.append(CycleSegment(at, end, None))
    return tuple(out)


def _swept(events: list[Any], begin: Fraction, end: Fraction) -> list[CycleSegment]:
    """The segments of overlapping events: at each time the one that began last."""
    edges = sorted({begin, end, *(e.begin for e in events), *(e.end for e in events)})
    heap: list[tuple[Fraction, int]] = []
    out: list[CycleSegment] = []
    i = 0
    for at, after in pairwise(edges):
        while i < len(events) and events[i].begin <= at:
            onset = events[i].whole_begin
            heapq.heappush(heap, (-(events[i].begin if onset is None else onset), -i))
            i += 1
        while heap and events[-heap[0][1]].end <= at:
            heapq.heappop(heap)
        out.append(CycleSegment(at, after, events[-heap[0][1]].value if heap else None))
    return out


def _tabulate(cycles: list[tuple[tuple[CycleSegment, ...], int]]) -> SampleTable:
    starts: list[float] = []
    values: list[float] = []
    curves: list[tuple[int, Curve, float]] = []
    for segments, shift in cycles:
        for s in segments:
            if isinstance(s.value, Curve):
                curves.append((len(starts), s.value, float(shift)))
            starts.append(float(s.begin + shift))
            values.append(_number(s.value))
    filled = np.array(values)
    rests = bool(np.isnan(filled).sum() > len(curves))
    return SampleTable(np.array(starts), filled, tuple(curves), rests)


def _number(value: Any) -> float:
    if value is None or isinstance(value, (str, Curve)):
        return float("nan")
    return float(value)


def _look_up(table: SampleTable, t: Times) -> tuple[Times, bool]:
    if len(table.starts) == 1 and not table.curves:
        return np.full(t.shape, table.values[0]), table.rests
    index = np.searchsorted(table.starts, t, side="right") - 1
    np.maximum(index, 0, out=index)
    out: Times = table.values[index]
    for i, curve, shift in table.curves:
        here = index == i
        if here.any():
            out[here] = curve.f(t[here] - shift)
    return out, table.rests


def trial(pattern: Pattern, cycles: int) -> list[Event]:
    """The events of the first cycles, with curves. Raises PatternError if they are too many."""
    events = pattern.raw(cycle_of(0), cycle_of(cycles))
    if len(events) > LIMIT * cycles:
        raise PatternError(f"more than {LIMIT} events in a cycle")
    return events


# --- smoothing -------------------------------------------------------------------------------

#: A curve (rather than steps) is averaged over this many readings.
_TAPS = 16
#: A curve that was averaged is averaged again at most so often: each time costs _TAPS times more.
_NESTED = 2
_asking = threading.local()
#: Keeps the readings away from bar lines, where a saw jumps.
_OFF_GRID = 0.37
#: Cycles that are searched for the value before a rest.
_LOOK_BACK = 16


@function('noise = "0 .2 [0 .4]*2".smooth(.1)')
def smooth(pat: Numbers, cycles: Time | None = None) -> Pattern:
    """Straight lines instead of steps: for a time after each, or over each whole event.

    With `cycles` the value at t is the mean over [t - cycles, t]: a step becomes a straight line of
    that length which begins at the step. Without, each event moves to the value of the next over
    its whole length (Tidal's smooth). Rests continue the value before them.
    """
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
        line = _Points(table)
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
    """starts and values, float64 [m], of the steps in cycles [first, last), without rests."""
    if last - first > 4096:
        raise PatternError("smooth is asked for more than 4096 cycles at once")
    starts: list[float] = []
    values: list[float] = []
    for c in range(first, last):
        segments, shift = table.cycle(c)
        for s in segments:
            value = s.value.at(s.begin) if isinstance(s.value, Curve) else s.value
            if value is None:
                # A rest continues the value before it. At the first bar line that value is looked
                # up, so that the result does not depend on `first`.
                if s.begin + shift != c:
                    continue
                value = _held(table, c)
            starts.append(float(s.begin + shift))
            values.append(float(value))
    return np.array(starts), np.array(values)


def _held(table: CycleTable, c: int) -> float:
    """The last value before cycle c, 0 if the cycles before it are rests."""
    for back in range(c - 1, c - 1 - _LOOK_BACK, -1):
        for s in reversed(table.cycle(back)[0]):
            if s.value is not None:
                return s.value.at(s.begin) if isinstance(s.value, Curve) else float(s.value)
    return 0.0


class _Areas:
    """Integrals of a pattern's steps, cycle by cycle.

    The result at t depends on t alone, to the last bit: a replay may sample in other blocks than
    the performance did.
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


class _Points:
    """The steps of a pattern as points; those of the last question are found."""

    def __init__(self, table: CycleTable) -> None:
        self.table = table
        self._found: tuple[int, int, Times, Times] | None = None

    def points(self, first: int, last: int) -> tuple[Times, Times]:
        found = self._found
        if found is None or found[:2] != (first, last):
            found = self._found = (first, last, *_knots(self.table, first, last))
        return found[2], found[3]


def _to_next(line: _Points, t: Times) -> Times:
    """On the straight line from each step to the next."""
    points = line.points(int(np.floor(t.min())) - 1, int(np.floor(t.max())) + 3)
    out: Times = np.interp(t + NUDGE, *points)
    return out
