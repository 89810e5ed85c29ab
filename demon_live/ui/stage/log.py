"""What was said to the performer, as the rows above the prompt.

Threads: the event loop's.
"""

from __future__ import annotations

import re
from collections import deque

from demon_live.ui import show
from demon_live.ui.stage.painter import Row

__all__ = ["Told", "rows_of"]

_EXCERPT = re.compile(r"  +\d+ \| ")
_LOG = 64
#: How long the answer to a key keeps its place, in seconds.
_ANSWER = 5.0


class Told:
    """Events in their order; the answer to a key stays last for a while, whatever else is told."""

    def __init__(self) -> None:
        self._log: deque[Row] = deque(maxlen=_LOG)
        self._answer: list[Row] = []
        self._until = 0.0

    def event(self, rows: list[Row]) -> None:
        """Something happened."""
        self._log.extend(rows)

    def answer(self, rows: list[Row], now: float) -> None:
        """The answer to what was played or asked at second `now`."""
        self._log.extend(self._answer)
        self._answer, self._until = rows, now + _ANSWER

    def rows(self, now: float) -> list[Row]:
        """All that is still known, the oldest first."""
        if self._answer and now > self._until:
            self._log.extend(self._answer)
            self._answer = []
        return [*self._log, *self._answer]


def rows_of(pieces: show.Pieces) -> list[Row]:
    """Pieces as rows. Excerpts of a score are left out, it stands above."""
    rows: list[Row] = []
    row: list[tuple[str, str]] = []
    for kind, words in pieces:
        if kind.startswith(("pygments", "error.caret")) or (not kind and _EXCERPT.match(words)):
            continue
        for i, part in enumerate(words.split("\n")):
            if i:
                rows.append(row)
                row = []
            if part:
                row.append((f"class:{kind}" if kind else "", part))
    rows.append(row)
    return [row for row in rows if any(t.strip() for _, t in row)]
