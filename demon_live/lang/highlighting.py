"""Highlighting: the source positions of the steps that sound.

A score is compiled a second time, with steps of mini-notation that carry their position. Transforms
of time move such values, arithmetic joins their positions; so `"<a b>*2".every(4, rev)` and
`"1 2" + "0 .5"` highlight what sounds. The compilation that plays is not affected.

Threads: a BindingHighlight fills its cache by single assignments of equal values.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from demon_live.errors import Span
from demon_live.lang.compile import visit_bindings
from demon_live.lang.expressions import compile_expr
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.mini_syntax import MiniNode
from demon_live.lang.pattern import Pattern, PatternError
from demon_live.lang.scope import Scope
from demon_live.lang.split import Chunk, split, whole
from demon_live.lang.syntax import BindNode, Method

#: (source text, begin, end)
_Place = tuple[str, int, int]
_NONE: tuple[_Place, ...] = ()


def _places(*values: Any) -> tuple[_Place, ...]:
    found: tuple[_Place, ...] = ()
    for value in values:
        found += getattr(value, "places", _NONE)
    return found


class _PlacedNumber(float):
    """A number with the place where it is written; results of its arithmetic have it too."""

    places: tuple[_Place, ...]

    def __new__(cls, value: float, places: tuple[_Place, ...]) -> _PlacedNumber:
        made = super().__new__(cls, value)
        made.places = places
        return made

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        plain = [float(v) if isinstance(v, _PlacedNumber) else v for v in inputs]
        return _joined(getattr(ufunc, method)(*plain, **more), *inputs)


def _joined(result: Any, *inputs: Any) -> Any:
    # Arrays are whole curves: they have no step of their own.
    return _PlacedNumber(result, _places(*inputs)) if np.ndim(result) == 0 else result


def _arithmetic(name: str) -> None:
    work = getattr(operator, name)

    def forward(self: _PlacedNumber, other: Any) -> Any:
        return _joined(work(float(self), other), self, other)

    def backward(self: _PlacedNumber, other: Any) -> Any:
        return _joined(work(other, float(self)), self, other)

    setattr(_PlacedNumber, f"__{name}__", forward)
    setattr(_PlacedNumber, f"__r{name}__", backward)


for _name in ("add", "sub", "mul", "truediv", "mod"):
    _arithmetic(_name)


class _PlacedWord(str):
    """A word with the place where it is written."""

    places: tuple[_Place, ...]


def _atom(value: Any, place: _Place) -> Any:
    if isinstance(value, str):
        word = _PlacedWord(value)
        word.places = (place,)
        return word
    return _PlacedNumber(value, (place,))


def _mark(node: MiniNode, source: str, at: int) -> MiniNode:
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


def _run(node: MiniNode, source: str, at: int) -> MiniNode:
    """0 .. 3: each step highlights the whole range."""
    first, last = (c.value for c in node.children)
    if not isinstance(first, int) or not isinstance(last, int) or abs(last - first) > 256:
        return node
    place = (source, at + node.start, at + node.end)
    way = 1 if last >= first else -1
    steps = tuple(
        MiniNode("atom", node.start, node.end, value=_atom(i, place))
        for i in range(first, last + way, way)
    )
    return MiniNode("seq", node.start, node.end, steps, None, node.weight, node.repeat)


@dataclass(frozen=True, slots=True)
class ActiveStep:
    """A step that sounds from cycle `begin` to `end`, at offsets [start, stop) in the score.

    onset: where the whole event began, which may be earlier.
    """

    onset: float
    begin: float
    end: float
    start: int
    stop: int


@dataclass(slots=True)
class BindingHighlight:
    """The highlights of one binding.

    text: its expression as written. start, stop: the place of the statement. A view compares deck,
    control and text with those of a LaneView to know whether the binding sounds.
    """

    deck: str
    control: str
    text: str
    start: int
    stop: int
    pattern: Pattern
    _places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _cycle: int | None = None
    _steps: tuple[ActiveStep, ...] = ()

    def active(self, cycle: float) -> list[ActiveStep]:
        """The steps that sound at `cycle`; none of a constant, which always sounds."""
        whole = int(cycle // 1)
        if whole != self._cycle:
            self._cycle, self._steps = whole, self._of(whole)
        return [step for step in self._steps if step.begin <= cycle < step.end]

    def _of(self, cycle: int) -> tuple[ActiveStep, ...]:
        if self.pattern.const is not None or self.pattern.curve is not None:
            return ()
        try:
            events = self.pattern.query(Fraction(cycle), Fraction(cycle + 1))
        except PatternError:
            return ()
        return tuple(
            ActiveStep(
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


def highlights(text: str) -> list[BindingHighlight]:
    """The bindings of a score that is being edited; those that do not compile are left out."""
    found: list[BindingHighlight] = []
    starts: dict[str, tuple[int, ...]] = {}
    for chunk in split(text, KEYWORDS):
        starts[chunk.text] = (*starts.get(chunk.text, ()), chunk.start)

    def visit(node: BindNode, chunk: Chunk, span: Span, deck: str, scope: Scope) -> None:
        if node.expr is None:
            return
        # A smoothed pattern is a curve; the steps that it goes through are highlighted.
        expr = node.expr
        while isinstance(expr, Method) and expr.name == "smooth":
            expr = expr.of
        written = whole(chunk.text, node.expr.start, node.expr.end)
        pattern = compile_expr(expr, replace(scope, mark=_mark))
        found.append(
            BindingHighlight(deck, node.control, written, span.start, span.end, pattern, starts)
        )

    visit_bindings(text, visit)
    return found
