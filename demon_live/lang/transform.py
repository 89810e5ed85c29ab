"""The first patterns, patterns side by side, and transforms of time.

pure, silence, signal       one value, nothing, a curve
timecat                     a cycle divided by weight; plain groups inside are spliced into it
stack, cat                  at the same time; one a cycle
warp, fast, late, reverse   other times
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang.pattern import (
    Curve,
    Event,
    Pattern,
    affordable,
    cycle_of,
    lcm,
    moved,
    pieces,
)
from demon_live.lang.registry import Section, Time, function

_ZERO, _ONE = Fraction(0), Fraction(1)
#: Pieces in one query at most, as a multiple of LIMIT.
_LONGEST = 16


silence = Pattern(lambda b, e: [], cost=0)


def pure(value: Any) -> Pattern:
    """One event a cycle."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for c, b, e in pieces(begin, end):
            wb, we = cycle_of(c), cycle_of(c + 1)
            out.append(
                Event(
                    wb, we, wb if b is wb or b == wb else b, we if e is we or e == we else e, value
                )
            )
        return out

    return Pattern(raw, const=(value,), text=isinstance(value, str))


def signal(curve: Curve, period: int | None = 1, cost: float = 1.0, pieces: int = 0) -> Pattern:
    """A continuous pattern. pieces: into how many it is cut in each cycle (0 = not even there)."""
    if not pieces:
        return Pattern(
            lambda b, e: [Event(None, None, b, e, curve)], period=period, cost=cost, curve=curve
        )

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        # A query of 256 cycles may be long; one of an extremely fast signal would never end.
        affordable(float((end - begin) * pieces) / _LONGEST)
        out, b = [], begin
        while b < end:
            e = min(end, Fraction(b.numerator * pieces // b.denominator + 1, pieces))
            out.append(Event(None, None, b, e, curve))
            b = e
        return out

    return Pattern(raw, period=period, cost=cost * pieces, curve=curve)


@function('noise = polyrhythm(".1 .2", ".3")', "polyrhythm", "The same as stack.")
@function('noise = stack(.1, "~ .4")')
def stack(*part: Pattern) -> Pattern:
    """All at once; the one that began last is heard."""
    if len(part) == 1:
        return part[0]
    queries = [p.raw for p in part]
    return Pattern(
        lambda b, e: [event for raw in queries for event in raw(b, e)],
        period=lcm(*(p.period for p in part)),
        cost=sum(p.cost for p in part),
        text=any(p.text for p in part),
    )


def timecat(steps: Sequence[tuple[Fraction, Pattern]]) -> Pattern:
    """A cycle divided among the steps by weight."""
    steps = [(w, p) for w, p in steps if w.numerator > 0]
    if not steps:
        return silence
    if len(steps) == 1:
        return steps[0][1]
    steps = _spliced(steps)
    cost = sum(max(1.0, p.cost) for _, p in steps)
    affordable(cost)
    edges = _shares([w for w, _ in steps])
    parts = [p for _, p in steps]

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, b, e in pieces(begin, end):
            base = cycle_of(c)
            whole = b is base or b == base
            first = 0 if whole else bisect_right(edges, b - base) - 1
            whole = whole and e is cycle_of(c + 1)
            se = base + edges[first] if first else base
            for i in range(first, len(parts)):
                sb, se = se, base + edges[i + 1]
                part = parts[i]
                if whole:
                    if part.const is not None:
                        out.append(Event(sb, se, sb, se, part.const[0]))
                    else:
                        out.extend(squeezed(part, c, sb, se, sb, se))
                    continue
                if sb >= e:
                    break
                out.extend(squeezed(part, c, sb, se, max(b, sb), min(e, se)))
        return out

    made = Pattern(
        raw,
        period=lcm(*(p.period for p in parts)),
        cost=cost,
        text=any(p.text for p in parts),
    )
    if len(parts) <= SPLICE and all(p.const is not None or p.cost == 0 for p in parts):
        pairs = zip(edges, edges[1:], parts, strict=False)
        made.flat = tuple((after - edge, p) for edge, after, p in pairs)
    return made


#: Groups of up to so many plain steps become steps of the sequence around them.
SPLICE = 32


def _spliced(steps: list[tuple[Fraction, Pattern]]) -> list[tuple[Fraction, Pattern]]:
    """The steps, plain groups among them replaced by their own steps: one level less to query."""
    if all(p.flat is None for _, p in steps):
        return steps
    out: list[tuple[Fraction, Pattern]] = []
    for w, p in steps:
        out += [(w, p)] if p.flat is None else [(w * share, part) for share, part in p.flat]
    return out


def _shares(weights: list[Fraction]) -> list[Fraction]:
    """Where steps of these weights begin in a cycle, and 1 at the end."""
    n = len(weights)
    first = weights[0]
    if all(w is first or w == first for w in weights):
        return [Fraction(i, n) for i in range(n + 1)]
    total = sum(weights, _ZERO)
    edges = [_ZERO]
    for w in weights:
        edges.append(edges[-1] + w / total)
    edges[-1] = _ONE
    return edges


def squeezed(
    part: Pattern, c: int, sb: Fraction, se: Fraction, b: Fraction, e: Fraction
) -> list[Event]:
    """Cycle c of `part`, squeezed into [sb, se), as far as it lies in [b, e)."""
    if part.const is not None:
        return [Event(sb, se, b, e, part.const[0])]
    if part.cost == 0:
        return []
    width, base = se - sb, cycle_of(c)
    m = 1 / width
    k = base - sb * m
    inner_b = base if b is sb or b == sb else b * m + k
    inner_e = cycle_of(c + 1) if e is se or e == se else e * m + k
    return moved(part.raw(inner_b, inner_e), width, sb - base * width, (m, k))


@function("blend = slowcat(saw, sine)", "slowcat", "The same as cat.")
@function("blend = cat(saw, sine)")
def cat(*part: Pattern) -> Pattern:
    """One after the other, a cycle each.

    Each part plays its own next cycle when its turn comes.
    """
    n = len(part)
    if n == 0:
        return silence
    if n == 1:
        return part[0]

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, b, e in pieces(begin, end):
            turn = part[c % n]
            if turn.const is not None:
                wb, we = cycle_of(c), cycle_of(c + 1)
                out.append(
                    Event(
                        wb,
                        we,
                        wb if b is wb or b == wb else b,
                        we if e is we or e == we else e,
                        turn.const[0],
                    )
                )
                continue
            shift = cycle_of(c - c // n)
            out.extend(moved(turn.raw(b - shift, e - shift), _ONE, shift, (_ONE, -shift)))
        return out

    period = lcm(*(p.period for p in part))
    return Pattern(
        raw,
        period=None if period is None else period * n,
        cost=max(p.cost for p in part),
        text=any(p.text for p in part),
    )


@function("blend = sequence(0, .5, saw)", "sequence", "The same as seq.")
@function("blend = fastcat(0, .5, saw)", "fastcat", "The same as seq.")
@function("blend = seq(0, .5, saw)")
def seq(*part: Pattern) -> Pattern:
    """One after the other in one cycle."""
    return timecat([(_ONE, p) for p in part])


@function('blend = timecat([3, "0 1"], [1, .5])', "timecat", "The same as stepcat.")
@function('blend = stepcat([3, "0 1"], [1, .5])')
def stepcat(*section: Section) -> Pattern:
    """In one cycle, by weight: [3, pattern], [1, pattern]."""
    return timecat(section)


# --- time ------------------------------------------------------------------------------------


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
