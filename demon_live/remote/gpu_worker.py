"""A worker of a multi-GPU ring in a Ray actor, on any machine with a free GPU.

Threads: belongs to the thread of the ring.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from demon_live.engine.gpu_workers import About, Plan, Singer
from demon_live.engine.multi_gpu import Answer, Lost, Order
from demon_live.remote.ray import Gone, Ray


class RayLink:
    """A voice in an actor of a Ray that is open. gpu: it gets one of its own."""

    def __init__(self, ray: Ray, plan: Plan, *, gpu: bool = False) -> None:
        self._ray = ray
        self._actor = ray.actor(Singer, plan, gpu=gpu)
        self._answers: deque[Any] = deque()

    def _got(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except Gone as error:
            raise Lost(error.message) from error

    def about(self) -> About:
        """What its engine is. Raises EngineError when it does not open."""
        about: About = self._got(self._actor.about.remote())
        return about

    def warm_up(self, frames: int, depth: int) -> None:
        """See `Engine.warm_up`."""
        self._got(self._actor.warm_up.remote(frames, depth))

    def send(self, order: Order) -> None:
        self._answers.append(self._actor.obey.remote(order))

    def receive(self) -> Answer:
        answer: Answer = self._got(self._answers.popleft())
        return answer

    def close(self) -> None:
        self._ray.stop(self._actor)
