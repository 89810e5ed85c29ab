"""How fast the generator's turns are: what its anticipation and its lead follow, and a histogram.

Threads: belongs to the engine loop; `TurnTimes.stats` gives an immutable value.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from demon_live.core import RATES
from demon_live.runtime.placement import HALF

#: Lead: at least this far ahead of what the mixer has decided, at most that far, in samples.
LEAD_FLOOR, LEAD_CEILING = 1440, 24000
#: Nothing is written nearer than this to the playhead, in samples (5 ms).
GUARD = 240


class Pace:
    """Smoothed times. `period_s` is the time from tick to tick, `stray_s` how far ticks stray.

    Args:
        tick_samples: the nominal tick, believed until others are measured.
        learns: follow the measured ticks; False: the nominal one holds, so that a render does not
            depend on the speed of the machine.
        timer: seconds; None = the performance counter.
    """

    def __init__(
        self, tick_samples: int, *, learns: bool, timer: Callable[[], float] | None = None
    ) -> None:
        self.now = timer or time.perf_counter
        self.tick_s = self.period_s = tick_samples / RATES.sample_rate
        self.stray_s = self.decode_s = 0.0
        #: How far ahead of the playhead windows are written, in samples.
        self.lead = LEAD_FLOOR
        self._learns = learns
        self._gaps = 1
        self._last: float | None = None

    def after(self, steps: int) -> float:
        """Seconds that so many ticks and a window take while nothing else is made."""
        if not self._learns:
            return steps * self.period_s
        return steps * self.tick_s + self.decode_s

    def restart(self) -> None:
        """The next tick follows a pause that says nothing."""
        self._last = None

    def begin_tick(self, learn: bool) -> float:
        """A tick begins; learn: the time since the last one counts. Returns its beginning."""
        started = self.now()
        if self._last is not None and self._learns and learn:
            off = started - self._last - self.period_s
            stray = abs(off)
            # The first gaps count more: the nominal tick is another machine's.
            self._gaps += 1
            # One long pause, as at a first tick, is no pace.
            self.period_s += max(0.1, 1 / self._gaps) * min(off, self.period_s)
            rate = 0.5 if stray > self.stray_s else 0.02
            self.stray_s += rate * (stray - self.stray_s)
        self._last = started
        return started

    def end_tick(self, started: float) -> None:
        """The tick that began then has ended."""
        self.tick_s += 0.1 * (self.now() - started - self.tick_s)

    def decoded(self, started: float, samples: int) -> None:
        """A window was decoded since `started`, while the playhead went on by `samples`.

        The lead follows the slowest recent decodes: up at once, down slowly.
        """
        self.decode_s += 0.1 * (self.now() - started - self.decode_s)
        wanted = min(LEAD_CEILING, max(LEAD_FLOOR, samples * 3 // 2 + GUARD + 2 * HALF))
        self.lead = wanted if wanted > self.lead else self.lead - (self.lead - wanted) // 32


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
