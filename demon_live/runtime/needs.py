"""What will be heard soon, and which of it no generation was made for yet.

A *need* is a stretch of one lap in which no value of class slot changes. One generation serves it:
its curves are those of the lap, whenever it is admitted, so that a score that stands still asks for
the same generation lap after lap, and the ring finds it in its store. What a hand changes is seen
by comparing what was asked for with what the score says now.

Threads: belongs to the engine loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, ControlBlock, Floats, NoteEvent, Phrase, Request
from demon_live.runtime.scheduler import value_at
from demon_live.session.sampler import lap_times

#: Curves are rounded to multiples of this: equal moments of a periodic score are equal bits.
_GRAIN = 2.0**20
#: Cycles by which notes may lie beside the samples that they belong to.
_SLACK = 1e-4
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
    """What a generation is made of: a need and the curves of its lap.

    late: the need sounds already, or will before a generation is ready. steered: its curves were
    changed in flight, so that it is no generation of its own causes alone. phrase: the notes of its
    lap, None where the score has none.
    """

    need: Need
    curves: Mapping[str, Floats]
    late: bool = False
    steered: bool = False
    phrase: Phrase | None = None

    def equals(self, other: Asked) -> bool:
        """Whether both are the same generation, for whatever time."""
        mine, theirs = self.curves, other.curves
        if self.need.values != other.need.values or mine.keys() != theirs.keys():
            return False
        # What drifts is another generation in each lap.
        if self.phrase != other.phrase or self.need.values.get("drift"):
            return False
        return all(np.array_equal(curve, theirs[name]) for name, curve in mine.items())


def heard_in(phrase: Phrase | None, begin: float, end: float) -> list[NoteEvent]:
    """The notes that sound between two cycles of a lap."""
    notes = () if phrase is None else phrase.notes
    # Laps begin on whole samples, notes do not.
    begin, end = begin + _SLACK, end - _SLACK
    return [note for note in notes if note.begin < end and note.begin + note.length > begin]


class Needs:
    """The needs of one deck and loop, and what was asked for.

    prepared: whether what a generation is made from is there; what is not prepared is not chosen.
    """

    def __init__(self, prepared: Callable[[Asked], bool] = lambda asked: True) -> None:
        self._prepared = prepared
        self._block: ControlBlock | None = None
        self._needs: list[Need] = []
        #: Where the lap after the one that sounds begins.
        self._next_lap = 0
        #: Where the stretch that sounds has begun.
        self._begin = 0
        #: By the begin of a need.
        self._served: dict[int, Asked] = {}
        self._flying: list[Asked] = []
        #: The begins of needs that something was asked for.
        self._known: set[int] = set()
        self._begun = False

    def reset(self) -> None:
        """Nothing was asked for yet."""
        self._served.clear()
        self._flying.clear()
        self._known.clear()
        self._begun = False

    def again(self) -> None:
        """Ask for everything once more: the same values now mean something else."""
        self._served.clear()

    def take(self, block: ControlBlock) -> list[Asked]:
        """The newest block. Returns what is in flight and has other curves now."""
        at, loop = block.sampled_at, block.loop
        passed = [need.begin for need in self._needs if need.begin <= at]
        begin = max(self._begin, loop.from_sample, *passed)
        lap, _ = loop.locate(at)
        self._block, self._begin, self._next_lap = block, begin, loop.lap_start(lap + 1)
        laps = (self._next_lap, loop.lap_start(lap + 2))
        cuts = {row.from_sample for row in block.plan[1:]} | set(laps)
        held = block.held or (block.plan[0].values if block.plan else {})
        edges = [begin, *sorted(c for c in cuts if at < c <= at + loop.samples)]
        self._needs = [
            Need(a, b, value_at(block.plan, a) if a > at else held)
            for a, b in pairwise([*edges, laps[1]])
            if b > a
        ]
        self._served = {b: asked for b, asked in self._served.items() if b >= begin}
        self._known = {b for b in self._known if b >= begin}
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
            # Of the frame that sounds now nothing can be changed any more.
            if need is None or self._same(asked, need, at + RATES.hop):
                continue
            self._served.pop(need.begin, None)
            if asked.phrase != self._phrase(need):
                # Its source is baked in: it is made anew.
                continue
            self._flying[i] = replace(asked, curves=self._curves(need), steered=True)
            changed.append(self._flying[i])
        return changed

    def choose(self, ready: int, reach: int) -> Asked | None:
        """What to make next, or None: all that will be heard soon is made or in flight.

        ready: the output sample from which it can be heard. reach: what begins before this sample
        must be admitted now. That comes first, then what sounds, then what lies further ahead.
        """
        wanted = [n for n in self._needs if n.end > ready and self._unserved(n, ready)]
        # The first of all is for what sounds first: a loop is filled from it.
        soon = [n for n in wanted if ready < n.begin <= reach] if self._begun else []
        return next(self._askable((*soon, *wanted), ready), None)

    def _askable(self, needs: Iterable[Need], ready: int) -> Iterator[Asked]:
        """What would be made for these needs: not what is in flight, or cannot be made yet."""
        for need in needs:
            late = self._begun and need.begin <= ready
            asked = Asked(need, self._curves(need), late, phrase=self._phrase(need))
            if not self._is_flying(asked) and self._prepared(asked):
                yield asked

    def hand(self, soonest: int, ready: int) -> Asked | None:
        """What a hand has changed of a generation that is heard before `ready`, or None.

        soonest: the output sample from which its prediction can be heard.
        """
        for need in self._needs:
            known = need.begin in self._known and need.begin <= ready and need.end > soonest
            if not known or not self._unserved(need, soonest):
                continue
            curves = self._curves_from(need, soonest)
            asked = Asked(need, curves, late=True, phrase=self._phrase(need))
            if not self._is_flying(asked) and self._prepared(asked):
                return asked
        return None

    def _is_flying(self, asked: Asked) -> bool:
        """Whether it will be in the store when what is in flight has landed."""
        return any(asked.equals(other) for other in self._flying if not other.steered)

    def due(self, ready: int, reach: int) -> int:
        """How many generations are to be made that begin within reach."""
        soon = (n for n in self._needs if n.end > ready and n.begin <= reach)
        found: list[Asked] = []
        for asked in self._askable((n for n in soon if self._unserved(n, ready)), ready):
            if not any(asked.equals(other) for other in found):
                found.append(asked)
        return len(found)

    def asked(self, asked: Asked) -> None:
        """This is being made."""
        self._begun = True
        self._served[asked.need.begin] = asked
        self._known.add(asked.need.begin)
        self._flying.append(asked)

    @property
    def late(self) -> int | None:
        """Where a need begins that sounds already while what a hand asked for is in flight."""
        return next((asked.need.begin for asked in self._flying if asked.late), None)

    def also(self, request: Request, now: int) -> list[int]:
        """The begins of other needs that a hand has changed and that this generation serves, too,
        from output sample `now` on: those of the next lap, or of this one, when it is nearly
        over."""
        asked, curves = self._served.get(request.hear_from), request.curves or {}
        if asked is None or asked.need.values != request.values:
            return []
        if any(asked.curves[name] is not curve for name, curve in curves.items()):
            return []
        # What drifts is another generation in each lap.
        if asked.need.values.get("drift"):
            return []
        others = [n for n in self._needs if n.begin != request.hear_from and n.begin in self._known]
        return [n.begin for n in others if self._same(asked, n, now)]

    def keep_flying(self, begins: Iterable[int]) -> None:
        """Only these are in flight, by the begins of their needs; of equal ones the newest."""
        left = Counter(begins)
        kept: list[Asked] = []
        for asked in reversed(self._flying):
            if left[asked.need.begin] > 0:
                left[asked.need.begin] -= 1
                kept.insert(0, asked)
        self._flying = kept

    def _curves(self, need: Need) -> dict[str, Floats]:
        """Every curve of the lap of a need, float32 [T]."""
        block = self._block
        assert block is not None
        at = int(need.begin >= self._next_lap)
        laps = {name: two[at] for name, two in block.laps.items()}
        return {name: (np.rint(x * _GRAIN) / _GRAIN).astype(np.float32) for name, x in laps.items()}

    def _curves_from(self, need: Need, begin: int) -> dict[str, Floats]:
        """As `_curves`; those of the next lap if they are the same from output sample `begin` on,
        so that one generation serves both laps."""
        now, block = self._curves(need), self._block
        assert block is not None
        if need.begin >= self._next_lap:
            return now
        then = self._curves(replace(need, begin=self._next_lap))
        heard = self._heard(need, begin)
        return then if all(np.array_equal(now[n][heard], then[n][heard]) for n in now) else now

    def _heard(self, need: Need, begin: int) -> NDArray[np.bool_]:
        """The frames of a need that sound from `begin` on, with the one that sounds there."""
        block = self._block
        assert block is not None
        times = lap_times(block.loop, block.loop.locate(need.begin)[0])
        return np.asarray((times > begin - RATES.hop) & (times < need.end))

    def _phrase(self, need: Need) -> Phrase | None:
        """The notes of the lap of a need."""
        block = self._block
        assert block is not None
        return block.phrases[need.begin >= self._next_lap] if block.phrases else None

    def _unserved(self, need: Need, ready: int) -> bool:
        if sum(asked.need.begin == need.begin for asked in self._flying) >= _MOST_FLYING:
            return False
        asked = self._served.get(need.begin)
        return asked is None or not self._same(asked, need, ready)

    def _same(self, asked: Asked, need: Need, begin: int) -> bool:
        """Whether from `begin` until the end of a need the score says what was asked for."""
        now = self._curves(need)
        if asked.need.values != need.values or asked.curves.keys() != now.keys():
            return False
        block = self._block
        assert block is not None
        loop = block.loop
        lap, _ = loop.locate(need.begin)
        lap_begin = loop.lap_start(lap)
        span = tuple((x - lap_begin) * loop.cycles / float(loop.lap) for x in (begin, need.end))
        if heard_in(asked.phrase, *span) != heard_in(self._phrase(need), *span):
            return False
        heard = self._heard(need, begin)
        return all(np.array_equal(asked.curves[n][heard], now[n][heard]) for n in now)
