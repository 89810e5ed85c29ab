"""THE table of functions, and the functions of values and forms.

Each function registers itself (registry.py), here and in the imported modules: transform, rhythm,
signals, cycle_table, combinators. FUNCTIONS is all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang import samples as samples  # registers itself
from demon_live.lang.combinators import by_cycle
from demon_live.lang.cycle_table import smooth as smooth  # registers itself
from demon_live.lang.pattern import Pattern, PatternError
from demon_live.lang.registry import (
    REGISTRY,
    Count,
    Function,
    Lots,
    Number,
    Numbers,
    Section,
    Time,
    Values,
    function,
)
from demon_live.lang.rhythm import bind, combine, cut, fmap, mixed, truth
from demon_live.lang.signals import SIGNALS, chance, numbers_of
from demon_live.lang.transform import pure, slow, timecat, warp

_ZERO, _ONE = Fraction(0), Fraction(1)

# --- arithmetic ------------------------------------------------------------------------------


def _divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0: a curve must stay finite."""
    if np.ndim(a) or np.ndim(b):
        a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
        return np.divide(a, b, out=np.zeros(a.shape), where=b != 0)
    return a / b if b else 0.0


def _times(a: Any, b: Any) -> Any:
    """a * b; whole numbers beyond 2^53 become floats, lest they grow without end."""
    out = a * b
    return float(out) if type(out) is int and abs(out) > 1 << 53 else out


def _modulo(a: Any, b: Any) -> Any:
    return a - np.floor(_divide(a, b)) * b


def _power(a: Any, b: Any) -> Any:
    """a to the b, and 0 where that is not a number or too large."""
    with np.errstate(all="ignore"):
        out = np.power(np.asarray(a, dtype=np.float64), b)
    out = np.where(np.abs(out) < 1e15, out, 0.0)
    return out if np.ndim(out) else float(out)


#: The operators of the language on values (numbers or arrays).
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": _times,
    "/": _divide,
    "%": _modulo,
    "<": lambda a, b: (a < b) * 1.0,
    "<=": lambda a, b: (a <= b) * 1.0,
    ">": lambda a, b: (a > b) * 1.0,
    ">=": lambda a, b: (a >= b) * 1.0,
    "==": lambda a, b: (a == b) * 1.0,
    "!=": lambda a, b: (a != b) * 1.0,
}


@function('blend = "0 .2 .4".add(.3)')
def add(pat: Numbers, other: Numbers) -> Pattern:
    """Plus, with the structure of the left side; the same as +."""
    return combine(pat, other, OPERATORS["+"])


@function("blend = sine.range(.2, 1).sub(.2)")
def sub(pat: Numbers, other: Numbers) -> Pattern:
    """Minus; the same as -."""
    return combine(pat, other, OPERATORS["-"])


@function("blend = sine.mul(.5)")
def mul(pat: Numbers, other: Numbers) -> Pattern:
    """Times; the same as *."""
    return combine(pat, other, OPERATORS["*"])


@function("blend = sine.div(2)")
def div(pat: Numbers, other: Numbers) -> Pattern:
    """Divided by; the same as /. By 0 gives 0."""
    return combine(pat, other, OPERATORS["/"])


@function("blend = (time / 3).mod(1)")
def mod(pat: Numbers, other: Numbers) -> Pattern:
    """The rest of a division; the same as %."""
    return combine(pat, other, OPERATORS["%"])


@function("blend = sine.pow(2)")
def pow_(pat: Numbers, other: Numbers) -> Pattern:
    """To a power; 2 bends a curve towards its low end."""
    return combine(pat, other, _power)


# --- ranges ----------------------------------------------------------------------------------


@function("blend = sine.range(.2, .9)")
def range_(pat: Numbers, low: Numbers, high: Numbers) -> Pattern:
    """From 0..1 to low..high."""
    if low.const is not None and high.const is not None:
        a, b = low.const[0], high.const[0]
        width = b - a
        return fmap(pat, lambda v: v * width + a)
    width_pattern = mixed(high, low, OPERATORS["-"])
    return cut(cut(pat, width_pattern, OPERATORS["*"]), low, OPERATORS["+"])


@function("lpf = saw.rangex(200, 8000)")
def rangex(pat: Numbers, low: Number, high: Number) -> Pattern:
    """From 0..1 to low..high by equal ratios: for frequencies."""
    if low <= 0 or high <= 0:
        raise PatternError("rangex is exponential: both ends must be above 0")
    a, b = np.log(low), np.log(high)
    return fmap(pat, lambda v: np.exp(v * (b - a) + a))


@function("blend = sine2.range2(.2, .9)")
def range2(pat: Numbers, low: Numbers, high: Numbers) -> Pattern:
    """From -1..1 to low..high."""
    return range_(fmap(pat, lambda v: v * 0.5 + 0.5), low, high)


@function("blend = ramp(8)")
def ramp(cycles: Time) -> Pattern:
    """From 0 to 1 over a number of cycles, again and again."""
    return slow(SIGNALS["saw"][0], cycles)


@function("blend = envelope(.2, 1, 8)")
def envelope(low: Numbers, high: Numbers, cycles: Time) -> Pattern:
    """From low to high over a number of cycles, again and again."""
    return range_(ramp(cycles), low, high)


# --- values ----------------------------------------------------------------------------------


@function("denoise = sine.quantize(.25)")
def quantize(pat: Numbers, grid: Values) -> Pattern:
    """The nearest multiple of a step, or the nearest of a list."""
    if not isinstance(grid, list):
        (step,) = numbers_of(grid)
        if step <= 0:
            raise PatternError("quantize needs a step above 0")
        return fmap(pat, lambda v: np.floor(v / step + 0.5) * step)
    values = np.array(sorted(numbers_of(grid)))
    if not len(values):
        raise PatternError("quantize needs values")
    middles = (values[1:] + values[:-1]) / 2

    def nearest(v: Any) -> Any:
        out = values[np.searchsorted(middles, v, side="right")]
        return out if np.ndim(v) else float(out)

    return fmap(pat, nearest)


@function("blend = (sine * 2).clamp(.2, .9)")
def clamp(pat: Numbers, low: Number, high: Number) -> Pattern:
    """Never under low, never over high."""
    return fmap(pat, lambda v: np.minimum(np.maximum(v, low), high))


@function("blend = sine2.abs")
def abs_(pat: Numbers) -> Pattern:
    """Without its sign."""
    return fmap(pat, np.abs)


@function("seed = (sine * 4).round")
def round_(pat: Numbers) -> Pattern:
    """To the nearest whole number."""
    return fmap(pat, lambda v: np.floor(v + 0.5))


@function("seed = (saw * 4).floor")
def floor(pat: Numbers) -> Pattern:
    """Down to a whole number."""
    return fmap(pat, np.floor)


@function("seed = (saw * 4).ceil")
def ceil(pat: Numbers) -> Pattern:
    """Up to a whole number."""
    return fmap(pat, np.ceil)


@function('noise = sine.mask("1 0 1 1".invert)')
def invert(pat: Pattern) -> Pattern:
    """1 where it was 0, and 0 where it was not."""

    def inverse(v: Any) -> Any:
        return (v == 0) * 1.0 if isinstance(v, np.ndarray) else (not truth(v)) * 1.0

    return fmap(pat, inverse)


#: A note name.
NOTE = re.compile(r"[a-gA-G][#bs]*-?\d?")
_NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


@function('lpf = "c3 e3 g3".note.mul(20)')
def note(pat: Pattern) -> Pattern:
    """Note names as numbers: c3 is 48, c4 is 60."""
    return fmap(pat, _note_number)


def _note_number(value: Any) -> Any:
    """c4 -> 60, eb -> 63 (octave 4 if none is named), a number as it is."""
    if not isinstance(value, str):
        return value
    name = value.lower()
    letter, rest = name[:1], name[1:]
    shift = 0
    while rest and rest[0] in "#bs":
        shift += -1 if rest[0] == "b" else 1
        rest = rest[1:]
    if letter not in _NOTES or not (rest == "" or rest.lstrip("-").isdigit()):
        raise PatternError(f"{value!r} is no note name")
    octave = int(rest) if rest else 3
    return _NOTES[letter] + shift + 12 * (octave + 1)


@function('blend = "<0 1>".pick(sine, "0 1")')
def pick(pat: Numbers, *part: Pattern) -> Pattern:
    """Numbers choose among the parts: 0 is the first."""
    if not part:
        raise PatternError("pick needs patterns to choose from")
    return bind(
        pat, lambda v: part[int(np.floor(float(v))) % len(part)], text=any(p.text for p in part)
    )


# --- forms -----------------------------------------------------------------------------------


@function("seed = run(4)")
def run(n: Count) -> Pattern:
    """0 1 2 ... n-1 in a cycle."""
    if not 0 <= n <= 4096:
        raise PatternError("run goes from 0 to 4096")
    return timecat([(_ONE, pure(i)) for i in range(n)])


@function('blend = mini("0 1")', "mini")
def mini_(pattern: Pattern) -> Pattern:
    """Mini-notation as a value; the double quotes alone do it too."""
    return pattern


@function("blend = pure(.5)", "pure")
def pure_(value: Pattern) -> Pattern:
    """A plain value."""
    return value


@function("blend = randcat(saw, sine, .5)", "randcat", "The same as choose.")
@function("blend = choose(saw, sine, .5)")
def choose(*part: Pattern, key: Lots) -> Pattern:
    """One of the parts each cycle, by lot."""
    if not part:
        raise PatternError("choose needs patterns to choose from")
    return by_cycle(lambda n: part[int(chance(key, n) * len(part))], part, None)


@function("blend = arrange([4, .2], [2, saw.slow(2)])")
def arrange(*section: Section) -> Pattern:
    """A form: each section for its number of cycles."""
    total = sum((n for n, _ in section), _ZERO)
    if any(n <= 0 for n, _ in section) or not section:
        raise PatternError("a section's length must be above 0")
    # A fast section of a slowed cycle: its cost per cycle is that of its pattern.
    return _slowed(
        timecat([(n, _sped(p, n)) for n, p in section]), total, max(p.cost for _, p in section)
    )


def _sped(pat: Pattern, n: Fraction) -> Pattern:
    """fast(n) of a section that will be slowed again, with an unchanged cost."""
    cheap = Pattern(
        pat.raw, period=pat.period, cost=1, curve=pat.curve, const=pat.const, text=pat.text
    )
    return warp(cheap, n, _ZERO)


def _slowed(pat: Pattern, n: Fraction, cost: float) -> Pattern:
    slow = warp(pat, 1 / n, _ZERO)
    return Pattern(slow.raw, period=slow.period, cost=cost, text=pat.text)


#: name -> Function, methods first.
FUNCTIONS: dict[str, Function] = dict(sorted(REGISTRY.items(), key=lambda item: not item[1].method))
