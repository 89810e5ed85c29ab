"""Patterns laid out in time: exact once a cycle, then arrays.

A cycle's events become segments without gaps or overlaps (exact Fractions), kept by cycle modulo
the period; segments become sorted float64 arrays that searchsorted looks up. Of several events that
sound together, the one that began last holds; of those that began together, the last in the text.

Threads: caches are filled by single assignments of equal values.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from demon_live.lang.pattern import LIMIT, Curve, Event, Pattern, PatternError, Times, cycle_of

#: A frame that rounding put just before an edge belongs behind it: 1e-9 cycles is 2 ns at 120 bpm.
NUDGE = 1e-9


#: Periods up to this are laid out whole; longer ones cycle by cycle.
WHOLE = 16


_KEEP = 1024


@dataclass(frozen=True, slots=True)
class CycleSegment:
    """[begin, end) in cycles and what holds there: a value, a Curve, or None for a rest."""

    begin: Fraction
    end: Fraction
    value: Any


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Segments as arrays. starts, values: float64 [m], NaN = rest. curves: (index, it, offset)."""

    starts: Times
    values: Times
    curves: tuple[tuple[int, Curve, float], ...]
    rests: bool


class CycleTable:
    """The values of a pattern in time."""

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
        kept = self._table
        if kept is not None and kept[0] == first and kept[1] == last:
            return kept[2]
        table = _tabulate([self.cycle(c) for c in range(first, last)])
        self._table = (first, last, table)
        return table


def _segments(pattern: Pattern, c: int) -> tuple[CycleSegment, ...]:
    """What holds when in cycle c, without gaps or overlaps."""
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
    """The same with overlaps: a sweep that holds the youngest event."""
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
    """The events of the first cycles, with curves. Raises PatternError if they cost too much."""
    events = pattern.raw(cycle_of(0), cycle_of(cycles))
    if len(events) > LIMIT * cycles:
        raise PatternError(f"more than {LIMIT} events in a cycle")
    return events
