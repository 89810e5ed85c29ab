"""What is heard of an input, 25 times a second: how loud, how bright, its pitch, what begins.

Pure functions of the sound that was given: no clock, no device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from demon_live.core import RATES, Floats

#: Samples that a pitch is taken of.
_WINDOW = 4096
#: The range of levels in dB, of pitches as MIDI notes, and of brightness in Hz.
_SOFTEST = -60.0
_LOW, _HIGH = 24.0, 96.0
_DARK, _BRIGHT = 100.0, 10_000.0
#: Bands in which something may begin, and their mean rise in dB that counts.
_BANDS, _RISE = 24, 6.0
#: Frames between two onsets at least, and what is left of one after a frame.
_APART, _FALL = 3, 0.6
#: Parts of the way to a new level, up and down, and to a new brightness.
_UP, _DOWN, _NEAR = 0.7, 0.25, 0.4
#: What a sound has at least in common with itself a period later.
_PERIODIC = 0.7


class InputFeatures:
    """The signals of an input that is given in frames of 40 ms."""

    def __init__(self) -> None:
        rate, hop = RATES.sample_rate, RATES.hop
        self._past = np.zeros(_WINDOW, np.float32)
        self._hann = np.hanning(hop).astype(np.float32)
        self._hertz = np.fft.rfftfreq(hop, 1 / rate)
        edges = np.geomspace(60, 12_000, _BANDS + 1)
        self._edges = np.unique(np.searchsorted(self._hertz, edges))
        self._bands: Floats | None = None
        self._rises: deque[float] = deque(maxlen=12)
        self._pitches: deque[float] = deque(maxlen=3)
        self._since = _APART
        self._values = {"in_level": 0.0, "in_onset": 0.0, "in_pitch": 0.0, "in_bright": 0.0}

    def hear(self, audio: Floats) -> Mapping[str, float]:
        """The values after one more frame, float32 [1920, 2], each 0 to 1."""
        mono = audio.mean(1)
        self._past = np.concatenate([self._past[len(mono) :], mono])
        rms = float(np.sqrt(np.mean(audio**2)))
        power = np.abs(np.fft.rfft(mono * self._hann)) ** 2
        now = dict(self._values)
        level = _clip(1 - 20 * np.log10(max(rms, 1e-9)) / _SOFTEST)
        now["in_level"] += (level - now["in_level"]) * (_UP if level > now["in_level"] else _DOWN)
        now["in_onset"] = 1.0 if self._begins(power) else now["in_onset"] * _FALL
        if level > 0.1:
            centre = float((power * self._hertz).sum() / max(float(power.sum()), 1e-12))
            bright = np.log(max(centre, 1.0) / _DARK) / np.log(_BRIGHT / _DARK)
            now["in_bright"] += (_clip(bright) - now["in_bright"]) * _NEAR
            pitch = _pitch(self._past)
            if pitch is not None:
                self._pitches.append(pitch)
                middle = sorted(self._pitches)[len(self._pitches) // 2]
                now["in_pitch"] = _clip((middle - _LOW) / (_HIGH - _LOW))
        self._values = now
        return now

    def _begins(self, power: Floats) -> bool:
        """Whether something begins in a frame of this spectrum."""
        sums = np.add.reduceat(power, self._edges[:-1])[: len(self._edges) - 1]
        bands = 10 * np.log10(sums + 1e-3)
        before, self._bands = self._bands, bands
        if before is None:
            return False
        rise = float(np.maximum(bands - before, 0).mean())
        usual = float(np.median(self._rises)) if self._rises else 0.0
        self._rises.append(rise)
        self._since += 1
        if rise < max(_RISE, 2 * usual) or self._since < _APART:
            return False
        self._since = 0
        return True


def _clip(value: float) -> float:
    return float(min(1.0, max(0.0, value)))


def _pitch(mono: Floats) -> float | None:
    """The pitch of a sound as a MIDI note; None where it has none."""
    n = len(mono)
    spectrum = np.fft.rfft(mono, 2 * n)
    own = np.fft.irfft(np.abs(spectrum) ** 2)[: n // 2]
    squares = np.concatenate([[0.0], np.cumsum(mono.astype(np.float64) ** 2)])
    lags = np.arange(n // 2)
    # What a sound and the same sound `lag` later have at most in common.
    most = squares[n - lags] + squares[n] - squares[lags]
    alike = 2 * own / np.maximum(most, 1e-9)
    first, last = (int(RATES.sample_rate / _hertz(note)) for note in (_HIGH, _LOW))
    inner = alike[1:-1]
    peaks = 1 + np.flatnonzero((inner > alike[:-2]) & (inner >= alike[2:]))
    peaks = peaks[(peaks >= first) & (peaks <= last)]
    if not len(peaks) or alike[peaks].max() < _PERIODIC:
        return None
    # The shortest period that is nearly as good as the best.
    lag = int(peaks[alike[peaks] >= 0.93 * alike[peaks].max()][0])
    a, b, c = alike[lag - 1 : lag + 2]
    bend = a - 2 * b + c
    exact = lag + (0.5 * (a - c) / bend if bend else 0.0)
    return float(69 + 12 * np.log2(RATES.sample_rate / exact / 440))


def _hertz(note: float) -> float:
    return float(440 * 2 ** ((note - 69) / 12))
