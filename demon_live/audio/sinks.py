"""Where mixed sound goes: the audio callback, the clock that stands in for a device, files.

    AudioCallback  ring -> device, fade on dry, for devices and null clock alike
    NullClock      calls AudioCallback at the pace of the monotonic clock
    SoundWriter    writes the mixed stream to FLAC or WAV on its own thread
    Tap            what the callback gave, sample by sample, in an mmap'ed file (DEMON_TAP=FILE)
    parse_sink     the words of `--audio`

A recording at the mixer would be perfect whatever the callback did, and a client of the sound
server misses blocks when the machine is overloaded: only the tap sees each sample, gaps included.

Threads: AudioCallback runs on the audio thread and does nothing but copy; SoundWriter.write is
called by the mix thread and never waits for the disk.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from demon_live import faults
from demon_live.audio.files import WAV_LIMIT, reason
from demon_live.audio.pcmring import CHANNELS, Bus, PcmRing
from demon_live.core import RATES, Floats
from demon_live.errors import FileError, UsageError
from demon_live.paths import remove_file

DRY_FADE = 240  #: samples in which the sound goes away when the ring is dry, and comes back: 5 ms
_RATE = RATES.sample_rate
_LONGEST_NAME = 240  #: bytes; systems bear 255, with what stands behind it while it is written


@dataclass(frozen=True, slots=True)
class Sink:
    """kind: auto = a device if there is one, else null. path: what `file` writes."""

    kind: Literal["auto", "device", "null", "file"]
    path: str = ""


def parse_sink(text: str) -> Sink:
    """`auto`, `device`, `null` or `file:PATH`. Raises UsageError, FileError."""
    if text.startswith("file:"):
        checked_target(text[5:])
        return Sink("file", str(Path(text[5:]).absolute()))
    known: dict[str, Sink] = {"auto": Sink("auto"), "device": Sink("device"), "null": Sink("null")}
    if text in known:
        return known[text]
    raise UsageError(
        f"unknown audio sink {text!r}",
        hint="one of: auto, device, null, file:NAME.wav, file:NAME.flac",
    )


def checked_target(path: str | Path) -> Path:
    """`path` if a recording can be written there. Raises FileError with the remedy."""
    target = Path(path)
    if target.suffix.lower() not in (".wav", ".flac"):
        raise FileError(
            f"cannot write {str(path)!r}: the ending says the format",
            hint="end it in .flac or .wav",
        )
    if os.path.isdir(target):
        raise FileError(f"{path} is a folder", hint="name a file in it")
    if len(os.fsencode(target.name)) > _LONGEST_NAME or "\0" in str(path):
        raise FileError(f"no file can be called {target.name[:40]!r}...", hint="choose another")
    folder = target.absolute().parent
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise FileError(f"cannot write to the folder {folder}", hint="create it, or choose another")
    return target


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _unused(target: Path) -> Path:
    """`target`, or the first of target-2, target-3 ... that neither exists nor is being written."""
    free, n = target, 2
    while free.exists() or _part(free).exists():
        free, n = target.with_name(f"{target.stem}-{n}{target.suffix}"), n + 1
    return free


class AudioCallback:
    """The audio callback. Copies from the ring; knows no lock, grows no memory, raises nothing.

    When the ring is dry the last sample fades to zero within 5 ms, and what comes next fades in;
    the timeline waits, so that no music is lost. While dry it waits for a whole buffer.
    """

    def __init__(self, ring: PcmRing, bus: Bus) -> None:
        self._ring = ring
        self._bus = bus
        self.largest = 0  #: frames of the largest callback so far; more than this is kept ahead
        self.counting = True  #: False while the process winds down, when being dry is no fault
        #: The sample of the mix that the newest buffer begins with, and seconds until it is heard.
        self.first, self.first_s = 0.0, 0.0
        self._flowing = False
        quarter = np.linspace(0, np.pi / 2, DRY_FADE + 1)[1:, None]
        self._rise: Floats = np.sin(quarter).astype(np.float32)
        self._fall: Floats = np.cos(quarter).astype(np.float32)
        self._rising = 0
        self._falling = DRY_FADE
        self._level: Floats = np.zeros(CHANNELS, np.float32)  # what falls
        self._last: Floats = np.zeros(CHANNELS, np.float32)  # the last sample handed over
        self._scratch: Floats = np.zeros((DRY_FADE, CHANNELS), np.float32)

    def __call__(self, out: Floats, frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback: fills out float32 [frames, channels]."""
        try:
            self._clocks(frames, when, status)
            self._fill(out, frames)
        except Exception:  # noqa: BLE001 - an exception here would end the stream
            out[:] = 0.0
            self._bus.failures += 1

    def begin(self, ahead: float, latency: float) -> None:
        """The newest buffer begins with a sample that was given `ahead` seconds of sound before,
        and is heard in `latency` seconds."""
        self.first, self.first_s = self._bus.played - ahead * _RATE, latency

    def _clocks(self, frames: int, when: Any, status: Any) -> None:
        bus, now = self._bus, time.monotonic()
        bus.called_at = now
        self.first = bus.played
        bus.callbacks += 1
        if frames > self.largest:
            self.largest = frames
        if status and status.output_underflow:
            bus.underruns += 1
        if when is not None:
            latency = when.outputBufferDacTime - when.currentTime
            if 0.0 < latency < 5.0:
                bus.latency_s = self.first_s = latency
        # Callbacks jitter, the device does not: follow the even pace slowly, a real break at once.
        off = now - bus.played / _RATE - bus.t0
        bus.t0 += off if off > 0.05 or off < -0.05 else 0.02 * off

    def _fill(self, out: Floats, frames: int) -> None:
        ring, bus = self._ring, self._bus
        n = 0
        if self._flowing or ring.fill >= frames:
            n = ring.read_into(out, frames)
        if n < frames:
            out[n:] = 0.0
        if n > 0 and self._rising < DRY_FADE:
            m = DRY_FADE - self._rising
            m = n if n < m else m
            np.multiply(out[:m], self._rise[self._rising : self._rising + m], out=out[:m])
            self._rising += m
        dries = n < frames and self._flowing
        if self._falling < DRY_FADE:
            self._fade(out, 0, n if dries else frames)
        if dries:
            self._level[: out.shape[1]] = out[n - 1] if n else self._last[: out.shape[1]]
            self._falling = 0
            self._fade(out, n, frames)
            self._rising = 0
        if n < frames and self.counting and bus.played > 0:
            bus.dry += 1
            bus.dry_samples += frames - n
            bus.t0 += (frames - n) / _RATE
        self._flowing = n == frames
        self._last[: out.shape[1]] = out[frames - 1]
        bus.played += n

    def _fade(self, out: Floats, start: int, stop: int) -> None:
        """Adds what still falls to out[start:stop]."""
        m, channels = stop - start, out.shape[1]
        if m > DRY_FADE - self._falling:
            m = DRY_FADE - self._falling
        falls = self._fall[self._falling : self._falling + m]
        scratch = self._scratch[:m, :channels]
        np.multiply(falls, self._level[:channels], out=scratch)
        np.add(out[start : start + m], scratch, out=out[start : start + m])
        self._falling += m


class NullClock:
    """Stands in for a device: asks an AudioCallback for 480 frames every 10 ms. Counts lateness."""

    FRAMES = 480
    LATE = 0.005
    LOST = 0.5  #: a gap like this is a suspended machine, not a late thread: time goes on from here

    def __init__(
        self,
        output: AudioCallback,
        bus: Bus,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._output = output
        self._bus = bus
        self._now = now
        self._sleep = sleep
        self._scratch: Floats = np.zeros((self.FRAMES, 2), np.float32)
        self._due = now()
        self._stop = False
        self._thread: threading.Thread | None = None

    def turn(self) -> Floats:
        """Waits for the next tick and plays it: float32 [480, 2], overwritten by the next."""
        if faults.ON and (seconds := faults.hit("clock.jump")) is not None:
            self._due -= seconds
        wait = self._due - self._now()
        if wait > 0:
            self._sleep(wait)
        late = self._now() - self._due
        if late > self.LATE:
            self._bus.late += 1
        if late > self.LOST:
            self._due = self._now()
        self._output(self._scratch, self.FRAMES, None, None)
        self._due += self.FRAMES / _RATE
        return self._scratch

    def start(self) -> None:
        """Runs on a thread until `stop`."""
        # Goes on in the pace of what played before, if that was just now.
        now = self._now()
        due = self._bus.t0 + self._bus.played / _RATE
        self._due = due if now < due < now + 0.1 else now
        self._bus.latency_s = 0.0
        self._thread = threading.Thread(target=self._run, name="null clock", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            self.turn()

    def stop(self) -> None:
        """Returns when the last tick is over."""
        self._stop = True
        if self._thread is not None:
            self._thread.join(timeout=1.0)


class SoundWriter:
    """Writes a stream of blocks to `path` (24-bit FLAC or WAV) as `path.part`, renamed when closed.

    An older recording is never overwritten: `take.flac` becomes `take-2.flac`. When the disk is
    full (or a WAV, at 4 GB) the file ends, and the stream goes on in the next as soon as there is
    room.

    Args:
        path: the file.
        ended: called with (path, samples, error) at the end of each file; error is "" when all is
            well.
        begun: called with (path, seconds that are missing before it) of each further file.
    Both are called on the writer's thread.
    """

    BACKLOG = 6000  #: blocks that wait for a slow disk at most: a minute
    ROOM = 1 << 24  #: bytes that must be free before a further file is begun
    RETRY = 1.0  #: seconds until the disk is looked at again, then twice as many, up to a minute
    MOST_WAV = WAV_LIMIT // 6 - _RATE  #: samples of 24-bit stereo in a WAV

    def __init__(
        self,
        path: str | Path,
        ended: Callable[[str, int, str], None],
        begun: Callable[[str, float], None] = lambda path, missing: None,
    ) -> None:
        self._asked = checked_target(path)
        self.dropped = 0  #: blocks lost because the disk stood still
        self._ended, self._begun = ended, begun
        self._blocks: queue.SimpleQueue[Floats | None] = queue.SimpleQueue()
        self._lost, self._refused, self._pause = 0, False, self.RETRY
        self._most = self.MOST_WAV if self._asked.suffix.lower() == ".wav" else 1 << 62
        # Claimed at once; everything slow (the library, the disk) is left to the thread, and so is
        # what the disk refuses.
        with contextlib.suppress(OSError):
            self._claim()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def _claim(self) -> None:
        self.path, self._samples = _unused(self._asked), 0
        self._part = _part(self.path)
        self._part.touch()

    def write(self, block: Floats) -> None:
        """Hands over float32 [n, 2]; the array must not change afterwards. Never waits."""
        if self._blocks.qsize() >= self.BACKLOG:
            self.dropped += 1
        else:
            self._blocks.put(block)

    def close(self, timeout: float | None = None) -> None:
        """Ends the recording; waits up to `timeout` seconds until the file is complete."""
        self._blocks.put(None)
        if timeout is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        further = False
        while not self._write_file(further):
            further = True
            if self._refused and not self._wait_for_room():
                return

    def _write_file(self, further: bool) -> bool:
        """One file, to the end of the stream (True) or of the room (False)."""
        over, problem, told = False, "", not further
        try:
            if further:
                self._claim()
            with self._open() as file:
                if further:
                    told, missing, self._lost = True, self._lost, 0
                    self._begun(str(self.path), missing / _RATE)
                while self._samples < self._most and not over:
                    over = self._write_block(file, self._blocks.get())
            os.replace(self._part, self.path)
        except (OSError, RuntimeError) as error:
            problem = reason(error, self.path)
            if self._samples:
                problem += f" (what was written is in {self._part})"
            else:
                remove_file(self._part)
        self._refused = problem != ""
        dropped, self.dropped = self.dropped, 0
        if dropped and not problem:
            problem = f"{dropped * 0.01:.1f} s are missing: the disk was too slow"
        if told:
            self._ended(str(self.path), self._samples, problem)
        return over

    def _write_block(self, file: Any, block: Floats | None) -> bool:
        """True at the end of the stream."""
        if block is None:
            return True
        if faults.ON and faults.hit("disk.full") is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(block)
        self._samples += len(block)
        return False

    def _wait_for_room(self) -> bool:
        """Lose what comes until the disk may have room again. False: the stream is over."""
        # A disk that refuses at once is asked ever less often.
        self._pause = self.RETRY if self._samples > _RATE else min(2 * self._pause, 64.0)
        while True:
            until = time.monotonic() + self._pause
            while (left := until - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    block = self._blocks.get(timeout=left)
                    if block is None:
                        return False
                    self._lost += len(block)
            with contextlib.suppress(OSError):
                if shutil.disk_usage(self._asked.absolute().parent).free >= self.ROOM:
                    return True

    def _open(self) -> Any:
        import soundfile

        kind = self.path.suffix[1:].upper()
        return soundfile.SoundFile(self._part, "w", _RATE, 2, "PCM_24", format=kind)


_MAGIC = 0x6465_6D6F_6E74_6170
_HEAD = 64
_SECONDS = 30


class Tapped(AudioCallback):
    """An AudioCallback that also writes into the file at `path`."""

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
        self._sound[at : at + first] = out[:first, :2]
        self._sound[: frames - first] = out[first:frames, :2]
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
        if written < self._read:  # a new process has started from zero
            self._read = 0
        if written - self._read > capacity // 2:
            self.lost += written - self._read - capacity // 2
            self._read = written - capacity // 2
        at = np.arange(self._read, written) % capacity
        self._read = written
        return self._sound[at]


def output_for(ring: PcmRing, bus: Bus) -> AudioCallback:
    """The callback of this process, tapped if DEMON_TAP says so."""
    path = os.environ.get("DEMON_TAP")
    return Tapped(ring, bus, Path(path)) if path else AudioCallback(ring, bus)
