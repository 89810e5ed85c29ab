"""How long the engine's turns take: a histogram that never grows.

Buckets are 2 % wide, so that a percentile is right within 2 % over a set of any length.

Threads: belongs to the engine's loop; `TurnTimes.stats` gives an immutable value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LOW = 1e-4  # seconds
_STEP = math.log(1.02)
_BUCKETS = 700  # up to 100 s


@dataclass(frozen=True, slots=True)
class TurnStats:
    """Of all turns so far, milliseconds: a turn is a tick, the decodes and their placement."""

    turns: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class TurnTimes:
    """Counts turns by their length."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._turns = 0
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """A turn took this long."""
        at = int(math.log(max(seconds, _LOW) / _LOW) / _STEP)
        self._counts[min(at, _BUCKETS - 1)] += 1
        self._turns += 1
        self._longest = max(self._longest, seconds)

    def percentile(self, part: float) -> float:
        """The time in seconds that `part` of the turns stay under; 0 before the first."""
        wanted, seen = part * self._turns, 0
        for at, count in enumerate(self._counts):
            seen += count
            if seen and seen >= wanted:
                return _LOW * math.exp((at + 1) * _STEP)
        return 0.0

    def stats(self) -> TurnStats:
        return TurnStats(
            self._turns,
            round(self.percentile(0.5) * 1000, 2),
            round(self.percentile(0.99) * 1000, 2),
            round(self._longest * 1000, 2),
        )
