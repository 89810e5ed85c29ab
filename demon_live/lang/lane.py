"""Lanes: what a deck gives to a control, as a function of an ARRAY of cycle times.

A pattern is laid out once a cycle and looked up with searchsorted (layout.py); a pattern without
structure is one numpy expression. Nothing here loops over frames. A rest gives the control's own
rest or default. Lanes are joined by switch, glide and xfade; prune takes back what is over.

Threads: lanes are immutable (a layout's cache apart, see there).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from demon_live.controls import Control, find
from demon_live.core import Floats, Sound
from demon_live.lang.cycle_table import NUDGE, WHOLE, Layout
from demon_live.lang.pattern import Curve, Pattern, Times
from demon_live.lang.sequence import pure

if TYPE_CHECKING:
    from demon_live.lang.controllers import Hands, Key

__all__ = ["GlideLane", "Lane", "PatternLane", "SwitchLane", "XfadeLane", "fade_gains"]

# --- lanes -----------------------------------------------------------------------------------


class Lane:
    """The curve of one control. See the subclasses; the session uses only what stands here."""

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

    # --- constructors ---
    @staticmethod
    def of(control: Control, pattern: Pattern, text: str) -> Lane:
        return PatternLane(control, pattern, text)

    @staticmethod
    def constant(control: Control | str, value: float | str | None = None) -> Lane:
        """A value that never changes; None is the control's default."""
        spec = _spec(control)
        plain = spec.default if value is None else value
        text = (
            repr(plain) if isinstance(plain, str) else f"{plain:g}" if plain is not None else "none"
        )
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

    @property
    def keys(self) -> frozenset[Key]:
        """The controllers that it names."""
        return frozenset()

    @property
    def sounds(self) -> frozenset[Sound]:
        """The sound files that it names."""
        return frozenset()

    def played(self, hands: Hands) -> Lane:
        """The same lane with what stands behind its controllers; itself if it names none."""
        return self

    def heard(self, cycle: Fraction) -> Lane:
        """The part of this lane that sounds at `cycle`: of a switch the old or the new."""
        return self


def _spec(control: Control | str) -> Control:
    if isinstance(control, Control):
        return control
    found = find(control)
    if found is None:
        raise KeyError(f"there is no control {control!r}")
    return found


@dataclass(frozen=True, eq=False, repr=False)
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
        values, rests = self.layout.sample(times + NUDGE)
        if rests:
            np.copyto(values, self.rest, where=np.isnan(values))
        if self.spec.shape == "integer":
            values = np.rint(values)
        out: NDArray[np.float32] = np.minimum(
            np.maximum(values, self.spec.low), self.spec.high
        ).astype(np.float32)
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
    def continuous(self) -> bool:
        if not self.spec.numeric or self.pattern.const is not None:
            return False
        if self.pattern.curve is not None:
            return not self.pattern.curve.flat
        cycles = min(self.pattern.period or 4, WHOLE)
        return any(
            isinstance(s.value, Curve) and not s.value.flat
            for c in range(cycles)
            for s in self.layout.cycle(c)[0]
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
        before = self.layout.cycle(first - 1)[0][-1].value
        for c in range(first, last):
            for x, sure in self._edges(c, before):
                if begin <= x < end and (sure or self._steps_at(x)):
                    out.append(x)
            before = self.layout.cycle(c)[0][-1].value
        return out

    def _edges(self, c: int, before: Any) -> Iterator[tuple[Fraction, bool]]:
        """Where cycle c may step, and whether it does for certain. before: what held before it."""
        segments, shift = self.layout.cycle(c)
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
        """True if the value just before `time` is another than from `time` on."""
        return self._differ(self.at(time), self._before(time))

    @staticmethod
    def _differ(after: float | str, before: float | str) -> bool:
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


@dataclass(frozen=True, eq=False, repr=False)
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
        # Where old jumps at the moment itself, and new agrees with it, the value still steps.
        if begin <= m < end and m not in out and (self.old.jumps(m, m + Fraction(1, 10**9)) or []):
            out.append(m)
        return sorted(out)

    def heard(self, cycle: Fraction) -> Lane:
        return (self.new if cycle >= self.moment else self.old).heard(cycle)

    @property
    def keys(self) -> frozenset[Key]:
        return self.old.keys | self.new.keys

    @property
    def sounds(self) -> frozenset[Sound]:
        return self.old.sounds | self.new.sounds

    def played(self, hands: Hands) -> Lane:
        if not self.keys:
            return self
        old, new = self.old.played(hands), self.new.played(hands)
        return SwitchLane(self.spec, self.text, old, new, self.moment)

    def pruned(self, before: Fraction) -> Lane:
        if self.moment <= before:
            return self.new.pruned(before)
        return SwitchLane(self.spec, self.text, self.old.pruned(before), self.new, self.moment)


@dataclass(frozen=True, eq=False, repr=False)
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
            # At its very beginning the new lane has no weight yet.
            out |= {j for j in self.new.jumps(max(begin, self.begin), end) if j > self.begin}
        return sorted(out)

    def heard(self, cycle: Fraction) -> Lane:
        return self.old.heard(cycle) if cycle < self.begin else self

    @property
    def keys(self) -> frozenset[Key]:
        return self.old.keys | self.new.keys

    @property
    def sounds(self) -> frozenset[Sound]:
        return self.old.sounds | self.new.sounds

    def played(self, hands: Hands) -> Lane:
        if not self.keys:
            return self
        old, new = self.old.played(hands), self.new.played(hands)
        return type(self)(self.spec, self.text, old, new, self.begin, self.length)

    def pruned(self, before: Fraction) -> Lane:
        if self.begin + self.length <= before:
            return self.new.pruned(before)
        return type(self)(
            self.spec, self.text, self.old.pruned(before), self.new, self.begin, self.length
        )


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
