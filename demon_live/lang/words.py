"""THE table of functions: name, parameters, meaning, one line of help, an example that is run as a test.

The compiler calls them, completion and help show them, the reference page and the Python words are
made from them. Declared nowhere else.

Parameters: a letter says what is taken, and what the function gets.
    T time: exact Fraction      I whole number: int         R number: float
    P pattern                   G gate, a pattern of yes/no F function: Pattern -> Pattern
    L list of numbers or one    S section: [cycles, pattern] "name?=default" may be left out, "*name" any number
T, I and R may be patterns in a score ("fast("<1 2>")"): the compiler binds them.

Threads: constants and pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang import combinators as c
from demon_live.lang import signals as s
from demon_live.lang.pattern import (
    Curve,
    Pattern,
    PatternError,
    cat,
    fast,
    fmap,
    late,
    pure,
    reverse,
    signal,
    silence,
    stack,
    timecat,
)
from demon_live.lang.rhythm import combine, cut, degrade, mask, mixed, squeeze, struct, truth

__all__ = ["OPERATORS", "WORDS", "Param", "Word", "find_word"]

_ONE = Fraction(1)
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    kind: str
    default: Any = None
    optional: bool = False
    many: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A function of the language. of: does it take a pattern in front (p.fast(2))? lots: draws lots."""

    name: str
    params: tuple[Param, ...]
    make: Callable[..., Pattern]
    help: str
    example: str
    of: bool = True
    lots: bool = False
    group: str = ""

    @property
    def signature(self) -> str:
        """As it is written: p.range(low, high)."""
        shown = []
        for p in self.params:
            shown.append(f"{p.name}, ..." if p.many else f"{p.name}={_plain(p.default)}" if p.optional else p.name)
        inner = f"({', '.join(shown)})" if shown else ""
        return f"p.{self.name}{inner}" if self.of else f"{self.name}{inner}"


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


# --- arithmetic ------------------------------------------------------------------------------


def _divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0: a curve must stay finite."""
    if np.ndim(a) or np.ndim(b):
        a, b = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
        return np.divide(a, b, out=np.zeros(a.shape), where=b != 0)
    return a / b if b else 0.0


def _modulo(a: Any, b: Any) -> Any:
    return a - np.floor(_divide(a, b)) * b


def _compared(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: fn(a, b) * 1.0


#: The operators of the language on values (numbers or arrays).
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _modulo,
    "<": _compared(lambda a, b: a < b),
    "<=": _compared(lambda a, b: a <= b),
    ">": _compared(lambda a, b: a > b),
    ">=": _compared(lambda a, b: a >= b),
    "==": _compared(lambda a, b: a == b),
    "!=": _compared(lambda a, b: a != b),
}


def _range(pat: Pattern, low: Pattern, high: Pattern) -> Pattern:
    if low.const is not None and high.const is not None:
        a, b = low.const[0], high.const[0]
        width = b - a
        return fmap(pat, lambda v: v * width + a)
    width_pattern = mixed(high, low, OPERATORS["-"])
    return cut(cut(pat, width_pattern, OPERATORS["*"]), low, OPERATORS["+"])


def _rangex(pat: Pattern, low: float, high: float) -> Pattern:
    if low <= 0 or high <= 0:
        raise PatternError("rangex is exponential: both ends must be above 0")
    a, b = np.log(low), np.log(high)
    return fmap(pat, lambda v: np.exp(v * (b - a) + a))


def _range2(pat: Pattern, low: Pattern, high: Pattern) -> Pattern:
    return _range(fmap(pat, lambda v: v * 0.5 + 0.5), low, high)


def _clamp(pat: Pattern, low: float, high: float) -> Pattern:
    return fmap(pat, lambda v: np.minimum(np.maximum(v, low), high))


def _flipped(pat: Pattern) -> Pattern:
    return fmap(pat, lambda v: (not truth(v)) * 1.0 if not isinstance(v, np.ndarray) else (v == 0) * 1.0)


# --- smoothing -------------------------------------------------------------------------------


def _smooth(pat: Pattern, slew: Fraction | None) -> Pattern:
    """Straight lines instead of steps: over `slew` cycles after each, or over each whole event."""
    from demon_live.lang.smooth import smooth

    return smooth(pat, slew)


# --- lists -----------------------------------------------------------------------------------

_NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


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


def _note(pat: Pattern) -> Pattern:
    return fmap(pat, _note_number)


def _seq(*parts: Pattern) -> Pattern:
    return timecat([(_ONE, p) for p in parts])


def _run(n: int) -> Pattern:
    if not 0 <= n <= 4096:
        raise PatternError("run goes from 0 to 4096")
    return timecat([(_ONE, pure(i)) for i in range(n)])


def _ramp(n: Fraction) -> Pattern:
    return c_slow(s.SIGNALS["saw"][0], n)


def c_slow(pat: Pattern, n: Fraction) -> Pattern:
    return silence if n == 0 else fast(pat, 1 / n)


def _envelope(low: Pattern, high: Pattern, n: Fraction) -> Pattern:
    return _range(_ramp(n), low, high)


def _straight(x: Any) -> Any:
    return x


def _sinus(x: Any) -> Any:
    return 0.5 - 0.5 * np.cos(x * np.pi)


def _expo(x: Any) -> Any:
    return x * x


def _pick(pat: Pattern, *parts: Pattern) -> Pattern:
    from demon_live.lang.pattern import bind

    if not parts:
        raise PatternError("pick needs patterns to choose from")
    return bind(pat, lambda v: parts[int(np.floor(float(v))) % len(parts)], text=any(p.text for p in parts))


def _choose(*parts: Pattern, key: int) -> Pattern:
    """One of the parts each cycle, by lot."""
    if not parts:
        raise PatternError("choose needs patterns to choose from")
    return c.by_cycle(lambda n: parts[int(s.chance(key, n) * len(parts))], parts, None)


def _swing(pat: Pattern, amount: Fraction, n: Fraction) -> Pattern:
    return c.inside(pat, n, lambda p: c.within(p, _HALF, _ONE, lambda q: late(q, amount / 2)))


# --- the table -------------------------------------------------------------------------------


def _params(spec: str) -> tuple[Param, ...]:
    """ "low:P high:P=1" -> Params. A default makes optional; a leading * takes any number."""
    out = []
    for item in spec.split():
        name, _, kind = item.partition(":")
        kind, equals, default = kind.partition("=")
        many = name.startswith("*")
        value: Any = None if default in ("", "none") else Fraction(default)
        if value is not None and kind == "I":
            value = int(value)
        elif value is not None and kind == "R":
            value = float(value)
        out.append(Param(name.lstrip("*"), kind, value, bool(equals), many))
    return tuple(out)


def _w(name: str, spec: str, make: Callable[..., Pattern], help_: str, example: str, **more: Any) -> Word:
    return Word(name, _params(spec), make, help_, example, **more)


def _always(pat: Pattern, f: Callable[[Pattern], Pattern]) -> Pattern:
    return f(pat)


def _sometimes(part: float) -> Callable[..., Pattern]:
    return lambda pat, f, key: c.sometimes_by(pat, part, f, key)


def _operator(sign: str) -> Callable[[Pattern, Pattern], Pattern]:
    return lambda pat, other: combine(pat, other, OPERATORS[sign])


_ROWS: tuple[Word, ...] = (
    # time
    _w("fast", "factor:T", fast, "Faster by a factor; the factor may be a pattern.", 'blend = "0 .5 1".fast(2)', group="time"),
    _w("slow", "factor:T", c_slow, "Slower by a factor.", "blend = sine.slow(4)", group="time"),
    _w("early", "cycles:T", lambda p, t: late(p, -t), "Earlier by a number of cycles.", "blend = saw.early(1/4)", group="time"),
    _w("late", "cycles:T", late, "Later by a number of cycles.", "blend = saw.late(1/8)", group="time"),
    _w("rev", "", reverse, "Each cycle backwards.", 'blend = "0 .3 1".rev', group="time"),
    _w("palindrome", "", c.palindrome, "Forwards, then backwards, in turn.", 'blend = "0 .3 1".palindrome', group="time"),
    _w("iter", "n:I", c.iter_, "Begins 1/n of a cycle further on in each cycle.", 'blend = "0 .3 .6 1".iter(4)', group="time"),
    _w("iterBack", "n:I", lambda p, n: c.iter_(p, n, True), "Begins 1/n of a cycle earlier in each cycle.", 'blend = "0 .3 .6 1".iterBack(4)', group="time"),
    _w("ply", "n:T", c.ply, "Each event n times in its own time.", 'noise = "0 .4".ply("<1 2 3>")', group="time"),
    _w("inside", "n:T f:F", c.inside, "A function on n cycles at a time, as if they were one.", 'blend = "0 .3 .6 1".inside(2, rev)', group="time"),
    _w("outside", "n:T f:F", lambda p, n, f: c.inside(p, _inverse(n), f), "A function on 1/n of a cycle at a time.", 'blend = "<0 .3 .6 1>".outside(4, rev)', group="time"),
    _w("zoom", "begin:T end:T", c.zoom, "A part of each cycle, stretched over the whole.", 'blend = "0 .3 .6 1".zoom(1/4, 3/4)', group="time"),
    _w("compress", "begin:T end:T", c.compress, "Each cycle squeezed into a part of it.", 'gain = "1 .5".compress(1/4, 3/4)', group="time"),
    _w("fastGap", "n:T", c.fast_gap, "Each cycle n times as fast, then rest.", 'gain = "1 .5".fastGap(2)', group="time"),
    _w("linger", "part:T", c.linger, "The first part of each cycle, over and over.", 'blend = "0 .3 .6 1".linger(1/4)', group="time"),
    _w("ribbon", "start:T length:T", c.ribbon, "A stretch of the pattern, over and over: a loop of chance too.", "blend = rand.segment(8).ribbon(3, 1)", group="time"),
    _w("rot", "n:I", c.rot, "The values n events to the left, the rhythm as it is.", 'blend = "0 .3 [.6 1]".rot(1)', group="time"),
    _w("repeatCycles", "n:I", c.repeat_cycles, "Each cycle n times.", 'blend = "<0 .3 1>".repeatCycles(2)', group="time"),
    _w("press", "part:T=1/2", c.press, "Each event begins later, by half (or a part) of its length.", 'gain = "1 .5 1 .5".press', group="time"),
    _w("brak", "", c.brak, "Every other cycle squeezed into its middle half: a breakbeat.", 'gain = "1 .5".brak', group="time"),
    _w("swing", "amount:T n:T", _swing, "The second half of each n-th of a cycle, late by a part.", 'noise = "0 .4*7".swing(1/3, 4)', group="time"),
    # structure
    _w("segment", "n:T", c.segment, "A curve as n held values a cycle.", "denoise = sine.range(.3, 1).segment(4)", group="structure"),
    _w("struct", "pulses:G", struct, "The values of the pattern in the rhythm of another.", 'noise = sine.struct("x ~ x x")', group="structure"),
    _w("mask", "gate:G", mask, "Only where the gate is 1; rests elsewhere.", 'noise = saw.mask("<1 [0 1]>")', group="structure"),
    _w("euclid", "k:I n:I turn:I=0", c.euclid, "On k of n steps, spread evenly, turned left.", "noise = .5.euclid(3, 8)" if False else "noise = sine.euclid(3, 8)", group="structure"),
    _w("degradeBy", "part:R", lambda p, part, key: degrade(p, part, key), "Loses this part of the events, by lot.", 'noise = ".3*8".degradeBy(.4)', lots=True, group="structure"),
    _w("degrade", "", lambda p, key: degrade(p, 0.5, key), "Loses half of the events, by lot.", 'noise = ".3*8".degrade', lots=True, group="structure"),
    _w("undegradeBy", "part:R", lambda p, part, key: degrade(p, part, key, True), "Keeps only this part of the events.", 'noise = ".3*8".undegradeBy(.4)', lots=True, group="structure"),
    # functions on parts
    _w("every", "n:I f:F", c.every, "A function on cycles 0, n, 2n ...", 'blend = "0 .3 1".every(4, rev)', group="functions"),
    _w("firstOf", "n:I f:F", c.every, "The same as every.", 'blend = "0 .3 1".firstOf(4, rev)', group="functions"),
    _w("lastOf", "n:I f:F", c.last_of, "A function on cycles n-1, 2n-1 ...", 'blend = "0 .3 1".lastOf(4, fast(2))', group="functions"),
    _w("when", "gate:G f:F", c.when, "A function where the gate is 1.", 'blend = "0 .3 1".when("<0 1>", rev)', group="functions"),
    _w("sometimesBy", "part:R f:F", c.sometimes_by, "A function on this part of the events, by lot.", 'blend = ".2 .4 .6 .8".sometimesBy(.3, _ + .2)', lots=True, group="functions"),
    _w("sometimes", "f:F", _sometimes(0.5), "A function on half of the events.", 'blend = ".2*8".sometimes(_ + .3)', lots=True, group="functions"),
    _w("often", "f:F", _sometimes(0.75), "A function on three quarters of the events.", 'blend = ".2*8".often(_ + .3)', lots=True, group="functions"),
    _w("rarely", "f:F", _sometimes(0.25), "A function on a quarter of the events.", 'blend = ".2*8".rarely(_ + .3)', lots=True, group="functions"),
    _w("almostAlways", "f:F", _sometimes(0.9), "A function on nine tenths of the events.", 'blend = ".2*8".almostAlways(_ + .3)', lots=True, group="functions"),
    _w("almostNever", "f:F", _sometimes(0.1), "A function on a tenth of the events.", 'blend = ".2*8".almostNever(_ + .3)', lots=True, group="functions"),
    _w("always", "f:F", _always, "A function, always.", 'blend = "0 1".always(rev)', group="functions"),
    _w("never", "f:F", lambda p, f: p, "No function at all: to switch one off.", 'blend = "0 1".never(rev)', group="functions"),
    _w("someCyclesBy", "part:R f:F", c.some_cycles, "A function on this part of the cycles, by lot.", 'blend = "0 .5 1".someCyclesBy(.3, rev)', lots=True, group="functions"),
    _w("someCycles", "f:F", lambda p, f, key: c.some_cycles(p, 0.5, f, key), "A function on half of the cycles.", 'blend = "0 .5 1".someCycles(rev)', lots=True, group="functions"),
    _w("off", "cycles:T f:F", c.off, "The pattern, and a function of it later.", 'noise = ".4 ~".off(1/8, _ * .5)', group="functions"),
    _w("superimpose", "f:F", c.superimpose, "The pattern, and a function of it on top.", 'noise = ".2 .4".superimpose(fast(2))', group="functions"),
    _w("layer", "*f:F", lambda p, *fs: stack(*(f(p) for f in fs)), "Several functions of the pattern at once.", 'noise = ".2 .4".layer(rev, fast(2))', group="functions"),
    _w("chunk", "n:I f:F", c.chunk, "A function on one n-th of the pattern, the next n-th in the next cycle.", 'blend = ".2*8".chunk(4, _ + .3)', group="functions"),
    _w("chunkBack", "n:I f:F", lambda p, n, f: c.chunk(p, n, f, True), "As chunk, from the last n-th to the first.", 'blend = ".2*8".chunkBack(4, _ + .3)', group="functions"),
    _w("within", "begin:T end:T f:F", c.within, "A function on a part of each cycle.", 'blend = ".2*8".within(0, 1/2, fast(2))', group="functions"),
    # values
    _w("range", "low:P high:P", _range, "From 0..1 to low..high.", "blend = sine.range(.2, .9)", group="values"),
    _w("rangex", "low:R high:R", _rangex, "From 0..1 to low..high by equal ratios: for frequencies.", "lpf = saw.rangex(200, 8000)", group="values"),
    _w("range2", "low:P high:P", _range2, "From -1..1 to low..high.", "blend = sine2.range2(.2, .9)", group="values"),
    _w("smooth", "cycles:T=none", _smooth, "Straight lines instead of steps: for a time after each, or over each whole event.", 'noise = "0 .2 [0 .4]*2".smooth(.1)', group="values"),
    _w("quantize", "grid:L", lambda p, g: c.quantize(p, [float(x) for x in g] if isinstance(g, list) else float(g)), "The nearest multiple of a step, or the nearest of a list.", "denoise = sine.quantize(.25)", group="values"),
    _w("clamp", "low:R high:R", _clamp, "Never under low, never over high.", "blend = (sine * 2).clamp(.2, .9)", group="values"),
    _w("abs", "", lambda p: fmap(p, np.abs), "Without its sign.", "blend = sine2.abs", group="values"),
    _w("round", "", lambda p: fmap(p, lambda v: np.floor(v + 0.5)), "To the nearest whole number.", "seed = (sine * 4).round", group="values"),
    _w("floor", "", lambda p: fmap(p, np.floor), "Down to a whole number.", "seed = (saw * 4).floor", group="values"),
    _w("ceil", "", lambda p: fmap(p, np.ceil), "Up to a whole number.", "seed = (saw * 4).ceil", group="values"),
    _w("invert", "", _flipped, "1 where it was 0, and 0 where it was not.", 'noise = sine.mask("1 0 1 1".invert)', group="values"),
    _w("add", "other:P", _operator("+"), "Plus, with the structure of the left side; the same as +.", 'blend = "0 .2 .4".add(.3)', group="values"),
    _w("sub", "other:P", _operator("-"), "Minus; the same as -.", "blend = sine.sub(.2)", group="values"),
    _w("mul", "other:P", _operator("*"), "Times; the same as *.", "blend = sine.mul(.5)", group="values"),
    _w("div", "other:P", _operator("/"), "Divided by; the same as /. By 0 gives 0.", "blend = sine.div(2)", group="values"),
    _w("mod", "other:P", _operator("%"), "The rest of a division; the same as %.", "blend = (time / 3).mod(1)", group="values"),
    _w("squeeze", "other:P", lambda p, o: squeeze(p, o, OPERATORS["+"]), "Plus, with a cycle of the other squeezed into each event.", 'blend = "0 .5".squeeze("0 .1 .2")', group="values"),
    _w("note", "", _note, "Note names as numbers: c3 is 48, c4 is 60.", 'lpf = "c3 e3 g3".note.mul(20)', group="values"),
    _w("pick", "*part:P", _pick, "Numbers choose among the parts: 0 is the first.", 'blend = "<0 1>".pick(sine, "0 1")', group="values"),
    # several patterns
    _w("stack", "*part:P", stack, "All at once; the one that began last is heard.", 'noise = stack(.1, "~ .4")', of=False, group="several"),
    _w("cat", "*part:P", cat, "One after the other, a cycle each.", "blend = cat(saw, sine)", of=False, group="several"),
    _w("slowcat", "*part:P", cat, "The same as cat.", "blend = slowcat(saw, sine)", of=False, group="several"),
    _w("seq", "*part:P", _seq, "One after the other in one cycle.", "blend = seq(0, .5, saw)", of=False, group="several"),
    _w("fastcat", "*part:P", _seq, "The same as seq.", "blend = fastcat(0, .5, saw)", of=False, group="several"),
    _w("sequence", "*part:P", _seq, "The same as seq.", "blend = sequence(0, .5, saw)", of=False, group="several"),
    _w("stepcat", "*section:S", lambda *x: timecat(list(x)), "In one cycle, by weight: [3, pattern], [1, pattern].", 'blend = stepcat([3, "0 1"], [1, .5])', of=False, group="several"),
    _w("timecat", "*section:S", lambda *x: timecat(list(x)), "The same as stepcat.", 'blend = timecat([3, "0 1"], [1, .5])', of=False, group="several"),
    _w("arrange", "*section:S", c.arrange, "A form: each section for its number of cycles.", "blend = arrange([8, .2], [4, saw.slow(4)])", of=False, group="several"),
    _w("choose", "*part:P", _choose, "One of the parts each cycle, by lot.", "blend = choose(saw, sine, .5)", of=False, lots=True, group="several"),
    _w("polyrhythm", "*part:P", stack, "The same as stack.", 'noise = polyrhythm(".1 .2", ".3")', of=False, group="several"),
    _w("mini", "pattern:P", lambda p: p, "Mini-notation as a value; the double quotes alone do it too.", 'blend = mini("0 1")', of=False, group="several"),
    _w("pure", "value:P", lambda p: p, "A plain value.", "blend = pure(.5)", of=False, group="several"),
    _w("run", "n:I", _run, "0 1 2 ... n-1 in a cycle.", "seed = run(4)", of=False, group="several"),
    # signals with arguments
    _w("ramp", "cycles:T", _ramp, "From 0 to 1 over a number of cycles, again and again.", "blend = ramp(8)", of=False, group="signals"),
    _w("envelope", "low:P high:P cycles:T", _envelope, "From low to high over a number of cycles, again and again.", "blend = envelope(.2, 1, 8)", of=False, group="signals"),
    _w("irand", "n:R", lambda n, key: s.irand(n, key), "Whole numbers 0 .. n-1 by lot.", "seed = irand(8).segment(1)", of=False, lots=True, group="signals"),
    _w("linvar", "values:L cycles:L=4", lambda v, n: s.sweep([float(x) for x in _list(v)], s.as_lengths(n), _straight), "FoxDot: in straight lines through the values, each in so many cycles.", "blend = linvar([0, 1], 8)", of=False, group="signals"),
    _w("sinvar", "values:L cycles:L=4", lambda v, n: s.sweep([float(x) for x in _list(v)], s.as_lengths(n), _sinus), "FoxDot: as linvar, in waves.", "blend = sinvar([0, 1], 8)", of=False, group="signals"),
    _w("expvar", "values:L cycles:L=4", lambda v, n: s.sweep([float(x) for x in _list(v)], s.as_lengths(n), _expo), "FoxDot: as linvar, slow at first.", "blend = expvar([0, 1], 8)", of=False, group="signals"),
    _w("var", "values:L cycles:L=4", lambda v, n: s.var(_list(v), s.as_lengths(n)), "FoxDot: each value for so many cycles.", "blend = var([.2, .9], [6, 2])", of=False, group="signals"),
)


def _inverse(n: Fraction) -> Fraction:
    if n <= 0:
        raise PatternError("outside needs a number above 0")
    return 1 / n


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


#: name -> Word
WORDS: dict[str, Word] = {w.name: w for w in _ROWS}


def find_word(name: str) -> Word | None:
    return WORDS.get(name)


def hold(values: Any) -> Pattern:
    """A curve from a plain function of time; for the Python words."""
    return signal(Curve(values), None)
