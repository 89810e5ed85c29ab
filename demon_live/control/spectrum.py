"""A loop as a picture: its spectrum over time, and how loud it is.

Threads: pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demon_live.core import RATES, Floats

__all__ = ["BANDS", "COLUMNS", "WAVE", "Shape", "shape_of"]

#: Columns and bands of a spectrogram; columns of a waveform.
COLUMNS, BANDS, WAVE = 320, 56, 640
_WINDOW = 2048
_LOW, _HIGH = 45.0, 14_000.0
#: How far below a loop's loudest is black, in dB; a loop that is quieter than this is black.
_RANGE, _QUIET = 58.0, -50.0
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shape:
    """A loop for the eye. spectrum: uint8 [COLUMNS, BANDS], low bands first; wave: uint8 [WAVE]."""

    spectrum: Bytes
    wave: Bytes


def _edges() -> NDArray[np.int64]:
    hertz = np.geomspace(_LOW, _HIGH, BANDS + 1)
    bins = np.maximum(1, np.rint(hertz * _WINDOW / RATES.sample_rate)).astype(np.int64)
    # Low bands are narrower than a bin: each still takes one of its own.
    for i in range(1, len(bins)):
        bins[i] = max(bins[i], bins[i - 1] + 1)
    return bins


_EDGES = _edges()


def shape_of(audio: Floats) -> Shape:
    """float32 [n, 2], one lap of a loop -> its picture; about 10 ms of one core for 8 s."""
    mono = np.nan_to_num(audio.mean(axis=1, dtype=np.float32))
    n = len(mono)
    starts = np.arange(COLUMNS) * n // COLUMNS - _WINDOW // 2
    frames = mono[(starts[:, None] + np.arange(_WINDOW)) % n] * _HANN
    power = np.abs(np.fft.rfft(frames, axis=1))[:, : _EDGES[-1]]
    bands = np.maximum.reduceat(power, _EDGES[:-1], axis=1) * (4 / _WINDOW)
    # Music falls by some 4 dB an octave: lifted, so that what is high is seen, too.
    octaves = np.linspace(0, np.log2(_HIGH / _LOW), BANDS)
    level = 20 * np.log10(bands + 1e-9) + 3.0 * octaves
    loudest = max(float(np.percentile(level, 99.7)), _QUIET)
    spectrum = np.clip(((level - loudest) / _RANGE + 1) * 255, 0, 255).astype(np.uint8)
    cuts = np.arange(WAVE) * n // WAVE
    loud = np.maximum.reduceat(np.abs(mono), cuts)
    return Shape(spectrum, np.clip(loud * 255, 0, 255).astype(np.uint8))
