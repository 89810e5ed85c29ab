"""What a session needs of the machine it plays on. Live and offline each have one.

Threads: a rig's methods are called under the session's lock and must not block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from demon_live.core import Floats, Loop, MixPoints, Sound
from demon_live.runtime.messages import ToEngine
from demon_live.session.status import EngineStatus
from demon_live.session.tempo import Clock

__all__ = ["Heard", "Rig"]


class Strips(Protocol):
    """What mutes and solos decks: a Mixer, or the Speaker that has one."""

    def mute(self, deck: str, at: int = 0) -> None: ...
    def unmute(self, deck: str, at: int = 0) -> None: ...
    def solo(self, deck: str, at: int = 0) -> None: ...
    def unsolo(self, deck: str | None = None, at: int = 0) -> None: ...


class Heard:
    """Which decks are muted and soloed; tells only what changed, from sample `at` on."""

    def __init__(self) -> None:
        self._muted: frozenset[str] = frozenset()
        self._soloed: frozenset[str] = frozenset()
        # The last moment that an order waits for: a newer order must also hold from there on.
        self._pending = 0

    def tell(
        self, strips: Strips, muted: frozenset[str], soloed: frozenset[str], at: int = 0
    ) -> None:
        for when in sorted({at, max(at, self._pending)}):
            for deck in muted - self._muted:
                strips.mute(deck, when)
            for deck in self._muted - muted:
                strips.unmute(deck, when)
            for deck in soloed - self._soloed:
                strips.solo(deck, when)
            for deck in self._soloed - soloed:
                strips.unsolo(deck, when)
        self._pending = max(self._pending, at)
        self._muted, self._soloed = muted, soloed


class Rig(Protocol):
    """Engine, mixer and clock, as the session sees them."""

    clock: Clock
    engine_name: str
    device_name: str
    #: Depth and steps that the engine has unless a score says others.
    ring: tuple[int, int]
    #: The controls that the engine obeys; None: not known.
    controls: frozenset[str] | None

    def send(self, message: ToEngine) -> None: ...
    def add_loop(self, loop: Loop, first: Floats, source: Floats | None) -> None:
        """A new loop of a deck: `first` is what its loop holds until something is generated.

        first, source: float32 [loop.samples, 2]. Told to the mixer and to the engine.
        """

    def move_loop(self, loop: Loop) -> None:
        """From loop.from_sample on the laps of the deck's loop begin elsewhere."""

    def drop_deck(self, deck: str, at: int) -> None:
        """The deck fades out at output sample `at` and is forgotten."""

    def set_sounds(self, sounds: Collection[Sound]) -> None:
        """All that the engine may be asked to sound like from now on. Those that are new are told
        to it; it encodes them beside its ticks."""

    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None: ...
    def set_heard(self, muted: frozenset[str], soloed: frozenset[str], at: int = 0) -> None: ...
    def hush(self) -> None: ...
    def wake(self) -> None: ...
    def record(self, path: str) -> None: ...
    def stop_record(self) -> None: ...
    def check_prompt(self, prompt: str) -> list[str]: ...
    def engine_status(self) -> EngineStatus: ...
    def meters(self) -> tuple[int, tuple[float, float]]:
        """(dry blocks, peak of left and right in dBFS)."""

    def heard(self) -> int:
        """The output sample that is at the ear now, at most the clock's."""
