"""THE table of functions: each row of vocabulary.py with what it does.

The compiler calls them, completion and help show them, the reference page and the Python words are
made from them. Declared nowhere else.

vocabulary.py holds the words; here is what each does, and the values that operators work on.

Threads: constants and pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.lang import combinators as c
from demon_live.lang import signals as s
from demon_live.lang.pattern import Pattern, PatternError
from demon_live.lang.rhythm import combine, cut, degrade, mask, mixed, squeeze, struct, truth
from demon_live.lang.sequence import cat, pure, silence, stack, timecat
from demon_live.lang.transform import bind, fast, fmap, late, reverse
from demon_live.lang.vocabulary import TABLE

__all__ = ["NOTE", "OPERATORS", "WORDS", "Param", "Word"]

_ONE = Fraction(1)
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    kind: str
    default: Any = None
    optional: bool = False
    many: bool = False

    @property
    def shown(self) -> str:
        if self.many:
            return f"{self.name}, ..."
        default = "none" if self.default is None else str(self.default)
        return f"{self.name}={default}" if self.optional else self.name


@dataclass(frozen=True, slots=True)
class Word:
    """A function of the language. of: takes a pattern in front (p.fast(2)). lots: draws lots."""

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
        inner = f"({', '.join(p.shown for p in self.params)})" if self.params else ""
        return f"p.{self.name}{inner}" if self.of else f"{self.name}{inner}"


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
    """a to the b, and 0 where that is no number or too large to be one."""
    with np.errstate(all="ignore"):
        out = np.power(np.asarray(a, dtype=np.float64), b)
    out = np.where(np.abs(out) < 1e15, out, 0.0)
    return out if np.ndim(out) else float(out)


def _compared(fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: fn(a, b) * 1.0


#: The operators of the language on values (numbers or arrays).
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": _times,
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
    return fmap(
        pat, lambda v: (not truth(v)) * 1.0 if not isinstance(v, np.ndarray) else (v == 0) * 1.0
    )


# --- smoothing -------------------------------------------------------------------------------


def _smooth(pat: Pattern, slew: Fraction | None) -> Pattern:
    """Straight lines instead of steps: over `slew` cycles after each, or over each whole event."""
    from demon_live.lang.smooth import smooth

    return smooth(pat, slew)


# --- lists -----------------------------------------------------------------------------------

#: What looks like a note name.
NOTE = re.compile(r"[a-gA-G][#bs]*-?\d?")
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
    if not parts:
        raise PatternError("pick needs patterns to choose from")
    return bind(
        pat, lambda v: parts[int(np.floor(float(v))) % len(parts)], text=any(p.text for p in parts)
    )


def _choose(*parts: Pattern, key: int) -> Pattern:
    """One of the parts each cycle, by lot."""
    if not parts:
        raise PatternError("choose needs patterns to choose from")
    return c.by_cycle(lambda n: parts[int(s.chance(key, n) * len(parts))], parts, None)


def _swing(pat: Pattern, amount: Fraction, n: Fraction) -> Pattern:
    return c.inside(pat, n, lambda p: c.within(p, _HALF, _ONE, lambda q: late(q, amount / 2)))


# --- the table -----------------------------------------------------------------------------


def _always(pat: Pattern, f: Callable[[Pattern], Pattern]) -> Pattern:
    return f(pat)


def _sometimes(part: float) -> Callable[..., Pattern]:
    return lambda pat, f, key: c.sometimes_by(pat, part, f, key)


def _operator(sign: str) -> Callable[[Pattern, Pattern], Pattern]:
    return lambda pat, other: combine(pat, other, OPERATORS[sign])


def _inverse(n: Fraction) -> Fraction:
    if n <= 0:
        raise PatternError("outside needs a number above 0")
    return 1 / n


def _floats(value: Any) -> list[float]:
    """A number or a list of them; a word among them is an error."""
    words = [v for v in _list(value) if isinstance(v, str)]
    if words:
        raise PatternError(f"{words[0]!r} is a word where a number is needed")
    return [float(v) for v in _list(value)]


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


_MAKE: dict[str, Callable[..., Pattern]] = {
    "fast": fast,
    "slow": c_slow,
    "early": lambda p, t: late(p, -t),
    "late": late,
    "rev": reverse,
    "palindrome": c.palindrome,
    "iter": c.iter_,
    "iterBack": lambda p, n: c.iter_(p, n, True),
    "ply": c.ply,
    "inside": c.inside,
    "outside": lambda p, n, f: c.inside(p, _inverse(n), f),
    "zoom": c.zoom,
    "compress": c.compress,
    "fastGap": c.fast_gap,
    "linger": c.linger,
    "ribbon": c.ribbon,
    "rot": c.rot,
    "repeatCycles": c.repeat_cycles,
    "press": c.press,
    "brak": c.brak,
    "swing": _swing,
    "shuffle": lambda p, n, key: c.reorder(p, n, key, again=False),
    "scramble": lambda p, n, key: c.reorder(p, n, key, again=True),
    "euclidRot": c.euclid,
    "echo": c.echo,
    "pow": lambda p, o: combine(p, o, _power),
    "randcat": _choose,
    "segment": c.segment,
    "struct": struct,
    "mask": mask,
    "euclid": c.euclid,
    "degradeBy": lambda p, part, key: degrade(p, part, key),
    "degrade": lambda p, key: degrade(p, 0.5, key),
    "undegradeBy": lambda p, part, key: degrade(p, part, key, True),
    "every": c.every,
    "firstOf": c.every,
    "lastOf": c.last_of,
    "when": c.when,
    "sometimesBy": c.sometimes_by,
    "sometimes": _sometimes(0.5),
    "often": _sometimes(0.75),
    "rarely": _sometimes(0.25),
    "almostAlways": _sometimes(0.9),
    "almostNever": _sometimes(0.1),
    "always": _always,
    "never": lambda p, f: p,
    "someCyclesBy": c.some_cycles,
    "someCycles": lambda p, f, key: c.some_cycles(p, 0.5, f, key),
    "off": c.off,
    "superimpose": c.superimpose,
    "layer": lambda p, *fs: stack(*(f(p) for f in fs)),
    "chunk": c.chunk,
    "chunkBack": lambda p, n, f: c.chunk(p, n, f, True),
    "within": c.within,
    "range": _range,
    "rangex": _rangex,
    "range2": _range2,
    "smooth": _smooth,
    "quantize": lambda p, g: c.quantize(p, _floats(g) if isinstance(g, list) else _floats(g)[0]),
    "clamp": _clamp,
    "abs": lambda p: fmap(p, np.abs),
    "round": lambda p: fmap(p, lambda v: np.floor(v + 0.5)),
    "floor": lambda p: fmap(p, np.floor),
    "ceil": lambda p: fmap(p, np.ceil),
    "invert": _flipped,
    "add": _operator("+"),
    "sub": _operator("-"),
    "mul": _operator("*"),
    "div": _operator("/"),
    "mod": _operator("%"),
    "squeeze": lambda p, o: squeeze(p, o, OPERATORS["+"]),
    "note": _note,
    "pick": _pick,
    "stack": stack,
    "cat": cat,
    "slowcat": cat,
    "seq": _seq,
    "fastcat": _seq,
    "sequence": _seq,
    "stepcat": lambda *x: timecat(list(x)),
    "timecat": lambda *x: timecat(list(x)),
    "arrange": c.arrange,
    "choose": _choose,
    "polyrhythm": stack,
    "mini": lambda p: p,
    "pure": lambda p: p,
    "run": _run,
    "ramp": _ramp,
    "envelope": _envelope,
    "irand": lambda n, key: s.irand(n, key),
    "linvar": lambda v, n: s.sweep(_floats(v), s.as_lengths(n), _straight),
    "sinvar": lambda v, n: s.sweep(_floats(v), s.as_lengths(n), _sinus),
    "expvar": lambda v, n: s.sweep(_floats(v), s.as_lengths(n), _expo),
    "var": lambda v, n: s.var(_list(v), s.as_lengths(n)),
}

_ENTRY = re.compile(r"(\w+)\(([^)]*)\)\s*(.*)")


def _param(spec: str) -> Param:
    """ "low:P=1" -> Param: a default makes it optional, a leading * takes any number."""
    name, _, kind = spec.partition(":")
    kind, equals, default = kind.partition("=")
    value: Fraction | int | float | None = None
    if default and default != "none":
        exact = Fraction(default)
        value = int(exact) if kind == "I" else float(exact) if kind == "R" else exact
    return Param(name.lstrip("*"), kind, value, bool(equals), name.startswith("*"))


def _read(table: str) -> dict[str, Word]:
    """The rows of the vocabulary, joined with what they do. A row without it fails at import."""
    out: dict[str, Word] = {}
    group = ""
    lines = [line for line in table.split("\n") if line.strip()]
    i = 0
    while i < len(lines):
        if lines[i].startswith("=="):
            group = lines[i][2:].strip()
            i += 1
            continue
        found = _ENTRY.match(lines[i])
        if found is None:
            raise ValueError(f"vocabulary: {lines[i]!r}")
        name, params, flags = found.groups()
        out[name] = Word(
            name,
            tuple(_param(p) for p in params.split()),
            _MAKE[name],
            lines[i + 1].strip(),
            lines[i + 2].strip(),
            of="free" not in flags,
            lots="lots" in flags,
            group=group,
        )
        i += 3
    return out


#: name -> Word
WORDS: dict[str, Word] = _read(TABLE)
