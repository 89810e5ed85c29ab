"""MIDI clock: 24 pulses a quarter note, in and out, with start, stop, continue and song position.

    PhaseLock   a second-order phase-locked loop: jittered pulses -> a steady tempo and phase
    ClockIn     a Leader (link.py) that listens to a device
    ClockOut    sends pulses at the moments at which our beats are heard

A pulse says that the beat stands at n/24 now; cables, drivers and busy senders put milliseconds of
jitter on it. The loop predicts each pulse and corrects its tempo and phase by a part of the error;
the part is large at first and falls as 1/n to a narrow band, like that of a least-squares line.

Threads: PhaseLock and ClockIn.feed belong to the MIDI thread, `reading` to any (it takes one
reference). ClockOut has a thread of its own; `follow` may be called by any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from demon_live.control.link import BeatReading
from demon_live.control.midi import Backend, MidiIn, MidiMessage, MidiOut

PULSES = 24
_CLOCK, _START, _CONTINUE, _STOP, _POSITION = 0xF8, 0xFA, 0xFB, 0xFC, 0xF2
#: Pulses over which the settled loop averages: eight beats.
_MEMORY = 192
#: A pulse this far from where it was expected, in pulses, is a new tempo, not jitter.
_JUMP = 4.0
#: Without a pulse for so long the clock has stopped, in seconds.
_SILENCE = 0.5


class PhaseLock:
    """Pulses in, a straight line out: the moment of pulse n is at + (n - count) * period.

    The gains are those of a line fitted to the last n pulses (an alpha-beta filter whose gains
    follow Kalman's for a constant velocity: alpha = 2(2n-1)/(n(n+1)), beta = 6/(n(n+1))), n growing
    to `memory`: exact from the second pulse on, narrow after some beats.
    """

    def __init__(self, memory: int = _MEMORY) -> None:
        self._memory = memory
        self.reset()

    def reset(self) -> None:
        """Forget the pace: the next pulse is the first."""
        self.seen = 0
        self.at = 0.0
        self.period = 0.0
        self._strays = 0
        self._lean = 0.0

    def pulse(self, moment: float) -> None:
        """A pulse came at this moment, in seconds."""
        self.seen += 1
        if self.seen == 1:
            self.at = moment
            return
        if self.seen == 2:
            self.period, self.at = moment - self.at, moment
            return
        expected = self.at + self.period
        error = moment - expected
        self._strays = self._strays + 1 if abs(error) > _JUMP * self.period else 0
        if self._strays > 2:
            # The sender has moved to another tempo, or was away: begin again from here.
            self.reset()
            self.pulse(moment)
            return
        n = min(self.seen, self._memory)
        self.at = expected + error * 2 * (2 * n - 1) / (n * (n + 1))
        self.period += error * 6 / (n * (n + 1))
        # A tempo that has moved shows as an error that keeps its sign: widen the loop again.
        self._lean = 0.9 * self._lean + 0.1 * error
        if n > PULSES and abs(self._lean) > 0.25 * self.period:
            self.seen = PULSES // 2

    @property
    def bpm(self) -> float:
        """Quarter notes a minute; 0 before two pulses."""
        return 60.0 / (PULSES * self.period) if self.period > 0 else 0.0


class ClockIn:
    """Follows the MIDI clock of a device, of any input that there is. backend: for tests."""

    def __init__(self, *, watch: bool = True, backend: Backend | None = None) -> None:
        self._loop = PhaseLock()
        self._count = -1  # pulses since the start; -1: start has come, its first pulse has not
        self._running = True
        self._reading: BeatReading | None = None
        self._port = MidiIn(on_message=self.feed, watch=watch, backend=backend)

    @property
    def problem(self) -> str:
        return self._port.problem

    def feed(self, message: MidiMessage) -> None:
        """A message from the device, stamped with its arrival."""
        match message.data[0]:
            case 0xF8:
                self._pulse(message.at)
            case 0xFA:
                self._count, self._running = -1, True
            case 0xFB:
                self._running = True
            case 0xFC:
                self._running = False
                self._update(message.at)
            case 0xF2 if len(message.data) >= 3:
                # In sixteenths: six pulses each; the pulse that follows `continue` is at it.
                self._count = 6 * (message.data[1] + 128 * message.data[2]) - 1

    def _pulse(self, at: float) -> None:
        # Some senders let pulses run on while stopped: the tempo follows, the place stands.
        self._loop.pulse(at)
        if self._running:
            self._count += 1
        self._update(at)

    def _update(self, at: float) -> None:
        if self._loop.seen < PULSES // 2:
            return
        beat = max(0, self._count) / PULSES
        self._reading = BeatReading(self._loop.at, beat, self._loop.bpm, self._running, 1)

    def reading(self) -> BeatReading | None:
        """Where the device's beat stands now; None before half a beat, and half a second after its
        last pulse."""
        last, now = self._reading, time.monotonic()
        if last is None or now - last.at > _SILENCE:
            return None
        return BeatReading(now, last.beat_at(now), last.bpm, last.running, 1)

    def lead(self, bpm: float) -> None:
        """Nothing can be sent to the sender of a MIDI clock."""

    def settle(self, beat: float) -> None:
        """Nothing can be sent to the sender of a MIDI clock."""

    def close(self) -> None:
        self._port.close()


class PulseOut(Protocol):
    """The part of MidiOut that a clock needs."""

    problem: str

    def send(self, data: bytes) -> bool: ...
    def close(self) -> None: ...


class ClockOut:
    """Sends our beats as a MIDI clock. A device starts on the first bar after it is plugged in.

    out, now, start: for tests: the port, the clock, whether the thread runs.
    """

    #: Pulses later than this are not sent one by one, seconds: the device gets its place anew.
    LATE = 0.1

    def __init__(
        self,
        out: PulseOut | None = None,
        *,
        beats: int = 4,
        now: Callable[[], float] = time.monotonic,
        start: bool = True,
    ) -> None:
        self._out: PulseOut = out or MidiOut()
        self._beats = beats
        self._now = now
        self._line: BeatReading | None = None
        self._next: int | None = None  # the pulse that is sent next, counted from beat 0
        self._started = False
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="midi clock", daemon=True)
        if start:
            self._thread.start()

    @property
    def problem(self) -> str:
        return self._out.problem

    def follow(self, reading: BeatReading) -> None:
        """Our beat as it is heard, from now on."""
        self._line = reading
        self._wake.set()

    def due(self) -> float | None:
        """The moment of the next pulse; None: there is no beat yet."""
        line = self._line
        if line is None:
            return None
        now = self._now()
        if self._next is None or self._moment(line, self._next) < now - self.LATE:
            self._next = int(line.beat_at(now) * PULSES) + 1
            self._started = False
        return self._moment(line, self._next)

    @staticmethod
    def _moment(line: BeatReading, pulse: int) -> float:
        return line.at + (pulse / PULSES - line.beat) * 60.0 / line.bpm

    def pulse(self) -> None:
        """Send the next pulse; on the first bar line, start before it."""
        assert self._next is not None
        bar = self._next % (PULSES * self._beats) == 0
        if bar and not self._started:
            # The bar's number as song position, so that a device's own song stands where ours does.
            sixteenths = self._next // 6
            if sixteenths < 1 << 14:
                self._out.send(bytes((_POSITION, sixteenths & 127, sixteenths >> 7)))
                self._started = self._out.send(bytes((_CONTINUE if sixteenths else _START,)))
            else:
                self._started = self._out.send(bytes((_START,)))
        self._out.send(bytes((_CLOCK,)))
        self._next += 1

    def _run(self) -> None:
        while not self._closing:
            due = self.due()
            wait = 0.5 if due is None else due - self._now()
            if wait > 0:
                # The last half millisecond is not worth a busy core.
                self._wake.wait(min(wait, 0.5))
                self._wake.clear()
            elif due is not None:
                self.pulse()

    def close(self) -> None:
        """Stop the device. Twice is fine."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1)
        if self._started:
            self._out.send(bytes((_STOP,)))
        self._out.close()
