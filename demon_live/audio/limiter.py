"""The last stage before the ears: a look-ahead limiter.

Gain reduction is the largest demand of the coming 2 ms, let go over 100 ms, then averaged over
2 ms: it arrives smoothly and in full before the peak does. Where nothing is above the ceiling the
sound passes bit for bit, LOOK samples late.

Threads: owned by one mixer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

LOOK = 96  #: samples of look-ahead, which is also the delay: 2 ms
CEILING = 10.0 ** (-1.0 / 20.0)  #: -1 dBFS
RELEASE = 0.1  #: seconds in which a reduction falls to 1/e

Doubles = NDArray[np.float64]


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
        held = np.concatenate((self._held, self._release(most)))
        self._held = held[n:]
        reduction = np.convolve(held, np.full(LOOK + 1, 1.0 / (LOOK + 1)), "valid")
        self.reduction_db = -20.0 * math.log10(1.0 - min(float(reduction.max()), 0.999999))
        limited: Doubles = out * (1.0 - reduction)[:, None]
        # The average guarantees the ceiling but for rounding.
        return np.clip(limited, -self.ceiling, self.ceiling)

    def _release(self, most: Doubles) -> Doubles:
        """r[n] = max(most[n], d * r[n-1]), without a loop: d^n * running maximum of most[k] /
        d^k."""
        fall = np.exp(np.arange(1, len(most) + 1) * (-1.0 / (RELEASE * 48000)))
        held: Doubles = fall * np.maximum.accumulate(np.maximum(most / fall, self._held[-1]))
        # Below a hundred-thousandth of a decibel it is over; the path becomes bit-exact again.
        held[held < 1e-6] = 0.0
        return held
