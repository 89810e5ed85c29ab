"""Fault points: places in the code where a rig or a test may make something go wrong.

    DEMON_FAULTS="tick.stall=0.3@20s, latent.nan@5, disk.full@10+"

Each entry is NAME[=VALUE][@WHEN]: WHEN is a number (only the n-th time that the point is reached),
`N+` (from the n-th time on), `Ts` (once in T seconds); without it, each time. Every process counts
for itself. Without the variable nothing is parsed and a point costs one test of a boolean.

    if faults.ON and (seconds := faults.hit("tick.stall")) is not None: ...

Threads: `hit` may be called from any thread; counting is under a lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from demon_live.errors import UsageError, nearest

#: name -> what happens there, and what VALUE means.
POINTS: Mapping[str, str] = {
    "tick.slow": "the engine's turns take VALUE times as long (a hot or unplugged laptop)",
    "tick.stall": "the engine stands still for VALUE seconds",
    "latent.nan": "the model gives NaN",
    "latent.explode": "the model gives numbers VALUE times too large",
    "pcm.nan": "the decoder gives NaN",
    "engine.crash": "the engine process dies by SIGKILL",
    "engine.oom": "the model runs out of memory",
    "weights.corrupt": "the weights cannot be used",
    "device.gone": "the audio device is lost",
    "input.gone": "the input device is lost",
    "clock.jump": "the clock jumps VALUE seconds ahead (a machine that slept)",
    "disk.full": "writing the journal or a recording fails: no space left",
    "score.half": "a score is read while it is being written",
    "watch.overflow": "the system forgets to tell that a file was saved",
}


@dataclass(slots=True)
class Fault:
    """One entry. every: seconds, or None; first, last: which hits, counted from 1."""

    name: str
    value: float = 1.0
    first: int = 1
    last: int | None = None
    every: float | None = None
    _count: int = field(default=0, repr=False)
    _due: float | None = field(default=None, repr=False)

    def reached(self, now: float) -> bool:
        """The point is reached; whether it goes wrong this time."""
        self._count += 1
        if self.every is not None:
            # Not at once: what is to be disturbed must play first.
            if self._due is None:
                self._due = now + self.every
            if now < self._due:
                return False
            self._due = now + self.every
            return True
        return self._count >= self.first and (self.last is None or self._count <= self.last)


def parse(text: str) -> list[Fault]:
    """The entries of a DEMON_FAULTS. Raises UsageError with the remedy."""
    found = []
    for entry in filter(None, (e.strip() for e in text.split(","))):
        what, _, when = entry.partition("@")
        name, _, value = what.partition("=")
        if name not in POINTS:
            near = nearest(name, POINTS)
            raise UsageError(
                f"there is no fault point {name!r}",
                hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(POINTS)}",
            )
        try:
            fault = Fault(name, float(value or 1))
            if when.endswith("s"):
                fault.every = float(when[:-1])
            elif when.endswith("+"):
                fault.first = int(when[:-1])
            elif when:
                fault.first = fault.last = int(when)
        except ValueError:
            raise UsageError(
                f"{entry!r} is not a fault", hint="NAME[=VALUE][@N | @N+ | @Ts]"
            ) from None
        found.append(fault)
    return found


class FaultPlan:
    """Faults to come. now: seconds."""

    def __init__(self, text: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self._faults: dict[str, list[Fault]] = {}
        for fault in parse(text):
            self._faults.setdefault(fault.name, []).append(fault)
        self._now = now
        self._lock = threading.Lock()

    def hit(self, name: str) -> float | None:
        """The value of the fault that happens here and now, or None."""
        assert name in POINTS, name
        faults = self._faults.get(name)
        if faults is None:
            return None
        with self._lock:
            values = [f.value for f in faults if f.reached(self._now())]
        return values[0] if values else None


#: Whether any fault is planned: `if faults.ON and ...` costs nothing on stage.
ON = bool(os.environ.get("DEMON_FAULTS"))
_plan = FaultPlan(os.environ.get("DEMON_FAULTS", ""))


def hit(name: str) -> float | None:
    """See `FaultPlan.hit`, of the plan in the environment."""
    return _plan.hit(name)
