"""The distance to another machine, in output samples: its playhead as it is known here, and how
long a window is on its way.

No clocks are compared. The laptop says with every beat which sample its mixer decides next; here
the fastest of the recent beats is believed, so the estimate runs behind by the shortest way there.
For each window the laptop says where its mixer was when the window arrived; the difference to the
estimate at its sending is what must be added to the lead. It holds the way there, the way back and
every queue between, whatever is the clocks' offset.

Threads: one writer each; readers may be others (single words).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from demon_live.core import RATES

#: Seconds of beats that the playhead is estimated from: longer, and two clocks drift apart.
_MEMORY = 5.0


class RemotePlayhead:
    """The playhead of the laptop, estimated. See `clock.Clock`."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._beats: deque[tuple[float, float]] = deque()
        self._ahead: float | None = None
        self._last = 0

    def beat(self, mixed: int) -> None:
        """A beat came: the laptop's mixer decides sample `mixed` next."""
        now = self._seconds()
        self._beats.append((now, mixed - now * RATES.sample_rate))
        while self._beats[0][0] < now - _MEMORY:
            self._beats.popleft()
        self._ahead = max(ahead for _, ahead in self._beats)

    @property
    def known(self) -> bool:
        """Whether a beat has come."""
        return self._ahead is not None

    def now(self) -> int:
        if self._ahead is None:
            return self._last
        # Never back: what was decided stays decided.
        self._last = max(self._last, int(self._seconds() * RATES.sample_rate + self._ahead))
        return self._last


class Delay:
    """What windows take to arrive, samples. The lead covers the slowest of the last `memory` s."""

    #: The most that is added to the lead: later windows are dropped. The longest that is believed.
    CEILING = 2 * RATES.sample_rate

    def __init__(
        self,
        first: int = 9600,
        memory: float = 30.0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._memory, self._seconds = first, memory, seconds
        self._seen: deque[tuple[float, int]] = deque(maxlen=4096)

    def note(self, samples: int) -> None:
        """A window was on its way for so many samples."""
        now = self._seconds()
        self._seen.append((now, max(0, samples)))
        while self._seen[0][0] < now - self._memory:
            self._seen.popleft()

    @property
    def lead(self) -> int:
        """Samples to add to the lead: the slowest of late, and a tenth. Before anything is known,
        a guess."""
        if not self._seen:
            return self._first
        return min(self.CEILING, max(samples for _, samples in self._seen) * 11 // 10)

    def figures(self) -> tuple[float, float]:
        """(median, 95th percentile less the median) in ms."""
        if not self._seen:
            return 0.0, 0.0
        ms = np.array([samples for _, samples in self._seen]) * 1000 / RATES.sample_rate
        middle, late = np.percentile(ms, [50, 95])
        return round(float(middle), 1), round(float(late - middle), 1)
