"""Which part of the screen belongs to what, from 20x5 to a wall.

Threads: pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Plan", "plan"]

_WIDE = 120


@dataclass(frozen=True, slots=True)
class Plan:
    """Heights in rows; 0 = not shown. From top to bottom: head, then title, score and decks (under
    each other, or side by side if `wide`), log, prompt, hint. left: columns of the score's side."""

    columns: int
    rows: int
    digits: int
    head: int
    title: int
    score: int
    decks: int
    log: int
    prompt: int
    hint: int
    wide: bool
    left: int

    @property
    def right(self) -> int:
        """Columns of the decks' side."""
        return self.columns - self.left - 1 if self.wide else self.columns

    @property
    def score_top(self) -> int:
        """The screen row of the score's first row."""
        return self.head + self.title


def plan(columns: int, rows: int, *, wanted: int, ask: int = 1) -> Plan:
    """The plan for a screen. wanted: rows that the decks could use; ask: rows of the prompt."""
    columns, rows = max(columns, 8), max(rows, 2)
    wide = columns >= _WIDE and rows >= 16
    digits = 5 if columns >= _WIDE and rows >= 36 else 3 if columns >= 60 and rows >= 18 else 1
    head = digits + (1 if digits == 5 else 0)
    hint = 1 if rows >= 9 else 0
    log = 5 if rows >= 44 else 3 if rows >= 30 else 2 if rows >= 20 else 1 if rows >= 7 else 0
    prompt = min(ask, max(1, rows // 4))
    left = rows - head - hint - log - prompt
    title = 1 if left >= 4 else 0
    body = max(0, left - title)
    if wide:
        return Plan(
            columns, rows, digits, head, title, body, body, log, prompt, hint, True, columns // 2
        )
    decks = min(wanted, body - max(2, round(body * 0.5))) if body >= 5 else 0
    return Plan(
        columns, rows, digits, head, title, body - decks, decks, log, prompt, hint, False, columns
    )
