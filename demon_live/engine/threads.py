"""How many threads the solver takes of a CPU: one.

A solver step is a few passes over memory, which one core does as fast as two. A second thread
would only be one more to wait for, and where the cores are shared with the audio process, the
prompt and a codec, waiting for it costs whole scheduler slices: 60 ms for 2 ms of work.

Threads: changes torch's setting for the calling thread and puts it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["threads"]


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Run the block with `count` threads of torch; gives the number that there were before."""
    before = torch.get_num_threads()
    if count == before:
        yield before
        return
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
