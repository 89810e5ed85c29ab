"""The algebra of patterns: pure functions of musical time.

A Pattern answers a query: which events lie in the cycles [begin, end)? Times are exact Fractions.
An event has a whole (its full extent) and a part (the piece inside the query). The whole of a
signal is None. The value of an event is a number, a text, or a Curve: a function of an array of
cycle times, so that one query of a cycle is enough for all of its frames.

Every constructor maintains four facts about a pattern, which need no query:
    curve   its closed form over all time, if it has no structure at all (sine.slow(4) * .5)
    period  the number of cycles after which it repeats, None if it never does (rand)
    flat    its steps with their shares of a cycle, if these are plain values and rests
    cost    an upper bound of its events in a cycle; above LIMIT it is refused, not computed

Definitions follow Tidal 1.10 (Sound.Tidal.Pattern) and Strudel 1.2 where the two agree; a signal
is sampled at the START of the queried span.

Threads: everything is immutable; caches are filled by single assignments of equal values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Steps = Callable[[Fraction, Fraction], list[Fraction]]
Query = Callable[[Fraction, Fraction], "list[Event]"]

LIMIT = 4096
#: Longer periods count as none.
MAX_PERIOD = 256
_ONE = Fraction(1)
_ZERO = Fraction(0)


class PatternError(Exception):
    """A pattern cannot be played (too much work, a wrong value). Callers add the place.

    param: the parameter of the function whose value is wrong, if it is one.
    """

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


def less_work(error: PatternError) -> str | None:
    """The remedy for a pattern that is too much work; None for other errors."""
    return "use fewer or slower steps" if "more than" in str(error) else None


def affordable(cost: float) -> None:
    if cost > LIMIT:
        raise PatternError(f"more than {LIMIT} events in a cycle")


class Event(NamedTuple):
    """A value in [begin, end), a part of [whole_begin, whole_end); no whole = continuous."""

    whole_begin: Fraction | None
    whole_end: Fraction | None
    begin: Fraction
    end: Fraction
    value: Any

    @property
    def onset(self) -> bool:
        """True if the event begins here and is not the tail of an earlier one."""
        return self.whole_begin is not None and self.whole_begin == self.begin


class Curve:
    """A function of time. f: float64 [n] (or one float) of cycles -> the same shape.

    steps: the exact cycles in [begin, end) where the function jumps, None if it never does.
    flat: True if it is constant between these. back: True if it runs backwards (rev): a span is
    read at its end.
    """

    __slots__ = ("back", "f", "flat", "steps")

    def __init__(
        self,
        f: Callable[[Any], Any],
        steps: Steps | None = None,
        flat: bool = False,
        back: bool = False,
    ) -> None:
        self.f = f
        self.steps = steps
        self.flat = flat
        self.back = back

    def read(self, begin: Fraction, end: Fraction) -> float:
        """The one value that stands for the span [begin, end)."""
        if not self.back:
            return self.at(begin)
        t = float(end)
        here = float(self.f(t))
        if self.steps is None:
            return here
        # Its own time begins at the end of the span.
        before = float(self.f(t - 1e-9))
        return before if abs(before - here) > 1e-4 else here

    def at(self, time: Fraction) -> float:
        """The value from `time` on: at a jump, the value after it."""
        t = float(time)
        here = float(self.f(t))
        if self.steps is None:
            return here
        after = float(self.f(t + 1e-9))
        # Rounding may put t just before a jump that is exactly at `time`.
        return after if abs(after - here) > 1e-4 else here

    def warped(self, m: Fraction, k: Fraction) -> Curve:
        """This curve read at m*t + k."""
        f, steps, fm, fk = self.f, self.steps, float(m), float(k)
        if steps is None:
            return Curve(lambda t: f(t * fm + fk), None, self.flat, self.back)
        inner = steps
        return Curve(
            lambda t: f(t * fm + fk),
            lambda b, e: [(s - k) / m for s in inner(b * m + k, e * m + k)],
            self.flat,
            self.back,
        )

    def mapped(self, fn: Callable[[Any], Any]) -> Curve:
        f = self.f
        return Curve(lambda t: fn(f(t)), self.steps, self.flat, self.back)

    def joined(self, other: Curve, fn: Callable[[Any, Any], Any]) -> Curve:
        """fn of this and another curve, at each time."""
        f, g = self.f, other.f
        steps = _both(self.steps, other.steps)
        return Curve(lambda t: fn(f(t), g(t)), steps, self.flat and other.flat, self.back)


def _both(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return a or b
    return lambda begin, end: sorted({*a(begin, end), *b(begin, end)})


class Pattern:
    """See the module. `raw` gives events with Curves; `query` gives plain values."""

    __slots__ = ("const", "cost", "curve", "flat", "period", "raw", "text")

    def __init__(
        self,
        raw: Query,
        *,
        period: int | None = 1,
        cost: float = 1.0,
        curve: Curve | None = None,
        const: Any = None,
        text: bool = False,
    ) -> None:
        affordable(cost)
        self.raw = raw
        self.period = period if period is None or period <= MAX_PERIOD else None
        self.cost = cost
        self.curve = curve
        self.const = const
        self.text = text
        self.flat: tuple[tuple[Fraction, Pattern], ...] | None = None

    def query(self, begin: Fraction | int, end: Fraction | int) -> list[Event]:
        """The events of [begin, end) in text order, signals sampled where each part begins."""
        return [
            e._replace(value=e.value.read(e.begin, e.end)) if isinstance(e.value, Curve) else e
            for e in self.raw(Fraction(begin), Fraction(end))
        ]


# --- time ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def cycle_of(n: int) -> Fraction:
    """The cycle n as a time. Cached: making Fractions is most of the cost of a query."""
    return Fraction(n)


@lru_cache(maxsize=4096)
def as_time(value: Any) -> Fraction:
    """A pattern's value as an exact time: .1 is one tenth, and .333333 a third."""
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    if not isinstance(value, (float, np.floating)):
        raise PatternError(f"{value!r} is a word where a number is needed")
    if not math.isfinite(value):
        raise PatternError("a number without end where a time is needed")
    exact = Fraction(repr(float(value)))
    near = exact.limit_denominator(5040)
    return near if abs(near - exact) < 1e-6 and exact.denominator > 100000 else exact


def plain(value: Fraction) -> int | float:
    """An exact number as the value of an event."""
    return value.numerator if value.denominator == 1 else float(value)


def pieces(begin: Fraction, end: Fraction) -> Iterator[tuple[int, Fraction, Fraction]]:
    """[begin, end) cut at the cycles: (cycle, begin, end) of each piece."""
    c = begin.numerator // begin.denominator
    last = -(-end.numerator // end.denominator) - 1
    while c < last:
        after = cycle_of(c + 1)
        yield c, begin, after
        begin = after
        c += 1
    # Cross-multiplied: a third of the time of Fraction's own comparison.
    if begin.numerator * end.denominator < end.numerator * begin.denominator:
        yield c, begin, end


def lcm(*periods: int | None) -> int | None:
    """The common period of several; None if one of them never repeats."""
    out = 1
    for p in periods:
        if p is None:
            return None
        out = math.lcm(out, p)
        if out > MAX_PERIOD:
            return None
    return out


def moved(
    events: list[Event], m: Fraction, k: Fraction, back: tuple[Fraction, Fraction]
) -> list[Event]:
    """Events with each time t at m*t + k; `back` is the inverse (m, k), for curves."""
    out = []
    scaled, shifted = m != 1, k != 0
    for wb, we, b, e, v in events:
        nb, ne = (b * m, e * m) if scaled else (b, e)
        if shifted:
            nb, ne = nb + k, ne + k
        if isinstance(v, Curve):
            v = v.warped(*back)
        if wb is None or we is None:
            out.append(Event(None, None, nb, ne, v))
        else:
            out.append(
                Event(nb if wb is b else wb * m + k, ne if we is e else we * m + k, nb, ne, v)
            )
    return out
