"""What a request must be before it enters the ring: checked at the call, never in the tick.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demon_live.core import Floats, Request
from demon_live.engine.schedule import timesteps
from demon_live.errors import ScoreError

__all__ = ["CFG_MODES", "check_request"]

#: Arrays that were looked at; those held cannot lend their ids to others.
_KEPT = 16
_known: dict[int, Floats] = {}

CFG_MODES = ("off", "full", "initialize", "self")


def check_request(request: Request, steps: int, shift: float) -> None:
    """Raise ScoreError for a request that cannot be played: values, modes, shapes, finiteness."""
    frames, channels = request.frames, request.channels
    if frames < 1 or channels < 1:
        raise ScoreError(f"a latent of {frames} frames and {channels} channels is empty")
    timesteps(steps, request.denoise, shift if request.shift is None else request.shift)
    if request.cfg not in CFG_MODES:
        raise ScoreError(f"cfg cannot be {request.cfg!r}", hint="one of " + ", ".join(CFG_MODES))
    if not 0.0 <= request.feedback <= 1.0:
        raise ScoreError(f"feedback goes from 0 to 1, this is {request.feedback:g}")
    if request.feedback_depth < 1:
        raise ScoreError(f"feedback_depth counts from 1, this is {request.feedback_depth}")
    _array("source", request.source, (frames, channels))
    _array("target", request.target, (frames, channels))
    _array("init", request.init, (frames,))
    _array("mask", request.mask, (frames,))
    for _, weight, _, _ in request.conditions:
        if np.ndim(weight) == 0:
            weight = np.full(frames, weight, dtype=np.float32)
        _array("the weight of a condition", np.asarray(weight), (frames,))


def _array(name: str, array: Floats | None, shape: Sequence[int]) -> None:
    if array is None:
        return
    if np.shape(array) != tuple(shape):
        raise ScoreError(
            f"{name} has the shape {np.shape(array)}, the request needs {tuple(shape)}",
            hint="one row for each frame of the loop",
        )
    if not _finite(array):
        raise ScoreError(f"{name} has values that are not finite")


def _finite(array: Floats) -> bool:
    """Arrays of requests are never written to, and the same source comes with every one."""
    if _known.get(id(array)) is array:
        return True
    if not np.isfinite(array).all():
        return False
    _known[id(array)] = array
    while len(_known) > _KEPT:
        _known.pop(next(iter(_known)), None)
    return True
