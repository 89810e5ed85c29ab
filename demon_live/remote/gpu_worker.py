"""A worker of a multi-GPU ring in a Ray actor, on any machine with a free GPU.

Threads: belongs to the thread of the ring.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from demon_live.engine.gpu_workers import GpuWorker, WorkerInfo, WorkerOptions
from demon_live.engine.multi_gpu import TickOrder, WorkerLost, WorkerReply
from demon_live.remote.ray import Gone, Ray


class RayLink:
    """A worker in a Ray actor. gpu: with a GPU of its own."""

    def __init__(self, ray: Ray, plan: WorkerOptions, *, gpu: bool = False) -> None:
        self._ray = ray
        self._actor = ray.actor(GpuWorker, plan, gpu=gpu)
        self._answers: deque[Any] = deque()

    def _got(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except Gone as error:
            raise WorkerLost(error.message) from error

    def info(self) -> WorkerInfo:
        """What its engine is. Raises EngineError when it does not open."""
        info: WorkerInfo = self._got(self._actor.info.remote())
        return info

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self._got(self._actor.warm_up.remote(frames, depth))

    def send(self, order: TickOrder) -> None:
        self._answers.append(self._actor.run.remote(order))

    def receive(self) -> WorkerReply:
        answer: WorkerReply = self._got(self._answers.popleft())
        return answer

    def close(self) -> None:
        self._ray.stop(self._actor)
