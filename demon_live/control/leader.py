"""What leads the tempo: a reading of a shared beat, and what can be said back.

Link and MIDI clock both give a `Reading`: at a moment of time.monotonic() the shared beat stood at
so many quarter notes and moved at so many a minute. Whoever follows needs nothing else.

Threads: a Reading is immutable; each Leader says in its own module who may call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Leader", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """beat: quarter notes at `at` (time.monotonic()). bpm: quarter notes a minute.

    running: the beat moves (a MIDI clock may be stopped). peers: how many others there are.
    """

    at: float
    beat: float
    bpm: float
    running: bool = True
    peers: int = 0

    def beat_at(self, moment: float) -> float:
        """The beat at another moment, the tempo unchanged."""
        return self.beat + (moment - self.at) * self.bpm / 60.0


class Leader(Protocol):
    """Something whose tempo and phase are followed."""

    @property
    def problem(self) -> str:
        """Why it gives no readings, with the remedy; "" when it does."""
        ...

    def reading(self) -> Reading | None:
        """Where the shared beat stands now; None: nobody leads."""
        ...

    def lead(self, bpm: float) -> None:
        """Say a tempo to the others, where that is possible."""
        ...

    def settle(self, beat: float) -> None:
        """While nobody else is there: the beat stands at `beat` now, so that who joins later comes
        to us."""
        ...

    def close(self) -> None: ...
