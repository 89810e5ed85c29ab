"""Lanes that name controllers: compiled anew for each version of what the hands did.

Until all of its controllers have moved once, such a lane keeps the default of its control: a knob
does not say where it stands before it is touched.

Threads: immutable, but for the last answer, which is kept by a single assignment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from demon_live.controls import Control
from demon_live.core import Floats
from demon_live.lang.controllers import Hands, Key, Track
from demon_live.lang.lane import Lane, PatternLane
from demon_live.lang.pattern import Pattern, Times
from demon_live.lang.sequence import pure

__all__ = ["PlayedLane"]

Kept = tuple[tuple[Track, ...], Lane]


@dataclass(frozen=True, eq=False, repr=False)
class PlayedLane(Lane):
    """An expression with controllers. build: the history of moves -> its pattern."""

    spec: Control
    text: str
    asked: frozenset[Key]
    build: Callable[[Hands], Pattern]
    _kept: list[Kept] = field(default_factory=list)

    @property
    def keys(self) -> frozenset[Key]:
        return self.asked

    def played(self, hands: Hands) -> Lane:
        found = [hands.tracks.get(key) for key in sorted(self.asked)]
        tracks = tuple(t for t in found if t is not None)
        if len(tracks) < len(found):
            return self
        # The moves of other controllers change nothing here.
        kept = self._kept[0] if self._kept else None
        if kept is not None and all(a is b for a, b in zip(kept[0], tracks, strict=True)):
            return kept[1]
        lane = PatternLane(self.spec, self.build(hands), self.text)
        self._kept[:] = [(tracks, lane)]
        return lane

    @property
    def _untouched(self) -> Lane:
        default = "" if self.spec.default is None else self.spec.default
        return PatternLane(self.spec, pure(default), self.text)

    def sample(self, cycles: Times) -> Floats:
        return self._untouched.sample(cycles)

    def at(self, cycle: Fraction) -> float | str:
        return self._untouched.at(cycle)

    @property
    def continuous(self) -> bool:
        return False

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return []
