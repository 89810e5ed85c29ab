"""Choosing among patterns: by number, by lot, and by the values of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np

from demon_live.lang.combinators import by_cycle, zoom
from demon_live.lang.pattern import Curve, Event, Pattern, PatternError
from demon_live.lang.registry import (
    Count,
    Gate,
    Lots,
    Numbers,
    Transform,
    Values,
    Weighted,
    function,
)
from demon_live.lang.rhythm import (
    Place,
    bind,
    fmap,
    inverse,
    restarted,
    squeezed_into,
    struct,
    where,
)
from demon_live.lang.signals import chance, lot
from demon_live.lang.transform import pure, signal, stack, timecat

#: (value, number of parts) -> the number of a part. Takes arrays, too.
_Index = Callable[[Any, int], Any]


def _some(parts: Sequence[object]) -> None:
    if not parts:
        raise PatternError("there is nothing to choose from: give patterns, or one list of them")


# --- by number -------------------------------------------------------------------------------


def _nearest(value: Any, n: int) -> Any:
    return np.clip(np.floor(value + 0.5), 0, n - 1)


def _wrapped(value: Any, n: int) -> Any:
    return np.floor(value + 0.5) % n


def _share(value: Any, n: int) -> Any:
    return np.clip(np.floor(value * n), 0, n - 1)


def _picked(
    pat: Pattern, parts: Sequence[Pattern], index: _Index, place: Place | None = None
) -> Pattern:
    _some(parts)
    text = any(p.text for p in parts)
    return bind(pat, lambda v: parts[int(index(v, len(parts)))], text=text, place=place)


@function('blend = "<0 1>".pick(sine, "0 1")')
def pick(pat: Numbers, *part: Pattern) -> Pattern:
    """Numbers choose among the parts: 0 is the first; beyond the last it stays the last."""
    return _picked(pat, part, _nearest)


@function('blend = "0 1 2".pickmod(.2, .9)')
def pickmod(pat: Numbers, *part: Pattern) -> Pattern:
    """As pick; beyond the last it begins again with the first."""
    return _picked(pat, part, _wrapped)


@function('blend = "<0 1>".pickRestart(saw.slow(4), ".2 .9")')
def pick_restart(pat: Numbers, *part: Pattern) -> Pattern:
    """As pick; a part begins at its beginning when it is chosen."""
    return _picked(pat, part, _nearest, restarted)


@function('blend = "0 1 0".pickOut(sine, .9)')
def pick_out(pat: Numbers, *part: Pattern) -> Pattern:
    """As pick, in the rhythm of the numbers."""
    _some(part)

    def chosen(i: int) -> Pattern:
        return fmap(pat, lambda v: (_nearest(v, len(part)) == i) * 1.0)

    return stack(*(struct(p, chosen(i)) for i, p in enumerate(part)))


@function("blend = sine.slow(4).select(.2, saw, .9)")
def select(pat: Numbers, *part: Pattern) -> Pattern:
    """0 to 1 chooses among the parts: 0 is the first, 1 the last. A knob can do it."""
    return _picked(pat, part, _share)


# --- by lot ----------------------------------------------------------------------------------


@function("blend = randcat(saw, sine, .5)")
def randcat(*part: Pattern, key: Lots) -> Pattern:
    """One of the parts each cycle, by lot."""
    _some(part)
    return by_cycle(lambda n: part[int(chance(key, n) * len(part))], part, None)


@function('blend = "0*8".add(choose(.2, .5, 1))')
def choose(*part: Pattern, key: Lots) -> Pattern:
    """One of the parts by lot, drawn for each event that reads it; randcat draws once a cycle."""
    _some(part)
    return _drawn(part, [i + 1 for i in range(len(part))], key)


@function('blend = "0*8".add(wchoose([.2, 5], [.9, 1]))')
def wchoose(*part: Weighted, key: Lots) -> Pattern:
    """As choose, with weights: [pattern, weight]."""
    _some(part)
    edges = list(accumulate(float(weight) for weight, _ in part))
    if edges[-1] <= 0:
        raise PatternError("wchoose needs a weight above 0")
    return _drawn([p for _, p in part], edges, key)


def _drawn(parts: Sequence[Pattern], edges: Sequence[float], key: int) -> Pattern:
    """The part in whose share, up to edges[i], the lot of a time falls."""
    bounds = np.array(edges[:-1]) / edges[-1]

    def index(t: Any) -> Any:
        return np.searchsorted(bounds, lot(key, t), side="right")

    values = [_curve(p) for p in parts]
    if all(f is not None for f in values):

        def read(t: Any) -> Any:
            i, out = index(t), np.zeros(np.shape(t))
            for k, f in enumerate(values):
                np.copyto(out, f(t), where=i == k)  # type: ignore[misc]
            return out if np.ndim(t) else float(out)

        return signal(Curve(read), None)

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        # As a signal: one lot where the query begins, which is where the event begins that asks.
        return parts[int(index(float(begin)))].raw(begin, end)

    cost, text = max(p.cost for p in parts), any(p.text for p in parts)
    return Pattern(raw, period=None, cost=cost, text=text)


def _curve(pat: Pattern) -> Callable[[Any], Any] | None:
    """A pattern without structure as a function of time; None for others, and for text."""
    if pat.curve is not None:
        return pat.curve.f
    if pat.const is None or pat.text:
        return None
    value = pat.const[0]
    return lambda t: value


@function('noise = ".3*8".degradeBy(.4).salt(2)')
def salt(pat: Pattern, stream: Count) -> Pattern:
    """The same with other lots; each number is another stream of chance, 0 the usual one."""
    # The compiler gives the pattern its lots; a pattern that has them already keeps them.
    return pat


# --- by value --------------------------------------------------------------------------------


@function('blend = "0 .2 .4 .2".fix(.2, _ + .5)')
def fix(pat: Pattern, value: Values, f: Transform) -> Pattern:
    """A function on the events with a value, or with one of a list."""
    wanted = value if isinstance(value, list) else [value]

    def fits(event: Event) -> bool:
        v = event.value
        if isinstance(v, Curve):
            return False
        if isinstance(v, str):
            return v in wanted
        return any(not isinstance(w, str) and abs(v - w) < 1e-9 for w in wanted)

    return stack(where(pat, lambda event: not fits(event)), f(where(pat, fits)))


@function('blend = "0 .3 .6 1".bite(4, "3 [2 1] 0")')
def bite(pat: Pattern, n: Count, part: Numbers) -> Pattern:
    """The n parts of each cycle, by number, in the order and rhythm of `part`."""
    if not 1 <= n <= 4096:
        raise PatternError("bite cuts a cycle into 1 to 4096 parts", "n")

    def slice_(i: Any) -> Pattern:
        begin = Fraction(int(np.floor(i)) % n, n)
        return zoom(pat, begin, begin + Fraction(1, n))

    return bind(part, slice_, text=pat.text, place=squeezed_into)


@function('noise = ".1 .2".plyWith(3, _ + .1)')
def ply_with(pat: Pattern, n: Count, f: Transform) -> Pattern:
    """As ply, with a function once on the second copy of an event, twice on the third ..."""
    if not 1 <= n <= 64:
        raise PatternError("plyWith takes 1 to 64 copies", "n")

    def copies(value: Any) -> Pattern:
        rows = [pure(value)]
        while len(rows) < n:
            rows.append(f(rows[-1]))
        return timecat([(Fraction(1), p) for p in rows])

    made = bind(pat, copies, text=pat.text, place=squeezed_into)
    return Pattern(made.raw, period=made.period, cost=max(1.0, pat.cost) * n, text=pat.text)


@function('blend = stitch("1 0 1 1", sine, .2)')
def stitch(gate: Gate, yes: Pattern, no: Pattern) -> Pattern:
    """One pattern where the gate is 1, another where it is 0, in the rhythm of the gate."""
    return stack(struct(yes, gate), struct(no, fmap(gate, inverse)))
