"""The handle of `tests.rigs.stage`: starts it, reads what it says, measures what it uses.

Threads: one thread reads the pipe; everything else belongs to the rig's main thread.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from demon_live.audio.sinks import Tap
from tests.rigs import grid, score

__all__ = ["Harness", "Listening", "slope_mb_per_hour"]

_ROOT = Path(__file__).resolve().parents[2]
_PAUSE = threading.Event()


def slope_mb_per_hour(times: Sequence[float], values: Sequence[float]) -> float:
    """Theil-Sen slope of bytes over seconds, in MB an hour: single leaps do not decide it."""
    if len(times) < 3:
        return 0.0
    t, v = np.asarray(times, float), np.asarray(values, float)
    # All pairs of 600 rows are 180,000: enough for an hour.
    step = max(1, len(t) // 600)
    t, v = t[::step], v[::step]
    i, j = np.triu_indices(len(t), 1)
    return round(float(np.median((v[j] - v[i]) / (t[j] - t[i]))) * 3600 / 1e6, 3)


class Listening:
    """Hears what the audio callback gives, while it plays: grid, gaps and peak of all of it."""

    def __init__(self, path: Path, period: float = score.PERIOD) -> None:
        self._tap = Tap(path)
        self.listener = grid.Listener(period)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(1.0):
            self.listener.feed(self._tap.read())

    def close(self) -> dict[str, Any]:
        """What was heard until now."""
        self._closing.set()
        self._thread.join(30)
        return {**self.listener.report(), "samples_unread": self._tap.lost}


class Harness:
    """`with Harness(scores, folder, env, "--audio", "null") as stage`."""

    def __init__(
        self, scores: Sequence[Path], folder: Path, env: Mapping[str, str], *words: str
    ) -> None:
        self.status: dict[str, Any] = {}
        self.events: list[tuple[float, str]] = []
        self.answers: collections.deque[dict[str, Any]] = collections.deque()
        self.closed = False
        self._news = threading.Condition()
        command = [sys.executable, "-m", "tests.rigs.stage", *words, *map(str, scores)]
        path = os.pathsep.join(filter(None, (str(_ROOT), env.get("PYTHONPATH", ""))))
        with (folder / "stage.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**env, "PYTHONPATH": path},
                cwd=folder,
                start_new_session=True,
                text=True,
            )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            with self._news:
                if "status" in row:
                    self.status = row["status"]
                elif "events" in row:
                    now = time.monotonic()
                    self.events += [(now, text) for text in row["events"]]
                elif "closed" in row:
                    self.closed = True
                else:
                    self.answers.append(row)
                self._news.notify_all()

    def wait(self, what: Callable[[], object], seconds: float) -> bool:
        """Wait until something is true of what was said; False if it did not come in time."""
        with self._news:
            return bool(self._news.wait_for(what, seconds))

    def fresh(self, seconds: float = 10.0) -> dict[str, Any]:
        """A status that was made after this call."""
        asked = time.monotonic()
        self.wait(lambda: self.status.get("at", 0.0) > asked, seconds)
        return self.status

    def send(self, text: str) -> None:
        """Apply a text, without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"apply": text}) + "\n")
        self.process.stdin.flush()

    def apply(self, text: str) -> dict[str, Any]:
        """Apply a text; its answer."""
        self.answers.clear()
        self.send(text)
        self.wait(lambda: bool(self.answers), 30)
        return self.answers[-1] if self.answers else {}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process of the instrument."""
        found = {}
        for name, pid in self.status.get("pids", {}).items():
            try:
                found[name] = int(psutil.Process(pid).memory_info().rss)
            except psutil.Error:
                continue
        return found

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU time of each process so far."""
        found = {}
        for name, pid in self.status.get("pids", {}).items():
            try:
                times = psutil.Process(pid).cpu_times()
                found[name] = times.user + times.system
            except psutil.Error:
                continue
        return found

    def weigh(self, nice: int) -> None:
        """Linux weighs sessions before processes: the nice value of each process's session."""
        for name, pid in self.status.get("pids", {}).items():
            # The audio process has real-time scheduling, or has asked for this itself.
            if name != "audio":
                with contextlib.suppress(OSError):
                    Path(f"/proc/{pid}/autogroup").write_text(str(nice))

    def close(self, seconds: float = 40.0) -> bool:
        """End it as a performer would. True if it ended by itself."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write('{"close": true}\n')
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        self._thread.join(2)
        return self.closed

    def __enter__(self) -> Harness:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.close()
