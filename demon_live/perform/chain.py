"""`chain 'a' 8, 'b' 4`: scenes one after the other, and from the start again, as lanes.

A control keeps what the last scene that binds it said. So the lane of a control is a ring of
sections, a pure function of time like every other lane.

Threads: immutable.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from demon_live.controls import Control
from demon_live.core import Floats
from demon_live.lang import Lane
from demon_live.lang.pattern import Times

__all__ = ["ChainLane"]


@dataclass(frozen=True, eq=False)
class ChainLane(Lane):
    """Sections in a ring of `total` cycles, beginning at cycle `begin`; before it, `old`.

    starts: ascending, each section's place in the ring, the first may be later than 0: what comes
    before it in the first round is `old`, in later rounds the last section.
    """

    spec: Control
    text: str
    old: Lane
    begin: Fraction
    total: Fraction
    starts: tuple[Fraction, ...]
    sections: tuple[Lane, ...]

    def _section(self, cycle: Fraction) -> Lane:
        since = cycle - self.begin
        if since < self.starts[0]:
            return self.old
        return self.sections[bisect_right(self.starts, since % self.total) - 1]

    def _edges(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        """Where sections begin, within [begin, end)."""
        first = max(0, (begin - self.begin) // self.total)
        last = (end - self.begin) // self.total
        rounds = range(int(first), int(last) + 1)
        edges = [self.begin + r * self.total + s for r in rounds for s in self.starts]
        return [e for e in edges if begin <= e < end]

    def sample(self, cycles: Times) -> Floats:
        times = np.asarray(cycles, dtype=np.float64)
        if not times.size:
            return np.zeros(0, np.float32)
        begin, end = Fraction(float(times.min())), Fraction(float(times.max())) + 1
        bounds = [begin, *self._edges(begin, end), end]
        out = self.old.sample(times)
        for a, b in pairwise(bounds):
            # A hair early: rounding may put a frame just before the edge that it belongs to.
            here = (times >= float(a) - 1e-9) & (times < float(b) - 1e-9)
            if here.any():
                out[here] = self._section(a).sample(times[here])
        return out

    def at(self, cycle: Fraction) -> float | str:
        return self._section(Fraction(cycle)).at(cycle)

    @property
    def continuous(self) -> bool:
        return self.old.continuous or any(s.continuous for s in self.sections)

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        bounds = [Fraction(begin), *self._edges(begin, end), Fraction(end)]
        out: set[Fraction] = set()
        for a, b in pairwise(bounds):
            if a < b:
                out.update(j for j in self._section(a).jumps(a, b) if j != a)
                near = a - Fraction(1, 10**9)
                if a > begin and self.at(a) != self._section(near).at(near):
                    out.add(a)
                elif a == begin:
                    out.update(j for j in self._section(a).jumps(a, b) if j == a)
        return sorted(out)
