"""Mistakes of statements, and those that players of other languages make.

FOREIGN is the part of diagnostics.MISTAKES that recognises Tidal, Strudel, FoxDot, Sonic Pi and
Python by their signs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Diagnosis(NamedTuple):
    """An error at statement[start:end], and its remedy."""

    message: str
    start: int
    end: int
    hint: str | None


Look = Callable[[str, int], Diagnosis | None]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A common mistake. look: (statement, place where the parser stopped) -> Diagnosis or None."""

    name: str
    example: str
    look: Look


def by_regex(
    name: str, example: str, pattern: str, message: str, hint: str, group: int = 0
) -> Mistake:
    """A mistake that a regular expression finds; {n} in message and hint are its groups.

    group: the one whose place is shown.
    """
    compiled = re.compile(pattern)

    def look(text: str, at: int) -> Diagnosis | None:
        found = compiled.search(masked(text))
        if found is None:
            return None
        places = [found.span(i) for i in range(compiled.groups + 1)]
        words = ["" if place == (-1, -1) else text[slice(*place)] for place in places]
        return Diagnosis(message.format(*words), *found.span(group), hint.format(*words))

    return Mistake(name, example, look)


PIECE = re.compile(r"""`[^`]*`?|"[^"\n]*"?|'(?:[^'\\\n]|\\.)*'?|#[^\n]*|[^`"'#]""")


def masked(text: str) -> str:
    """The statement with quotes and comments blanked out, so that no sign in them misleads."""
    pieces = (m.group() for m in PIECE.finditer(text))
    return "".join(
        p if len(p) == 1 else p[0] + "\xa4" * (len(p) - 2) + (p[-1] if p[0] == p[-1] else " ")
        for p in pieces
    )


FOREIGN: tuple[Mistake, ...] = (
    by_regex(
        "comment with slashes",
        "blend = sine // slowly",
        r"//\s*(.*)",
        "comments begin with #",
        "write # {1}",
    ),
    by_regex(
        "strudel label",
        '$: s("bd*4")',
        r"^_?\$\s*:",
        "Strudel's $: is not used here",
        "bind a control instead: blend = sine.slow(4)",
    ),
    by_regex(
        "tidal stream",
        'd1 $ sound "bd*4"',
        r"^d\d+\s*\$",
        "Tidal's d1 $ is not used here",
        'name a deck and bind its controls: deck drums, then blend = "1 .5"',
    ),
    by_regex(
        "tidal dollar",
        'blend = fast 2 $ "0 1"',
        r"\$",
        "there is no $ here",
        'write methods: "0 1".fast(2)',
    ),
    by_regex(
        "tidal hash",
        "blend = sine |> 2",
        r"\|[<>]\|?|[<>]\|",
        'Tidal\'s "{0}" is not used here',
        "|+, +| and |+| are, with any of + - * / %; to take values in a rhythm write .struct",
    ),
    by_regex(
        "arrow function",
        "blend = saw.every(4, x => x.rev())",
        r"\b(\w+)\s*=>\s*",
        "arrow functions are not used here",
        "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
    ),
    by_regex(
        "lambda",
        "blend = saw.every(4, lambda x: x.rev())",
        r"\blambda\b[^:]*:",
        "lambda is not used in a score",
        "_ stands for the pattern: every(4, _.rev()), or just every(4, rev)",
    ),
    by_regex(
        "foxdot player",
        "p1 >> pluck([0, 4])",
        r"^\w+\s*>>",
        "FoxDot's >> is not used here",
        "bind a control: blend = linvar([0, 1], 8)",
    ),
)
