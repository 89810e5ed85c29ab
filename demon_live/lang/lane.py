"""Lanes: what a deck gives to a control, as a function of an ARRAY of cycle times.

A pattern is laid out once a cycle (exact Fractions at the edges, then float64, cached) and looked up
with searchsorted; a pattern without structure is one numpy expression. Nothing here loops over
frames. Lanes are joined by switch, glide and xfade, and prune takes back what is over.

At any moment one value holds: of several events that sound together, the one that began last, and of
those that began together the last in the text. A rest gives the control's own rest or default.

Threads: lanes are immutable; the caches of a layout are filled by single assignments of equal values.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demon_live.controls import Control, find
from demon_live.core import Floats
from demon_live.lang.pattern import (
    LIMIT,
    Curve,
    Event,
    Pattern,
    PatternError,
    Times,
    cycle_of,
    pure,
)

__all__ = ["GlideLane", "Lane", "Layout", "PatternLane", "SwitchLane", "XfadeLane", "fade_gains"]

#: A frame that rounding put just before an edge belongs behind it: 1e-9 cycles is 2 ns at 120 bpm.
NUDGE = 1e-9
#: Periods up to this are laid out whole; longer ones cycle by cycle.
_WHOLE = 16
_KEEP = 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """[begin, end) in cycles and what holds there: a value, a Curve, or None for a rest."""

    begin: Fraction
    end: Fraction
    value: Any


@dataclass(frozen=True, slots=True)
class Table:
    """Segments as arrays. starts, values: float64 [m], NaN for rests. curves: (index, curve, offset)."""

    starts: Times
    values: Times
    curves: tuple[tuple[int, Curve, float], ...]
    rests: bool


class Layout:
    """The values of a pattern in time."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self._cycles: dict[int, tuple[Segment, ...]] = {}
        self._table: tuple[int, int, Table] | None = None

    def cycle(self, c: int) -> tuple[tuple[Segment, ...], int]:
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
        if period is not None and period <= _WHOLE:
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

    def _whole(self, first: int, last: int) -> Table:
        kept = self._table
        if kept is not None and kept[0] == first and kept[1] == last:
            return kept[2]
        table = _tabulate([self.cycle(c) for c in range(first, last)])
        self._table = (first, last, table)
        return table


def _segments(pattern: Pattern, c: int) -> tuple[Segment, ...]:
    """What holds when in cycle c, without gaps or overlaps."""
    begin, end = cycle_of(c), cycle_of(c + 1)
    events = pattern.raw(begin, end)
    events.sort(key=lambda e: e.begin)
    out: list[Segment] = []
    at = begin
    for event in events:
        if event.begin < at:
            return tuple(_swept(events, begin, end))
        if event.begin > at:
            out.append(Segment(at, event.begin, None))
        out.append(Segment(event.begin, event.end, event.value))
        at = event.end
    if at < end:
        out.append(Segment(at, end, None))
    return tuple(out)


def _swept(events: list[Any], begin: Fraction, end: Fraction) -> list[Segment]:
    """The same with overlaps: a sweep that holds the youngest event."""
    edges = sorted({begin, end, *(e.begin for e in events), *(e.end for e in events)})
    heap: list[tuple[Fraction, int]] = []
    out: list[Segment] = []
    i = 0
    for at, after in zip(edges, edges[1:], strict=False):
        while i < len(events) and events[i].begin <= at:
            onset = events[i].whole_begin
            heapq.heappush(heap, (-(events[i].begin if onset is None else onset), -i))
            i += 1
        while heap and events[-heap[0][1]].end <= at:
            heapq.heappop(heap)
        out.append(Segment(at, after, events[-heap[0][1]].value if heap else None))
    return out


def _tabulate(cycles: list[tuple[tuple[Segment, ...], int]]) -> Table:
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
    return Table(np.array(starts), filled, tuple(curves), rests)


def _number(value: Any) -> float:
    if value is None or isinstance(value, (str, Curve)):
        return float("nan")
    return float(value)


def _look_up(table: Table, t: Times) -> tuple[Times, bool]:
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


# --- lanes -----------------------------------------------------------------------------------


class Lane:
    """The curve of one control. See the subclasses; the session uses only what stands here."""

    spec: Control
    text: str

    @property
    def control(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> Literal["number", "text"]:
        return "number" if self.spec.numeric else "text"

    @property
    def continuous(self) -> bool:
        """True if the value moves between jumps."""
        raise NotImplementedError

    def sample(self, cycles: Times) -> Floats:
        """Values at float64 [n] cycles -> float32 [n], in the control's range."""
        raise NotImplementedError

    def at(self, cycle: Fraction) -> float | str:
        """The value from exactly `cycle` on."""
        raise NotImplementedError

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        """The exact cycles in [begin, end) at which the value steps, ascending."""
        raise NotImplementedError

    # --- constructors ---
    @staticmethod
    def of(control: Control, pattern: Pattern, text: str) -> Lane:
        return PatternLane(control, pattern, text)

    @staticmethod
    def constant(control: Control | str, value: float | str | None = None) -> Lane:
        """A value that never changes; None is the control's default."""
        spec = _spec(control)
        plain = spec.default if value is None else value
        text = repr(plain) if isinstance(plain, str) else f"{plain:g}" if plain is not None else "none"
        return PatternLane(spec, pure("" if plain is None else plain), text)

    @staticmethod
    def switch(old: Lane, new: Lane, at: Fraction) -> Lane:
        """old before `at`, new from `at` on."""
        return SwitchLane(new.spec, new.text, old, new, Fraction(at))

    @staticmethod
    def glide(old: Lane, new: Lane, begin: Fraction, length: Fraction) -> Lane:
        """From old to new in a straight line over `length` cycles; text changes at the end."""
        begin, length = Fraction(begin), Fraction(length)
        if length <= 0:
            return Lane.switch(old, new, begin)
        if new.kind == "text":
            return Lane.switch(old, new, begin + length)
        return GlideLane(new.spec, new.text, old, new, begin, length)

    @staticmethod
    def xfade(old: Lane, new: Lane, begin: Fraction, length: Fraction) -> Lane:
        """As glide; a gain moves at equal power."""
        if new.control != "gain" or length <= 0:
            return Lane.glide(old, new, begin, length)
        return XfadeLane(new.spec, new.text, old, new, Fraction(begin), Fraction(length))

    @staticmethod
    def prune(lane: Lane, before: Fraction) -> Lane:
        """The same lane from `before` on, without the changes that are over by then."""
        return lane.pruned(Fraction(before))

    def pruned(self, before: Fraction) -> Lane:
        return self


def _spec(control: Control | str) -> Control:
    if isinstance(control, Control):
        return control
    found = find(control)
    if found is None:
        raise KeyError(f"there is no control {control!r}")
    return found


@dataclass(frozen=True, eq=False)
class PatternLane(Lane):
    """A pattern, rounded and clipped as its control asks."""

    spec: Control
    pattern: Pattern
    text: str

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.pattern)

    @cached_property
    def rest(self) -> float | str:
        """What a rest means."""
        if self.spec.rest is not None:
            return self.spec.rest
        return ("" if not self.spec.numeric else 0.0) if self.spec.default is None else self.spec.default

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        const = self.pattern.const
        if const is not None or not times.size:
            return np.full(times.shape, self._fitted(const[0] if const else None), dtype=np.float32)
        values, rests = self.layout.sample(times + NUDGE)
        if rests:
            np.copyto(values, self.rest, where=np.isnan(values))
        if self.spec.shape == "integer":
            values = np.rint(values)
        out: NDArray[np.float32] = np.minimum(np.maximum(values, self.spec.low), self.spec.high).astype(np.float32)
        return out

    def at(self, cycle: Fraction) -> float | str:
        return self._fitted(self.layout.at(Fraction(cycle)))

    def _fitted(self, value: Any) -> float | str:
        if value is None:
            value = self.rest
        if not self.spec.numeric:
            return str(value)
        number = float(value)
        if number != number:
            number = float(self.rest)
        if self.spec.shape == "integer":
            number = float(round(number))
        return min(max(number, self.spec.low), self.spec.high)

    @cached_property
    def continuous(self) -> bool:  # type: ignore[override]
        if not self.spec.numeric or self.pattern.const is not None:
            return False
        if self.pattern.curve is not None:
            return not self.pattern.curve.flat
        cycles = min(self.pattern.period or 4, _WHOLE)
        return any(
            isinstance(s.value, Curve) and not s.value.flat for c in range(cycles) for s in self.layout.cycle(c)[0]
        )

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        begin, end = Fraction(begin), Fraction(end)
        if self.pattern.const is not None or begin >= end:
            return []
        curve = self.pattern.curve
        if curve is not None:
            return [] if curve.steps is None else [s for s in curve.steps(begin, end) if self._steps_at(s)]
        out: list[Fraction] = []
        for c in range(begin.numerator // begin.denominator, -(-end.numerator // end.denominator)):
            segments, shift = self.layout.cycle(c)
            for s in segments:
                edges = [s.begin]
                if isinstance(s.value, Curve) and s.value.steps is not None:
                    edges += [x for x in s.value.steps(s.begin, s.end) if x > s.begin]
                out += [x + shift for x in edges if begin <= x + shift < end and self._steps_at(x + shift)]
        return out

    def _steps_at(self, time: Fraction) -> bool:
        """True if the value just before `time` is another than from `time` on."""
        after, before = self.at(time), self._before(time)
        if isinstance(after, str) or isinstance(before, str):
            return after != before
        return abs(after - before) > 1e-6 * max(1.0, abs(after), abs(before))

    def _before(self, time: Fraction) -> float | str:
        """The value that `time` ends."""
        # The segment that ends at `time`, read close to its end.
        near = time - Fraction(1, 10**9)
        segments, shift = self.layout.cycle(near.numerator // near.denominator)
        local = near - shift
        segment = segments[max(0, bisect_right(segments, local, key=lambda s: s.begin) - 1)]
        value = segment.value
        return self._fitted(value.f(float(local)) if isinstance(value, Curve) else value)


@dataclass(frozen=True, eq=False)
class SwitchLane(Lane):
    """old before `moment`, new from it on."""

    spec: Control
    text: str
    old: Lane
    new: Lane
    moment: Fraction

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        late = times + NUDGE >= float(self.moment)
        if late.all():
            return self.new.sample(times)
        if not late.any():
            return self.old.sample(times)
        out: Floats = np.where(late, self.new.sample(times), self.old.sample(times))
        return out

    def at(self, cycle: Fraction) -> float | str:
        return (self.new if cycle >= self.moment else self.old).at(cycle)

    @property
    def continuous(self) -> bool:
        return self.old.continuous or self.new.continuous

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        m = self.moment
        out = self.old.jumps(begin, min(end, m)) if begin < m else []
        if begin <= m < end and self.old.at(m) != self.new.at(m):
            out.append(m)
        if end > m:
            out += [j for j in self.new.jumps(max(begin, m), end) if j != m]
        # Where old already jumps at the moment itself, and new agrees with it, the value still steps.
        if begin <= m < end and m not in out and (self.old.jumps(m, m + Fraction(1, 10**9)) or []):
            out.append(m)
        return sorted(out)

    def pruned(self, before: Fraction) -> Lane:
        if self.moment <= before:
            return self.new.pruned(before)
        return SwitchLane(self.spec, self.text, self.old.pruned(before), self.new, self.moment)


@dataclass(frozen=True, eq=False)
class GlideLane(Lane):
    """From old to new in a straight line between `begin` and begin + length."""

    spec: Control
    text: str
    old: Lane
    new: Lane
    begin: Fraction
    length: Fraction

    def _blend(self, old: Any, new: Any, x: Any) -> Any:
        return old * (1 - x) + new * x

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        x = np.clip((times - float(self.begin)) / float(self.length), 0.0, 1.0)
        if (x >= 1).all():
            return self.new.sample(times)
        if (x <= 0).all():
            return self.old.sample(times)
        mixed = self._blend(self.old.sample(times).astype(np.float64), self.new.sample(times), x)
        out: Floats = (np.rint(mixed) if self.spec.shape == "integer" else mixed).astype(np.float32)
        return out

    def at(self, cycle: Fraction) -> float | str:
        x = min(1.0, max(0.0, float((Fraction(cycle) - self.begin) / self.length)))
        if x in (0.0, 1.0):
            return (self.new if x else self.old).at(cycle)
        mixed = float(self._blend(float(self.old.at(cycle)), float(self.new.at(cycle)), x))
        return float(round(mixed)) if self.spec.shape == "integer" else mixed

    @property
    def continuous(self) -> bool:
        return True

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        last = self.begin + self.length
        out = set(self.old.jumps(begin, min(end, last))) if begin < last else set()
        if end > self.begin:
            out |= set(self.new.jumps(max(begin, self.begin), end))
        return sorted(out)

    def pruned(self, before: Fraction) -> Lane:
        if self.begin + self.length <= before:
            return self.new.pruned(before)
        return type(self)(self.spec, self.text, self.old.pruned(before), self.new, self.begin, self.length)


def fade_gains(x: Any) -> tuple[Any, Any]:
    """Gains of (old, new) at the share x of a cross-fade: Tidal's xfadeIn (envEqR, envEq)."""
    angle = (1 - x) * (np.pi / 2)
    return np.sqrt(np.sin(angle)), np.sqrt(np.maximum(np.cos(angle), 0))


class XfadeLane(GlideLane):
    """Equal power: the powers of both are added under Tidal's fades, never above the louder of the two.

    (Tidal fades two sounds; one mix strip has one, and 1 to 1 must stay 1.)
    """

    def _blend(self, old: Any, new: Any, x: Any) -> Any:
        down, up = fade_gains(x)
        return np.minimum(np.sqrt((old * down) ** 2 + (new * up) ** 2), np.maximum(old, new))


def trial(pattern: Pattern, cycles: int) -> list[Event]:
    """The events of the first cycles, curves included. Raises PatternError if they cost too much."""
    events = pattern.raw(cycle_of(0), cycle_of(cycles))
    if len(events) > LIMIT * cycles:
        raise PatternError(f"more than {LIMIT} events in a cycle")
    return events
