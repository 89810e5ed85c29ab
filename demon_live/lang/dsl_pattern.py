"""Expressions of the score language as Python objects: what demon_live.dsl is made of.

A Pat holds a syntax tree, nothing more: it is unparsed to a line of score and goes through the same
parser and the same checks. The methods are those of words.py (a test compares them), with the same
names, arguments and help.

Threads: immutable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from demon_live.errors import ScoreError
from demon_live.lang.syntax import (
    Bin,
    Call,
    Expr,
    Hole,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    Text,
)
from demon_live.lang.unparse import unparse_expr

__all__ = ["Function", "Pat", "Value", "exact", "to_expr"]


def exact(number: float | Fraction) -> Fraction:
    """A Python number as the exact one that was meant: 1/3 is a third, .1 a tenth."""
    if isinstance(number, (int, Fraction)):
        return Fraction(number)
    if number != number or number in (float("inf"), float("-inf")):
        raise ScoreError(f"{number} is no number for a score")
    decimal = Fraction(repr(number))
    near = decimal.limit_denominator(5040)
    return near if float(near) == number else decimal


def to_expr(value: Value) -> Expr:
    """A Python value as an expression: numbers, strings as mini-notation, lists, patterns."""
    if isinstance(value, Pat):
        return value.node
    if isinstance(value, bool):
        return Num(0, 0, Fraction(int(value)))
    if isinstance(value, (int, float, Fraction)):
        return Num(0, 0, exact(value))
    if isinstance(value, str):
        return Mini(0, 0, value)
    if isinstance(value, (list, tuple)):
        return ListNode(0, 0, tuple(to_expr(v) for v in value))
    raise ScoreError(
        f"{value!r} is no pattern", hint="numbers, strings of mini-notation, lists and patterns are"
    )


class Pat:
    """A pattern, or a function of patterns such as rev and fast(2). str() gives a line of score."""

    __slots__ = ("node",)

    def __init__(self, node: Expr) -> None:
        self.node = node

    def __str__(self) -> str:
        return unparse_expr(self.node)

    def __repr__(self) -> str:
        return f"<{self}>"

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *args: Value | Function) -> Pat:
        """p.rev() is p.rev; p.smooth(.1); rev(p) and fast(2)(p) apply a function."""
        node = self.node
        if not args:
            return self
        given = tuple(_argument(a) for a in args)
        if isinstance(node, Method) and node.args is None:
            return Pat(Method(0, 0, node.of, node.name, given))
        if isinstance(node, Name):
            return Pat(Call(0, 0, node.name, given))
        if isinstance(node, Call):
            return Pat(Call(0, 0, node.name, (*node.args, *given)))
        raise ScoreError(f"{self} is no function")

    def _word(self, name: str) -> Pat:
        return Pat(Method(0, 0, self.node, name, None))

    def _call(self, name: str, *args: Value | Function) -> Pat:
        return Pat(Method(0, 0, self.node, name, tuple(_argument(a) for a in args)))

    def _op(self, op: str, other: Value, swap: bool = False) -> Pat:
        left, right = self.node, to_expr(other)
        return Pat(Bin(0, 0, op, right, left) if swap else Bin(0, 0, op, left, right))

    # --- arithmetic: structure from the left ---
    def __add__(self, other: Value) -> Pat:
        return self._op("+", other)

    def __radd__(self, other: Value) -> Pat:
        return self._op("+", other, True)

    def __sub__(self, other: Value) -> Pat:
        return self._op("-", other)

    def __rsub__(self, other: Value) -> Pat:
        return self._op("-", other, True)

    def __mul__(self, other: Value) -> Pat:
        return self._op("*", other)

    def __rmul__(self, other: Value) -> Pat:
        return self._op("*", other, True)

    def __truediv__(self, other: Value) -> Pat:
        return self._op("/", other)

    def __rtruediv__(self, other: Value) -> Pat:
        return self._op("/", other, True)

    def __mod__(self, other: Value) -> Pat:
        return self._op("%", other)

    def __rmod__(self, other: Value) -> Pat:
        return self._op("%", other, True)

    def __lt__(self, other: Value) -> Pat:
        return self._op("<", other)

    def __le__(self, other: Value) -> Pat:
        return self._op("<=", other)

    def __gt__(self, other: Value) -> Pat:
        return self._op(">", other)

    def __ge__(self, other: Value) -> Pat:
        return self._op(">=", other)

    def __eq__(self, other: Value) -> Pat:  # type: ignore[override]
        return self._op("==", other)

    def __ne__(self, other: Value) -> Pat:  # type: ignore[override]
        return self._op("!=", other)

    def __neg__(self) -> Pat:
        return Pat(Neg(0, 0, self.node))

    def __bool__(self) -> bool:
        raise ScoreError(
            "a pattern is neither true nor false: its values change",
            hint="use when, mask or struct",
        )

    # --- the words of words.py, in its order ---
    def fast(self, factor: Value) -> Pat:
        """Faster by a factor; the factor may be a pattern."""
        return self._call("fast", factor)

    def slow(self, factor: Value) -> Pat:
        """Slower by a factor."""
        return self._call("slow", factor)

    def early(self, cycles: Value) -> Pat:
        """Earlier by a number of cycles."""
        return self._call("early", cycles)

    def late(self, cycles: Value) -> Pat:
        """Later by a number of cycles."""
        return self._call("late", cycles)

    @property
    def rev(self) -> Pat:
        """Each cycle backwards."""
        return self._word("rev")

    @property
    def palindrome(self) -> Pat:
        """Forwards, then backwards, in turn."""
        return self._word("palindrome")

    def iter(self, n: Value) -> Pat:
        """Begins 1/n of a cycle further on in each cycle."""
        return self._call("iter", n)

    def iterBack(self, n: Value) -> Pat:
        """Begins 1/n of a cycle earlier in each cycle."""
        return self._call("iterBack", n)

    def ply(self, n: Value) -> Pat:
        """Each event n times in its own time."""
        return self._call("ply", n)

    def inside(self, n: Value, f: Function) -> Pat:
        """A function on n cycles at a time, as if they were one."""
        return self._call("inside", n, f)

    def outside(self, n: Value, f: Function) -> Pat:
        """A function on 1/n of a cycle at a time."""
        return self._call("outside", n, f)

    def zoom(self, begin: Value, end: Value) -> Pat:
        """A part of each cycle, stretched over the whole."""
        return self._call("zoom", begin, end)

    def compress(self, begin: Value, end: Value) -> Pat:
        """Each cycle squeezed into a part of it."""
        return self._call("compress", begin, end)

    def fastGap(self, n: Value) -> Pat:
        """Each cycle n times as fast, then rest."""
        return self._call("fastGap", n)

    def linger(self, part: Value) -> Pat:
        """The first part of each cycle, over and over."""
        return self._call("linger", part)

    def ribbon(self, start: Value, length: Value) -> Pat:
        """A stretch of the pattern, over and over: a loop of chance too."""
        return self._call("ribbon", start, length)

    def rot(self, n: Value) -> Pat:
        """The values n events to the left, the rhythm as it is."""
        return self._call("rot", n)

    def repeatCycles(self, n: Value) -> Pat:
        """Each cycle n times."""
        return self._call("repeatCycles", n)

    @property
    def press(self) -> Pat:
        """Each event begins later, by half (or a part) of its length."""
        return self._word("press")

    @property
    def brak(self) -> Pat:
        """Every other cycle squeezed into its middle half: a breakbeat."""
        return self._word("brak")

    def shuffle(self, n: Value) -> Pat:
        """The n parts of each cycle in another order, by lot."""
        return self._call("shuffle", n)

    def scramble(self, n: Value) -> Pat:
        """n parts of each cycle drawn by lot; one may come twice."""
        return self._call("scramble", n)

    def swing(self, amount: Value, n: Value) -> Pat:
        """The second half of each n-th of a cycle, late by a part."""
        return self._call("swing", amount, n)

    def segment(self, n: Value) -> Pat:
        """A curve as n held values a cycle."""
        return self._call("segment", n)

    def struct(self, pulses: Value) -> Pat:
        """The values of the pattern in the rhythm of another."""
        return self._call("struct", pulses)

    def mask(self, gate: Value) -> Pat:
        """Only where the gate is 1; rests elsewhere."""
        return self._call("mask", gate)

    def euclid(self, k: Value, n: Value, turn: Value = 0) -> Pat:
        """On k of n steps, spread evenly, turned left."""
        return self._call("euclid", k, n, turn)

    def euclidRot(self, k: Value, n: Value, turn: Value) -> Pat:
        """The same as euclid with a turn."""
        return self._call("euclidRot", k, n, turn)

    def degradeBy(self, part: Value) -> Pat:
        """Loses this part of the events, by lot."""
        return self._call("degradeBy", part)

    @property
    def degrade(self) -> Pat:
        """Loses half of the events, by lot."""
        return self._word("degrade")

    def undegradeBy(self, part: Value) -> Pat:
        """Keeps only this part of the events."""
        return self._call("undegradeBy", part)

    def every(self, n: Value, f: Function) -> Pat:
        """A function on cycles 0, n, 2n ..."""
        return self._call("every", n, f)

    def firstOf(self, n: Value, f: Function) -> Pat:
        """The same as every."""
        return self._call("firstOf", n, f)

    def lastOf(self, n: Value, f: Function) -> Pat:
        """A function on cycles n-1, 2n-1 ..."""
        return self._call("lastOf", n, f)

    def when(self, gate: Value, f: Function) -> Pat:
        """A function where the gate is 1."""
        return self._call("when", gate, f)

    def sometimesBy(self, part: Value, f: Function) -> Pat:
        """A function on this part of the events, by lot."""
        return self._call("sometimesBy", part, f)

    def sometimes(self, f: Function) -> Pat:
        """A function on half of the events."""
        return self._call("sometimes", f)

    def often(self, f: Function) -> Pat:
        """A function on three quarters of the events."""
        return self._call("often", f)

    def rarely(self, f: Function) -> Pat:
        """A function on a quarter of the events."""
        return self._call("rarely", f)

    def almostAlways(self, f: Function) -> Pat:
        """A function on nine tenths of the events."""
        return self._call("almostAlways", f)

    def almostNever(self, f: Function) -> Pat:
        """A function on a tenth of the events."""
        return self._call("almostNever", f)

    def always(self, f: Function) -> Pat:
        """A function, always."""
        return self._call("always", f)

    def never(self, f: Function) -> Pat:
        """No function at all: to switch one off."""
        return self._call("never", f)

    def someCyclesBy(self, part: Value, f: Function) -> Pat:
        """A function on this part of the cycles, by lot."""
        return self._call("someCyclesBy", part, f)

    def someCycles(self, f: Function) -> Pat:
        """A function on half of the cycles."""
        return self._call("someCycles", f)

    def off(self, cycles: Value, f: Function) -> Pat:
        """The pattern, and a function of it later."""
        return self._call("off", cycles, f)

    def superimpose(self, f: Function) -> Pat:
        """The pattern, and a function of it on top."""
        return self._call("superimpose", f)

    def layer(self, *fs: Function) -> Pat:
        """Several functions of the pattern at once."""
        return self._call("layer", *fs)

    def chunk(self, n: Value, f: Function) -> Pat:
        """A function on one n-th of the pattern, the next n-th in the next cycle."""
        return self._call("chunk", n, f)

    def chunkBack(self, n: Value, f: Function) -> Pat:
        """As chunk, from the last n-th to the first."""
        return self._call("chunkBack", n, f)

    def within(self, begin: Value, end: Value, f: Function) -> Pat:
        """A function on a part of each cycle."""
        return self._call("within", begin, end, f)

    def range(self, low: Value, high: Value) -> Pat:
        """From 0..1 to low..high."""
        return self._call("range", low, high)

    def rangex(self, low: Value, high: Value) -> Pat:
        """From 0..1 to low..high by equal ratios: for frequencies."""
        return self._call("rangex", low, high)

    def range2(self, low: Value, high: Value) -> Pat:
        """From -1..1 to low..high."""
        return self._call("range2", low, high)

    @property
    def smooth(self) -> Pat:
        """Straight lines instead of steps: for a time after each, or over each whole event."""
        return self._word("smooth")

    def quantize(self, grid: Value | Sequence[Value]) -> Pat:
        """The nearest multiple of a step, or the nearest of a list."""
        return self._call("quantize", grid)

    def clamp(self, low: Value, high: Value) -> Pat:
        """Never under low, never over high."""
        return self._call("clamp", low, high)

    @property
    def abs(self) -> Pat:
        """Without its sign."""
        return self._word("abs")

    @property
    def round(self) -> Pat:
        """To the nearest whole number."""
        return self._word("round")

    @property
    def floor(self) -> Pat:
        """Down to a whole number."""
        return self._word("floor")

    @property
    def ceil(self) -> Pat:
        """Up to a whole number."""
        return self._word("ceil")

    @property
    def invert(self) -> Pat:
        """1 where it was 0, and 0 where it was not."""
        return self._word("invert")

    def add(self, other: Value) -> Pat:
        """Plus, with the structure of the left side; the same as +."""
        return self._call("add", other)

    def sub(self, other: Value) -> Pat:
        """Minus; the same as -."""
        return self._call("sub", other)

    def mul(self, other: Value) -> Pat:
        """Times; the same as *."""
        return self._call("mul", other)

    def div(self, other: Value) -> Pat:
        """Divided by; the same as /. By 0 gives 0."""
        return self._call("div", other)

    def mod(self, other: Value) -> Pat:
        """The rest of a division; the same as %."""
        return self._call("mod", other)

    def echo(self, times: Value, cycles: Value, feedback: Value) -> Pat:
        """Echoes: each later, and weaker by a factor."""
        return self._call("echo", times, cycles, feedback)

    def pow(self, other: Value) -> Pat:
        """To a power; 2 bends a curve towards its low end."""
        return self._call("pow", other)

    def squeeze(self, other: Value) -> Pat:
        """Plus, with a cycle of the other squeezed into each event."""
        return self._call("squeeze", other)

    @property
    def note(self) -> Pat:
        """Note names as numbers: c3 is 48, c4 is 60."""
        return self._word("note")

    def pick(self, *parts: Value) -> Pat:
        """Numbers choose among the parts: 0 is the first."""
        return self._call("pick", *parts)


Value = Pat | float | str | Fraction | Sequence["Value"]
Function = Pat | Callable[[Pat], "Pat"]


def _argument(value: Value | Function) -> Expr:
    """An argument: a value, or a Python function of a pattern, called once with `_`."""
    if isinstance(value, Pat) or not callable(value):
        return to_expr(value)
    hole = Hole(0, 0)
    made = value(Pat(hole))
    if not isinstance(made, Pat):
        raise ScoreError(f"the function gives {made!r}, not a pattern")
    if any(h is not hole for h in _holes(made.node)):
        raise ScoreError(
            "a function inside a function may use its own pattern only",
            hint="build the outer part first",
        )
    return made.node


def _holes(node: Expr) -> list[Hole]:
    """The holes of an expression that no inner function owns."""
    match node:
        case Hole():
            return [node]
        case Method():
            return _holes(node.of)
        case Bin():
            return _holes(node.left) + _holes(node.right)
        case Neg():
            return _holes(node.of)
    return []


def text(words: str) -> Pat:
    """A plain text, as 'single quotes' in a score."""
    return Pat(Text(0, 0, words))
