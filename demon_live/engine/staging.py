"""From host arrays to the device, without waiting for it.

A `Mail` carries all that the host has to say before a piece of device work: one copy, to the same
addresses for the same contents, so that the work can be a captured graph.

Threads: functions are pure; a Mail belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Mail", "column", "index", "upload"]

#: Each item of a mail begins at a multiple of this many bytes.
_ALIGN = 256


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


class Mail:
    """Named arrays on their way to the device: open, put, send, then read as tensors.

    layout names what is in it, with shapes: mails of one layout lie at the same addresses.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._arena = torch.empty(0, dtype=torch.uint8, device=device)

    def open(self) -> None:
        """Forget what was in it. Tensors of earlier mails must no longer be read."""
        self._arrays.clear()
        self._tensors.clear()

    def put(self, name: str, array: NDArray[np.generic]) -> None:
        """Add an array, which nobody may write to until the next `open`."""
        self._arrays[name] = np.ascontiguousarray(array)

    def has(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> NDArray[Any]:
        """What was put under this name, on the host."""
        return self._arrays[name]

    @property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((name, array.shape) for name, array in self._arrays.items())

    @property
    def address(self) -> int:
        """Where the mails lie; another one once a mail was larger than all before."""
        return self._arena.data_ptr()

    def send(self) -> None:
        """Start the copy. On a CPU the tensors are the arrays."""
        if self._device.type == "cpu":
            self._tensors = {n: torch.from_numpy(a) for n, a in self._arrays.items()}
            return
        starts, size = {}, 0
        for name, array in self._arrays.items():
            starts[name] = size
            size += -(-array.nbytes // _ALIGN) * _ALIGN
        if self._arena.numel() < size:
            self._arena = torch.empty(2 * size, dtype=torch.uint8, device=self._device)
        # Pinned memory of its own for each mail: torch gives it to nobody before it was copied.
        staged = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        flat = staged.numpy()
        for name, array in self._arrays.items():
            start = starts[name]
            flat[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
            kind = torch.from_numpy(array).dtype
            part = self._arena[start : start + array.nbytes].view(kind)
            self._tensors[name] = part.view(array.shape)
        self._arena[:size].copy_(staged, non_blocking=True)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]
