"""Arguments of functions: how they are converted, bound when they vary, and spoken of in errors.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.pattern import Pattern, PatternError, as_time
from demon_live.lang.scope import Scope, unknown
from demon_live.lang.syntax import Call, Expr, Hole, Name, children
from demon_live.lang.transform import bind
from demon_live.lang.words import NOTE, Word

__all__ = [
    "CONVERT",
    "Varying",
    "bound",
    "counted",
    "has_hole",
    "remedy",
    "unknown_call",
    "word_for_number",
]


def remedy(message: str) -> str | None:
    return "use fewer or slower steps" if "more than" in message else None


def word_for_number(found: tuple[str, int, int] | None, node: Expr, scope: Scope) -> ScoreError:
    """An error for a word where arithmetic is done, at its place."""
    if found is None:
        return scope.fail("this is text, and arithmetic takes numbers", node)
    word, start, end = found
    span = scope.outer or Span.of(scope.source, start, end)
    return ScoreError(
        f'"{word}" is a word, and arithmetic takes numbers',
        span=span,
        hint="note names become numbers with .note" if NOTE.fullmatch(word) else None,
    )


def unknown_call(name: str, node: Call, scope: Scope) -> ScoreError:
    """An error for a call of something that is no function."""
    span = Name(node.start, node.start + len(name), name)
    if name in CONTROLS or name in SETTINGS:
        inner = (
            scope.source[node.start + len(name) + 1 : node.end - 1]
            if scope.outer is None
            else "..."
        )
        return scope.fail(
            f'"{name}" is a control, not a function', span, f"bind it: {name} = {inner}"
        )
    return unknown(name, span, scope)


def counted(word: Word) -> str:
    """How many arguments a word takes, and its signature."""
    least = sum(not p.optional and not p.many for p in word.params)
    most = len(word.params)
    if any(p.many for p in word.params):
        return "at least one argument"
    shown = str(most) if least == most else f"{least} to {most}"
    return f"{shown} argument{'s' * (most != 1)}: {word.signature}"


@dataclass(frozen=True, slots=True)
class Varying:
    """An argument whose value is a pattern where a plain number is taken."""

    pattern: Pattern
    convert: Callable[[Any], Any]


def bound(
    make: Callable[..., Pattern], values: list[Any], word: Word, receiver: Pattern | None
) -> Pattern:
    """The word applied; arguments that vary are bound, the first outermost."""
    for i, value in enumerate(values):
        if isinstance(value, Varying):
            rest = values[i + 1 :]
            text = receiver.text if receiver is not None else False

            def at(
                v: Any,
                i: int = i,
                rest: list[Any] = rest,
                convert: Callable[[Any], Any] = value.convert,
            ) -> Pattern:
                return bound(make, [*values[:i], convert(v), *rest], word, receiver)

            return bind(value.pattern, at, text=text)
    return make(*values)


CONVERT: dict[str, Callable[[Any], Any]] = {
    "T": as_time,
    "I": lambda v: _whole(v),
    "R": lambda v: _real(v),
}


def _whole(value: Any) -> int:
    return round(_real(value))


def _real(value: Any) -> float:
    if isinstance(value, str):
        raise PatternError(f"{value!r} is a word where a number is needed")
    return float(value)


def has_hole(node: Expr) -> bool:
    """Does `_` stand in the expression?"""
    return isinstance(node, Hole) or any(has_hole(c) for c in children(node))
