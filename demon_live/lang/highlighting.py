"""Which written steps sound now: the places of mini-notation, carried through the algebra.

A score is compiled once more for the eye: each step of its mini-notation is a number or a word
that remembers where it was written. Transforms of time move such values as they are, arithmetic
joins their places; so `"<a b>*2".every(4, rev)` and `"1 2" + "0 .5"` light up what is heard. What
plays is never compiled in this way, and costs nothing more.

Threads: pure; a Line fills its cache by single assignments of equal values.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.controls import CONTROLS, find
from demon_live.errors import ScoreError, Span
from demon_live.lang.check import shallow
from demon_live.lang.compile import _Compiler
from demon_live.lang.expressions import compile_expr
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.mini_syntax import Node
from demon_live.lang.parse import parse_statement
from demon_live.lang.pattern import Pattern, PatternError
from demon_live.lang.scope import Scope
from demon_live.lang.split import Chunk, split, whole
from demon_live.lang.syntax import BindNode, LetNode, Method, StatementNode

__all__ = ["Line", "Lit", "marked_lines"]

#: (text that it stands in, begin, end)
_Place = tuple[str, int, int]
_NONE: tuple[_Place, ...] = ()


def _places(*values: Any) -> tuple[_Place, ...]:
    found: tuple[_Place, ...] = ()
    for value in values:
        found += getattr(value, "places", _NONE)
    return found


class _Number(float):
    """A number that knows where it was written, and so do the results of its arithmetic."""

    places: tuple[_Place, ...]

    def __new__(cls, value: float, places: tuple[_Place, ...]) -> _Number:
        made = super().__new__(cls, value)
        made.places = places
        return made

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        plain = [float(v) if isinstance(v, _Number) else v for v in inputs]
        return _joined(getattr(ufunc, method)(*plain, **more), *inputs)


def _joined(result: Any, *inputs: Any) -> Any:
    # Arrays are whole curves: they have no step of their own.
    return _Number(result, _places(*inputs)) if np.ndim(result) == 0 else result


def _arithmetic(name: str) -> None:
    work = getattr(operator, name)

    def forward(self: _Number, other: Any) -> Any:
        return _joined(work(float(self), other), self, other)

    def backward(self: _Number, other: Any) -> Any:
        return _joined(work(other, float(self)), self, other)

    setattr(_Number, f"__{name}__", forward)
    setattr(_Number, f"__r{name}__", backward)


for _name in ("add", "sub", "mul", "truediv", "mod"):
    _arithmetic(_name)


class _Word(str):
    """A word that knows where it was written."""

    places: tuple[_Place, ...]


def _atom(value: Any, place: _Place) -> Any:
    if isinstance(value, str):
        word = _Word(value)
        word.places = (place,)
        return word
    return _Number(value, (place,))


def _mark(node: Node, source: str, at: int) -> Node:
    """The tree with places in its values; factors and the numbers of (k,n) stay plain."""
    children = node.children
    match node.kind:
        case "atom":
            return node._replace(value=_atom(node.value, (source, at + node.start, at + node.end)))
        case "range":
            return _run(node, source, at)
        case "fast" | "div" | "euclid":
            return node._replace(children=(_mark(children[0], source, at), *children[1:]))
        case "poly" if node.value == "%":
            inner = tuple(_mark(c, source, at) for c in children[:-1])
            return node._replace(children=(*inner, children[-1]))
    return node._replace(children=tuple(_mark(c, source, at) for c in children))


def _run(node: Node, source: str, at: int) -> Node:
    """0 .. 3: each of its steps lights up the whole of it."""
    first, last = (c.value for c in node.children)
    if not isinstance(first, int) or not isinstance(last, int) or abs(last - first) > 256:
        return node
    place = (source, at + node.start, at + node.end)
    way = 1 if last >= first else -1
    steps = tuple(
        Node("atom", node.start, node.end, value=_atom(i, place))
        for i in range(first, last + way, way)
    )
    return Node("seq", node.start, node.end, steps, None, node.weight, node.repeat)


@dataclass(frozen=True, slots=True)
class Lit:
    """A step that sounds from cycle `begin` to `end`: offsets [start, stop) in the score.

    onset: where the whole event began, which may be earlier.
    """

    onset: float
    begin: float
    end: float
    start: int
    stop: int


@dataclass(slots=True)
class Line:
    """A binding of a score. text: its expression as written; start, stop: the statement's place.

    A view knows that it sounds by comparing deck, control and text with those of a LaneView.
    """

    deck: str
    control: str
    text: str
    start: int
    stop: int
    pattern: Pattern
    _places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _cycle: int | None = None
    _lit: tuple[Lit, ...] = ()

    def lit(self, cycle: float) -> list[Lit]:
        """The steps that sound at `cycle`; of a constant nothing is lit, it always sounds."""
        whole = int(cycle // 1)
        if whole != self._cycle:
            self._cycle, self._lit = whole, self._of(whole)
        return [step for step in self._lit if step.begin <= cycle < step.end]

    def _of(self, cycle: int) -> tuple[Lit, ...]:
        if self.pattern.const is not None or self.pattern.curve is not None:
            return ()
        try:
            events = self.pattern.query(Fraction(cycle), Fraction(cycle + 1))
        except PatternError:
            return ()
        return tuple(
            Lit(
                float(event.begin if event.whole_begin is None else event.whole_begin),
                float(event.begin),
                float(event.end),
                base + start,
                base + stop,
            )
            for event in events
            for source, start, stop in dict.fromkeys(_places(event.value))
            for base in self._places.get(source, ())
        )


def marked_lines(text: str) -> list[Line]:
    """The bindings of a score that is being edited; what does not compile is left out."""
    return _Marker(text).lines_of()


class _Marker(_Compiler):
    """The compiler, for the eye: keeps patterns with places instead of lanes."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "<marks>", "main", 0)
        self.lines: list[Line] = []
        self._starts: dict[str, tuple[int, ...]] = {}

    def lines_of(self) -> list[Line]:
        nodes: list[tuple[Chunk, StatementNode | None]] = []
        for chunk in split(self.text, KEYWORDS):
            node: StatementNode | ScoreError | None = None
            if chunk.kind == "statement":
                self._starts[chunk.text] = (*self._starts.get(chunk.text, ()), chunk.start)
                if not shallow(chunk.text):
                    continue
                node = parse_statement(chunk.text)
            if not isinstance(node, ScoreError):
                nodes.append((chunk, node))
        self.define(nodes)
        for chunk, node in nodes:
            self.statement(chunk, node)
        return self.lines

    def scope(self, chunk: Chunk, key: str) -> Scope:
        return replace(super().scope(chunk, key), mark=_mark)

    def check_let(self, chunk: Chunk, node: LetNode) -> None:
        """Its errors show when it is played."""

    def bind(self, chunk: Chunk, node: BindNode, span: Span) -> None:
        known = CONTROLS.get(node.control) or find(node.control)
        if known is None or node.expr is None:
            return
        # A smoothed pattern is a curve; what is lit are the steps that it goes through.
        expr = node.expr
        while isinstance(expr, Method) and expr.name == "smooth":
            expr = expr.of
        self.lines.append(
            Line(
                node.deck or self.deck,
                node.control,
                whole(chunk.text, node.expr.start, node.expr.end),
                span.start,
                span.end,
                compile_expr(expr, self.scope(chunk, node.control)),
                self._starts,
            )
        )
