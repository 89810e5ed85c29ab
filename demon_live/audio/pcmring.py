"""Sound and counters that outlive a process, and the ring inside the audio process.

    LoopBuffer  the PCM of one deck's loop: the engine writes ahead of the playhead, the mixer reads
    Numbers     named numbers in a mapped file
    Bus         numbers of the audio process that everybody may read: playhead, dry count, peaks
    PcmRing     mixed sound between the mix thread and the audio callback
    likeness    how alike two stretches of sound are, which a cross-fade has to make up for

Plain files, not multiprocessing.shared_memory: on Python 3.11 a child that attaches to a segment by
name unlinks it when it exits, and the sound must survive exactly such an exit.

Threads and processes: one writer per LoopBuffer stretch and per Bus field, any number of readers;
PcmRing has one producer and one consumer.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, Floats
from demon_live.errors import FileError

CHANNELS = 8  #: of a device that are used at most
_FRAME = 8  # bytes of one stereo float32 sample
_BINARY = getattr(os, "O_BINARY", 0)


def _create(path: Path, size: int) -> None:
    """A file of `size` zero bytes at `path`, all of them really there."""
    part = path.with_name(path.name + ".part")
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
    try:
        os.ftruncate(fd, size)
        # A file system that runs full (many containers have 64 MB of /dev/shm) must say so here:
        # later, at the first write into the mapping, it would kill the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
    except OSError:
        os.close(fd)
        part.unlink()
        raise
    os.close(fd)
    # Readers never see a file of the wrong length; readers of an older file keep theirs.
    os.replace(part, path)


def _map(path: Path, size: int | None) -> mmap.mmap:
    """The file at `path` in memory; created with `size` zero bytes when a size is given."""
    try:
        if size is not None:
            _create(path, size)
        fd = os.open(path, os.O_RDWR | _BINARY)
        try:
            return mmap.mmap(fd, 0)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot map {path}: {error}",
            hint="the runtime folder may be full or gone: DEMON_RUNTIME names another",
        ) from error


class LoopBuffer:
    """The PCM of one deck's stage. audio: float32 [samples, 2], mapped; index = loop position.

    Readers may see a window half written: windows are placed ahead of the playhead, so no one
    listens there. If the writer dies, the last good loop stays.
    """

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self._memory = memory
        # frombuffer, not np.memmap: slices of the memmap class cost ten times as much.
        self.audio: Floats = np.frombuffer(memory, np.float32).reshape(-1, 2)

    @classmethod
    def create(cls, path: str | Path, samples: int) -> LoopBuffer:
        """A silent loop of `samples` samples at `path`; an older file there is replaced."""
        if samples < 1:
            raise ValueError(f"a loop needs at least one sample, not {samples}")
        return cls(Path(path), _map(Path(path), samples * _FRAME))

    @classmethod
    def open(cls, path: str | Path) -> LoopBuffer:
        """The loop that another process created. Raises FileError."""
        memory = _map(Path(path), None)
        size = len(memory)
        if size % _FRAME:
            memory.close()
            raise FileError(f"{path} is not a loop: {size} bytes")
        return cls(Path(path), memory)

    @property
    def samples(self) -> int:
        """Length of the loop."""
        return len(self.audio)

    def write(self, start: int, audio: Floats) -> None:
        """Puts float32 [n, 2] at positions start, start + 1, ..., cyclic; n <= samples."""
        n = len(audio)
        if n > self.samples:
            raise ValueError(f"{n} samples do not fit a loop of {self.samples}")
        start %= self.samples
        first = min(n, self.samples - start)
        self.audio[start : start + first] = audio[:first]
        self.audio[: n - first] = audio[first:]

    def read(self, start: int, n: int) -> Floats:
        """A copy of n <= samples samples from position `start` on, cyclic: float32 [n, 2]."""
        start %= self.samples
        first = min(n, self.samples - start)
        return np.concatenate((self.audio[start : start + first], self.audio[: n - first]))

    def close(self) -> None:
        """Lets go of the mapping. The file stays."""
        self.audio = np.zeros((1, 2), np.float32)
        # A view that somebody still holds keeps the mapping until it goes.
        with suppress(BufferError):
            self._memory.close()

    def unlink(self) -> None:
        """Removes the file; those who have it open keep reading it."""
        self.path.unlink(missing_ok=True)


class Int:
    """A field of Numbers: an int64."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, numbers: Numbers, kind: type[Numbers] | None = None) -> int:
        value: int = numbers._ints[self.index]
        return value

    def __set__(self, numbers: Numbers, value: int) -> None:
        numbers._ints[self.index] = value


class Float:
    """A field of Numbers: a float64."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, numbers: Numbers, kind: type[Numbers] | None = None) -> float:
        value: float = numbers._floats[self.index]
        return value

    def __set__(self, numbers: Numbers, value: float) -> None:
        numbers._floats[self.index] = value


class Numbers:
    """Named numbers of 8 bytes in a mapped file of one page."""

    SIZE = 4096
    MAGIC, WHAT = 0, ""

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self._memory = memory
        self._view = memoryview(memory)
        self._ints: Any = self._view.cast("q")
        self._floats: Any = self._view.cast("d")

    @classmethod
    def create(cls, path: str | Path) -> Self:
        """A page of zeros at `path`; an older file there is replaced."""
        numbers = cls(Path(path), _map(Path(path), cls.SIZE))
        numbers._ints[0] = cls.MAGIC
        return numbers

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The page that another process created. Raises FileError."""
        memory = _map(Path(path), None)
        if len(memory) != cls.SIZE or struct.unpack_from("=q", memory)[0] != cls.MAGIC:
            memory.close()
            raise FileError(f"{path} is not {cls.WHAT} of demon_live")
        return cls(Path(path), memory)

    def close(self) -> None:
        """Lets go of the mapping. The file stays."""
        self._ints.release()
        self._floats.release()
        self._view.release()
        self._memory.close()


class Bus(Numbers):
    """What the audio process says about itself. Samples count on the output timeline at 48 kHz.

    Why no lock: each field is one aligned 8-byte word, stored by one mov; on the 64-bit machines
    that Python runs on such a store is seen whole or not at all. Fields are NOT consistent with
    each other: where two must agree they are folded into one (`t0` instead of a pair of sample and
    time). Writers: mixed..bad and peaks the mix thread; played..failures and clocks the audio
    callback; the rest the health loop of the audio process.
    """

    MAGIC, WHAT = 0x64656D6F6E313030, "a bus"

    mixed = Int(1)  # everything before this sample is decided: later edits cannot touch it
    blocks = Int(2)  # blocks mixed
    bad = Int(3)  # samples that were not finite (or absurd) and became silence
    ahead = Int(4)  # samples that the mix thread tries to keep mixed ahead of the device
    played = Int(8)  # samples handed to the device: the playhead, but for the device's latency
    dry = Int(9)  # callbacks that found too little
    dry_samples = Int(10)  # samples that were missing; the timeline waits for them, it never skips
    underruns = Int(11)  # underflows that PortAudio reported
    callbacks = Int(12)
    failures = Int(13)  # exceptions inside the callback
    late = Int(14)  # ticks of the null clock that came more than 5 ms late
    device_ok = Int(
        16
    )  # 1: a device plays; 0: the null clock; -1: it does, a lost device is sought
    running = Int(17)  # 1 from first sound to the end of the process
    pid = Int(18)
    errors = Int(19)  # commands that failed, blocks that were replaced by silence
    peak_l = Float(32)  # of the output, falling 30 dB a second
    peak_r = Float(33)
    rms = Float(34)  # of the last block
    limited_db = Float(35)  # how much the limiter takes away now, >= 0
    latency_s = Float(40)  # from a callback to the ear, as the device tells
    t0 = Float(41)  # time.monotonic() at which sample 0 was handed over, had the pace been even
    called_at = Float(42)  # time.monotonic() of the last callback
    alive = Float(48)  # time.monotonic() of the last turn of the health loop

    def heard(self, now: float | None = None) -> int:
        """The output sample at the ear at time.monotonic() = now, at most what was handed over."""
        if self.t0 == 0.0:
            return 0
        now = time.monotonic() if now is None else now
        return max(0, min(self.played, int((now - self.t0 - self.latency_s) * RATES.sample_rate)))


class PcmRing:
    """A ring of samples between one producer thread and one consumer thread, without a lock.

    Each has CHANNELS channels; a writer that gives fewer leaves the others silent, a reader takes
    those that it has room for.

    Both counters only grow and each has one writer; the producer moves `written` after the samples
    are there, the consumer moves `read` after it has copied them. Python's own lock orders the
    stores.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._data: Floats = np.zeros((capacity, CHANNELS), np.float32)
        self.written = 0
        self.taken = 0

    @property
    def fill(self) -> int:
        """Samples that wait to be read."""
        return self.written - self.taken

    def write(self, audio: Floats) -> bool:
        """Appends float32 [n, channels]; False, and nothing written, without room for all of it."""
        n, channels = audio.shape
        if n > self.capacity - self.fill:
            return False
        at = self.written % self.capacity
        first = min(n, self.capacity - at)
        for part, sound in (
            (slice(at, at + first), audio[:first]),
            (slice(n - first), audio[first:]),
        ):
            self._data[part, :channels] = sound
            self._data[part, channels:] = 0.0
        self.written += n
        return True

    def read_into(self, out: Floats, frames: int) -> int:
        """Moves up to `frames` samples into the head of `out`; returns how many there were."""
        n = self.written - self.taken
        if n > frames:
            n = frames
        at, channels = self.taken % self.capacity, out.shape[1]
        first = self.capacity - at
        if first >= n:
            out[:n] = self._data[at : at + n, :channels]
        else:
            out[:first] = self._data[at:, :channels]
            out[first:n] = self._data[: n - first, :channels]
        self.taken += n
        return n


def likeness(a: NDArray[np.floating], b: NDArray[np.floating], silent: float) -> float:
    """The correlation of two float [n, 2], held within 0..1; `silent` where one is silence or not
    finite. Summed in float64."""
    power = float(np.sqrt(np.sum(a * a, dtype=np.float64) * np.sum(b * b, dtype=np.float64)))
    if not 1e-12 < power < np.inf:
        return silent
    alike = float(np.sum(a * b, dtype=np.float64)) / power
    return min(1.0, max(0.0, alike))
