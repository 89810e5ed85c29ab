"""Signals: continuous patterns, and random numbers.

A signal is a numpy expression of an array of cycle times, sampled at the START of a frame. Random
numbers are a hash of (key, time), so that any time can be sampled at any moment, and a replay gives
the same. The key is the seed and the number of the random operator in its expression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang.pattern import Curve, Pattern, PatternError, as_time
from demon_live.lang.registry import Lots, Number, Values, function
from demon_live.lang.transform import fast, pure, signal, timecat

_MASK = (1 << 64) - 1
_TAU = 2 * math.pi
#: `rand` holds for this part of a cycle: shorter than a frame at any tempo.
_GRAIN = 1024


def _splitmix64(x: Any) -> Any:
    """splitmix64 of an int, or of an array of uint64: each input bit moves half of the output."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def chance(key: int, *place: Any) -> Any:
    """Random numbers in [0, 1) that depend on nothing but the arguments.

    Args:
        key: seed and number of the random operator.
        place: whole numbers, or an array of them, that tell the draws apart.
    """
    x = _splitmix64(key & _MASK)
    for p in place:
        x = _splitmix64(x ^ (p & _MASK if isinstance(p, int) else _as_words(p)))
    return (x >> 11) / (1 << 53)


def _as_words(n: Any) -> Any:
    """Floats without a fraction as 64-bit words."""
    if not np.ndim(n):
        return int(n) & _MASK
    return np.asarray(n).astype(np.int64).view(np.uint64)


def chance_at(key: int, time: Fraction) -> float:
    """The random number of an event that begins exactly at `time`."""
    return float(chance(key, time.numerator, time.denominator))


# --- shapes ----------------------------------------------------------------------------------


def _grid(step: Fraction) -> Callable[[Fraction, Fraction], list[Fraction]]:
    """Jumps of a shape at the multiples of `step`."""

    def steps(begin: Fraction, end: Fraction) -> list[Fraction]:
        first, last = -(-begin // step), -(-end // step)
        if last - first > 100_000:
            raise PatternError("too many jumps")
        return [i * step for i in range(int(first), int(last))]

    return steps


def _shape(
    f: Callable[[Any], Any], jump: Fraction | None = None, flat: bool = False, pieces: int = 0
) -> Pattern:
    return signal(Curve(f, None if jump is None else _grid(jump), flat), pieces=pieces)


def _saw(t: Any) -> Any:
    return t - np.floor(t)


_ONE, _HALF = Fraction(1), Fraction(1, 2)

#: name -> (pattern, one line of help)
SIGNALS: dict[str, tuple[Pattern, str]] = {
    "sine": (
        _shape(lambda t: np.sin(t * _TAU) * 0.5 + 0.5),
        "Sine wave, one a cycle, from 0.5 up to 1 and down to 0.",
    ),
    "cosine": (_shape(lambda t: np.cos(t * _TAU) * 0.5 + 0.5), "Sine that begins at its top, 1."),
    "saw": (_shape(_saw, _ONE), "Ramp from 0 to 1 in each cycle."),
    "isaw": (_shape(lambda t: 1 - _saw(t), _ONE), "Ramp from 1 to 0 in each cycle."),
    "tri": (
        _shape(lambda t: 1 - np.abs(2 * _saw(t) - 1), pieces=2),
        "Triangle: 0 up to 1 and back.",
    ),
    "itri": (
        _shape(lambda t: np.abs(2 * _saw(t) - 1), pieces=2),
        "Triangle upside down: 1 down to 0 and back.",
    ),
    "square": (
        _shape(lambda t: np.floor(_saw(t) * 2), _HALF, True),
        "0 in the first half of the cycle, 1 in the second.",
    ),
    "time": (
        signal(Curve(lambda t: t * 1.0), None),
        "The cycle itself: 0, 1, 2 ... and all between.",
    ),
}
for _name, (_pat, _help) in list(SIGNALS.items()):
    if _name != "time" and _pat.curve is not None:
        _curve = _pat.curve
        SIGNALS[_name + "2"] = (
            signal(_curve.mapped(lambda v: v * 2 - 1), pieces=2 * ("tri" in _name)),
            f"As {_name}, from -1 to 1.",
        )


# --- chance ----------------------------------------------------------------------------------


def lot(key: int, t: Any) -> Any:
    """The lots of cycle times: a new one each 1/1024 cycle."""
    # The offset keeps round musical times away from the borders of the grains.
    return chance(key, np.floor(t * _GRAIN + 0.437))


def rand(key: int) -> Pattern:
    """White noise in 0..1."""
    return signal(Curve(lambda t: lot(key, t)), None)


@function("seed = irand(8).segment(1)")
def irand(n: Number, key: Lots) -> Pattern:
    """Whole numbers 0 .. n-1 by lot."""
    return signal(Curve(lambda t: np.floor(lot(key, t) * n)), None)


def perlin(key: int) -> Pattern:
    """Smooth noise in 0..1: a new target each cycle."""

    def f(t: Any) -> Any:
        c = np.floor(t)
        x = t - c
        a, b = chance(key, c), chance(key, c + 1)
        return a + (b - a) * (x * x * x * (x * (x * 6 - 15) + 10))

    return signal(Curve(f), None)


#: name -> (key -> pattern, one line of help)
RANDOM: dict[str, tuple[Callable[[int], Pattern], str]] = {
    "rand": (
        rand,
        "White noise from 0 to 1, by lot; the same at each hearing, rand(2) is another.",
    ),
    "perlin": (perlin, "Smooth noise from 0 to 1: another goal each cycle; perlin(2) is another."),
}


# --- FoxDot's TimeVars -----------------------------------------------------------------------


def _listed(value: Values) -> list[Any]:
    return value if isinstance(value, list) else [value]


def numbers_of(values: Values) -> list[float]:
    """A number or a list of them as floats. Raises PatternError for a word among them."""
    for v in _listed(values):
        if isinstance(v, str):
            raise PatternError(f"{v!r} is a word where a number is needed")
    return [float(v) for v in _listed(values)]


#: Cycles that `inf` stands for: three weeks.
_ENDLESS = 10**6


def _spans(values: list[Any], cycles: Values) -> list[tuple[Any, Fraction]]:
    """Each value with its number of cycles; the shorter list is repeated."""
    lengths = [Fraction(_ENDLESS) if v == math.inf else as_time(v) for v in _listed(cycles)]
    if not values or not lengths:
        raise PatternError("a list is empty")
    if any(n < 0 for n in lengths) or not any(lengths):
        raise PatternError("a length must not be below 0, and one must be above", "cycles")
    count = max(len(values), len(lengths))
    if count > 256:
        raise PatternError("more than 256 values")
    return [(values[i % len(values)], lengths[i % len(lengths)]) for i in range(count)]


@function("blend = linvar([0, 1], 8)")
def linvar(values: Values, cycles: Values = 4) -> Pattern:
    """FoxDot: in straight lines through the values, each in so many cycles; inf: it stays there."""
    return _sweep(values, cycles, lambda x, falls: x)


@function("blend = sinvar([0, 1], 8)")
def sinvar(values: Values, cycles: Values = 4) -> Pattern:
    """FoxDot: as linvar, in quarter waves: up as a sine, down as a cosine."""

    def quarter(x: Any, falls: Any) -> Any:
        return np.where(falls, 1 - np.cos(x * np.pi / 2), np.sin(x * np.pi / 2))

    return _sweep(values, cycles, quarter)


@function("blend = expvar([0, 1], 8)")
def expvar(values: Values, cycles: Values = 4) -> Pattern:
    """FoxDot: as linvar, slow at first."""
    return _sweep(values, cycles, lambda x, falls: x * x)


@function("blend = var([.2, .9], [6, 2])")
def var(values: Values, cycles: Values = 4) -> Pattern:
    """FoxDot: each value for so many cycles."""
    spans = _spans(_listed(values), cycles)
    total = sum((n for _, n in spans), Fraction(0))
    return fast(timecat([(n, pure(v)) for v, n in spans]), 1 / total)


def _sweep(values: Values, cycles: Values, shape: Callable[[Any, Any], Any]) -> Pattern:
    """From each value to the next (and from the last to the first).

    shape: (x, falls) -> the part of the way, 0..1, at the part x of the time.
    """
    spans = _spans(numbers_of(values), cycles)
    edges = np.concatenate([[0.0], np.cumsum([float(n) for _, n in spans])])
    heights = np.array([float(v) for v, _ in spans] + [float(spans[0][0])])
    total = sum((n for _, n in spans), Fraction(0))
    length = float(total)

    def f(t: Any) -> Any:
        u = t - np.floor(t / length) * length
        i = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, len(spans) - 1)
        a, b, width = heights[i], heights[i + 1], edges[i + 1] - edges[i]
        # Of an endless way nothing is ever gone.
        x = np.where(width < _ENDLESS, (u - edges[i]) / width, 0.0)
        out = a + (b - a) * shape(x, b < a)
        return out if np.ndim(t) else float(out)

    period = total.numerator if total.denominator <= 256 else None
    return signal(Curve(f), period)
