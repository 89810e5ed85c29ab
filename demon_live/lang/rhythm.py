"""Transforms of values, and structure: which events there are, and what extent they have.

    fmap     values of one pattern          bind    a pattern for each value (Tidal's innerJoin)
    combine  a op b: structure from the left (Tidal's |+)      mixed   a op b: structure from both
    cut      whole from the left, parts cut where either changes (arguments of range)
    struct, mask, thin, Euclidean rhythms, squeeze

Threads: the cache of bind is filled by single assignments of equal values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
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
    pieces,
)
from demon_live.lang.registry import Chance, Count, Gate, Lots, Numbers, Time, function
from demon_live.lang.signals import chance_at
from demon_live.lang.transform import fast, late, pure, signal, silence, squeezed, stack, timecat

Op = Callable[[Any, Any], Any]
#: (pattern, event) -> the pattern's events in the part of that event.
Place = Callable[[Pattern, Event], list[Event]]
_ZERO, _ONE = Fraction(0), Fraction(1)


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


#: A curve as the argument of `bind` is read this often in a cycle.
_GRAIN = 32


def bind(
    outer: Pattern, fn: Callable[[Any], Pattern], *, text: bool = False, place: Place | None = None
) -> Pattern:
    """For each value of `outer` the pattern fn(value), in that value's part.

    Without `place` the patterns run on in their own time: Tidal's innerJoin.
    """
    if outer.const is not None and place is None:
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
                if place is not None and not isinstance(event.value, Curve):
                    out.extend(_cut_to(event, place(inner(event.value), event)))
                    continue
                for b, e, value in grains(event):
                    out.extend(inner(value).raw(b, e))
            if len(out) - before > LIMIT:
                raise PatternError(f"more than {LIMIT} events in cycle {c}")
        return out

    period, cost = _bound_facts(outer, inner)
    # Later values may cost more than the first ones, but not much more.
    most = min(most, 4 * cost + 64)
    return Pattern(raw, period=period, cost=cost, text=text)


def squeezed_into(pat: Pattern, event: Event) -> list[Event]:
    """A cycle of the pattern squeezed into the whole event: Tidal's squeezeJoin."""
    begin, end, b, e, _ = event
    if begin is None or end is None:
        return pat.raw(b, e)
    return squeezed(pat, begin.numerator // begin.denominator, begin, end, b, e)


def restarted(pat: Pattern, event: Event) -> list[Event]:
    """The pattern from its beginning where the event begins: Strudel's restart."""
    begin = event.begin if event.whole_begin is None else event.whole_begin
    return late(pat, begin).raw(event.begin, event.end)


def _cut_to(outer: Event, events: list[Event]) -> Iterator[Event]:
    """The events, no whole longer than that of `outer`."""
    begin, end = outer.whole_begin, outer.whole_end
    for wb, we, b, e, value in events:
        if wb is None or we is None or begin is None or end is None:
            yield Event(wb, we, b, e, value)
        else:
            yield Event(max(wb, begin), min(we, end), b, e, value)


#: Cycles of an argument that are queried to estimate period and cost.
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
    """The part of an event with its value; a curve in steps of a fixed grid."""
    if not isinstance(event.value, Curve):
        yield event.begin, event.end, event.value
        return
    b = event.begin
    while b < event.end:
        n = b.numerator * _GRAIN // b.denominator
        e = min(event.end, Fraction(n + 1, _GRAIN))
        yield b, e, event.value.at(Fraction(n, _GRAIN))
        b = e


# --- structure -------------------------------------------------------------------------------


def _apply(fn: Op, a: Any, b: Any) -> Any:
    """fn of two values, either of which may be a curve."""
    if isinstance(a, Curve):
        return a.joined(b, fn) if isinstance(b, Curve) else a.mapped(lambda x: fn(x, b))
    return b.mapped(lambda y: fn(a, y)) if isinstance(b, Curve) else fn(a, b)


def _plain(left: Pattern, right: Pattern, fn: Op) -> Pattern | None:
    """The cases without structure: a plain number, or two signals."""
    if right.const is not None:
        value = right.const[0]
        return fmap(left, lambda a: fn(a, value))
    if left.const is not None and right.curve is not None:
        value = left.const[0]
        return fmap(right, lambda b: fn(value, b))
    if left.curve is not None and right.curve is not None:
        return signal(left.curve.joined(right.curve, fn), lcm(left.period, right.period))
    return None


def combine(left: Pattern, right: Pattern, fn: Op) -> Pattern:
    """fn(left, right), with the events of left; a signal on the right is read where they begin."""
    plain = _plain(left, right, fn)
    if plain is not None:
        return plain

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for wb, we, lb, le, value in left.raw(begin, end):
            if wb is None or we is None:
                out += [
                    Event(None, None, r.begin, r.end, _apply(fn, value, r.value))
                    for r in right.raw(lb, le)
                ]
                continue
            for r in right.raw(wb, we):
                b, e = max(lb, r.begin), min(le, r.end)
                if b < e:
                    other = r.value.read(r.begin, r.end) if isinstance(r.value, Curve) else r.value
                    out.append(Event(wb, we, b, e, _apply(fn, value, other)))
        return out

    return Pattern(raw, period=lcm(left.period, right.period), cost=left.cost + right.cost)


def mixed(left: Pattern, right: Pattern, fn: Op) -> Pattern:
    """fn(left, right), with structure from both: wholes are intersections."""
    plain = _plain(left, right, fn)
    if plain is not None:
        return plain

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        rights = right.raw(begin, end)
        for wb, we, lb, le, value in left.raw(begin, end):
            for r in rights:
                b, e = max(lb, r.begin), min(le, r.end)
                if b >= e:
                    continue
                result = _apply(fn, value, r.value)
                if wb is None or we is None or r.whole_begin is None or r.whole_end is None:
                    out.append(Event(None, None, b, e, result))
                else:
                    out.append(Event(max(wb, r.whole_begin), min(we, r.whole_end), b, e, result))
        return out

    return Pattern(raw, period=lcm(left.period, right.period), cost=left.cost + right.cost)


def cut(left: Pattern, right: Pattern, fn: Op) -> Pattern:
    """fn(left, right): extents from left, values following right at each moment."""
    plain = _plain(left, right, fn)
    if plain is not None:
        return plain

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        return [
            Event(wb, we, b, e, _apply(fn, value, r.value))
            for r in right.raw(begin, end)
            for wb, we, b, e, value in left.raw(r.begin, r.end)
        ]

    return Pattern(raw, period=lcm(left.period, right.period), cost=left.cost + right.cost)


@function('blend = "0 .5".squeeze("0 .1 .2")')
def squeeze(pat: Numbers, other: Numbers) -> Pattern:
    """Plus, with a cycle of the other squeezed into each event."""
    made = bind(pat, lambda v: fmap(other, lambda w: operator.add(v, w)), place=squeezed_into)
    return Pattern(made.raw, period=made.period, cost=pat.cost * max(1.0, other.cost))


def truth(value: Any) -> bool:
    """The truth of a value in a structure: 1, x, t, true are yes; 0, f, false, ~ are no."""
    if isinstance(value, str):
        return value.lower() not in ("f", "false", "n", "no", "0")
    return bool(value)


@function("denoise = sine.range(.3, 1).segment(4)")
def segment(pat: Pattern, n: Time) -> Pattern:
    """A curve as n held values a cycle."""
    if n < 0:
        raise PatternError("segment needs a number of 0 or more", "n")
    return struct(pat, fast(pure(1), n))


@function('noise = sine.struct("x ~ x x")')
def struct(pat: Pattern, pulses: Gate) -> Pattern:
    """The values of the pattern in the rhythm of another."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out: list[Event] = []
        for pulse in pulses.raw(begin, end):
            wb, we, lb, le, value = pulse
            if wb is None or we is None:
                for b, e, open_ in grains(pulse):
                    out += pat.raw(b, e) if truth(open_) else []
                continue
            if not truth(value.at(wb) if isinstance(value, Curve) else value):
                continue
            for r in pat.raw(wb, we):
                b, e = max(lb, r.begin), min(le, r.end)
                if b < e:
                    v = r.value.read(r.begin, r.end) if isinstance(r.value, Curve) else r.value
                    out.append(Event(wb, we, b, e, v))
        return out

    period = lcm(pat.period, pulses.period)
    return Pattern(raw, period=period, cost=pat.cost + pulses.cost, text=pat.text)


@function('noise = saw.mask("<1 [0 1]>")')
def mask(pat: Pattern, gate: Gate) -> Pattern:
    """Only where the gate is 1; rests elsewhere."""
    if gate.const is not None:
        return pat if truth(gate.const[0]) else silence

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        gates = [g for event in gate.raw(begin, end) for g in grains(event) if truth(g[2])]
        for wb, we, lb, le, value in pat.raw(begin, end):
            for gb, ge, _ in gates:
                b, e = max(lb, gb), min(le, ge)
                if b < e:
                    out.append(Event(wb, we, b, e, value))
        return out

    period = lcm(pat.period, gate.period)
    return Pattern(raw, period=period, cost=pat.cost + gate.cost, text=pat.text)


def where(pat: Pattern, keep: Callable[[Event], bool]) -> Pattern:
    """Only the events for which `keep` holds."""
    return Pattern(
        lambda b, e: [event for event in pat.raw(b, e) if keep(event)],
        period=pat.period,
        cost=pat.cost,
        text=pat.text,
    )


#: A curve is read next to the moment of its zero, too.
_NEARLY = 1e-6


def inverse(value: Any) -> Any:
    """1 for a value that is not true, else 0."""
    if isinstance(value, str):
        return (not truth(value)) * 1.0
    return (np.abs(value) < _NEARLY) * 1.0


@function('blend = saw.slow(4).restart("1(3,8)")')
def restart(pat: Pattern, trigger: Gate) -> Pattern:
    """From its beginning where an event of the trigger begins, as long as that lasts."""
    return bind(trigger, lambda v: pat if truth(v) else silence, text=pat.text, place=restarted)


def thin(pat: Pattern, part: float, key: int, keep: bool = False) -> Pattern:
    """The pattern without this part of its events, by lot; with keep, only those.

    A signal has no events: it loses whole cycles.
    """

    def stays(time: Fraction) -> bool:
        return (chance_at(key, time) < part) is keep

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        out = []
        for event in pat.raw(begin, end):
            if event.whole_begin is not None:
                if stays(event.whole_begin):
                    out.append(event)
                continue
            for c, b, e in pieces(event.begin, event.end):
                if stays(cycle_of(c)):
                    out.append(Event(None, None, b, e, event.value))
        return out

    return Pattern(raw, period=None, cost=pat.cost, text=pat.text)


@function('noise = ".3*8".degradeBy(.4)')
def degrade_by(pat: Pattern, part: Chance, key: Lots) -> Pattern:
    """Loses this part of the events, by lot."""
    return thin(pat, part, key)


@function('noise = ".3*8".degrade')
def degrade(pat: Pattern, key: Lots) -> Pattern:
    """Loses half of the events, by lot."""
    return thin(pat, 0.5, key)


@function('noise = ".3*8".undegradeBy(.4)')
def undegrade_by(pat: Pattern, part: Chance, key: Lots) -> Pattern:
    """Keeps only this part of the events."""
    return thin(pat, part, key, keep=True)


@function("noise = sine.euclid(3, 8)")
def euclid(pat: Pattern, k: Count, n: Count, turn: Count = 0) -> Pattern:
    """On k of n steps, spread evenly, turned left."""
    return _on(pat, bjorklund(k, n, turn))


def _on(pat: Pattern, hits: Sequence[bool]) -> Pattern:
    """The pattern on those of the equal steps of a cycle that are hits."""
    if pat.const is not None:
        return timecat([(_ONE, pat if hit else silence) for hit in hits])
    return struct(pat, timecat([(_ONE, pure(1) if hit else silence) for hit in hits]))


@function("noise = pure(.4).euclidFull(3, 8, .1)")
def euclid_full(pat: Pattern, k: Count, n: Count, other: Pattern, turn: Count = 0) -> Pattern:
    """As euclid, with another pattern in the gaps."""
    hits = bjorklund(k, n, turn)
    return stack(_on(pat, hits), _on(other, [not hit for hit in hits]))


@function("noise = sine.euclidLegato(3, 8)")
def euclid_legato(pat: Pattern, k: Count, n: Count, turn: Count = 0) -> Pattern:
    """As euclid, and each hit lasts until the next."""
    at = [i for i, hit in enumerate(bjorklund(k, n, turn)) if hit]
    if not at:
        return silence
    lengths = [after - i for i, after in pairwise([*at, at[0] + n])]
    pulses = timecat([(Fraction(length), pure(1)) for length in lengths])
    return struct(pat, late(pulses, Fraction(at[0], n)))


@function("noise = sine.euclidRot(3, 8, 2)")
def euclid_rot(pat: Pattern, k: Count, n: Count, turn: Count) -> Pattern:
    """The same as euclid with a turn."""
    return euclid(pat, k, n, turn)


@lru_cache(maxsize=512)
def bjorklund(k: int, n: int, turn: int = 0) -> tuple[bool, ...]:
    """k hits spread over n steps as evenly as can be (Bjorklund), turned left by `turn` modulo n.

    Negative k is the inverse; k above n hits each step; n <= 0 is nothing.
    """
    if n <= 0:
        return ()
    if n > LIMIT:
        raise PatternError(f"more than {LIMIT} steps")
    steps = _spread(min(abs(k), n), n)
    if k < 0:
        steps = [not hit for hit in steps]
    turn %= n
    return tuple(steps[turn:] + steps[:turn])


def _spread(k: int, n: int) -> list[bool]:
    """Bjorklund's order: groups of [x] and [~] are paired until one group is left."""
    a, b = [[True]] * k, [[False]] * (n - k)
    while min(len(a), len(b)) > 1:
        m = min(len(a), len(b))
        paired = [a[i] + b[i] for i in range(m)]
        a, b = paired, a[m:] or b[m:]
    return [hit for group in a + b for hit in group]
