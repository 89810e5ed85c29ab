"""THE table of functions, and the functions of values and forms.

Each function registers itself (registry.py), here and in the imported modules: transform, rhythm,
signals, cycle_table, combinators, choice. FUNCTIONS is all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.errors import ScoreError, nearest
from demon_live.lang import choice as choice  # registers its functions
from demon_live.lang import samples as samples  # registers itself
from demon_live.lang.cycle_table import smooth as smooth  # registers itself
from demon_live.lang.pattern import Event, Pattern, PatternError
from demon_live.lang.registry import (
    REGISTRY,
    Count,
    Function,
    Number,
    Numbers,
    Section,
    Time,
    Values,
    function,
)
from demon_live.lang.rhythm import combine, cut, fmap, inverse, mixed
from demon_live.lang.signals import SIGNALS, numbers_of
from demon_live.lang.transform import pure, slow, timecat, warp
from demon_live.notes.harmony import chord_pitches, note_number, voiced

_ZERO, _ONE = Fraction(0), Fraction(1)
#: Tones of a chord at most.
_TONES = 7

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
    "**": _power,
    "and": lambda a, b: (1 - inverse(a)) * (1 - inverse(b)),
    "or": lambda a, b: 1 - inverse(a) * inverse(b),
    "<": lambda a, b: (a < b) * 1.0,
    "<=": lambda a, b: (a <= b) * 1.0,
    ">": lambda a, b: (a > b) * 1.0,
    ">=": lambda a, b: (a >= b) * 1.0,
    "==": lambda a, b: (a == b) * 1.0,
    "!=": lambda a, b: (a != b) * 1.0,
}


def operate(op: str, left: Pattern, right: Pattern) -> Pattern:
    """left op right. A | stands on the side that gives the structure: |+|, +|, and + is |+."""
    work = OPERATORS[op.strip("|")]
    if not op.endswith("|"):
        return combine(left, right, work)
    if op.startswith("|"):
        return mixed(left, right, work)
    return combine(right, left, lambda b, a: work(a, b))


@function('blend = "0 .2 .4".add(.3)')
def add(pat: Numbers, other: Numbers) -> Pattern:
    """Plus, with the structure of the left side; the same as +."""
    return operate("+", pat, other)


@function("blend = sine.range(.2, 1).sub(.2)")
def sub(pat: Numbers, other: Numbers) -> Pattern:
    """Minus; the same as -."""
    return operate("-", pat, other)


@function("blend = sine.mul(.5)")
def mul(pat: Numbers, other: Numbers) -> Pattern:
    """Times; the same as *."""
    return operate("*", pat, other)


@function("blend = sine.div(2)")
def div(pat: Numbers, other: Numbers) -> Pattern:
    """Divided by; the same as /. By 0 gives 0."""
    return operate("/", pat, other)


@function("blend = (time / 3).mod(1)")
def mod(pat: Numbers, other: Numbers) -> Pattern:
    """The rest of a division; the same as %."""
    return operate("%", pat, other)


@function("blend = sine.pow(2)")
def pow_(pat: Numbers, other: Numbers) -> Pattern:
    """To a power, the same as **; 2 bends a curve towards its low end."""
    return operate("**", pat, other)


def _structured(name: str, sign: str, sides: str, values: str) -> None:
    """Register arithmetic that takes its structure from other sides than the left."""

    def make(pat: Numbers, other: Numbers) -> Pattern:
        return operate(sign, pat, other)

    line = f"As {name[:3]}, with the structure of {sides}; the same as {sign}."
    function(f'blend = ".4 .2".{name}("{values}")', name, line)(make)


for _word, _op, _values in (
    ("add", "+", "0 .1 .2"),
    ("sub", "-", "0 .1 .2"),
    ("mul", "*", "1 .5 .2"),
    ("div", "/", "1 2 4"),
    ("mod", "%", ".3 .2 .1"),
):
    _structured(f"{_word}Out", f"{_op}|", "the right side", _values)
    _structured(f"{_word}Mix", f"|{_op}|", "both sides", _values)


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
        end = "low" if low <= 0 else "high"
        raise PatternError("rangex goes by equal ratios: both ends must be above 0", end)
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


@function('noise = sine.mask("1 0 1 1".inv)', "inv", "The same as invert.")
@function('noise = sine.mask("1 0 1 1".invert)')
def invert(pat: Pattern) -> Pattern:
    """1 where it was 0, and 0 where it was not."""
    return fmap(pat, inverse)


#: Scales as semitones above the root.
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "harmonicminor": (0, 2, 3, 5, 7, 8, 11),
    "melodicminor": (0, 2, 3, 5, 7, 9, 11),
    "majorpentatonic": (0, 2, 4, 7, 9),
    "minorpentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}
_SCALE = re.compile(r"(?:([a-g][#bs]*\d?)(?:[\s:]+|$))?(.*)", re.IGNORECASE)


@function("lpf = run(8).scale('c4 minor').mul(20)")
def scale(pat: Numbers, name: Values) -> Pattern:
    """Numbers as steps of a scale, in semitones from its root: 'minor', 'c4 dorian'."""
    found = _SCALE.fullmatch(str(name).strip())
    root, kind = found.groups() if found else (None, "")
    steps = SCALES.get(re.sub(r"[\s:_-]", "", kind).lower())
    if steps is None:
        near = nearest(kind, SCALES)
        more = f": {near[0]}?" if near else f", but {', '.join(SCALES)}"
        raise PatternError(f"there is no scale {name!r}{more}", "name")
    return fmap(to_scale(pat, list(steps)), lambda v: v + (_note_number(root) if root else 0))


@function("blend = run(6).toScale([.1, .15, .3], .3)")
def to_scale(pat: Numbers, values: Values, octave: Number = 12) -> Pattern:
    """Numbers as places in a list; past its end it goes on, higher by an octave."""
    row = np.array(numbers_of(values))
    if not len(row):
        raise PatternError("toScale needs values", "values")

    def at(v: Any) -> Any:
        n = np.floor(v).astype(np.int64) if np.ndim(v) else int(np.floor(v))
        out = row[n % len(row)] + octave * (n // len(row))
        return out if np.ndim(v) else float(out)

    return fmap(pat, at)


@function('lpf = "c3 e3 g3".note.mul(20)')
def note(pat: Pattern) -> Pattern:
    """Note names as numbers: c3 is 48, c4 is 60."""
    return fmap(pat, _note_number)


def _note_number(value: Any) -> Any:
    """c4 -> 60, eb -> 51 (octave 3 if none is named), a number as it is."""
    return _named(note_number, value) if isinstance(value, str) else value


def _named(read: Callable[[str], Any], name: str) -> Any:
    """What a name means. Raises PatternError, with the remedy, for one that means nothing."""
    try:
        return read(name)
    except ScoreError as error:
        raise PatternError(f"{error.message}; {error.hint}") from None


def _spelled(pat: Pattern, pitches: Callable[[str], tuple[int, ...]]) -> Pattern:
    """The chords of a pattern as their pitches, all at once; numbers stay."""

    def raw(begin: Fraction, end: Fraction) -> list[Event]:
        return [
            event._replace(value=pitch)
            for event in pat.raw(begin, end)
            for pitch in (
                _named(pitches, event.value) if isinstance(event.value, str) else [event.value]
            )
        ]

    return Pattern(raw, period=pat.period, cost=pat.cost * _TONES)


@function('chord = "<Am F C^7 G/B>".voicing')
def voicing(pat: Pattern, turn: Count = 0) -> Pattern:
    """Chords in the inversion near c4, so that each moves a little; turn: higher inversions."""
    return _spelled(pat, lambda name: voiced(name, turn))


@function('bass = "<Am F C G/B>".root')
def root(pat: Pattern) -> Pattern:
    """The bass notes of chords, in octave 2: g2 for G, b2 for G/B."""
    return _spelled(pat, lambda name: (36 + chord_pitches(name)[0] % 12,))


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
