"""Lanes: the curve of a control, as a function of an ARRAY of cycle times.

A pattern is tabulated once a cycle and looked up with searchsorted (cycle_table.py); a pattern
without structure is one numpy expression. Nothing here loops over frames. A rest gives the
control's own rest value or its default.

PatternLane and ControllerLane are leaves. A CompositeLane is made of other lanes: SwitchLane,
GlideLane and XfadeLane here, ChainLane and FadedLane in chain.py.

Threads: lanes are immutable; their caches are filled by single assignments of equal values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demon_live.controls import Control, find
from demon_live.core import Floats, Sound
from demon_live.lang.controllers import ControllerHistory, Key, Track
from demon_live.lang.cycle_table import NUDGE, WHOLE, CycleTable
from demon_live.lang.pattern import Curve, Event, Pattern, Times
from demon_live.lang.transform import pure, silence


class Lane:
    """The curve of one control. The session uses only what this class declares."""

    spec: Control
    text: str

    def __repr__(self) -> str:
        return f"<lane {self.spec.name} = {self.text}>"

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

    def events(self, begin: Fraction, end: Fraction) -> list[Event]:
        """What begins or goes on in [begin, end), each event once and cut to it; none of a
        lane without structure."""
        return []

    @property
    def width(self) -> int:
        """How many texts it has at most at once."""
        return 1

    def weight(self, i: int, cycles: Times) -> Floats:
        """How much its i-th text counts, float32 [n]."""
        return np.full(np.shape(cycles), float(i == 0), np.float32)

    @property
    def keys(self) -> frozenset[Key]:
        """The controllers that it names."""
        return frozenset()

    @property
    def sounds(self) -> frozenset[Sound]:
        """The sound files that it names."""
        return frozenset()

    @property
    def depth(self) -> int:
        """How many lanes lie inside each other, this one included."""
        return 1

    def resolve(self, history: ControllerHistory) -> Lane:
        """The lane with these moves of its controllers; itself if it names none."""
        return self

    def since(self, before: Fraction) -> Lane:
        """See `prune`."""
        return self

    def sounding(self, cycle: Fraction) -> Lane:
        """The part of this lane that sounds at `cycle`: of a switch the old or the new."""
        return self

    @staticmethod
    def prune(lane: Lane, before: Fraction) -> Lane:
        """The same lane from cycle `before` on, without the transitions that are over by then."""
        return lane.since(Fraction(before))

    # --- constructors ---
    @staticmethod
    def constant(control: Control | str, value: float | str | None = None) -> Lane:
        """A value that never changes; None is the control's default."""
        spec = find(control) if isinstance(control, str) else control
        if spec is None:
            raise KeyError(f"there is no control {control!r}")
        if spec.cls == "out" and value is None:
            # Elsewhere nothing is sent.
            return PatternLane(spec, silence, "none")
        plain = spec.default if value is None else value
        text = (
            repr(plain) if isinstance(plain, str) else f"{plain:g}" if plain is not None else "none"
        )
        return PatternLane(spec, pure("" if plain is None else plain), text)

    @staticmethod
    def switch(old: Lane, new: Lane, at: Fraction) -> Lane:
        """old before `at`, new from `at` on."""
        at = Fraction(at)
        # A change that comes no earlier is never heard.
        while isinstance(old, SwitchLane) and old.moment >= at:
            old = old.old
        return SwitchLane(new.spec, new.text, old, new, at)

    @staticmethod
    def glide(old: Lane, new: Lane, begin: Fraction, length: Fraction) -> Lane:
        """From old to new in a straight line over `length` cycles; text changes at the end."""
        begin, length = Fraction(begin), Fraction(length)
        if length <= 0:
            return Lane.switch(old, new, begin)
        if "text" in (old.kind, new.kind):
            return Lane.switch(old, new, begin + length)
        return GlideLane(new.spec, new.text, old, new, begin, length)

    @staticmethod
    def xfade(old: Lane, new: Lane, begin: Fraction, length: Fraction) -> Lane:
        """As glide; a gain moves at equal power."""
        if new.control != "gain" or length <= 0:
            return Lane.glide(old, new, begin, length)
        return XfadeLane(new.spec, new.text, old, new, Fraction(begin), Fraction(length))


@dataclass(frozen=True, eq=False, repr=False)
class PatternLane(Lane):
    """A pattern, rounded and clipped to the range of its control."""

    spec: Control
    pattern: Pattern
    text: str

    @cached_property
    def table(self) -> CycleTable:
        return CycleTable(self.pattern)

    @cached_property
    def rest(self) -> float | str:
        """The value of a rest."""
        if self.spec.rest is not None:
            return self.spec.rest
        return (
            ("" if not self.spec.numeric else 0.0)
            if self.spec.default is None
            else self.spec.default
        )

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        const = self.pattern.const
        if const is not None or not times.size:
            return np.full(times.shape, self._fitted(const[0] if const else None), dtype=np.float32)
        values, rests = self.table.sample(times + NUDGE)
        if rests:
            np.copyto(values, self.rest, where=np.isnan(values))
        if self.spec.shape == "integer":
            values = np.rint(values)
        out: NDArray[np.float32] = np.minimum(
            np.maximum(values, self.spec.low), self.spec.high
        ).astype(np.float32)
        return out

    def at(self, cycle: Fraction) -> float | str:
        return self._fitted(self.table.at(Fraction(cycle)))

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
    def continuous(self) -> bool:
        if not self.spec.numeric or self.pattern.const is not None:
            return False
        if self.pattern.curve is not None:
            return not self.pattern.curve.flat
        cycles = min(self.pattern.period or 4, WHOLE)
        return any(
            isinstance(s.value, Curve) and not s.value.flat
            for c in range(cycles)
            for s in self.table.cycle(c)[0]
        )

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        begin, end = Fraction(begin), Fraction(end)
        if self.pattern.const is not None or begin >= end:
            return []
        curve = self.pattern.curve
        if curve is not None:
            edges = [] if curve.steps is None else curve.steps(begin, end)
            return [x for x in edges if self._steps_at(x)]
        first, last = begin.numerator // begin.denominator, -(-end.numerator // end.denominator)
        out: list[Fraction] = []
        before = self.table.cycle(first - 1)[0][-1].value
        for c in range(first, last):
            for x, sure in self._edges(c, before):
                if begin <= x < end and (sure or self._steps_at(x)):
                    out.append(x)
            before = self.table.cycle(c)[0][-1].value
        return out

    def events(self, begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for e in self.pattern.query(begin, end):
            # A query cuts long events at the cycles: the first piece stands for all.
            if e.whole_begin is None or e.whole_end is None or e.begin > max(e.whole_begin, begin):
                continue
            value = self._fitted(e.value) if self.spec.numeric else e.value
            out.append(e._replace(end=min(e.whole_end, end), value=value))
        return out

    def _edges(self, c: int, before: Any) -> Iterator[tuple[Fraction, bool]]:
        """(time, certain) for each possible step in cycle c. before: the value that it follows."""
        segments, shift = self.table.cycle(c)
        for s in segments:
            value = s.value
            if isinstance(value, Curve) or isinstance(before, Curve):
                yield s.begin + shift, False
            elif value != before and self._differ(self._fitted(value), self._fitted(before)):
                yield s.begin + shift, True
            if isinstance(value, Curve) and value.steps is not None:
                inside = (x for x in value.steps(s.begin, s.end) if s.begin < x < s.end)
                yield from ((x + shift, False) for x in inside)
            before = value

    def _steps_at(self, time: Fraction) -> bool:
        """True if the value just before `time` differs from the one from `time` on."""
        return self._differ(self.at(time), self._before(time))

    @staticmethod
    def _differ(after: float | str, before: float | str) -> bool:
        if isinstance(after, str) or isinstance(before, str):
            return after != before
        return abs(after - before) > 1e-6 * max(1.0, abs(after), abs(before))

    def _before(self, time: Fraction) -> float | str:
        """The value of the segment that ends at `time`, read close to its end."""
        near = time - Fraction(1, 10**9)
        segments, shift = self.table.cycle(near.numerator // near.denominator)
        local = near - shift
        segment = segments[max(0, bisect_right(segments, local, key=lambda s: s.begin) - 1)]
        value = segment.value
        return self._fitted(value.f(float(local)) if isinstance(value, Curve) else value)


@dataclass(frozen=True, eq=False, repr=False)
class ControllerLane(Lane):
    """An expression that names controllers, compiled again for each version of their moves.

    It has the default of its control until all of its controllers have moved: a knob does not send
    its position before it is touched. build: moves -> pattern.
    """

    spec: Control
    text: str
    names: frozenset[Key]
    build: Callable[[ControllerHistory], Pattern]
    _built: list[tuple[tuple[Track, ...], Lane]] = field(default_factory=list)

    @property
    def keys(self) -> frozenset[Key]:
        return self.names

    def resolve(self, history: ControllerHistory) -> Lane:
        found = [history.tracks.get(key) for key in sorted(self.names)]
        tracks = tuple(t for t in found if t is not None)
        if len(tracks) < len(found):
            return self
        # Moves of other controllers change nothing here.
        if self._built and all(a is b for a, b in zip(self._built[0][0], tracks, strict=True)):
            return self._built[0][1]
        lane = PatternLane(self.spec, self.build(history), self.text)
        self._built[:] = [(tracks, lane)]
        return lane

    @cached_property
    def _default(self) -> Lane:
        default = "" if self.spec.default is None else self.spec.default
        return PatternLane(self.spec, pure(default), self.text)

    def sample(self, cycles: Times) -> Floats:
        return self._default.sample(cycles)

    def at(self, cycle: Fraction) -> float | str:
        return self._default.at(cycle)

    @property
    def continuous(self) -> bool:
        return False

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return []


# --- composites ------------------------------------------------------------------------------


class CompositeLane(Lane):
    """A lane made of others.

    A subclass gives `parts`, `rebuilt` and, if it ends, `settled`; controllers, sounds and pruning
    follow from these.
    """

    @property
    def parts(self) -> tuple[Lane, ...]:
        """The lanes inside."""
        raise NotImplementedError

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        """The same composite with other parts, in the order of `parts`."""
        raise NotImplementedError

    def settled(self, before: Fraction) -> Lane | None:
        """The part that remains from cycle `before` on, None if several do."""
        return None

    @property
    def depth(self) -> int:
        return 1 + max(part.depth for part in self.parts)

    @property
    def width(self) -> int:
        return max(part.width for part in self.parts)

    @property
    def continuous(self) -> bool:
        return any(part.continuous for part in self.parts)

    @property
    def keys(self) -> frozenset[Key]:
        return frozenset[Key]().union(*(part.keys for part in self.parts))

    @property
    def sounds(self) -> frozenset[Sound]:
        return frozenset[Sound]().union(*(part.sounds for part in self.parts))

    def resolve(self, history: ControllerHistory) -> Lane:
        if not self.keys:
            return self
        return self._with(tuple(part.resolve(history) for part in self.parts))

    def since(self, before: Fraction) -> Lane:
        left = self.settled(before)
        if left is not None:
            return left.since(before)
        return self._with(tuple(part.since(before) for part in self.parts))

    def _with(self, parts: tuple[Lane, ...]) -> Lane:
        same = all(a is b for a, b in zip(parts, self.parts, strict=True))
        return self if same else self.rebuilt(parts)


@dataclass(frozen=True, eq=False, repr=False)
class TransitionLane(CompositeLane):
    """From one lane to another."""

    spec: Control
    text: str
    old: Lane
    new: Lane

    @property
    def over(self) -> Fraction:
        """The cycle from which only `new` counts."""
        raise NotImplementedError

    def settled(self, before: Fraction) -> Lane | None:
        return self.new if self.over <= before else None

    def weight(self, i: int, cycles: Times) -> Floats:
        late = np.asarray(cycles) + NUDGE >= float(self.over)
        return np.where(late, self.new.weight(i, cycles), self.old.weight(i, cycles))

    def events(self, begin: Fraction, end: Fraction) -> list[Event]:
        """Notes change at the end of a transition."""
        old = self.old.events(begin, min(end, self.over)) if begin < self.over else []
        return old + (self.new.events(max(begin, self.over), end) if end > self.over else [])

    @property
    def parts(self) -> tuple[Lane, ...]:
        return self.old, self.new

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        return replace(self, old=parts[0], new=parts[1])


@dataclass(frozen=True, eq=False, repr=False)
class SwitchLane(TransitionLane):
    """old before `moment`, new from it on."""

    moment: Fraction

    @property
    def over(self) -> Fraction:
        return self.moment

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

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        m = self.moment
        out = self.old.jumps(begin, min(end, m)) if begin < m else []
        if begin <= m < end and self.old.at(m) != self.new.at(m):
            out.append(m)
        if end > m:
            out += [j for j in self.new.jumps(max(begin, m), end) if j != m]
        # The value also steps where old jumps at the moment itself, to the value of new.
        if begin <= m < end and m not in out and (self.old.jumps(m, m + Fraction(1, 10**9)) or []):
            out.append(m)
        return sorted(out)

    def sounding(self, cycle: Fraction) -> Lane:
        return (self.new if cycle >= self.moment else self.old).sounding(cycle)


@dataclass(frozen=True, eq=False, repr=False)
class GlideLane(TransitionLane):
    """From old to new in a straight line between `begin` and begin + length."""

    begin: Fraction
    length: Fraction

    @property
    def over(self) -> Fraction:
        return self.begin + self.length

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
            # At the beginning the new lane has no weight yet.
            out |= {j for j in self.new.jumps(max(begin, self.begin), end) if j > self.begin}
        return sorted(out)

    def sounding(self, cycle: Fraction) -> Lane:
        return self.old.sounding(cycle) if cycle < self.begin else self


def fade_gains(x: Any) -> tuple[Any, Any]:
    """Gains of (old, new) at the share x of a cross-fade: Tidal's xfadeIn (envEqR, envEq)."""
    angle = (1 - x) * (np.pi / 2)
    return np.sqrt(np.sin(angle)), np.sqrt(np.maximum(np.cos(angle), 0))


class XfadeLane(GlideLane):
    """Equal power: the powers of both add up under Tidal's fades, never above the louder.

    (Tidal fades two sounds; one mix strip has one, and 1 to 1 must stay 1.)
    """

    def _blend(self, old: Any, new: Any, x: Any) -> Any:
        down, up = fade_gains(x)
        return np.minimum(np.sqrt((old * down) ** 2 + (new * up) ** 2), np.maximum(old, new))
