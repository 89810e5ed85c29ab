"""Calls that wait for a cycle, and messages for the performer that answer no statement.

Threads: under the session's lock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable


class Agenda:
    """Calls at output samples, in order; calls for the same sample in the order they were added."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, sample: int, call: Callable[[], None]) -> None:
        """Call it when the playhead reaches `sample`."""
        self._rows.append((sample, next(self._numbers), call))
        self._rows.sort(key=lambda row: row[:2])

    def run(self, now: int) -> None:
        """Make the calls that are due."""
        while self._rows and self._rows[0][0] <= now:
            self._rows.pop(0)[2]()


class Messages:
    """The newest lines, numbered, so that each reader gets each line once."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, str]] = deque(maxlen=256)
        self._numbers = itertools.count(1)

    def add(self, text: str) -> None:
        self._rows.append((next(self._numbers), text))

    def since(self, number: int) -> tuple[int, tuple[str, ...]]:
        """(number of the newest, the lines after line `number`)."""
        rows = [(n, text) for n, text in self._rows if n > number]
        return (rows[-1][0] if rows else number), tuple(text for _, text in rows)
