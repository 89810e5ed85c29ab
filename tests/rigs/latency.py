"""How late this machine wakes a process of the highest real-time priority (after cyclictest).

A virtual machine whose host takes the processor away stops everything, real-time or not. What this
watch sees late, no program here could have done in time: a rig reports it beside its underruns.

`python -m tests.rigs.latency` prints a JSON line a second until its stdin ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Watch", "steal_seconds"]

_ROOT = Path(__file__).resolve().parents[2]
_EVERY = 0.002


def steal_seconds() -> float:
    """Processor time that the host of a virtual machine has taken so far; 0 where unknown."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


class Watch:
    """The watch as a process of its own: `report()` after `close()`."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = {**(env or os.environ), "PYTHONPATH": str(_ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rigs.latency"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._env,
            text=True,
        )
        self._steal = steal_seconds()
        self._last: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last = json.loads(line)

    def close(self) -> dict[str, Any]:
        """End the watch; what it saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(2)
        return {**self._last, "stolen_s": round(steal_seconds() - self._steal, 2)}


def main() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(80))
        realtime = True
    except (OSError, AttributeError):
        realtime = False
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    counts = {5: 0, 10: 0, 20: 0}
    worst, told, began = 0.0, 0.0, time.monotonic()
    late: list[tuple[float, float]] = []
    due = time.monotonic()
    while not ended.is_set():
        due += _EVERY
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        over = (now - due) * 1000
        worst = max(worst, over)
        for limit in counts:
            counts[limit] += over > limit
        if over > 5 and len(late) < 200:
            late.append((round(now - began, 2), round(over, 1)))
        if over > 2:
            due = now
        if now - told >= 1.0:
            told = now
            row: dict[str, Any] = {"realtime": realtime, "worst_ms": round(worst, 1)}
            row |= {f"over_{k}_ms": v for k, v in counts.items()}
            row["late"] = late[-50:]
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
