"""Transforms of patterns: of their time, of their values, and of patterns by patterns.

    warp, fast, late, reverse   when
    fmap                        what
    bind                        which: a pattern for each value of another (Tidal's innerJoin)

Threads: pure functions; bind's cache is filled by single assignments of equal values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang.pattern import (
    LIMIT,
    Curve,
    Event,
    Pattern,
    PatternError,
    cycle_of,
    lcm,
    moved,
    pieces,
)
from demon_live.lang.registry import Time, function
from demon_live.lang.sequence import SPLICE, pure, silence, timecat

_ZERO, _ONE = Fraction(0), Fraction(1)


def warp(pat: Pattern, m: Fraction, k: Fraction) -> Pattern:
    """`pat` read at m*t + k (m > 0): fast(m) and early(k) in one."""
    if m == 1 and k == 0:
        return pat
    im, ik = 1 / m, -k / m
    back = (m, k)
    inner = pat.raw
    period = pat.period
    if period is not None:
        grid = period * m.denominator
        period = grid // math.gcd(grid, m.numerator)
    return Pattern(
        lambda b, e: moved(inner(b * m + k, e * m + k), im, ik, back),
        period=period,
        cost=pat.cost
        if pat.curve is not None
        else pat.cost * max(1, -(-m.numerator // m.denominator)),
        curve=pat.curve.warped(m, k) if pat.curve is not None else None,
        text=pat.text,
    )


@function('blend = "0 .5 1".fast(2)')
def fast(pat: Pattern, factor: Time) -> Pattern:
    """Faster by a factor; the factor may be a pattern.

    0 is silence, negative factors play backwards as in Tidal.
    """
    if factor == 0:
        return silence
    if factor < 0:
        return reverse(fast(pat, -factor))
    n = factor.numerator
    if factor.denominator != 1 or n == 1:
        return warp(pat, factor, _ZERO)
    if pat.flat is not None and n * len(pat.flat) <= SPLICE:
        return timecat(pat.flat * n)
    if pat.const is None:
        return warp(pat, factor, _ZERO)
    value = pat.const[0]

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        b, e = begin * n, end * n
        first, last = b.numerator // b.denominator, -(-e.numerator // e.denominator)
        edges = [Fraction(i, n) for i in range(first, last + 1)]
        out = [
            Event(edges[i], edges[i + 1], edges[i], edges[i + 1], value)
            for i in range(last - first)
        ]
        if out:
            if begin != edges[0]:
                out[0] = out[0]._replace(begin=begin)
            if end != edges[-1]:
                out[-1] = out[-1]._replace(end=end)
        return out

    made = Pattern(raw, cost=float(n), text=pat.text)
    if n <= SPLICE:
        made.flat = ((Fraction(1, n), pat),) * n
    return made


@function("blend = sine.slow(4)")
def slow(pat: Pattern, factor: Time) -> Pattern:
    """Slower by a factor."""
    return silence if factor == 0 else fast(pat, 1 / factor)


@function("blend = saw.early(1/4)")
def early(pat: Pattern, cycles: Time) -> Pattern:
    """Earlier by a number of cycles."""
    return warp(pat, _ONE, cycles)


@function("blend = saw.late(1/8)")
def late(pat: Pattern, cycles: Time) -> Pattern:
    """Later by a number of cycles."""
    return warp(pat, _ONE, -cycles)


@function('blend = "0 .3 1".rev', "rev")
def reverse(pat: Pattern) -> Pattern:
    """Each cycle backwards.

    A signal is read at the end of the queried span, as in Strudel.
    """

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for c, b, e in pieces(begin, end):
            k = cycle_of(2 * c + 1)
            for wb, we, pb, pe, v in pat.raw(k - e, k - b):
                if isinstance(v, Curve):
                    v = _mirrored(v, k)
                nb, ne = k - pe, k - pb
                if wb is None or we is None:
                    out.append(Event(None, None, nb, ne, v))
                else:
                    out.append(
                        Event(nb if we is pe else k - we, ne if wb is pb else k - wb, nb, ne, v)
                    )
        return out

    curve = pat.curve
    if curve is not None:
        f = curve.f
        steps = curve.steps
        closed = Curve(
            lambda t: f(2 * np.floor(t) + 1 - t), _mirror_steps(steps), curve.flat, not curve.back
        )
        return Pattern(raw, period=pat.period, cost=pat.cost, curve=closed)
    return Pattern(raw, period=pat.period, cost=pat.cost, text=pat.text)


def _mirrored(curve: Curve, k: Fraction) -> Curve:
    f, steps, fk = curve.f, curve.steps, float(k)
    if steps is None:
        return Curve(lambda t: f(fk - t), None, curve.flat, not curve.back)
    inner = steps
    return Curve(
        lambda t: f(fk - t),
        lambda b, e: sorted(k - s for s in inner(k - e, k - b)),
        curve.flat,
        not curve.back,
    )


def _mirror_steps(steps: Any) -> Any:
    if steps is None:
        return None

    def mirrored(begin: Fraction, end: Fraction) -> list[Fraction]:
        out: set[Fraction] = set()
        for c, b, e in pieces(begin, end):
            k = cycle_of(2 * c + 1)
            out.update(
                k - s for s in steps(k - e, k - b + Fraction(1, 10**9)) if begin <= k - s < end
            )
        return sorted(out)

    return mirrored


def fmap(pat: Pattern, fn: Callable[[Any], Any], *, text: bool = False) -> Pattern:
    """`fn` of each value. For signals fn must take arrays too."""
    if pat.const is not None:
        return pure(fn(pat.const[0]))

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        return [
            Event(wb, we, b, e, v.mapped(fn) if isinstance(v, Curve) else fn(v))
            for wb, we, b, e, v in pat.raw(begin, end)
        ]

    curve = pat.curve.mapped(fn) if pat.curve is not None else None
    return Pattern(raw, period=pat.period, cost=pat.cost, curve=curve, text=text)


#: A continuous argument that a function cannot take as a whole is read this often in a cycle.
_GRAIN = 32


def bind(outer: Pattern, fn: Callable[[Any], Pattern], *, text: bool = False) -> Pattern:
    """Tidal's innerJoin: for each value of `outer` the pattern fn(value), in that value's part."""
    if outer.const is not None:
        return fn(outer.const[0])
    made: dict[Any, Pattern] = {}
    most = float(LIMIT)

    def inner(value: Any) -> Pattern:
        found = made.get(value)
        if found is None:
            found = fn(value)
            if found.cost > most:
                raise PatternError(f"more than {LIMIT} events in a cycle")
            if len(made) < 512:
                made[value] = found
        return found

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, cb, ce in pieces(begin, end):
            before = len(out)
            for event in outer.raw(cb, ce):
                for b, e, value in grains(event):
                    out.extend(inner(value).raw(b, e))
            if len(out) - before > LIMIT:
                raise PatternError(f"more than {LIMIT} events in cycle {c}")
        return out

    period, cost = _bound_facts(outer, inner)
    # Later values may ask for more than the first did, but not for much more than was allowed for.
    most = min(most, 4 * cost + 64)
    return Pattern(raw, period=period, cost=cost, text=text)


#: Cycles of an argument that are looked at to know what it will ask for.
_AHEAD = 16


def _bound_facts(outer: Pattern, inner: Callable[[Any], Pattern]) -> tuple[int | None, float]:
    """Period and cost of a bind, from the values that `outer` takes at first."""
    known = outer.period is not None and outer.period <= _AHEAD
    cycles = min(outer.period or _AHEAD, _AHEAD) if outer.cost <= 64 else 1
    values: set[Any] = set()
    for event in outer.raw(_ZERO, Fraction(cycles)):
        known = known and not isinstance(event.value, Curve)
        values.update(value for _, _, value in grains(event))
    parts = [inner(v) for v in values]
    cost = max((p.cost for p in parts), default=0.0) + outer.cost
    period = lcm(outer.period, *(p.period for p in parts)) if known else None
    return period, cost


def grains(event: Event) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """The part of an event with its value; a curve in steps of a fixed grid, whatever was asked."""
    if not isinstance(event.value, Curve):
        yield event.begin, event.end, event.value
        return
    b = event.begin
    while b < event.end:
        n = b.numerator * _GRAIN // b.denominator
        e = min(event.end, Fraction(n + 1, _GRAIN))
        yield b, e, event.value.at(Fraction(n, _GRAIN))
        b = e
