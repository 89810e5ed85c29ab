"""Functions of time and of functions, with Tidal's and Strudel's definitions.

Each takes the pattern first, then plain arguments. The compiler binds patterned arguments to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from demon_live.lang.pattern import LIMIT, Event, Pattern, PatternError, cycle_of, lcm, pieces
from demon_live.lang.registry import (
    Chance,
    Count,
    Gate,
    Lots,
    Number,
    Numbers,
    Time,
    Transform,
    function,
)
from demon_live.lang.rhythm import bind, fmap, thin, truth, where
from demon_live.lang.signals import chance
from demon_live.lang.transform import cat, fast, late, pure, reverse, silence, stack, timecat, warp

_ZERO, _HALF, _ONE = Fraction(0), Fraction(1, 2), Fraction(1)


def _count(n: int, name: str) -> int:
    if not 1 <= n <= LIMIT:
        raise PatternError(f"{name} needs a whole number from 1 to {LIMIT} for n, not {n}", "n")
    return n


def by_cycle(
    choose: Callable[[int], Pattern], among: Sequence[Pattern], period: int | None
) -> Pattern:
    """In each cycle the pattern that `choose` returns, at its own time."""

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


@function('blend = "0 .3 1".firstOf(4, rev)', "firstOf", "The same as every.")
@function('blend = "0 .3 1".every(4, rev)')
def every(pat: Pattern, n: Count, f: Transform, offset: Count = 0) -> Pattern:
    """A function on cycles 0, n, 2n ...; with an offset so many later. n of 0: never."""
    if n <= 0:
        return pat
    changed = f(pat)
    _count(n, "every")
    return by_cycle(lambda c: changed if (c - offset) % n == 0 else pat, (pat, changed), n)


@function('blend = "0 .3 1".whenmod(8, 6, rev)')
def whenmod(pat: Pattern, n: Count, first: Count, f: Transform) -> Pattern:
    """A function on the last of each n cycles, from number `first` on: whenmod(8, 6, rev)."""
    changed = f(pat)
    _count(n, "whenmod")
    return by_cycle(lambda c: changed if c % n >= first else pat, (pat, changed), n)


@function('blend = "0 .3 1".lastOf(4, fast(2))')
def last_of(pat: Pattern, n: Count, f: Transform) -> Pattern:
    """A function on cycles n-1, 2n-1 ..."""
    if n <= 0:
        return pat
    changed = f(pat)
    _count(n, "lastOf")
    return by_cycle(lambda c: changed if c % n == n - 1 else pat, (pat, changed), n)


@function('blend = "0 .3 1".palindrome')
def palindrome(pat: Pattern) -> Pattern:
    """Forwards, then backwards, in turn."""
    return last_of(pat, 2, reverse)


@function('blend = "0 .3 1".when("<0 1>", rev)')
def when(pat: Pattern, gate: Gate, f: Transform) -> Pattern:
    """A function where the gate is 1."""
    changed = f(pat)
    return bind(gate, lambda v: changed if truth(v) else pat)


@function('blend = "0 .3 .6 1".iter(4)')
def iter_(pat: Pattern, n: Count) -> Pattern:
    """Begins 1/n of a cycle further on in each cycle."""
    return cat(*(late(pat, Fraction(-i, n)) for i in range(_count(n, "iter"))))


@function('blend = "0 .3 .6 1".iterBack(4)')
def iter_back(pat: Pattern, n: Count) -> Pattern:
    """Begins 1/n of a cycle earlier in each cycle."""
    return cat(*(late(pat, Fraction(i, n)) for i in range(_count(n, "iterBack"))))


@function('blend = "<0 .3 1>".repeatCycles(2)')
def repeat_cycles(pat: Pattern, n: Count) -> Pattern:
    """Each cycle n times."""
    return cat(*[pat] * _count(n, "repeatCycles"))


@function('blend = "0 .3 .6 1".within(0, 1/2, fast(2))')
def within(pat: Pattern, begin: Time, end: Time, f: Transform) -> Pattern:
    """A function on the events that begin in a part of each cycle; of curves, on that part."""
    if not 0 <= begin <= end <= 1:
        raise PatternError("the part must lie inside the cycle: from 0 to 1")

    def begins_inside(event: Event) -> bool:
        at = event.whole_begin
        return at is not None and begin <= at - at.numerator // at.denominator < end

    def curves(p: Pattern) -> Pattern:
        return where(p, lambda event: event.whole_begin is None)

    changed = f(pat)
    return stack(
        where(pat, lambda event: event.whole_begin is not None and not begins_inside(event)),
        where(changed, begins_inside),
        when(curves(pat), _gate(begin, end), lambda _: curves(changed)),
    )


def _gate(begin: Fraction, end: Fraction) -> Pattern:
    """1 in a part of each cycle, 0 in the rest."""
    return timecat([(begin, pure(0)), (end - begin, pure(1)), (1 - end, pure(0))])


def _between(pat: Pattern, begin: Fraction, end: Fraction, f: Transform) -> Pattern:
    """As within, cutting the events at the edges of the part."""
    return when(pat, _gate(begin, end), f)


@function('blend = ".2*8".chunk(4, _ + .3)')
def chunk(pat: Pattern, n: Count, f: Transform) -> Pattern:
    """A function on one n-th of the pattern, the next n-th in the next cycle; -n: backwards."""
    return chunk_back(pat, -n, f) if n < 0 else cat(*_chunks(pat, n, f))


@function('blend = ".2*8".chunkBack(4, _ + .3)')
def chunk_back(pat: Pattern, n: Count, f: Transform) -> Pattern:
    """As chunk, from the last n-th to the first."""
    return cat(*reversed(_chunks(pat, n, f)))


def _chunks(pat: Pattern, n: int, f: Transform) -> list[Pattern]:
    if not 1 <= n <= 256:
        raise PatternError("chunk takes 1 to 256 parts", "n")
    return [_between(pat, Fraction(i, n), Fraction(i + 1, n), f) for i in range(n)]


@function('blend = "0 .3 .6 1".inside(2, rev)')
def inside(pat: Pattern, n: Time, f: Transform) -> Pattern:
    """A function on n cycles at a time, as if they were one."""
    if n <= 0:
        raise PatternError("inside needs a number above 0", "n")
    return fast(f(fast(pat, 1 / n)), n)


@function('blend = "<0 .3 .6 1>".outside(4, rev)')
def outside(pat: Pattern, n: Time, f: Transform) -> Pattern:
    """A function on 1/n of a cycle at a time."""
    if n <= 0:
        raise PatternError("outside needs a number above 0", "n")
    return inside(pat, 1 / n, f)


@function('noise = "0 .4*7".swing(1/3, 4)')
def swing(pat: Pattern, amount: Time, n: Time | None = None) -> Pattern:
    """The second half of each n-th of a cycle, late by a part; swing(n) is swing(1/3, n)."""
    if n is None:
        amount, n = Fraction(1, 3), amount
    if not -1 <= amount <= 1:
        raise PatternError("the amount of swing goes from 0 to 1", "amount")
    return inside(pat, n, lambda p: _between(p, _HALF, _ONE, lambda q: late(q, amount / 2)))


@function('noise = ".2 .4".superimpose(fast(2))')
def superimpose(pat: Pattern, f: Transform) -> Pattern:
    """The pattern, and a function of it on top."""
    return stack(pat, f(pat))


@function('noise = ".2 .4".layer(rev, fast(2))')
def layer(pat: Pattern, *f: Transform) -> Pattern:
    """Several functions of the pattern at once."""
    return stack(*(g(pat) for g in f))


@function('noise = ".4 ~".off(1/8, _ * .5)')
def off(pat: Pattern, cycles: Time, f: Transform) -> Pattern:
    """The pattern, and a function of it later."""
    return stack(pat, f(late(pat, cycles)))


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


@function('noise = "0 .4".ply("<1 2 3>")')
def ply(pat: Pattern, n: Time) -> Pattern:
    """Each event n times in its own time."""
    if n <= 0:
        return silence

    def split(b: Fraction, e: Fraction) -> list[tuple[Fraction, Fraction]]:
        # The cycle c of fast(n), squeezed into [b, e).
        c = cycle_of(math.floor(b))
        inner = range(math.floor(c * n) + 1, math.ceil((c + 1) * n))
        edges = [c, *(i / n for i in inner), c + 1]
        return [(b + (s - c) * (e - b), b + (t - c) * (e - b)) for s, t in pairwise(edges)]

    made = _each(pat, split, float(max(n, _ONE)))
    return Pattern(made.raw, period=lcm(made.period, n.denominator), cost=made.cost, text=pat.text)


@function('gain = "1 .5 1 .5".press')
def press(pat: Pattern, part: Time = _HALF) -> Pattern:
    """Each event begins later, by half (or a part) of its length."""
    if not 0 <= part < 1:
        raise PatternError("press goes from 0 to under 1", "part")
    return _each(pat, lambda b, e: [(b + (e - b) * part, e)], 1)


@function('gain = "1 .5".compress(1/4, 3/4)')
def compress(pat: Pattern, begin: Time, end: Time) -> Pattern:
    """Each cycle squeezed into a part of it."""
    if not 0 <= begin < end <= 1:
        return silence
    return timecat([(begin, silence), (end - begin, pat), (1 - end, silence)])


@function('gain = "1 .5".fastGap(2)')
def fast_gap(pat: Pattern, n: Time) -> Pattern:
    """Each cycle n times as fast, then rest."""
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


#: Repetitions in a cycle at most: each is a query of its own, and 500 take 4 ms a cycle.
_LINGERS = 512


@function('blend = "0 .3 .6 1".linger(1/2)')
def linger(pat: Pattern, part: Time) -> Pattern:
    """The first part of each cycle, over and over; the repetitions take the cycles in turn.

    A negative part is the last one.
    """
    if part == 0:
        return silence
    size = abs(part)
    if 1 / size > _LINGERS:
        raise PatternError(f"linger repeats a part at most {_LINGERS} times in a cycle", "part")
    start = 1 - size if part < 0 else _ZERO
    return fast(zoom(pat, start, start + size), 1 / size)


@function('blend = "0 .3 .6 1".zoom(1/4, 3/4)')
def zoom(pat: Pattern, begin: Time, end: Time) -> Pattern:
    """A part of each cycle, stretched over the whole."""
    if not begin < end:
        return silence
    m = end - begin

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        base = cycle_of(c)
        return [(base, base + 1, m, base + begin - base * m)]

    return _windows(pat, place, pat.cost, pat.period)


@function("blend = rand.segment(8).ribbon(3, 1)")
def ribbon(pat: Pattern, start: Time, length: Time) -> Pattern:
    """A stretch of the pattern, over and over: a loop of chance too."""
    if length <= 0:
        raise PatternError("ribbon needs a length above 0", "length")
    if length < Fraction(1, 256):
        raise PatternError("ribbon's length is under 1/256", "length")

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


@function('blend = "0 .3 .6 1".shuffle(4)')
def shuffle(pat: Pattern, n: Count, key: Lots) -> Pattern:
    """The n parts of each cycle in another order, by lot."""
    return _reorder(pat, n, lambda lots: sorted(range(n), key=lots.__getitem__), key)


@function('blend = "0 .3 .6 1".scramble(4)')
def scramble(pat: Pattern, n: Count, key: Lots) -> Pattern:
    """n parts of each cycle drawn by lot; one may come twice."""
    return _reorder(pat, n, lambda lots: [int(x * n) for x in lots], key)


def _reorder(pat: Pattern, n: int, choose: Callable[[list[float]], list[int]], key: int) -> Pattern:
    """Each cycle's n parts in an order that is chosen by n draws."""
    if not 1 <= n <= 256:
        raise PatternError("a cycle is cut into 1 to 256 parts")

    def place(c: int) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
        order = choose([chance(key, c, i) for i in range(n)])
        base = cycle_of(c)
        return [
            (base + Fraction(k, n), base + Fraction(k + 1, n), _ONE, Fraction(part - k, n))
            for k, part in enumerate(order)
        ]

    return _windows(pat, place, max(pat.cost, float(n)), None)


@function('noise = ".6 ~".echo(4, 1/8, .7)')
def echo(pat: Numbers, times: Count, cycles: Time, feedback: Number) -> Pattern:
    """Echoes: each later, and weaker by a factor."""
    if not 1 <= times <= 64:
        raise PatternError("echo takes 1 to 64 times")

    def weaker(i: int) -> Callable[[Any], Any]:
        return lambda v: v * feedback**i

    return stack(*(fmap(late(pat, i * cycles), weaker(i)) for i in range(times)))


@function('gain = "1 .5".brak')
def brak(pat: Pattern) -> Pattern:
    """Every other cycle squeezed into its middle half: a breakbeat."""
    squeezed = late(timecat([(_ONE, pat), (_ONE, silence)]), Fraction(1, 4))
    return by_cycle(lambda c: squeezed if c % 2 else pat, (pat, squeezed), 2)


@function('blend = ".2 .4 .6 .8".sometimesBy(.3, _ + .2)')
def sometimes_by(pat: Pattern, part: Chance, f: Transform, key: Lots) -> Pattern:
    """A function on this part of the events, by lot."""
    return stack(thin(pat, part, key), f(thin(pat, part, key, keep=True)))


@function('blend = ".2*8".sometimes(_ + .3)')
def sometimes(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on half of the events."""
    return sometimes_by(pat, 0.5, f, key)


@function('blend = ".2*8".often(_ + .3)')
def often(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on three quarters of the events."""
    return sometimes_by(pat, 0.75, f, key)


@function('blend = ".2*8".rarely(_ + .3)')
def rarely(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on a quarter of the events."""
    return sometimes_by(pat, 0.25, f, key)


@function('blend = ".2*8".almostAlways(_ + .3)')
def almost_always(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on nine tenths of the events."""
    return sometimes_by(pat, 0.9, f, key)


@function('blend = ".2*8".almostNever(_ + .3)')
def almost_never(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on a tenth of the events."""
    return sometimes_by(pat, 0.1, f, key)


@function('blend = "0 1".always(rev)')
def always(pat: Pattern, f: Transform) -> Pattern:
    """A function, always."""
    return f(pat)


@function('blend = "0 1".never(rev)')
def never(pat: Pattern, f: Transform) -> Pattern:
    """No function at all: to switch one off."""
    return pat


@function('blend = "0 .5 1".someCyclesBy(.3, rev)')
def some_cycles_by(pat: Pattern, part: Chance, f: Transform, key: Lots) -> Pattern:
    """A function on this part of the cycles, by lot."""
    changed = f(pat)
    return by_cycle(lambda c: changed if chance(key, c) < part else pat, (pat, changed), None)


@function('blend = "0 .5 1".someCycles(rev)')
def some_cycles(pat: Pattern, f: Transform, key: Lots) -> Pattern:
    """A function on half of the cycles."""
    return some_cycles_by(pat, 0.5, f, key)


@function('blend = "0 .3 [.6 1]".rot(1)')
def rot(pat: Pattern, n: Count) -> Pattern:
    """The values n events to the left, the rhythm as it is."""

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
