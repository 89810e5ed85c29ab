"""Distortion, and effects with a tail: an echo and a room.

    drive      soft saturation          crush      fewer bits
    Tails      what is sent to the echo and to the room, and what comes back
    Duck       the gain that makes way for another deck, or for the beat

The samples of a tail lie in one array that may be a mapped file: places in it are output samples
modulo a power of two, so another process that opens it goes on with the same tail. All is
written for whole blocks: an echo is read in pieces no longer than itself, and every line of the
room is longer than a block. The same samples come out however a stream is cut into blocks.

Threads: owned by one mixer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demon_live.audio.channel import Curve, Doubles, Slewed, release, scale
from demon_live.controls import CONTROLS, Control
from demon_live.core import RATES, Floats, MixPoints

_RATE = RATES.sample_rate

ECHO = 1 << 18  #: samples of the longest echo: 5.4 s
SHORTEST = 48  #: samples of the shortest echo: 1 ms
FADE = 480  #: samples in which one delay time gives way to another
_ROOM = 4096  #: samples that are kept of each line of the room
#: Lengths of the room's lines in samples: primes, longer than a block.
LINES = (557, 661, 751, 839, 937, 1031, 1151, 1259, 1381, 1511, 1637, 1777, 1931, 2099, 2273, 2467)
_COUNT = len(LINES)
#: How much a line takes of each neighbouring sample: highs die away sooner.
_DAMP = 0.12
_LENGTHS = np.array(LINES)
_ROWS = np.arange(_COUNT)
_LOSS = (-3.0 * np.log(10.0) / _RATE * _LENGTHS).astype(np.float32)
#: Lines that come out, and that take in, left and right: float32 [16, 2], [2, 16].
_SIDES = np.stack((1 - _ROWS % 2, _ROWS % 2), axis=1).astype(np.float32)
_ENTRY = _SIDES.T * np.array([1, 1, -1, 1, 1, -1, -1, -1, 1, -1, 1, 1, -1, 1, -1, -1], np.float32)
_PAIR = np.array([[1, 1], [1, -1]], np.float32) / np.float32(2**0.5)
_HADAMARD: Floats = functools.reduce(np.kron, [_PAIR] * 4)
MEMORY = ECHO * 2 + _COUNT * _ROOM + 2  #: float32 numbers of a Tails
_MOST_FEEDBACK = 0.98  #: more would never end
#: Depth of ducking; smoothed, so that its edge does not click.
_DEPTH = Control("duck", "number", "mix", 0.0, "", "", slew=0.005)
_SILENT = 3e-6  #: -110 dB: a tail below this is over

#: (name, create) -> float32 [MEMORY]; None if there is none and it is not to be created.
Memory = Callable[[str, bool], Floats | None]


def in_memory(name: str, create: bool) -> Floats | None:
    """Tails that end with the process."""
    return np.zeros(MEMORY, np.float32) if create else None


def drive(audio: Doubles, amount: Curve) -> Doubles:
    """Soft saturation of float64 [n, 2]; exactly nothing at 0.

    (1 + k) x / (1 + k |x|), k = e^(5 amount) - 1, at about the loudness that it had.
    """
    if _is(amount, 0.0):
        return audio
    k = np.expm1(5.0 * np.asarray(amount))[..., None]
    shaped: Doubles = (1.0 + k) ** 0.6 * audio / (1.0 + k * np.abs(audio))
    return shaped


def crush(audio: Doubles, bits: Curve) -> Doubles:
    """float64 [n, 2] in steps of 2^(1 - bits); exactly nothing at 16."""
    rest = CONTROLS["crush"].high
    if _is(bits, rest):
        return audio
    steps = np.exp2(np.asarray(bits) - 1.0)[..., None]
    return np.where(np.asarray(bits)[..., None] >= rest, audio, np.round(audio * steps) / steps)


def decay(size: Floats) -> Floats:
    """Seconds in which rooms of these sizes fall by 60 dB: .3 to 6."""
    return np.asarray(0.3 * 20.0**size, np.float32)


class _Tail:
    """An effect with a memory, float32 [longest, lines], its first axis output samples modulo its
    length."""

    def __init__(self, memory: Floats) -> None:
        self.memory = memory
        #: Something may come back.
        self.on = bool(memory.any())
        self._quiet = 0

    @property
    def longest(self) -> int:
        """Samples after which silence that goes in has come back."""
        raise NotImplementedError

    def clear(self) -> None:
        """End the tail."""
        if self.on:
            self.memory[:] = 0.0
        self.on, self._quiet = False, 0

    def skip(self, begin: int, end: int) -> None:
        """Nothing was written for the output samples begin .. end - 1."""
        n = min(end - begin, len(self.memory))
        if self.on and n > 0:
            put(self.memory, end - n, np.zeros((n, self.memory.shape[1]), np.float32))

    def rest(self, n: int, silent: bool, asked: bool) -> None:
        """n samples have passed. A tail that was silent for longer than its longest way is over."""
        self._quiet = self._quiet + n if silent else 0
        self.on = True
        if not asked and self._quiet > self.longest:
            self.clear()


class _Echo(_Tail):
    """A delay line with feedback. memory: float32 [ECHO, 2]."""

    def __init__(self, memory: Floats) -> None:
        super().__init__(memory)
        self._time = self._next = 0
        self._turned = -FADE  # the output sample at which the newest delay time came

    @property
    def longest(self) -> int:
        return max(self._time, self._next)

    def process(self, x: Floats, a: int, curves: Mapping[str, Curve]) -> Floats:
        """What comes back for output samples a .. a + n - 1 while float32 [n, 2] goes in."""
        n, done = len(x), 0
        out = np.empty_like(x)
        times = np.asarray(curves["delaytime"]).round().astype(np.int64).clip(SHORTEST, ECHO)
        feedback = np.minimum(curves["delayfeedback"], _MOST_FEEDBACK)
        gain = np.broadcast_to(feedback, (n,)).astype(np.float32)[:, None]
        while done < n:
            m = self._stretch(a + done, done, n, times)
            back = self._read(a + done, m)
            put(self.memory, a + done, x[done : done + m] + gain[done : done + m] * back)
            out[done : done + m] = back
            done += m
        return out

    def _stretch(self, here: int, done: int, n: int, times: NDArray[np.int64]) -> int:
        """Samples from `here` on with the same delay times, no more than the shorter of them."""
        wanted = int(times[done]) if times.ndim else int(times.item())
        self._time = self._time or wanted
        if here >= self._turned + FADE:
            self._time, self._next = self._next or wanted, wanted
            self._turned = here if wanted != self._time else self._turned
        m = min(n - done, self._time, self._next)
        if here < self._turned + FADE:
            return min(m, self._turned + FADE - here)
        moves: Any = np.flatnonzero(times[done : done + m] != self._time) if times.ndim else []
        return int(moves[0]) if len(moves) else m

    def _read(self, here: int, m: int) -> Floats:
        old = get(self.memory, here - self._time, m)
        if here >= self._turned + FADE:
            return old
        u = (np.arange(here, here + m) - self._turned + 0.5) / FADE
        new = get(self.memory, here - self._next, m)
        faded: Floats = old + (new - old) * u[:, None].astype(np.float32)
        return faded


class _Room(_Tail):
    """A feedback delay network of 16 lines. memory: float32 [_ROOM, 16].

    Each line loses what makes all fall by 60 dB in the same time; a Hadamard matrix hands the
    lines on to each other. Left goes into the even lines and comes out of them, right of the odd.
    """

    longest = max(LINES)

    def process(self, x: Floats, a: int, curves: Mapping[str, Curve]) -> Floats:
        """What comes back for output samples a .. a + n - 1 while float32 [n, 2] goes in."""
        n = len(x)
        places = (np.arange(a - 1, a + n + 1)[:, None] - _LENGTHS) & (_ROOM - 1)
        read = self.memory.reshape(-1).take(places * _COUNT + _ROWS)
        heard = read[:-2] + read[2:]
        heard *= np.float32(_DAMP)
        heard += read[1:-1] * np.float32(1 - 2 * _DAMP)
        size = np.atleast_1d(np.asarray(curves["size"], np.float32))[:, None]
        kept = np.exp(_LOSS / decay(size))
        # Whatever the size, steady low noise comes back about as loud as it went in.
        power = np.square(kept).mean(axis=1, keepdims=True)
        enters = np.sqrt((1.0 / power - 1.0) / (_COUNT / 2))
        heard *= kept
        mixed = heard @ _HADAMARD
        mixed += (enters * x) @ _ENTRY
        put(self.memory, a, mixed)
        sides: Floats = heard @ _SIDES
        return sides


def get(line: Floats, at: int, n: int) -> Floats:
    """Samples at, at + 1, ... of a line that goes round."""
    at %= len(line)
    piece = line[at : at + n]
    return piece if len(piece) == n else np.concatenate((piece, line[: n - len(piece)]))


def put(line: Floats, at: int, audio: Floats) -> None:
    """Write to a line that goes round."""
    at %= len(line)
    first = min(len(audio), len(line) - at)
    line[at : at + first] = audio[:first]
    line[: len(audio) - first] = audio[first:]


class Tails:
    """Echo and room of a strip. name: of its memory."""

    def __init__(self, name: str, memory: Memory = in_memory) -> None:
        self._name, self._memory = name, memory
        #: Control that sends -> effect.
        self._effects: dict[str, _Echo | _Room] = {}
        known = memory(name, False)
        if known is not None:
            self._attach(known)

    def _attach(self, memory: Floats) -> None:
        self._head = memory[:2].view(np.int64)  # the output sample that is written next
        echo, room = memory[2 : 2 + 2 * ECHO], memory[2 + 2 * ECHO :]
        self._effects = {
            "delay": _Echo(echo.reshape(ECHO, 2)),
            "room": _Room(room.reshape(_ROOM, _COUNT)),
        }

    @property
    def on(self) -> bool:
        """Something may come back."""
        return any(effect.on for effect in self._effects.values())

    def clear(self) -> None:
        """End all tails."""
        for effect in self._effects.values():
            effect.clear()

    def process(
        self, audio: Doubles, a: int, curves: Mapping[str, Curve], wet: Curve = 1.0
    ) -> Doubles:
        """float64 [n, 2], from output sample a on, with what comes back.

        Args:
            curves: `delay delaytime delayfeedback room size`, the delay time in samples.
            wet: gain of what comes back.
        """
        asked = {name for name in ("delay", "room") if not _is(curves[name], 0.0)}
        if not (asked or self.on):
            return audio
        if not self._effects:
            memory = self._memory(self._name, True)
            assert memory is not None
            self._attach(memory)
        back = np.zeros(audio.shape, np.float32)
        for name, effect in self._effects.items():
            effect.skip(int(self._head[0]), a)
            if effect.on or name in asked:
                x = scale(audio, curves[name]).astype(np.float32)
                came = effect.process(x, a, curves)
                silent = max(np.abs(x).max(), np.abs(came).max()) <= _SILENT
                effect.rest(len(x), bool(silent), name in asked)
                back += came
        self._head[0] = a + len(audio)
        return audio + scale(back.astype(np.float64), wet)


class _Follower:
    """How loud a deck is, 0 to 1: full from -12 dB on, back within some 150 ms."""

    FULL = 0.25
    RELEASE = 0.15
    RISE = 96  #: samples of the moving average that takes the click out of it

    def __init__(self) -> None:
        self._last = 0.0
        self._past: Doubles = np.zeros(self.RISE - 1)

    def process(self, audio: Doubles) -> Doubles:
        """float64 [n] for float64 [n, 2]."""
        peaks = np.minimum(np.abs(audio).max(axis=1) / self.FULL, 1.0)
        held = release(peaks, self._last, self.RELEASE)
        self._last = float(held[-1])
        line = np.concatenate((self._past, held))
        self._past = line[len(held) :]
        total = np.concatenate(((0.0,), np.cumsum(line)))
        smooth: Doubles = (total[self.RISE :] - total[: -self.RISE]) / self.RISE
        return smooth


class Duck:
    """The gain of a strip that makes way for the beat, or for other decks."""

    def __init__(self) -> None:
        #: What makes it duck -> how far: "" is an automation that has the beat in it.
        self._depths: dict[str, Slewed] = {}
        self._followers: dict[str, _Follower] = {}

    def follow(self, points: Mapping[str, MixPoints]) -> None:
        """Replace the automations: name of a deck -> depth; "" -> the whole curve of the beat."""
        for name in points.keys() - self._depths.keys():
            self._depths[name] = Slewed(_DEPTH)
            self._followers[name] = _Follower()
        for name, depth in self._depths.items():
            depth.follow(points.get(name))

    def gain(self, a: int, n: int, decks: Mapping[str, Doubles]) -> Curve:
        """The gain for output samples a .. a + n - 1. decks: what each of them sounds like."""
        gain: Curve = 1.0
        for name, depth in self._depths.items():
            curve = depth.curve(a, n)
            if _is(curve, 0.0):
                continue
            if name:
                curve *= self._followers[name].process(decks.get(name, np.zeros((n, 2))))
            gain = gain * (1.0 - curve)
        return gain


def _is(curve: Curve, value: float) -> bool:
    """The curve stands still there."""
    return isinstance(curve, float) and curve == value
