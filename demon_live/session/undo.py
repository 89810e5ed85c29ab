"""Undo and redo of anything that a statement or a word changes.

States are immutable, so a step back is a reference to an earlier one. What is undone is what plays
(`State.said`); the session lets it take effect at the next quantum, as a change of its own.

Threads: under the session's lock.
"""

from __future__ import annotations

from collections import deque

from demon_live.session.state import State

#: Steps that are kept.
LIMIT = 64


class Undo:
    """The states before and after the present one."""

    def __init__(self) -> None:
        self._before: deque[State] = deque(maxlen=LIMIT)
        self._after: deque[State] = deque(maxlen=LIMIT)
        self._drag = ""

    def note(self, before: State, now: State, drag: str = "") -> None:
        """A text was applied: one step, if it changed what plays.

        drag: the name of the drag that it belongs to; what follows in the same drag is no step of
        its own.
        """
        if before is not now and before.said != now.said:
            if not drag or drag != self._drag:
                self._before.append(before)
            self._after.clear()
            self._drag = drag

    def peek(self, word: str) -> State | None:
        """The state that `undo` or `redo` would go to."""
        states = self._before if word == "undo" else self._after
        return states[-1] if states else None

    def step(self, word: str, now: State) -> State | None:
        """The state to go to on `undo` or `redo`, None at the end of the way."""
        source, target = (
            (self._before, self._after) if word == "undo" else (self._after, self._before)
        )
        if not source:
            return None
        self._drag = ""
        target.append(now)
        return source.pop()
