"""A rig that plays nothing, for a session under attack.

Threads: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from demon_live.core import Floats, Loop, MixPoints, Sound
from demon_live.runtime.messages import ToEngine
from demon_live.session.status import EngineStatus
from demon_live.session.tempo import Clock, VirtualClock

__all__ = ["FakeRig"]


class FakeRig:
    """See `session.output.Rig`."""

    def __init__(self) -> None:
        self.clock: Clock = VirtualClock()
        self.engine_name = "fake"
        self.device_name = "none"
        self.ring = (4, 8)
        self.controls: frozenset[str] | None = None
        self.told: list[ToEngine] = []

    def send(self, message: ToEngine) -> None:
        self.told = [*self.told[-7:], message]

    def add_loop(self, loop: Loop, first: Floats, source: Floats | None) -> None:
        pass

    def drop_deck(self, deck: str, at: int) -> None:
        pass

    def set_sounds(self, sounds: Collection[Sound]) -> None:
        pass

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None:
        pass

    def set_heard(self, muted: frozenset[str], soloed: frozenset[str], at: int = 0) -> None:
        pass

    def hush(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def record(self, path: str) -> None:
        raise AssertionError(f"a score wrote {path}")

    def stop_record(self) -> None:
        pass

    def check_prompt(self, prompt: str) -> list[str]:
        return []

    def engine_status(self) -> EngineStatus:
        return EngineStatus()

    def heard(self) -> int:
        return self.clock.now()

    def meters(self) -> tuple[int, tuple[float, float]]:
        return 0, (-120.0, -120.0)
