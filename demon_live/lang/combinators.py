"""Combinators: functions from patterns to patterns, with Tidal's and Strudel's definitions.

Each takes the pattern first, then plain arguments (times are Fractions, counts are ints, functions
are Pattern -> Pattern). Patterned arguments are the compiler's business: it binds them to these.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang.pattern import LIMIT, Event, Pattern, PatternError, cycle_of, lcm, pieces
from demon_live.lang.rhythm import bjorklund, degrade, struct, truth
from demon_live.lang.sequence import cat, pure, silence, stack, timecat
from demon_live.lang.signals import chance
from demon_live.lang.transform import bind, fast, fmap, late, reverse, warp

__all__ = [
    "arrange",
    "brak",
    "by_cycle",
    "chunk",
    "compress",
    "echo",
    "euclid",
    "every",
    "fast_gap",
    "inside",
    "iter_",
    "last_of",
    "linger",
    "off",
    "palindrome",
    "ply",
    "press",
    "quantize",
    "reorder",
    "repeat_cycles",
    "ribbon",
    "rot",
    "segment",
    "some_cycles",
    "sometimes_by",
    "superimpose",
    "when",
    "within",
    "zoom",
]

Function = Callable[[Pattern], Pattern]
_ZERO, _ONE = Fraction(0), Fraction(1)


def _count(n: int, least: int = 1) -> int:
    if not least <= n <= LIMIT:
        raise PatternError(f"{n} is not a whole number from {least} to {LIMIT}")
    return n


def by_cycle(
    choose: Callable[[int], Pattern], among: Sequence[Pattern], period: int | None
) -> Pattern:
    """In each cycle the pattern that `choose` names, at its own time."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, b, e in pieces(begin, end):
            out.extend(choose(c).raw(b, e))
        return out

    return Pattern(
        raw,
        period=None if period is None else lcm(period, *(p.period for p in among)),
        cost=max(p.cost for p in among),
        text=any(p.text for p in among),
    )


def every(pat: Pattern, n: int, f: Function) -> Pattern:
    """f on cycles 0, n, 2n ..."""
    changed = f(pat)
    _count(n)
    return by_cycle(lambda c: changed if c % n == 0 else pat, (pat, changed), n)


def last_of(pat: Pattern, n: int, f: Function) -> Pattern:
    """f on cycles n-1, 2n-1 ..."""
    changed = f(pat)
    _count(n)
    return by_cycle(lambda c: changed if c % n == n - 1 else pat, (pat, changed), n)


def palindrome(pat: Pattern) -> Pattern:
    """Odd cycles backwards."""
    return last_of(pat, 2, reverse)


def when(pat: Pattern, gate: Pattern, f: Function) -> Pattern:
    """f where `gate` is true."""
    changed = f(pat)
    return bind(gate, lambda v: changed if truth(v) else pat)


def iter_(pat: Pattern, n: int, back: bool = False) -> Pattern:
    """Begins 1/n of a cycle further on in each cycle."""
    sign = 1 if back else -1
    return cat(*(late(pat, Fraction(sign * i, n)) for i in range(_count(n))))


def repeat_cycles(pat: Pattern, n: int) -> Pattern:
    """Each cycle n times."""
    return cat(*[pat] * _count(n))


def within(pat: Pattern, begin: Fraction, end: Fraction, f: Function) -> Pattern:
    """f on the part of each cycle from `begin` to `end`."""
    if not 0 <= begin <= end <= 1:
        raise PatternError("the part must lie inside the cycle: from 0 to 1")
    gate = timecat([(begin, pure(0)), (end - begin, pure(1)), (1 - end, pure(0))])
    return when(pat, gate, f)


def chunk(pat: Pattern, n: int, f: Function, back: bool = False) -> Pattern:
    """f on the first n-th of the pattern, in the next cycle on the second n-th, and so on."""
    if not 1 <= n <= 256:
        raise PatternError("chunk takes 1 to 256 parts")
    parts = [within(pat, Fraction(i, n), Fraction(i + 1, n), f) for i in range(n)]
    return cat(*(parts[::-1] if back else parts))


def inside(pat: Pattern, n: Fraction, f: Function) -> Pattern:
    """f on n cycles at a time, as if they were one."""
    if n <= 0:
        raise PatternError("inside needs a number above 0")
    return fast(f(fast(pat, 1 / n)), n)


def superimpose(pat: Pattern, f: Function) -> Pattern:
    return stack(pat, f(pat))


def off(pat: Pattern, shift: Fraction, f: Function) -> Pattern:
    """The pattern, and f of it later by `shift`."""
    return stack(pat, f(late(pat, shift)))


def _each(
    pat: Pattern,
    split: Callable[[Fraction, Fraction], list[tuple[Fraction, Fraction]]],
    cost: float,
) -> Pattern:
    """Each event replaced by pieces of its whole; signals as they are."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for event in pat.raw(begin, end):
            wb, we, lb, le, value = event
            if wb is None or we is None:
                out.append(event)
                continue
            for nb, ne in split(wb, we):
                b, e = max(nb, lb), min(ne, le)
                if b < e:
                    out.append(Event(nb, ne, b, e, value))
        return out

    return Pattern(raw, period=pat.period, cost=max(1.0, pat.cost) * cost, text=pat.text)


def ply(pat: Pattern, n: Fraction) -> Pattern:
    """Each event n times in its own time."""
    if n <= 0:
        return silence

    def split(b: Fraction, e: Fraction) -> list[tuple[Fraction, Fraction]]:
        step, out, at = (e - b) / n, [], b
        while at < e:
            out.append((at, at + step))
            at += step
        return out

    return _each(pat, split, float(max(n, _ONE)))


def press(pat: Pattern, part: Fraction = Fraction(1, 2)) -> Pattern:
    """Each event begins later, by a part of its own length."""
    if not 0 <= part < 1:
        raise PatternError("press goes from 0 to under 1")
    return _each(pat, lambda b, e: [(b + (e - b) * part, e)], 1)


def compress(pat: Pattern, begin: Fraction, end: Fraction) -> Pattern:
    """Each cycle squeezed into its part from `begin` to `end`; silence around it."""
    if not 0 <= begin < end <= 1:
        return silence
    return timecat([(begin, silence), (end - begin, pat), (1 - end, silence)])


def fast_gap(pat: Pattern, n: Fraction) -> Pattern:
    """Each cycle n times as fast, then silence to its end."""
    return silence if n <= 0 else compress(pat, _ZERO, min(_ONE, 1 / n))


def _windows(
    pat: Pattern,
    place: Callable[[int], list[tuple[Fraction, Fraction, Fraction, Fraction]]],
    cost: float,
    period: int | None,
) -> Pattern:
    """Cycles pasted together from stretches of `pat`: (from, to, m, k), read at m*t + k."""
    shifted: dict[tuple[Fraction, Fraction], Pattern] = {}

    def moved(m: Fraction, k: Fraction) -> Pattern:
        found = shifted.get((m, k))
        if found is None:
            found = warp(pat, m, k)
            if len(shifted) < 512:
                shifted[m, k] = found
        return found

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, b, e in pieces(begin, end):
            for wb, we, m, k in place(c):
                lo, hi = max(wb, b), min(we, e)
                if lo < hi:
                    out.extend(moved(m, k).raw(lo, hi))
        return out

    return Pattern(raw, period=period, cost=cost, text=pat.text)


#: Each repetition is a stretch of its own, looked up anew: five hundred are 4 ms of a bar each.
_LINGERS = 512


def linger(pat: Pattern, part: Fraction) -> Pattern:
    """The first `part` of each cycle, over and over; negative: the last part."""
    if part == 0:
        return silence
    size = abs(part)
    if size >= 1:
        return pat
    times = -(-1 // size)
    start = 1 - size if part < 0 else _ZERO
    if times > _LINGERS:
        raise PatternError(f"linger repeats a part at most {_LINGERS} times in a cycle")

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        base = cycle_of(c)
        return [
            (base + i * size, min(base + (i + 1) * size, base + 1), _ONE, start - i * size)
            for i in range(times)
        ]

    return _windows(pat, place, max(pat.cost, float(times)), pat.period)


def zoom(pat: Pattern, begin: Fraction, end: Fraction) -> Pattern:
    """The part of each cycle from `begin` to `end`, stretched to the whole cycle."""
    if not begin < end:
        return silence
    m = end - begin

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        base = cycle_of(c)
        return [(base, base + 1, m, base + begin - base * m)]

    return _windows(pat, place, pat.cost, pat.period)


def ribbon(pat: Pattern, start: Fraction, length: Fraction) -> Pattern:
    """The stretch of `length` cycles from `start`, over and over."""
    if length <= 0:
        raise PatternError("ribbon needs a length above 0")
    if length < Fraction(1, 256):
        raise PatternError("ribbon's length is under 1/256")

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        out, base = [], cycle_of(c)
        i = base // length
        while i * length < base + 1:
            out.append(
                (max(base, i * length), min(base + 1, (i + 1) * length), _ONE, start - i * length)
            )
            i += 1
        return out

    period = length.numerator if length.denominator <= LIMIT else None
    return _windows(pat, place, pat.cost * 2, period)


def reorder(pat: Pattern, n: int, key: int, *, again: bool) -> Pattern:
    """Each cycle's n parts in another order, by lot; again: a part may come more than once."""
    if not 1 <= n <= 256:
        raise PatternError("a cycle is cut into 1 to 256 parts")

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        lots = [chance(key, c, i) for i in range(n)]
        order = [int(x * n) for x in lots] if again else sorted(range(n), key=lots.__getitem__)
        base = cycle_of(c)
        return [
            (base + Fraction(k, n), base + Fraction(k + 1, n), _ONE, Fraction(part - k, n))
            for k, part in enumerate(order)
        ]

    return _windows(pat, place, max(pat.cost, float(n)), None)


def echo(pat: Pattern, times: int, shift: Fraction, feedback: float) -> Pattern:
    """The pattern, and its echoes: each later by `shift` and weaker by `feedback`."""
    if not 1 <= times <= 64:
        raise PatternError("echo takes 1 to 64 times")

    def weaker(i: int) -> Callable[[Any], Any]:
        return lambda v: v * feedback**i

    return stack(*(fmap(late(pat, i * shift), weaker(i)) for i in range(times)))


def brak(pat: Pattern) -> Pattern:
    """Every other cycle squeezed into its middle half: a breakbeat."""
    squeezed = late(timecat([(_ONE, pat), (_ONE, silence)]), Fraction(1, 4))
    return by_cycle(lambda c: squeezed if c % 2 else pat, (pat, squeezed), 2)


def segment(pat: Pattern, n: Fraction) -> Pattern:
    """n held values a cycle, each read where it begins."""
    return struct(pat, fast(pure(1), n))


def euclid(pat: Pattern, k: int, n: int, turn: int = 0) -> Pattern:
    """`pat` on k of n steps, spread evenly."""
    return struct(
        pat, timecat([(_ONE, pure(1) if hit else silence) for hit in bjorklund(k, n, turn)])
    )


def sometimes_by(pat: Pattern, part: float, f: Function, key: int) -> Pattern:
    """f on this part of the events, by lot."""
    return stack(degrade(pat, part, key), f(degrade(pat, part, key, keep=True)))


def some_cycles(pat: Pattern, part: float, f: Function, key: int) -> Pattern:
    """f on this part of the cycles, by lot."""
    changed = f(pat)
    return by_cycle(lambda c: changed if chance(key, c) < part else pat, (pat, changed), None)


def arrange(*sections: tuple[Fraction, Pattern]) -> Pattern:
    """Sections in turn: (cycles, pattern) ..."""
    total = sum((n for n, _ in sections), _ZERO)
    if any(n <= 0 for n, _ in sections) or not sections:
        raise PatternError("a section's length must be above 0")
    # A fast section of a slowed cycle: its cost per cycle is that of its pattern.
    return _slowed(
        timecat([(n, _sped(p, n)) for n, p in sections]), total, max(p.cost for _, p in sections)
    )


def _sped(pat: Pattern, n: Fraction) -> Pattern:
    """fast(n) of a section that will be slowed again: its own cost stays what it was."""
    cheap = Pattern(
        pat.raw, period=pat.period, cost=1, curve=pat.curve, const=pat.const, text=pat.text
    )
    return warp(cheap, n, _ZERO)


def _slowed(pat: Pattern, n: Fraction, cost: float) -> Pattern:
    slow = warp(pat, 1 / n, _ZERO)
    return Pattern(slow.raw, period=slow.period, cost=cost, text=pat.text)


def rot(pat: Pattern, n: int) -> Pattern:
    """The values of each cycle moved n events to the left; the rhythm stays."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for c, b, e in pieces(begin, end):
            events = [x for x in pat.raw(cycle_of(c), cycle_of(c + 1)) if x.whole_begin is not None]
            events.sort(key=lambda x: (x.begin, x.end))
            values = [x.value for x in events]
            for i, x in enumerate(events):
                lo, hi = max(x.begin, b), min(x.end, e)
                if lo < hi:
                    out.append(
                        Event(x.whole_begin, x.whole_end, lo, hi, values[(i + n) % len(values)])
                    )
        return out

    return Pattern(raw, period=pat.period, cost=pat.cost, text=pat.text)


def quantize(pat: Pattern, grid: float | Sequence[float]) -> Pattern:
    """The nearest multiple of a step, or the nearest of a list of values."""
    if isinstance(grid, (int, float, Fraction)):
        step = float(grid)
        if step <= 0:
            raise PatternError("quantize needs a step above 0")
        return fmap(pat, lambda v: np.floor(v / step + 0.5) * step)
    values = np.array(sorted(float(v) for v in grid))
    if not len(values):
        raise PatternError("quantize needs values")
    middles = (values[1:] + values[:-1]) / 2

    def nearest(v: Any) -> Any:
        out = values[np.searchsorted(middles, v, side="right")]
        return out if np.ndim(v) else float(out)

    return fmap(pat, nearest)
