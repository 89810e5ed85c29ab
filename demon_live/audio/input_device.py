"""The input of the audio process: a device's sound onto the clock of the mix.

    device's callback -> blocks with the time they were played -> 48 kHz -> Aligner -> InputWriter

Where a block lies on the clock of the mix is measured from the times that the device states, and
smoothed: the two devices may run at different speeds. JACK calls the streams of a client in one
cycle: there, blocks are counted, and no time is measured.

Threads: the callback only copies; everything else is done by a thread of its own, which may wait
for a driver. `Thru.read` is called by the mix thread.
"""

from __future__ import annotations

import collections
import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from demon_live import faults
from demon_live.audio.devices import Stream, drop, open_input, parse_input
from demon_live.audio.files import resampler
from demon_live.audio.mix_thread import AudioEvent
from demon_live.audio.pcmring import Bus
from demon_live.audio.sinks import AudioCallback
from demon_live.audio.sound_input import InputRing, InputWriter, file_input
from demon_live.core import RATES, Floats
from demon_live.errors import DemonError

_RATE = RATES.sample_rate
_TAPS, _PHASES = 24, 512


def _kernel() -> Floats:
    """float32 [phases + 1, taps]: a windowed sinc at each fraction of a sample."""
    at = np.arange(_TAPS) - _TAPS // 2 + 1
    x = at[None, :] - np.linspace(0, 1, _PHASES + 1)[:, None]
    rows = np.sinc(x) * np.cos(np.clip(x / _TAPS, -0.5, 0.5) * np.pi) ** 2
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), np.float32)


class Aligner:
    """Blocks of input, each with the place where it was measured, as sound without a seam.

    A delay-locked loop smooths the places and follows the ratio of the clocks: what comes out is
    stretched by as little as they differ. A real break begins anew.

    write: takes (first, float32 [n, 2]); places ascend, and leave out what was lost.
    """

    WIDE, NARROW = 0.5, 0.05  #: Hz of the loop, at the start and later
    OUTLIER = 480  #: samples; a block that came so late says nothing of the clock
    BREAK = _RATE // 4  #: samples of such blocks in a row that are a break

    def __init__(self, write: Callable[[int, Floats], None]) -> None:
        self._write = write
        self._kernel = _kernel()
        self._next: float | None = None  # where the next sample to come lies
        self._rate, self._age, self._off = 1.0, 0, 0
        self._done = 0  # the next sample to be written
        self._past: Floats = np.zeros((_TAPS, 2), np.float32)

    def move(self, samples: int) -> None:
        """The clock of the mix stood still for so many samples."""
        if self._next is not None:
            self._next -= samples

    def feed(self, audio: Floats, place: float, counted: bool = False) -> None:
        """float32 [n, 2] whose first sample lies at `place`; counted: that is exact."""
        n = len(audio)
        if self._next is None:
            self._begin(place)
        assert self._next is not None
        error = place - self._next
        if counted:
            if abs(error) >= 1.0:
                self._begin(place)
            self._pass(audio)
            return
        self._off = self._off + n if abs(error) > self.OUTLIER else 0
        if self._off > self.BREAK:
            self._begin(place)
            error = 0.0
        end = self._next + n * self._rate
        if not self._off:
            seconds = n / _RATE
            width = max(self.NARROW, self.WIDE / (1.0 + self._age / _RATE))
            turn = 2.0 * math.pi * width * seconds
            end += min(1.0, math.sqrt(2.0) * turn) * error
            self._rate += min(1.0, turn * turn) * error / n
            self._rate = min(1.01, max(0.99, self._rate))
        self._age += n
        self._stretch(audio, self._next, end)

    def _begin(self, place: float) -> None:
        self._next, self._rate, self._age, self._off = place, 1.0, 0, 0
        self._done = max(self._done, round(place))
        self._past[:] = 0.0

    def _pass(self, audio: Floats) -> None:
        """As they are, on the nearest sample."""
        assert self._next is not None
        first = round(self._next)
        self._next += len(audio)
        self._done = max(self._done, first + len(audio))
        self._write(first, audio)

    def _stretch(self, audio: Floats, start: float, end: float) -> None:
        """The samples of the mix that lie between those of a block, half a kernel late."""
        n, half = len(audio), _TAPS // 2
        self._next = end
        sound = np.concatenate((self._past, audio))
        self._past = sound[-_TAPS:]
        step = max(1e-6, (end - start) / n)
        last = math.floor(start + (n - half) * step)
        places = np.arange(self._done, last + 1)
        x = (places - start) / step + _TAPS  # in `sound`
        whole = np.floor(x).astype(np.int64)
        fits = (whole >= half - 1) & (whole + half < len(sound))
        places, x, whole = places[fits], x[fits], whole[fits]
        if not len(places):
            return
        phase = (x - whole) * _PHASES
        low = phase.astype(np.int64)
        part = (phase - low).astype(np.float32)[:, None]
        weights = self._kernel[low] * (1 - part) + self._kernel[np.minimum(low + 1, _PHASES)] * part
        near = sliding_window_view(sound, _TAPS, axis=0)[whole - half + 1]
        self._done = int(places[-1]) + 1
        self._write(int(places[0]), np.einsum("nt,nct->nc", weights, near))


@dataclass(frozen=True, slots=True)
class _Block:
    """audio float32 [n, 2]. place: of its first sample on the clock of the mix. dry: samples for
    which that had stood still."""

    audio: Floats
    place: float
    dry: int
    counted: bool
    latency_s: float


class Intake:
    """The callback of an input device. Copies; grows no memory beyond a minute, raises nothing.

    channels: from 1, one or two; () = the first two. rate: of the device, in Hz. counted: output
    and input are called in one cycle.
    """

    def __init__(
        self,
        output: AudioCallback,
        bus: Bus,
        channels: tuple[int, ...],
        counted: Callable[[], bool],
    ) -> None:
        self.blocks: collections.deque[_Block] = collections.deque(maxlen=6000)
        self.called_at = time.monotonic()
        self.latency_s = 0.0  #: where the device states none: the stream's
        self._output, self._bus, self._counted = output, bus, counted
        self._chosen = [c - 1 for c in channels]

    def __call__(self, data: Floats, frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback."""
        try:
            self._take(data, when)
        except Exception:  # noqa: BLE001 - an exception here would end the stream
            self._bus.failures += 1

    def _take(self, data: Floats, when: Any) -> None:
        bus, now = self._bus, time.monotonic()
        self.called_at = now
        latency = when.currentTime - when.inputBufferAdcTime
        if not 0.0 < latency < 5.0 or not when.inputBufferAdcTime:
            latency = self.latency_s
        counted = self._counted()
        if counted:
            place = self._output.first - (self._output.first_s + latency) * _RATE
        else:
            place = (now - latency - bus.t0 - bus.latency_s) * _RATE
        chosen = self._chosen or list(range(data.shape[1]))[:2]
        audio = np.empty((len(data), 2), np.float32)
        audio[:, 0], audio[:, 1] = data[:, chosen[0]], data[:, chosen[-1]]
        self.blocks.append(_Block(audio, place, int(bus.dry_samples), counted, latency))


class _Converter:
    """Blocks at the device's rate as blocks at 48 kHz, each with the place of its first sample."""

    def __init__(self, rate: int) -> None:
        self._rate, self._convert = rate, resampler(rate, 2)
        self._taken = self._given = 0

    def __call__(self, audio: Floats, place: float) -> tuple[Floats, float]:
        if self._rate == _RATE:
            return audio, place
        place += self._given - self._taken * (_RATE / self._rate)
        out = self._convert(audio)
        self._taken += len(audio)
        self._given += len(out)
        return out, place


class InputDevice:
    """Opens the device while it is wanted, writes its sound, looks for it when it is lost.

    text: as in `parse_input`. counted: whether the output is called in one cycle with this input,
    by the API of the input.
    """

    RETRY = 1.0  #: seconds between two attempts to open
    SILENT = 1.0  #: seconds without a block after which it is lost

    def __init__(
        self,
        text: str,
        folder: Path,
        bus: Bus,
        output: AudioCallback,
        tell: Callable[[AudioEvent], None],
        counted: Callable[[str], bool],
    ) -> None:
        self._text, self._bus, self._output = text, bus, output
        self._tell_event, self._counted = tell, counted
        self._writer = InputWriter(folder)
        self._stream: Stream | None = None
        self._intake: Intake | None = None
        self._due, self._told, self._api, self._dry = 0.0, "", "", 0
        self._closing = threading.Event()
        self._dropping = threading.Thread()
        #: Set while PortAudio is started anew: no stream may be open then.
        self.aside = threading.Event()
        self._free = threading.Event()
        self._writer.head.state = 0
        self._thread = threading.Thread(target=self._run, name="input", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of the device; waits a second at most."""
        self._closing.set()
        self._thread.join(1.0)

    def stand_aside(self) -> bool:
        """Let go of the device until `aside` is cleared; waits a second for a slow driver."""
        self._free.clear()
        self.aside.set()
        self._free.wait(1.0)
        return True

    def _run(self) -> None:
        while not self._closing.wait(0.005 if self._stream is not None else 0.05):
            try:
                self._turn(time.monotonic())
            except DemonError as error:
                self._lose(error.message)
            except Exception as error:  # noqa: BLE001 - the input must not end with one fault
                self._bus.errors += 1
                self._lose(str(error))
            if self._stream is None and self._writer.head.wanted:
                with contextlib.suppress(DemonError):  # no room for the ring: told already
                    self._writer.lose(self._bus.heard())
        self._drop()

    def _turn(self, now: float) -> None:
        head = self._writer.head
        if not head.wanted:
            if head.state:
                self._drop()
                self._free.set()
                head.state, head.peak, head.rms, self._told = 0, 0.0, 0.0, ""
            return
        if self.aside.is_set():
            if self._stream is not None:
                self._lose("the output is sought")
            self._free.set()
        elif self._stream is None and now >= self._due and not self._dropping.is_alive():
            self._due = now + self.RETRY
            self._open()
        if self._stream is not None and self._intake is not None:
            if faults.ON and faults.hit("input.gone") is not None:
                self._lose("DEMON_FAULTS")
            elif not self._stream.active or now - self._intake.called_at > self.SILENT:
                self._lose("it stopped")
            else:
                self._take(self._intake)

    def _open(self) -> None:
        """Raises DemonError."""
        _, channels = parse_input(self._text)
        intake = Intake(self._output, self._bus, channels, lambda: self._counted(self._api))
        stream, device, rate = open_input(self._text, intake)
        self._api = device.api
        self._align, self._convert = Aligner(self._writer.write), _Converter(rate)
        self._dry = int(self._bus.dry_samples)
        intake.latency_s = float(stream.latency)
        stream.start()
        intake.called_at = time.monotonic()
        self._stream, self._intake = stream, intake
        chosen = ", channel " + " and ".join(map(str, channels)) if channels else ""
        self._writer.head.say(device.name, f"{rate / 1000:g} kHz{chosen}")
        self._writer.head.state = 1
        back, self._told = self._told, ""
        text = f'input "{device.name}" {rate / 1000:g} kHz{chosen}'
        self._tell("input-back" if back else "input-open", text + (" is back" if back else ""))

    def _take(self, intake: Intake) -> None:
        while intake.blocks:
            block = intake.blocks.popleft()
            self._align.move(block.dry - self._dry if not block.counted else 0)
            self._dry = block.dry
            self._writer.head.latency_s = block.latency_s
            audio, place = self._convert(block.audio, block.place)
            if len(audio):
                self._align.feed(audio, place, block.counted)

    def _lose(self, why: str) -> None:
        """Told once; what is missing becomes a hole."""
        head = self._writer.head
        head.state = 2
        text = f"the input is not there ({why}): looking for it; the sound goes on"
        head.say("", text)
        if not self._told:
            self._told = text
            self._tell("input-lost", text)
        self._drop()

    def _drop(self) -> None:
        """Let go of the device. A driver that hangs is left to itself, and not asked again."""
        stream, self._stream, self._intake = self._stream, None, None
        if stream is not None:
            self._dropping = threading.Thread(target=drop, args=(stream,), daemon=True)
            self._dropping.start()
            self._dropping.join(1.0)

    def _tell(self, kind: str, text: str) -> None:
        self._tell_event(AudioEvent(kind, text[:1500], self._bus.played))


class Thru:
    """The input as the mixer hears it, late by as much as must be: what is there, ahead of the ear.

    Where it is not there in time, it becomes later for good.
    """

    SPARE = 480  #: samples kept between what is read and what is there

    def __init__(self, ring: InputRing) -> None:
        self._ring = ring
        self._late = 0

    def read(self, a: int, n: int) -> Floats:
        """float32 [n, 2] for samples a, a + 1 ... of the mix."""
        ring, end = self._ring, self._ring.raw_end
        missing = a + n - self._late - end
        audio = ring.read_raw(a - self._late, a + n - self._late)
        if missing > 0 and end and ring.status().state == "open":
            self._late += missing + self.SPARE
            ring.tell_thru(self._late)
            up = ((np.arange(n) + 0.5) / n).astype(np.float32)[:, None]
            later = ring.read_raw(a - self._late, a + n - self._late)
            audio = audio * (1 - up) + later * up
        return audio


def thru_of(text: str, folder: Path) -> Callable[[int, int], Floats]:
    """How the mixer reads an input: a file, or the device of `folder`. Raises FileError."""
    file = file_input(text)
    if file is not None:
        return lambda a, n: file.read(a, a + n)
    return Thru(InputRing.open(folder, text)).read
