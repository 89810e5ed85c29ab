"""What will be heard soon, and which of it no generation was made for yet.

A *need* is a stretch of one lap in which no value of class slot changes. One generation serves it:
its curves are those of the stretch's own time, fixed when it is admitted, so that a score that
stands still asks for the same generation lap after lap, and the ring finds it in its store. What a
hand changes afterwards is seen by comparing what was asked for with what the score says now.

Threads: belongs to the engine loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demon_live.core import ControlBlock, Floats
from demon_live.runtime.scheduler import value_at
from demon_live.session.sampler import heard_at

#: Curves are rounded to multiples of this: equal moments of a periodic score are equal bits.
_GRAIN = 2.0**20
#: Generations in flight for one need: one that a hand has changed, and the next.
_MOST_FLYING = 2


@dataclass(frozen=True, slots=True)
class Need:
    """Output samples [begin, end) and the values of class slot that hold there."""

    begin: int
    end: int
    values: Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation is made of. hear_from: the sample from which its curves are."""

    need: Need
    hear_from: int
    curves: Mapping[str, Floats]


class Needs:
    """The needs of one deck and loop, and what was asked for."""

    def __init__(self) -> None:
        self._block: ControlBlock | None = None
        self._times: NDArray[np.int64] = np.zeros(0, np.int64)
        self._needs: list[Need] = []
        #: Where the stretch that sounds has begun.
        self._begin = 0
        #: By the begin of a need.
        self._served: dict[int, Asked] = {}
        self._flying: list[Asked] = []
        self._begun = False

    def reset(self) -> None:
        """Nothing was asked for yet."""
        self._served.clear()
        self._flying.clear()
        self._begun = False

    def again(self) -> None:
        """Ask for everything once more: the same values now mean something else."""
        self._served.clear()

    def take(self, block: ControlBlock) -> list[Asked]:
        """The newest block. Returns what is in flight and has other curves now."""
        at, loop = block.sampled_at, block.loop
        passed = [need.begin for need in self._needs if need.begin <= at]
        begin = max(self._begin, loop.from_sample, *passed)
        self._block, self._begin, self._times = block, begin, heard_at(loop, at)
        lap, _ = loop.locate(at)
        horizon = at + loop.samples
        laps = (loop.lap_start(lap + 1), loop.lap_start(lap + 2))
        cuts = {row.from_sample for row in block.plan[1:]} | set(laps)
        edges = [begin, *sorted(c for c in cuts if at < c <= horizon)]
        ends = [*edges[1:], max(laps)]
        self._needs = [
            Need(a, b, value_at(block.plan, max(a, at)) if block.plan else {})
            for a, b in zip(edges, ends, strict=True)
            if b > a
        ]
        self._served = {b: asked for b, asked in self._served.items() if b >= begin}
        return self._steered(at)

    @property
    def edges(self) -> list[int]:
        """Where the needs to come begin."""
        return [need.begin for need in self._needs[1:]]

    def _steered(self, at: int) -> list[Asked]:
        """What is in flight for a need whose curves have changed, with the new ones."""
        changed = []
        known = {need.begin: need for need in self._needs}
        for i, asked in enumerate(self._flying):
            need = known.get(asked.need.begin)
            if need is None or self._same(asked, need, max(at, asked.hear_from)):
                continue
            now = Asked(need, asked.hear_from, self.curves(asked.hear_from))
            self._served.pop(need.begin, None)
            self._flying[i] = now
            changed.append(now)
        return changed

    def choose(self, ready: int, reach: int) -> Asked | None:
        """What to make next, or None: all that will be heard soon is made or in flight.

        ready: the output sample from which it can be heard. reach: what begins before this sample
        must be admitted now. That comes first, then what sounds, then what lies further ahead.
        """
        open_ = [n for n in self._needs if n.end > ready and self._unserved(n, ready)]
        if not open_:
            return None
        # The first of all is for what sounds first: a loop is filled from it.
        soon = [n for n in open_ if ready < n.begin <= reach] if self._begun else []
        need = (soon or open_)[0]
        hear_from = max(need.begin, ready)
        return Asked(need, hear_from, self.curves(hear_from))

    def urgent(self, ready: int, reach: int) -> bool:
        """Whether something is to be made that begins within reach."""
        asked = self.choose(ready, reach)
        return asked is not None and asked.need.begin <= reach

    def asked(self, asked: Asked) -> None:
        """This is being made."""
        self._begun = True
        self._served[asked.need.begin] = asked
        self._flying.append(asked)

    def landed(self, hear_from: int | None = None) -> None:
        """A generation is finished; None: nothing is in flight any more."""
        if hear_from is None:
            self._flying.clear()
            return
        for i, asked in enumerate(self._flying):
            if asked.hear_from == hear_from:
                del self._flying[i]
                return

    def curves(self, begin: int) -> dict[str, Floats]:
        """Every curve of a lap that begins at output sample `begin`, float32 [T]."""
        block = self._block
        assert block is not None
        out = {}
        for name, lane in block.lanes.items():
            later = block.next_lanes.get(name, lane)
            curve = np.where(self._times >= begin, lane, later).astype(np.float64)
            out[name] = (np.rint(curve * _GRAIN) / _GRAIN).astype(np.float32)
        return out

    def _unserved(self, need: Need, ready: int) -> bool:
        if sum(asked.need.begin == need.begin for asked in self._flying) >= _MOST_FLYING:
            return False
        asked = self._served.get(need.begin)
        return asked is None or not self._same(asked, need, max(need.begin, ready))

    def _same(self, asked: Asked, need: Need, begin: int) -> bool:
        """Whether from `begin` until the end of a need the score says what was asked for."""
        now = self.curves(begin)
        if asked.need.values != need.values or asked.curves.keys() != now.keys():
            return False
        block = self._block
        assert block is not None
        times = np.where(self._times >= begin, self._times, self._times + block.loop.samples)
        heard = times < need.end
        return all(np.array_equal(asked.curves[n][heard], now[n][heard]) for n in now)
