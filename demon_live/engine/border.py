"""From host arrays to the device, without waiting for it.

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["column", "index", "upload"]


def upload(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A tensor of an array that nobody else writes to.

    From pinned memory, which torch keeps until the copy has happened: an ordinary copy would make
    the host wait for all that the device has still to do.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def index(places: Sequence[int], device: torch.device) -> Tensor:
    """int64 [n] of row numbers."""
    return upload(np.array(places, dtype=np.int64), device)


def column(curve: NDArray[np.float64], device: torch.device) -> Tensor:
    """A curve [..., T] as float32 [..., T, 1], to multiply frames of channels."""
    return upload(curve.astype(np.float32)[..., None], device)
