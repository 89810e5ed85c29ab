"""Device work as CUDA graphs: launched as one, once it has been seen twice.

Captured work reads and writes fixed memory only; what differs from tick to tick comes through a
`StagingBuffer`. The first run of a key is eager (it warms up what cannot be captured), the second
is captured, all others are replays: the same kernels on the same memory, hence the same bits.

Threads: belongs to the engine thread. Capturing in it leaves other threads' work alone.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

log = logging.getLogger(__name__)

R = TypeVar("R")

#: Graphs that are kept; the one unused for longest goes first.
_MOST = 48


class Graphs:
    """Captured pieces of work by key. Without CUDA, or if not enabled, everything runs eagerly.

    captured, replayed: counts, for tests and figures.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self.captured = self.replayed = 0
        self._device = device
        self._graphs: OrderedDict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def clear(self) -> None:
        """Forget all graphs: the memory that they work on has moved."""
        self._graphs.clear()
        self._seen.clear()

    def run(self, key: Hashable, work: Callable[[], R]) -> R:
        """The result of `work()`: tensors that are valid until the key is run again."""
        if not self.enabled:
            return work()
        known = self._graphs.get(key)
        if known is None:
            if key not in self._seen:
                self._note(key)
                return work()
            known = self._capture(key, work)
            if known is None:
                return work()
        self._graphs.move_to_end(key)
        known[0].replay()
        self.replayed += 1
        result: R = known[1]
        return result

    def _note(self, key: Hashable) -> None:
        self._seen[key] = None
        if len(self._seen) > 4 * _MOST:
            self._seen.popitem(last=False)

    def _capture(
        self, key: Hashable, work: Callable[[], Any]
    ) -> tuple[torch.cuda.CUDAGraph, Any] | None:
        """A graph of the work, which is not run; None if it cannot be captured."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        try:
            # Not torch.cuda.graph(): it collects garbage and waits for the device.
            with torch.cuda.stream(self._stream):
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    result = work()
                finally:
                    graph.capture_end()
        except RuntimeError:
            log.warning("the step cannot be captured; it runs eagerly", exc_info=True)
            self.enabled = False
            return None
        here.wait_stream(self._stream)
        self.captured += 1
        self._graphs[key] = graph, result
        if len(self._graphs) > _MOST:
            self._graphs.popitem(last=False)
        return self._graphs[key]
