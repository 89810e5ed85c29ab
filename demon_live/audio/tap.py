"""What the callback hands over, for a rig that listens: `DEMON_TAP=FILE` in the environment.

A ring of the last seconds in an mmap'ed file, beside the device and without a part in the sound:

    header  int64[8]: magic, samples written so far, capacity in samples
    ring    float32 [capacity, 2]

A recording at the mixer would be perfect whatever the callback did; a client of the sound server
misses blocks when the machine is overloaded. This sees each sample that was given, gaps included.

Threads: written on the audio thread, read by any process.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from demon_live.audio.pcmring import Bus, PcmRing
from demon_live.audio.sinks import Output
from demon_live.core import RATES, Floats

_MAGIC = 0x6465_6D6F_6E74_6170
_HEAD = 64
_SECONDS = 30


class Tapped(Output):
    """An Output that also writes into the file at `path`."""

    def __init__(self, ring: PcmRing, bus: Bus, path: Path) -> None:
        super().__init__(ring, bus)
        capacity = _SECONDS * RATES.sample_rate
        path.write_bytes(bytes(_HEAD + capacity * 8))
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        self._head = np.frombuffer(memory, np.int64, 8)
        self._sound: Floats = np.frombuffer(memory, np.float32, offset=_HEAD).reshape(-1, 2)
        self._head[2], self._head[0] = capacity, _MAGIC
        self._capacity, self._written = capacity, 0

    def __call__(self, out: Floats, frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback."""
        super().__call__(out, frames, when, status)
        at = self._written % self._capacity
        first = min(frames, self._capacity - at)
        self._sound[at : at + first] = out[:first]
        self._sound[: frames - first] = out[first:frames]
        self._written += frames
        self._head[1] = self._written


class Tap:
    """The reader. lost: samples that were overwritten before they were read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._head = np.frombuffer(memory, np.int64, 8)
        self._sound: Floats = np.frombuffer(memory, np.float32, offset=_HEAD).reshape(-1, 2)
        if self._head[0] != _MAGIC:
            raise ValueError(f"{path} is not a tap")
        self._read = int(self._head[1])
        self.lost = 0

    def read(self) -> Floats:
        """float32 [n, 2]: what came since the last call, in order."""
        written, capacity = int(self._head[1]), int(self._head[2])
        if written < self._read:  # a new process began anew
            self._read = 0
        if written - self._read > capacity // 2:
            self.lost += written - self._read - capacity // 2
            self._read = written - capacity // 2
        at = np.arange(self._read, written) % capacity
        self._read = written
        return self._sound[at]


def output_for(ring: PcmRing, bus: Bus) -> Output:
    """The callback of this process, tapped if DEMON_TAP says so."""
    path = os.environ.get("DEMON_TAP")
    return Tapped(ring, bus, Path(path)) if path else Output(ring, bus)
