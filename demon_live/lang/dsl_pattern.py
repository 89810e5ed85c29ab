"""Expressions of the score language as Python objects: the class Pat of demon_live.dsl.

A Pat holds a syntax tree and nothing else: it is unparsed to a line of score, which goes through
the parser and the checks of every score. Pat has a method or a property for each function of the
table that takes a pattern; demon_live/dsl.pyi, which is generated, tells type checkers so.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from demon_live.controls import Control
from demon_live.core import Floats
from demon_live.errors import ScoreError
from demon_live.lang.compile import compile_source
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import meant
from demon_live.lang.lane import PatternLane
from demon_live.lang.mini_syntax import parse_mini
from demon_live.lang.pattern import Event
from demon_live.lang.registry import Function
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
    unparse_expr,
)
from demon_live.pictures import SvgPicture, of_curve, places


def number_of(value: object) -> int | float | Fraction | None:
    """A number of Python, numpy or torch as one of Python; None for anything else."""
    if isinstance(value, np.floating):
        # The fewest digits that tell a float32 apart: np.float32(.3) is .3.
        return float(str(value))
    if isinstance(value, (float, Fraction)):
        return value
    if isinstance(value, (str, bytes, Pat)) or getattr(value, "shape", ()) != ():
        return None
    conversions: tuple[Callable[[Any], Any], ...] = (operator.index, Fraction, lambda v: v.item())
    for convert in conversions:
        try:
            found = convert(value)
        except (TypeError, ValueError, AttributeError):
            continue
        return found if isinstance(found, (int, float, Fraction)) else None
    return None


def exact(value: object) -> Fraction:
    """The exact number that a number stands for: 1/3 is a third, .1 a tenth.

    Raises ScoreError for inf, nan and what is no number.
    """
    number = number_of(value)
    if number is None:
        raise ScoreError(f"{shown(value)} is no number")
    if isinstance(number, (int, Fraction)):
        return Fraction(number)
    if number != number or number in (float("inf"), float("-inf")):
        raise ScoreError(f"{number} is no number for a score")
    decimal = Fraction(repr(float(number)))
    near = decimal.limit_denominator(5040)
    return near if float(near) == number else decimal


def shown(value: object) -> str:
    """A value in an error: its beginning."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


class Pat:
    """A pattern, or a function of patterns such as rev and fast(2). str() gives a line of score."""

    __slots__ = ("node",)

    def __init__(self, node: Expr) -> None:
        self.node = node

    def __str__(self) -> str:
        return unparse_expr(self.node)

    def __repr__(self) -> str:
        return f"<{self}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            known = [] if name.startswith("_") else [f.name for f in FUNCTIONS.values() if f.method]
            near = meant(name, known)
            mean = f": did you mean {near}?" if near else ""
            raise AttributeError(f'there is no function "{name}"{mean}')

    __hash__ = None  # type: ignore[assignment]

    def _lane(self, seed: int) -> PatternLane:
        lane = compile_source(f"blend = {self}", "<pattern>", seed=seed).decks["main"]["blend"]
        if not isinstance(lane, PatternLane):
            raise ScoreError(f"{self} is moved by a controller, which has no values here")
        # As it is, not clipped to the range of a control.
        return replace(lane, spec=_FREE)

    def sample(self, cycles: ArrayLike, seed: int = 0) -> Floats:
        """The values at times.

        Args:
            cycles: times in cycles, [n].
            seed: of random numbers.

        Returns:
            float32 [n]; a rest is 0.
        """
        return self._lane(seed).sample(np.asarray(cycles, np.float64))

    def events(self, begin: float, end: float, seed: int = 0) -> list[Event]:
        """The events in the cycles [begin, end); signals have the value at their beginning."""
        return self._lane(seed).pattern.query(exact(begin), exact(end))

    def plot(self, cycles: float = 1, seed: int = 0) -> SvgPicture:
        """A picture of the first cycles. A notebook shows it, and one cycle of any pattern."""
        length = float(exact(cycles))
        if length <= 0:
            raise ScoreError(f"a picture shows more than {cycles} cycles")
        return of_curve(self.sample(places(length), seed), length, str(self))

    def _repr_svg_(self) -> str | None:
        # Texts and functions of patterns have no curve.
        try:
            return self.plot().svg
        except ScoreError:
            return None

    def __call__(self, *args: Value | Transformer) -> Self:
        """p.rev() is p.rev; p.smooth(.1); rev(p) and fast(2)(p) apply a function."""
        node = self.node
        if not args:
            return self
        exprs = tuple(_argument(a) for a in args)
        if isinstance(node, Method) and node.args is None:
            return type(self)(Method(0, 0, node.of, node.name, exprs))
        if isinstance(node, Name):
            return type(self)(Call(0, 0, node.name, exprs))
        if isinstance(node, Call):
            return type(self)(Call(0, 0, node.name, (*node.args, *exprs)))
        raise ScoreError(f"{self} is no function")

    def _op(self, op: str, other: Value, swap: bool = False) -> Self:
        left, right = self.node, to_expr(other)
        return type(self)(Bin(0, 0, op, right, left) if swap else Bin(0, 0, op, left, right))

    # Arithmetic takes its structure from the left.
    def __add__(self, other: Value) -> Self:
        return self._op("+", other)

    def __radd__(self, other: Value) -> Self:
        return self._op("+", other, True)

    def __sub__(self, other: Value) -> Self:
        return self._op("-", other)

    def __rsub__(self, other: Value) -> Self:
        return self._op("-", other, True)

    def __mul__(self, other: Value) -> Self:
        return self._op("*", other)

    def __rmul__(self, other: Value) -> Self:
        return self._op("*", other, True)

    def __truediv__(self, other: Value) -> Self:
        return self._op("/", other)

    def __rtruediv__(self, other: Value) -> Self:
        return self._op("/", other, True)

    def __mod__(self, other: Value) -> Self:
        return self._op("%", other)

    def __rmod__(self, other: Value) -> Self:
        return self._op("%", other, True)

    def __pow__(self, other: Value) -> Self:
        return self._op("**", other)

    def __rpow__(self, other: Value) -> Self:
        return self._op("**", other, True)

    # Python's own `and`, `or` and `not` cannot be patterns.
    def __and__(self, other: Value) -> Self:
        return self._op("and", other)

    def __or__(self, other: Value) -> Self:
        return self._op("or", other)

    def __invert__(self) -> Self:
        return type(self)(Neg(0, 0, self.node, "not"))

    def __lt__(self, other: Value) -> Self:
        return self._op("<", other)

    def __le__(self, other: Value) -> Self:
        return self._op("<=", other)

    def __gt__(self, other: Value) -> Self:
        return self._op(">", other)

    def __ge__(self, other: Value) -> Self:
        return self._op(">=", other)

    # What is no pattern is another thing, so that tools may compare.
    def __eq__(self, other: Value) -> Self:  # type: ignore[override]
        return self._op("==", other) if _is_value(other) else NotImplemented

    def __ne__(self, other: Value) -> Self:  # type: ignore[override]
        return self._op("!=", other) if _is_value(other) else NotImplemented

    def __neg__(self) -> Self:
        return type(self)(Neg(0, 0, self.node))

    def __bool__(self) -> bool:
        raise ScoreError(
            "a pattern is neither true nor false: its values change",
            hint="use when, mask or struct; & | ~ for and, or, not; a < b < c is (a < b) & (b < c)",
        )


Number = float | Fraction | np.generic
Value = Pat | float | str | Fraction | np.generic | Sequence["Value"]
Transformer = Pat | Callable[[Any], Pat]
_FREE = Control("value", "curve", "step", 0.0, "", "", float("-inf"), float("inf"))


class PlainString(Mini):
    """A string of Python: mini-notation, or the text of a control that takes text."""

    __slots__ = ()


def _is_value(value: object) -> bool:
    return isinstance(value, (Pat, str, list, tuple)) or number_of(value) is not None


def _member(function: Function) -> Any:
    """The method of Pat for a function of the table; a property if it needs no argument."""
    name = function.name
    if not function.least and not function.many:

        def word(self: Pat) -> Pat:
            return Pat(Method(0, 0, self.node, name, None))

        word.__doc__ = function.help
        return property(word)
    kinds = inspect.Parameter
    rows = [kinds("self", kinds.POSITIONAL_OR_KEYWORD)]
    for p in function.params:
        kind = kinds.VAR_POSITIONAL if p.many else kinds.POSITIONAL_OR_KEYWORD
        rows.append(kinds(p.name, kind, default=p.default if p.optional else kinds.empty))
    signature = inspect.Signature(rows)

    def method(*args: Any, **named: Any) -> Pat:
        try:
            self, *rest = signature.bind(*args, **named).args
        except TypeError:
            message = f"{name} takes {function.counted}"
            raise ScoreError(message, hint=function.advice) from None
        return Pat(Method(0, 0, self.node, name, tuple(_argument(a) for a in rest)))

    method.__name__, method.__doc__ = name, function.help
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


for _function in FUNCTIONS.values():
    if _function.method:
        setattr(Pat, _function.name, _member(_function))


def to_expr(value: Value) -> Expr:
    """A Python value as an expression: numbers, strings as mini-notation, lists, patterns."""
    if isinstance(value, Pat):
        return value.node
    if isinstance(value, float) and value == float("inf"):
        return Name(0, 0, "inf")
    if isinstance(value, str):
        return PlainString(0, 0, str(value))
    if isinstance(value, (list, tuple)):
        return ListNode(0, 0, tuple(to_expr(v) for v in value))
    if number_of(value) is not None:
        return Num(0, 0, exact(value))
    hint = "numbers, strings of mini-notation, lists and patterns are"
    if hasattr(value, "__array__") or callable(value):
        hint = "an array or a function of time is one with: curve(y, cycles=4)"
    raise ScoreError(f"{shown(value)} is no pattern", hint=hint)


def _argument(value: Value | Transformer) -> Expr:
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
        case Method() | Neg():
            return _holes(node.of)
        case Bin():
            return _holes(node.left) + _holes(node.right)
    return []


def mini(notation: str) -> Pat:
    """A pattern in mini-notation. Raises ScoreError with the place in it."""
    parse_mini(notation)
    return Pat(Mini(0, 0, notation))


def text(words: str) -> Pat:
    """A plain text, as 'single quotes' in a score."""
    return Pat(Text(0, 0, words))
