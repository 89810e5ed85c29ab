"""Prompts as weighted sums: `'dub techno' * sine.slow(4) + 'choir' * .3 - 'drums'`.

The value of such a lane is all of its texts, joined; their weights are curves beside it. A weight
below 0 leads away from a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from demon_live.controls import Control
from demon_live.core import Floats
from demon_live.errors import ScoreError, Span
from demon_live.lang.lane import CompositeLane, Lane
from demon_live.lang.pattern import Times
from demon_live.lang.syntax import Bin, Expr, Neg, Num

#: Between the texts of a value.
MARK = "\x1e"
#: Texts of a sum at most.
MOST_TEXTS = 8
WEIGHT = Control(
    "weight", "curve", "step", 1.0, "How much a text counts.", "", low=-4.0, high=4.0, rest=0.0
)


def texts_of(value: str) -> list[str]:
    """The texts of a value of a prompt lane."""
    return value.split(MARK)


def is_sum(expr: Expr) -> bool:
    """Whether an expression may be a sum of texts."""
    return isinstance(expr, Neg) or (isinstance(expr, Bin) and expr.op in ("+", "-", "*", "/"))


def terms(expr: Expr, is_text: Callable[[Expr], bool], source: str) -> list[tuple[Expr, Expr]]:
    """(text, weight) of each term of a sum. is_text: of an expression that is no sum.

    Raises ScoreError.
    """

    def worded(node: Expr) -> bool:
        if isinstance(node, Bin) and is_sum(node):
            return worded(node.left) or worded(node.right)
        return worded(node.of) if isinstance(node, Neg) else is_text(node)

    def collect(node: Expr, weight: Expr) -> list[tuple[Expr, Expr]]:
        if isinstance(node, Neg):
            return collect(node.of, Neg(node.start, node.end, weight, "-"))
        if isinstance(node, Bin) and node.op in ("+", "-"):
            right = weight if node.op == "+" else Neg(node.start, node.end, weight, "-")
            return collect(node.left, weight) + collect(node.right, right)
        if isinstance(node, Bin) and node.op in ("*", "/"):
            words, factor = node.left, node.right
            if node.op == "*" and not worded(words):
                words, factor = factor, words
            if not worded(factor):
                return collect(words, Bin(node.start, node.end, node.op, weight, factor))
        if not worded(node) or is_sum(node):
            raise ScoreError(
                "a prompt is a sum of texts, each times a weight",
                span=Span.of(source, node.start, node.end),
                hint="prompt = 'dub techno' * sine + 'choir' * .3",
            )
        return [(node, weight)]

    found = collect(expr, Num(expr.start, expr.end, Fraction(1)))
    if len(found) > MOST_TEXTS:
        raise ScoreError(
            f"more than {MOST_TEXTS} texts in one prompt",
            span=Span.of(source, expr.start, expr.end),
            hint="each costs as much as a prompt of its own",
        )
    return found


@dataclass(frozen=True, eq=False, repr=False)
class PromptLane(CompositeLane):
    """A weighted sum of texts. texts, weights: a lane each."""

    spec: Control
    text: str
    texts: tuple[Lane, ...]
    weights: tuple[Lane, ...]

    @property
    def width(self) -> int:
        return len(self.texts)

    def weight(self, i: int, cycles: Times) -> Floats:
        if i < len(self.weights):
            return self.weights[i].sample(cycles)
        return np.zeros(np.shape(cycles), np.float32)

    def at(self, cycle: Fraction) -> float | str:
        return MARK.join(str(lane.at(cycle)) for lane in self.texts)

    def sample(self, cycles: Times) -> Floats:
        return np.zeros(np.shape(cycles), np.float32)

    @property
    def continuous(self) -> bool:
        """Its weights may move, its texts jump."""
        return False

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return sorted({jump for lane in self.texts for jump in lane.jumps(begin, end)})

    @property
    def parts(self) -> tuple[Lane, ...]:
        return *self.texts, *self.weights

    def rebuilt(self, parts: tuple[Lane, ...]) -> Lane:
        n = len(self.texts)
        return PromptLane(self.spec, self.text, parts[:n], parts[n:])
