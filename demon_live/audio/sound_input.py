"""What is played into demon, on the clock of the mix.

    SoundInput   what readers see: sample i is what was played while sample i of the mix was heard
    FileInput    a sound file: sample i of the file is sample i of the mix
    InputRing    a device: the reader of the ring that the audio process writes
    InputWriter  the writer of that ring

The ring is two mapped files of the runtime folder: `input`, a page of numbers, and `input.pcm`, the
sound of the last minutes, which exists once the input was wanted.

Threads and processes: one writer (the audio process), any number of readers. `wanted` is written by
the session.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from demon_live.audio.devices import parse_input
from demon_live.audio.files import load_source
from demon_live.audio.pcmring import Float, Int, LoopBuffer, Numbers
from demon_live.core import RATES, Floats
from demon_live.errors import FileError

SECONDS = 240  #: of input that are kept
RECENT = 2400  #: samples that the level is taken of: 50 ms
FILES = ("file:", "loop:")  #: what an input that is a file begins with
ALWAYS = 1 << 62  #: the end of an input that is there as a whole
_RATE = RATES.sample_rate
_SPARE = 4800  #: samples at the old end of the ring that may be overwritten while they are read

State = Literal["closed", "open", "lost"]


@dataclass(frozen=True, slots=True)
class InputStatus:
    """How the input is.

    latency_ms: from the microphone to the program, subtracted already. peak, rms: of the last
    50 ms. state: `closed` until a score asks, `lost` while the device is gone. message: what the
    performer should know of it. thru_ms: how late the input itself is heard.
    """

    name: str
    latency_ms: float = 0.0
    peak: float = 0.0
    rms: float = 0.0
    state: State = "closed"
    message: str = ""
    thru_ms: float = 0.0

    @property
    def peak_db(self) -> float:
        """The peak in dBFS, at least -120."""
        return 20.0 * math.log10(max(self.peak, 1e-6))

    @property
    def words(self) -> str:
        """Name, state and latency; the level is left out."""
        words = [self.name, self.state]
        if self.state == "open":
            words += [f"{self.latency_ms:.0f} ms late, subtracted"] if self.latency_ms else []
            words += [f"thru is {self.thru_ms:.0f} ms late"] if self.thru_ms else []
        return " · ".join(words)


class SoundInput(Protocol):
    """An input, on the clock of the mix at 48 kHz.

    nudge: milliseconds by which what is played is to come later; negative: earlier.
    """

    name: str
    nudge: float

    def want(self, open: bool) -> None:
        """Whether somebody listens: only then is a device open. Twice is fine."""

    def end(self) -> int:
        """The sample of the mix up to which input is there (exclusive), latency subtracted."""

    def read(self, first: int, last: int) -> Floats:
        """float32 [last - first, 2]: what was played while these samples of the mix were heard.

        What was not captured, or is not there yet, is zero.
        """

    def holes(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of these samples that were not captured, ascending: (first, last)."""

    def status(self, now: int = 0) -> InputStatus:
        """Name, level, latency and state; now: the sample of the mix that is heard."""


def _shift(nudge: float) -> int:
    return round(nudge * _RATE / 1000)


def file_input(text: str) -> FileInput | None:
    """The file of file:PATH, or of loop:PATH, which goes round; None: a device.

    Raises FileError.
    """
    return FileInput(text[5:], around=text.startswith("loop:")) if text.startswith(FILES) else None


def sound_input(text: str | None, folder: str | Path) -> SoundInput | None:
    """The input that `--input` names: a device, file:PATH, loop:PATH or none.

    folder: where the ring of a device lies. Raises FileError, UsageError.
    """
    if text is None or text == "none":
        return None
    file = file_input(text)
    if file is not None:
        return file
    parse_input(text)
    return InputRing.create(folder, text)


def level(audio: Floats) -> tuple[float, float]:
    """Peak and rms of float32 [n, 2]; zeros of nothing."""
    if not len(audio):
        return 0.0, 0.0
    power = float(np.vdot(audio, audio)) / audio.size
    return float(np.abs(audio).max()), power**0.5


class FileInput:
    """A file as input: sample i of the file is sample i of the mix, silence behind its end.

    around: it begins again at its end. Raises FileError where the file cannot be read.
    """

    def __init__(self, path: str | Path, around: bool = False) -> None:
        self.name = f"{'loop' if around else 'file'}:{path}"
        self._around = around
        self._audio, self._text = load_source(path)
        self._open = False
        self.nudge = 0.0

    def want(self, open: bool) -> None:
        """Only the status changes: a file is always there."""
        self._open = open

    def end(self) -> int:
        """All of it is there."""
        return ALWAYS

    def read(self, first: int, last: int) -> Floats:
        """float32 [last - first, 2] of the file."""
        shift = _shift(self.nudge)
        first, last = first - shift, last - shift
        if self._around:
            return self._audio[np.arange(first, last) % len(self._audio)]
        out = np.zeros((last - first, 2), np.float32)
        a, b = max(first, 0), min(last, len(self._audio))
        if a < b:
            out[a - first : b - first] = self._audio[a:b]
        return out

    def holes(self, first: int, last: int) -> list[tuple[int, int]]:
        """A file has none."""
        return []

    def status(self, now: int = 0) -> InputStatus:
        """Its level is that of the 50 ms before sample `now`."""
        peak, rms = level(self.read(now - RECENT, now)) if self._open else (0.0, 0.0)
        state: State = "open" if self._open else "closed"
        return InputStatus(self.name, 0.0, peak, rms, state, self._text)


class _Head(Numbers):
    """The numbers of an input. Samples count on the clock of the mix."""

    MAGIC, WHAT = 0x64656D6F6E696E30, "an input"
    HOLES = 100  #: that are remembered

    wanted = Int(1)  # by the session: 1 while a score listens
    capacity = Int(2)  # samples that the ring holds; 0: there is no ring yet
    begin = Int(3)  # the first sample that was ever written
    end = Int(4)
    state = Int(5)
    count = Int(6)  # holes so far
    latency_s = Float(11)
    thru_s = Float(12)
    peak = Float(13)
    rms = Float(14)
    STATES: tuple[State, ...] = ("closed", "open", "lost")
    _PAIRS = 16  # from this field on: first and last of each hole
    _NAME, _MESSAGE, _TEXT = 2048, 2560, 500  # bytes

    def hole(self, k: int) -> tuple[int, int]:
        at = self._PAIRS + 2 * (k % self.HOLES)
        return int(self._ints[at]), int(self._ints[at + 1])

    def set_hole(self, k: int, first: int, last: int) -> None:
        at = self._PAIRS + 2 * (k % self.HOLES)
        self._ints[at], self._ints[at + 1] = first, last

    @property
    def name(self) -> str:
        return self._text(self._NAME)

    @property
    def message(self) -> str:
        return self._text(self._MESSAGE)

    def say(self, name: str, message: str) -> None:
        for at, text in ((self._NAME, name), (self._MESSAGE, message)):
            data = text.encode()[: self._TEXT]
            self._view[at : at + self._TEXT] = data.ljust(self._TEXT, b"\0")

    def _text(self, at: int) -> str:
        return bytes(self._view[at : at + self._TEXT]).rstrip(b"\0").decode(errors="ignore")


class InputRing:
    """The input of a device, as every process but the audio process sees it."""

    def __init__(self, folder: Path, head: _Head, name: str) -> None:
        self.name = name
        self._head = head
        self._folder = folder
        self._sound: LoopBuffer | None = None
        self.nudge = 0.0

    @classmethod
    def create(cls, folder: str | Path, name: str) -> InputRing:
        """The empty ring of a session; an older one there is replaced. Raises FileError."""
        folder = Path(folder)
        (folder / "input.pcm").unlink(missing_ok=True)
        return cls(folder, _Head.create(folder / "input"), name)

    @classmethod
    def open(cls, folder: str | Path, name: str) -> InputRing:
        """The ring that another process created. Raises FileError."""
        return cls(Path(folder), _Head.open(Path(folder) / "input"), name)

    def want(self, open: bool) -> None:
        """The audio process opens or closes the device within a tenth of a second."""
        self._head.wanted = int(open)

    def end(self) -> int:
        """Goes on while the device is lost: what is not there becomes a hole."""
        return self.raw_end + _shift(self.nudge)

    @property
    def raw_end(self) -> int:
        """The same before the nudge."""
        return self._head.end

    def read(self, first: int, last: int) -> Floats:
        """float32 [last - first, 2]; zeros where nothing was captured."""
        return self.read_raw(first - _shift(self.nudge), last - _shift(self.nudge))

    def read_raw(self, first: int, last: int) -> Floats:
        """The same before the nudge."""
        out = np.zeros((last - first, 2), np.float32)
        sound = self._pcm()
        if sound is not None:
            a, b = self._kept(first, last)
            if a < b:
                out[a - first : b - first] = sound.read(a, b - a)
        return out

    def tell_thru(self, late: int) -> None:
        """By the mixer: the input is heard so many samples after it was played."""
        self._head.thru_s = late / _RATE

    def holes(self, first: int, last: int) -> list[tuple[int, int]]:
        """Lost, not there yet, older than the ring, or before the input was opened."""
        return [(a, b) for a, b in self._missing(first, last) if a < b]

    def _missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        head, shift = self._head, _shift(self.nudge)
        a, b = self._kept(first - shift, last - shift)
        a, b = (a + shift, b + shift) if a < b else (last, last)
        yield first, a
        for k in range(max(0, head.count - head.HOLES), head.count):
            begin, end = head.hole(k)
            yield max(a, begin + shift), min(b, end + shift)
        yield b, last

    def _kept(self, first: int, last: int) -> tuple[int, int]:
        """The part of first..last that the ring holds."""
        head = self._head
        end = head.end
        return max(first, head.begin, end - head.capacity + _SPARE), min(last, end)

    def status(self, now: int = 0) -> InputStatus:
        """As the audio process wrote it."""
        head = self._head
        return InputStatus(
            head.name or self.name,
            head.latency_s * 1000,
            head.peak,
            head.rms,
            head.STATES[head.state],
            head.message,
            head.thru_s * 1000,
        )

    def _pcm(self) -> LoopBuffer | None:
        if self._sound is None and self._head.capacity:
            self._sound = LoopBuffer.open(self._folder / "input.pcm")
        return self._sound

    def close(self) -> None:
        """Lets go of the files and removes them."""
        if self._sound is not None:
            self._sound.close()
        self._head.close()
        for name in ("input", "input.pcm"):
            (self._folder / name).unlink(missing_ok=True)


class InputWriter:
    """The audio process's end of an InputRing. A later process goes on where this one ended."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.head = _Head.open(self._folder / "input")
        self._sound: LoopBuffer | None = None

    def _pcm(self) -> LoopBuffer:
        """The ring; on a small disk a shorter one. Raises FileError."""
        path = self._folder / "input.pcm"
        if self._sound is None and self.head.capacity:
            self._sound = LoopBuffer.open(path)
        seconds = SECONDS
        while self._sound is None:
            try:
                self._sound = LoopBuffer.create(path, seconds * _RATE)
            except FileError:
                if seconds < SECONDS // 8:
                    raise
                seconds //= 2
            else:
                self.head.capacity = seconds * _RATE
        return self._sound

    def write(self, first: int, audio: Floats) -> None:
        """Puts float32 [n, 2] from `first` on; what lies between is a hole, what is there stays."""
        head, sound = self.head, self._pcm()
        if not head.end:
            head.begin = head.end = first
        if first > head.end:
            self.lose(first)
        audio = audio[head.end - first :]
        for at in range(0, len(audio), _SPARE // 2):
            part = audio[at : at + _SPARE // 2]
            sound.write(head.end, part)
            head.end += len(part)
        self._measure()

    def lose(self, until: int) -> None:
        """Nothing was captured up to sample `until`."""
        head, sound = self.head, self._pcm()
        if not head.end:
            head.begin = head.end = until
        if until <= head.end:
            return
        last = head.hole(head.count - 1) if head.count else (0, 0)
        if head.count and last[1] == head.end:
            head.set_hole(head.count - 1, last[0], until)
        else:
            head.set_hole(head.count, head.end, until)
            head.count += 1
        silence = np.zeros((_SPARE // 2, 2), np.float32)
        head.end = max(head.end, until - head.capacity)
        while head.end < until:
            n = min(len(silence), until - head.end)
            sound.write(head.end, silence[:n])
            head.end += n
        self._measure()

    def _measure(self) -> None:
        head, sound = self.head, self._pcm()
        head.peak, head.rms = level(sound.read(head.end - RECENT, RECENT))
