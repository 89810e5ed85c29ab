"""Scratch tensors that stay: a tick allocates nothing large.

An allocation of a megabyte is a system call and fresh pages to be zeroed, each time: more work
than the arithmetic that wanted it. Fixed addresses are also what a captured graph needs.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Workspace"]


class Workspace:
    """Scratch tensors by name, float32 on one device. Their contents are undefined at `get`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: dict[str, Tensor] = {}
        # Graphs may still work on what was too small.
        self._outgrown: list[Tensor] = []

    def get(self, name: str, shape: Sequence[int]) -> Tensor:
        """A contiguous tensor of this shape; the same memory as the last one of this name."""
        size = 1
        for extent in shape:
            size *= extent
        held = self._held.get(name)
        if held is None or held.numel() < size:
            if held is not None and self.device.type == "cuda":
                self._outgrown.append(held)
            held = self._held[name] = torch.empty(size, dtype=torch.float32, device=self.device)
        return held[:size].view(*shape)

    def like(self, name: str, x: Tensor) -> Tensor:
        """A contiguous tensor of the shape of x."""
        return self.get(name, x.shape)
