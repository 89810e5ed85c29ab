"""The admission policies of earlier engines, for `demon bench` only.

`Upstream` is DEMON's: a FIFO of at most D requests, an empty cell takes the oldest, one finished
cell leaves per tick, at the next tick's beginning. With reset it is the policy that its paper
compares with (StreamDiffusion's prepare): one schedule for all, whose change discards what is in
flight. Bookkeeping only: what is compared is when completions come and what they know.

Threads: plain objects.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Upstream"]


@dataclass(slots=True)
class _Cell:
    value: float
    step: int = 0


class Upstream:
    """A ring of `depth` cells of `steps` steps; a request is a single value, its denoise."""

    def __init__(self, steps: int, depth: int, reset: bool = False) -> None:
        self.steps, self.depth, self.reset = steps, depth, reset
        self._queue: deque[float] = deque(maxlen=depth)
        self._cells: list[_Cell | None] = [None] * depth
        self._schedule: float | None = None

    def submit(self, value: float) -> None:
        """Queue a request; a full queue drops its oldest."""
        self._queue.append(value)

    def tick(self) -> float | None:
        """One tick. Returns the value of a generation whose last step was an earlier tick's."""
        done = self._retire()
        if self.reset and self._queue and self._queue[-1] != self._schedule:
            self._schedule = self._queue[-1]
            self._cells = [None] * self.depth
        for place, cell in enumerate(self._cells):
            if cell is None and self._queue:
                self._cells[place] = _Cell(self._queue.popleft())
        for cell in self._cells:
            if cell is not None and cell.step < self.steps:
                cell.step += 1
        return done

    def _retire(self) -> float | None:
        for place, cell in enumerate(self._cells):
            if cell is not None and cell.step >= self.steps:
                self._cells[place] = None
                return cell.value
        return None
