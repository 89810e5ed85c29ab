"""Schedules of the flow-matching solver: which noise level each step starts from.

Flow matching: x_t = t * noise + (1 - t) * x0. A schedule is S + 1 levels, from t_start down to 0;
step k goes from t[k] to t[k + 1]. Everything here is float64 on the host, cast once at the border.

Threads: pure functions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from demon_live.errors import ScoreError

__all__ = ["SOURCE_BELOW", "start_level", "timesteps"]

#: A denoise at or under this returns the source.
SOURCE_BELOW = 1e-6


def start_level(steps: int, denoise: float, parity: bool = False) -> float:
    """The level before the shift at which a schedule starts: `denoise` itself.

    parity: S / floor(S / denoise), the staircase of the DEMON engine (9 values on [.5, 1] for
    S = 8), for comparison with it.
    """
    if denoise <= SOURCE_BELOW:
        return 0.0
    if not parity or denoise >= 1.0:
        return float(denoise)
    return steps / math.floor(steps / denoise)


def timesteps(
    steps: int, denoise: float = 1.0, shift: float = 3.0, parity: bool = False
) -> NDArray[np.float64]:
    """The S + 1 noise levels of a generation, float64 [steps + 1], falling, the last one 0.

    t_k = t_start (1 - k / S), then t <- s t / (1 + (s - 1) t)   (ACE-Step 1.5; s = 3 for turbo)

    denoise <= 1e-6 gives S + 1 zeros, which leave the source as it is. Raises ScoreError when
    steps < 1, denoise is outside [0, 1] or shift <= 0.
    """
    if steps < 1:
        raise ScoreError(f"a schedule needs at least 1 step, not {steps}", hint="steps 8")
    if not 0.0 <= denoise <= 1.0:
        raise ScoreError(f"denoise goes from 0 to 1, this is {denoise:g}", hint="denoise = .7")
    if not (math.isfinite(shift) and shift > 0.0):
        raise ScoreError(f"shift must be over 0, this is {shift:g}", hint="shift = 3")
    level = start_level(steps, denoise, parity) * (1.0 - np.arange(steps + 1) / steps)
    return np.asarray(shift * level / (1.0 + (shift - 1.0) * level), dtype=np.float64)
