"""What a tick takes of host and device: copies without waiting, scratch memory, threads.

    StagingBuffer   all inputs of a piece of device work, in one copy
    Readback        finished latents on their way to the host
    Workspace       scratch tensors that are allocated once
    torch_threads   how many threads of torch a block may use

Fixed addresses for the same contents are what a captured graph needs (cuda_graphs.py).

Threads: everything belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats

K = TypeVar("K")

#: Each item of a staging buffer begins at a multiple of this many bytes.
_ALIGN = 256


def upload(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array, which must not be written to, to the device.

    From pinned memory, which torch keeps until the copy is done: an ordinary copy would make the
    host wait for all work that the device has queued.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def upload_index(places: Sequence[int], device: torch.device) -> Tensor:
    """int64 [n] of row numbers."""
    return upload(np.array(places, dtype=np.int64), device)


class StagingBuffer:
    """Named arrays for the device: clear, put, send, then read as tensors.

    layout: names and shapes; buffers of one layout lie at the same addresses.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._arena = torch.empty(0, dtype=torch.uint8, device=device)

    def clear(self) -> None:
        """Empty the buffer. Tensors that were read from it are invalid from now on."""
        self._arrays.clear()
        self._tensors.clear()

    def put(self, name: str, array: NDArray[np.generic]) -> None:
        """Add an array, which must not be written to until the next `clear`."""
        self._arrays[name] = np.ascontiguousarray(array)

    def has(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> NDArray[Any]:
        """The array under this name, on the host."""
        return self._arrays[name]

    @property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((name, array.shape) for name, array in self._arrays.items())

    @property
    def address(self) -> int:
        """Where the device's copy lies; it moves when the contents are larger than all before."""
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
        # New pinned memory each time: torch does not reuse it before the copy is done.
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


class Readback(Generic[K]):
    """Latents on their way from the device to the host, each with a key.

    On a CPU they are there at once. On a GPU the copies run behind the tick's work and are waited
    for at its end. Latents stay in the pinned memory that they came through: a copy of a megabyte
    costs more than the few that are in use at a time.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[K, Tensor, torch.cuda.Event | None]] = []

    def send(self, key: K, row: Tensor) -> None:
        """Start the copy of a row, which later work of the same stream may overwrite."""
        if row.device.type != "cuda":
            self._pending.append((key, row.clone(), None))
            return
        host = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
        host.copy_(row, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        self._pending.append((key, host, ready))

    def receive(self) -> list[tuple[K, Floats]]:
        """All latents, float32 [T, C], in the order in which they were sent."""
        pending, self._pending = self._pending, []
        out: list[tuple[K, Floats]] = []
        for key, latent, ready in pending:
            if ready is not None:
                ready.synchronize()
            out.append((key, latent.numpy()))
        return out

    def drop(self, dead: Callable[[K], bool]) -> None:
        """Forget latents by their keys. Some wait from a tick that an error ended."""
        self._pending = [entry for entry in self._pending if not dead(entry[0])]


class Workspace:
    """Scratch tensors by name, float32 on one device; their contents are undefined at `get`.

    An allocation of a megabyte is a system call and fresh pages to be zeroed, each time: more work
    than the arithmetic that needs it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._tensors: dict[str, Tensor] = {}
        # Graphs may still use a tensor that became too small.
        self._outgrown: list[Tensor] = []

    def get(self, name: str, shape: Sequence[int]) -> Tensor:
        """A contiguous tensor of this shape, in the memory of the last one of this name."""
        size = 1
        for extent in shape:
            size *= extent
        flat = self._tensors.get(name)
        if flat is None or flat.numel() < size:
            if flat is not None and self.device.type == "cuda":
                self._outgrown.append(flat)
            flat = self._tensors[name] = torch.empty(size, dtype=torch.float32, device=self.device)
        return flat[:size].view(*shape)

    def like(self, name: str, x: Tensor) -> Tensor:
        """A contiguous tensor of the shape of x."""
        return self.get(name, x.shape)


@contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Run the block with `count` threads of torch; yields the number before.

    The ring uses one: a solver step is a few passes over memory, which one core does as fast as
    two. Where the cores are shared with the audio process, the prompt and a codec, waiting for a
    second thread costs whole scheduler slices: 60 ms for 2 ms of work.
    """
    before = torch.get_num_threads()
    if count == before:
        yield before
        return
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
