"""Load shedding: what the engine gives up when its turns take too long, and when it takes it back.

A ladder of steps, each dearer to the ear than the one before:

    depth     half as many generations in flight: new ideas come half as often
    window    decoded windows are half as long: a new generation reaches the ear in more pieces
    gap-fill  what lies further ahead is not written again: a curve is heard a lap later there
    depth 1   one generation in flight
    precision the engine's cheaper arithmetic, where it has one

The sound itself never needs this: the loops play whatever the engine does. What suffers from late
turns is the answer to an edit, and shedding buys that back.

A step down is taken when the turns of the last seconds were late, a step up when they would still
be in time with what the step costs. A step up that fails at once is tried again only after twice
the time. Nothing here reads a clock: `Shedder.turn` takes the time.

Threads: belongs to the engine's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from demon_live.core import EngineState

#: Turns later than this part of the budget are late; below that part there is room.
_LATE, _ROOM = 1.5, 0.75
#: Seconds of late turns before a step down; of turns in time before a step up, and at most.
_DOWN, _UP, _UP_MOST = 3.0, 10.0, 160.0
#: A step up that is taken back within this time has failed.
_FAILED = 12.0
#: What a step up is thought to cost until it has been seen: the turns get this much longer.
_GUESS = 1.6


@dataclass(frozen=True, slots=True)
class Relief:
    """What is given up. depth: slots, None = as set. window: part of a decoded window."""

    depth: int | None = None
    window: float = 1.0
    gap_fill: bool = True
    cheap: bool = False


FULL = Relief()


@dataclass(frozen=True, slots=True)
class ShedStep:
    """A step. relief: what holds from now on. text: for the performer. level: 0 = nothing shed."""

    relief: Relief
    level: int
    text: str


def ladder(depth: int, precisions: bool) -> tuple[tuple[str, Relief], ...]:
    """What can be given up, step by step, each step with all before it; the first is nothing."""
    rows: list[tuple[str, Relief]] = [("", FULL)]

    def step(what: str, **more: object) -> None:
        rows.append((what, replace(rows[-1][1], **more)))  # type: ignore[arg-type]

    if depth > 2:
        step(f"depth {depth} to {depth // 2}", depth=depth // 2)
    step("half the window", window=0.5)
    step("no gap-fill", gap_fill=False)
    if depth > 1:
        step("depth 1", depth=1)
    if precisions:
        step("cheaper arithmetic", cheap=True)
    return tuple(rows)


class Shedder:
    """Decides. budget_s: what a turn may take. depth: of the ring when nothing is shed."""

    def __init__(self, budget_s: float, depth: int, precisions: bool = False) -> None:
        self.budget_s = budget_s
        self.level = 0
        self._precisions = precisions
        self._depth = depth
        self._steps = ladder(depth, precisions)
        self._recent: deque[tuple[float, float]] = deque()
        self._since = 0.0
        self._begun: float | None = None
        self._patience = _UP
        self._rose_at = -1e9
        #: Mean turn at each level when it was left for a deeper one: what going back will cost.
        self._cost: dict[int, float] = {}

    @property
    def relief(self) -> Relief:
        """What is given up now."""
        return self._steps[self.level][1]

    @property
    def given_up(self) -> str:
        """In words, or "" when nothing is."""
        return ", ".join(what for what, _ in self._steps[1 : self.level + 1])

    def set_depth(self, depth: int) -> None:
        """The score sets another depth: the ladder starts again from there."""
        if depth != self._depth:
            self._depth, self._steps = depth, ladder(depth, self._precisions)
            self.level = min(self.level, len(self._steps) - 1)
            self._cost.clear()
            self._recent.clear()
            self._begun = None

    def turn(self, now: float, took: float) -> ShedStep | None:
        """A turn ended at `now` (seconds, any origin) and took so long. A step, if one is due."""
        if self._begun is None:
            # A first turn warms up what the next ones use.
            self._begun = self._since = now
            return None
        self._recent.append((now, took))
        while len(self._recent) > 3 and now - self._recent[0][0] > _DOWN:
            self._recent.popleft()
        if now - self._since < _DOWN or len(self._recent) < 3:
            return None
        typical = sorted(t for _, t in self._recent)[len(self._recent) // 2]
        if typical > self.budget_s * _LATE:
            return self._down(now, typical)
        if self.level and now - self._since >= self._patience and self._fits(typical):
            return self._up(now)
        return None

    def out_of_memory(self, now: float) -> ShedStep | None:
        """The model ran out of memory: a step down at once, whatever the time says."""
        return self._down(now, self.budget_s * _LATE, "the model ran out of memory")

    def _fits(self, typical: float) -> bool:
        """Whether the turns would be in time one step up."""
        known = self._cost.get(self.level - 1)
        here = self._cost.get(self.level)
        # Known from before: the same proportion, at the speed of now.
        factor = known / here if known and here and known > here else _GUESS
        return typical * min(factor, _GUESS) <= self.budget_s * (_LATE + _ROOM) / 2

    def _down(self, now: float, typical: float, why: str = "") -> ShedStep | None:
        self._cost[self.level] = typical
        if self.level + 1 >= len(self._steps):
            self._since = now
            return None
        if now - self._rose_at < _FAILED:
            self._patience = min(self._patience * 2, _UP_MOST)
        self._move(now, 1)
        what, relief = self._steps[self.level]
        times = f"{typical * 1000:.0f} ms a turn, {self.budget_s * 1000:.0f} meant"
        why = why or f"the engine is late ({times})"
        text = f"{why}: it gives up {what}; {_REMEDY}"
        return ShedStep(relief, self.level, text)

    def _up(self, now: float) -> ShedStep:
        what = self._steps[self.level][0]
        self._move(now, -1)
        self._rose_at = now
        if self.level == 0:
            self._patience = _UP if self._patience <= _UP * 2 else self._patience
        rest = f"; still given up: {self.given_up}" if self.level else ""
        text = f"the engine is in time again: back from {what}{rest}"
        return ShedStep(self.relief, self.level, text)

    def _move(self, now: float, by: int) -> None:
        self.level += by
        self._since = now
        self._recent.clear()


_REMEDY = "the sound goes on; to help: plug in, close other programs, shorter loops, fewer decks"


class Lightened(Protocol):
    """What can be relieved: the generator."""

    window_part: float
    gap_fill: bool
    trouble: Exception | None

    def apply(self, state: EngineState) -> None: ...


class Shedding:
    """A Shedder at work on a generator. States go through `apply`: while less is given, the depth
    that the score asks for waits.

    cheap: switches the engine's cheaper arithmetic on or off; None where it has none.
    """

    def __init__(
        self,
        generator: Lightened,
        budget_s: float,
        depth: int,
        tell: Callable[[str], None],
        cheap: Callable[[bool], None] | None = None,
    ) -> None:
        self._generator, self._tell, self._cheap = generator, tell, cheap
        self._depth, self._state = depth, EngineState()
        self._shedder = Shedder(budget_s, depth, cheap is not None)

    @property
    def given_up(self) -> str:
        """In words, or "" when nothing is."""
        return self._shedder.given_up

    def apply(self, state: EngineState) -> None:
        """See `Generator.apply`."""
        self._state = state
        self._shedder.set_depth(state.depth or self._depth)
        self._give()

    def _give(self) -> None:
        asked, relief = self._state.depth or self._depth, self._shedder.relief
        given = asked if relief.depth is None else min(asked, relief.depth)
        # Where nothing is shed the state passes as it is.
        depth = self._state.depth if given == asked else given
        self._generator.apply(replace(self._state, depth=depth))

    def turn(self, now: float, took: float) -> None:
        """A turn ended at `now` and took so long, seconds."""
        change = self._shedder.turn(now, took)
        trouble, self._generator.trouble = self._generator.trouble, None
        if trouble is not None and _out_of_memory(trouble):
            change = self._shedder.out_of_memory(now) or change
        if change is None:
            return
        relief = change.relief
        self._generator.window_part, self._generator.gap_fill = relief.window, relief.gap_fill
        self._give()
        if self._cheap is not None:
            self._cheap(relief.cheap)
        self._tell(change.text)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()
