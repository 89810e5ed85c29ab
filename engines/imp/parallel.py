"""Several processes that train one model, one process a GPU.

    python -m torch.distributed.run --nproc-per-node 4 -m engines.imp.train_codec ...

Each process renders data of its own and draws from it with a seed of its own; after every step the
gradients are averaged, so that all keep the same weights. Without the launcher a training is one
process and nothing here costs anything.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Team", "own_gpu"]


def own_gpu(device: str) -> None:
    """Make the GPU of this process (or of the one that started it) the current one."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


class Team:
    """The processes of one training.

    rank: number of this process. size: how many there are. first: whether this one writes files.
    """

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.first = self.rank == 0
        own_gpu(device)
        if self.size > 1 and not dist.is_initialized():
            backend = "nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=datetime.timedelta(minutes=20))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.size == 1:
            return
        flat = torch.cat([v.detach().reshape(-1) for v in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([v.numel() for v in tensors])
        with torch.no_grad():
            torch._foreach_copy_(
                [v.detach() for v in tensors],
                [p.view_as(v) for p, v in zip(parts, tensors, strict=True)],
            )

    def agreed(self, value: float) -> float:
        """The value of the first process, in all."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return float(told)

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Give all the tensors of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
