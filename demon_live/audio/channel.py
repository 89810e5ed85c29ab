"""The parts of a channel strip, and the limiter behind the sum.

    Ramp       a switch that takes some milliseconds (mute, hush, start-up)
    Slewed     a control of class mix: its automation, smoothed by a moving average of its slew
    Filter     2nd-order Butterworth low- or high-pass with a moving cutoff
    pan        equal-power panning of a stereo signal
    Limiter    gain reduction is the largest demand of the coming 2 ms, released over 100 ms, then
               averaged over 2 ms: in full before the peak. Below the ceiling the sound passes bit
               for bit, LOOK samples late

Curves come out as one float where nothing moves, so that a strip at rest costs nothing and changes
no bit, and as float64 [n] where something does.

Threads: owned by one mixer.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from demon_live.controls import Control
from demon_live.core import RATES, MixPoints

Doubles = NDArray[np.float64]
Curve = float | Doubles

GRAIN = 48  #: samples for which a filter's cutoff is held: 1 ms
_RATE = RATES.sample_rate


def scale(audio: Doubles, gain: Curve) -> Doubles:
    """audio float64 [n, 2] times a gain; the same array where the gain is exactly 1."""
    if isinstance(gain, float):
        return audio if gain == 1.0 else audio * gain
    return audio * gain[:, None]


class Ramp:
    """A value that goes to its target in a straight line, `seconds` for a whole unit."""

    def __init__(self, value: float, seconds: float) -> None:
        self.value = value
        self.target = value
        self._step = 1.0 / max(1.0, seconds * _RATE)

    def curve(self, n: int) -> Curve:
        """The next n values."""
        if self.value == self.target:
            return self.value
        way = self.target - self.value
        steps = np.minimum(np.arange(1, n + 1) * self._step, abs(way))
        line: Doubles = self.value + math.copysign(1.0, way) * steps
        line[steps >= abs(way)] = self.target
        self.value = float(line[-1])
        return line


class Slewed:
    """A control of class mix over time.

    A jump written at sample n starts to be heard at n and is complete `slew` later: a causal moving
    average, which delays straight lines by half a slew and leaves constants exact.
    """

    def __init__(self, control: Control) -> None:
        assert isinstance(control.default, float)
        self.control = control
        self._width = max(1, round(control.slew * _RATE))
        self._x: Doubles = np.zeros(1)
        self._y: Doubles = np.full(1, control.default)
        self._past: Doubles | None = None
        self._settled: float | None = None

    def follow(self, points: MixPoints | None) -> None:
        """From the next sample on, this automation; None goes back to the default."""
        c = self.control
        assert isinstance(c.default, float)
        if points is None or not len(points.samples):
            self._x, self._y = np.zeros(1), np.full(1, c.default)
            return
        self._x = np.asarray(points.samples, np.float64)
        self._y = np.clip(
            np.nan_to_num(np.asarray(points.values, np.float64), nan=c.default), c.low, c.high
        )

    def _target(self, a: int, n: int) -> Curve:
        if a >= self._x[-1]:
            return float(self._y[-1])
        if a + n <= self._x[0]:
            return float(self._y[0])
        return np.interp(np.arange(a, a + n), self._x, self._y)

    def curve(self, a: int, n: int) -> Curve:
        """The values for output samples a .. a + n - 1; calls follow each other without a gap."""
        target = self._target(a, n)
        if isinstance(target, float):
            if self._past is None:
                self._settled = target
            if target == self._settled:
                if self._past is None or len(self._past) != self._width - 1:
                    self._past = np.full(self._width - 1, target)
                return target
        now = np.broadcast_to(target, (n,)) if isinstance(target, float) else target
        if self._past is None:
            self._past = np.full(self._width - 1, now[0])
        line = np.concatenate((self._past, now))
        self._past = line[n:]
        self._settled = float(line[0]) if line[0] == line[-1] and (line == line[0]).all() else None
        if self._settled is not None:
            return self._settled
        total = np.concatenate(((0.0,), np.cumsum(line)))
        smooth: Doubles = (total[self._width :] - total[: -self._width]) / self._width
        return smooth


class _Plan:
    """A filter at one cutoff, unrolled over a grain: a matrix on (input, state).

    With the filter as s' = A s + B x, y = C s + D x, and n = GRAIN:
        whole[:n, :n]  lower triangular, the impulse response      whole[:n, n:]  C A^j, row j
        whole[n:, :n]  A^(n-1-j) B, column j                       powers[j]      A^j, j = 0..n
    """

    def __init__(self, kind: Literal["low", "high"], hz: float) -> None:
        g = math.tan(math.pi * min(max(hz, 1.0), 0.49 * _RATE) / _RATE)
        k = math.sqrt(2.0)
        a1 = 1.0 / (1.0 + g * (g + k))
        a2, a3 = g * a1, g * g * a1
        a = np.array([[2 * a1 - 1, -2 * a2], [2 * a2, 1 - 2 * a3]])
        b = np.array([2 * a2, 2 * a3])
        if kind == "low":
            c, d = np.array([a2, 1 - a3]), a3
        else:
            c, d = np.array([-k * a1 - a2, k * a2 - 1 + a3]), 1 - k * a2 - a3
        self.powers: Doubles = np.empty((GRAIN + 1, 2, 2))
        self.powers[0] = np.eye(2)
        for j in range(GRAIN):
            self.powers[j + 1] = a @ self.powers[j]
        free, drive = c @ self.powers[:GRAIN], self.powers[:GRAIN] @ b
        response = np.concatenate((np.zeros(GRAIN - 1), (d,), free[:-1] @ b))
        self.whole: Doubles = np.empty((GRAIN + 2, GRAIN + 2))
        self.whole[:GRAIN, :GRAIN] = sliding_window_view(response, GRAIN)[:, ::-1]
        self.whole[:GRAIN, GRAIN:] = free
        self.whole[GRAIN:, :GRAIN] = drive[::-1].T
        self.whole[GRAIN:, GRAIN:] = self.powers[GRAIN]


#: 20 kB each; a sweep back and forth finds its plans again.
_plan = functools.lru_cache(maxsize=512)(_Plan)


class Filter:
    """A 2nd-order Butterworth filter whose cutoff may move at any speed.

    Realised as the trapezoidal state-variable filter (A. Simper, "Linear trapezoidal integrated
    SVF", 2013; the same transfer function as scipy's butter(2)), whose state keeps its meaning when
    the cutoff changes, so that sweeps neither click nor blow up. It is unrolled over grains, so
    that numpy filters 48 samples in one product. (scipy.signal would cost the audio process over a
    second of start-up.) A moving cutoff goes in steps of 1/48 octave. At `rest`, the end of the
    control's range, the filter is out of the way bit for bit.
    """

    STEPS = 48

    def __init__(self, kind: Literal["low", "high"], rest: float) -> None:
        self._kind: Literal["low", "high"] = kind
        self._rest = rest
        self._state: Doubles = np.zeros((2, 2))  # integrators x channels
        self._in = False

    def process(self, x: Doubles, cutoff: Curve) -> Doubles:
        """The next float64 [n, 2] of the stream, filtered at `cutoff` Hz."""
        if isinstance(cutoff, float) and cutoff == self._rest and not self._in:
            return x
        out = np.empty_like(x)
        for i in range(0, len(x), GRAIN):
            piece = x[i : i + GRAIN]
            hz = cutoff if isinstance(cutoff, float) else float(cutoff[i + len(piece) // 2])
            out[i : i + GRAIN] = self._grain(piece, hz, isinstance(cutoff, float))
        # Denormal numbers would make a silent deck slow.
        self._state[np.abs(self._state) < 1e-30] = 0.0
        return out

    def _grain(self, x: Doubles, hz: float, exact: bool) -> Doubles:
        comes = hz != self._rest
        if not comes and not self._in:
            return x
        if not self._in:
            self._state = np.zeros((2, 2))
        if comes and not exact:
            hz = 2.0 ** (round(math.log2(hz) * self.STEPS) / self.STEPS)
        wet = self._run(x, _plan(self._kind, hz))
        if comes and self._in:
            return wet
        # Coming in or going out: one grain from one to the other.
        self._in = comes
        line = (np.arange(len(x)) + 0.5)[:, None] / len(x)
        mixed: Doubles = wet * line + x * (1 - line) if comes else x * line + wet * (1 - line)
        return mixed

    def _run(self, x: Doubles, plan: _Plan) -> Doubles:
        """float64 [n, 2], n <= GRAIN, through one plan."""
        n, whole = len(x), plan.whole
        if n == GRAIN:
            both = whole @ np.concatenate((x, self._state))
            self._state = both[GRAIN:]
            return both[:GRAIN]
        out: Doubles = whole[:n, :n] @ x + whole[:n, GRAIN:] @ self._state
        self._state = whole[GRAIN:, GRAIN - n : GRAIN] @ x + plan.powers[n] @ self._state
        return out


def pan(audio: Doubles, where: Curve) -> Doubles:
    """Equal-power panning of float64 [n, 2], -1 left to 1 right; exactly nothing at 0.

    The law of Web Audio's StereoPannerNode for stereo: the side that is turned away from folds into
    the other one instead of being lost.
    """
    if isinstance(where, float) and where == 0.0:
        return audio
    to_left = np.minimum(where, 0.0) + 1.0  # 1 = untouched
    to_right = 1.0 - np.maximum(where, 0.0)
    left, right = audio[:, 0], audio[:, 1]
    out = np.empty_like(audio)
    out[:, 0] = left * np.sin(to_right * (np.pi / 2)) + right * np.cos(to_left * (np.pi / 2))
    out[:, 1] = right * np.sin(to_left * (np.pi / 2)) + left * np.cos(to_right * (np.pi / 2))
    return out


LOOK = 96  #: samples of look-ahead, which is also the delay: 2 ms
CEILING = 10.0 ** (-1.0 / 20.0)  #: -1 dBFS
RELEASE = 0.1  #: seconds in which a reduction falls to 1/e


def release(most: Doubles, last: float, seconds: float) -> Doubles:
    """r[n] = max(most[n], d * r[n-1]) with r[-1] = last, which falls to 1/e in `seconds`.

    Without a loop: d^n * running maximum of most[k] / d^k.
    """
    fall = np.exp(np.arange(1, len(most) + 1) * (-1.0 / (seconds * _RATE)))
    held: Doubles = fall * np.maximum.accumulate(np.maximum(most / fall, last))
    return held


class Limiter:
    """Keeps |out| <= ceiling. One instance, one stream; the sound comes out LOOK samples late."""

    def __init__(self, ceiling: float = CEILING) -> None:
        self.ceiling = ceiling
        self.reduction_db = 0.0  #: largest reduction of the last block, dB >= 0
        self._sound: Doubles = np.zeros((LOOK, 2))
        self._asked: Doubles = np.zeros(LOOK)
        self._held: Doubles = np.zeros(LOOK)

    def process(self, block: Doubles) -> Doubles:
        """The next float64 [n, 2] of the stream -> float64 [n, 2] from LOOK samples earlier."""
        n = len(block)
        sound = np.concatenate((self._sound, block))
        peaks = np.abs(block).max(axis=1)
        out = sound[:n]
        self._sound = sound[n:]
        if peaks.max() <= self.ceiling and not self._held.any() and not self._asked.any():
            self.reduction_db = 0.0
            return out
        # Demands are kept as 1 - gain, so that silence of the limiter is an exact zero.
        asked = np.concatenate((self._asked, 1.0 - self.ceiling / np.maximum(peaks, self.ceiling)))
        self._asked = asked[n:]
        most = sliding_window_view(asked, LOOK + 1).max(axis=1)
        fresh = release(most, float(self._held[-1]), RELEASE)
        # Below a hundred-thousandth of a decibel it is over; the path becomes bit-exact again.
        fresh[fresh < 1e-6] = 0.0
        held = np.concatenate((self._held, fresh))
        self._held = held[n:]
        reduction = np.convolve(held, np.full(LOOK + 1, 1.0 / (LOOK + 1)), "valid")
        self.reduction_db = -20.0 * math.log10(1.0 - min(float(reduction.max()), 0.999999))
        limited: Doubles = out * (1.0 - reduction)[:, None]
        # The average guarantees the ceiling but for rounding.
        return np.clip(limited, -self.ceiling, self.ceiling)
