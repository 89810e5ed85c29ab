"""A set without its sound: the state after each of its causes, within milliseconds.

The session is the very one that played; only its rig is deaf, and the files of sources are looked
for, not read. What is shown, checked and turned into scores comes from here.

Threads: everything runs in the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from demon_live.core import Floats, Loop, MixPoints, Sound
from demon_live.errors import DemonError
from demon_live.paths import shipped
from demon_live.runtime.messages import ToEngine
from demon_live.session.scores import Find, find_source
from demon_live.session.session import Session
from demon_live.session.state import State
from demon_live.session.status import EngineStatus, Outcome
from demon_live.session.tempo import Clock, VirtualClock
from demon_live.sets.journal import Event, Recording
from demon_live.sets.set_files import KIND, folder_of

__all__ = ["DeafRig", "Moment", "walk"]


class DeafRig:
    """A rig that plays nothing. Its clock moves when it is told to."""

    def __init__(self, engine: str = "none") -> None:
        self.time = VirtualClock()
        self.clock: Clock = self.time
        self.engine_name = engine
        self.device_name = "none"
        self.ring = (4, 8)
        self.controls: frozenset[str] | None = None

    def send(self, message: ToEngine) -> None: ...
    def add_loop(self, loop: Loop, first: Floats, source: Floats | None) -> None: ...
    def move_loop(self, loop: Loop) -> None: ...
    def drop_deck(self, deck: str, at: int) -> None: ...
    def set_sounds(self, sounds: Collection[Sound]) -> None: ...
    def set_mix(self, deck: str, points: Mapping[str, MixPoints]) -> None: ...
    def set_heard(self, muted: frozenset[str], soloed: frozenset[str], at: int = 0) -> None: ...
    def hush(self) -> None: ...
    def wake(self) -> None: ...
    def record(self, path: str) -> None: ...
    def stop_record(self) -> None: ...

    def check_prompt(self, prompt: str) -> list[str]:
        return []

    def engine_status(self) -> EngineStatus:
        return EngineStatus()

    def meters(self) -> tuple[int, tuple[float, float]]:
        return 0, (-120.0, -120.0)

    def heard(self) -> int:
        return self.clock.now()


@dataclass(frozen=True, slots=True)
class Moment:
    """After one cause. state: what plays from then on. error: why the cause cannot be done here;
    the state is then that of before."""

    sample: int
    event: Event
    state: State
    outcome: Outcome = field(default_factory=Outcome)
    error: DemonError | None = None


def walk(
    recording: Recording, folders: tuple[Path, ...] = (), find: Find = find_source
) -> Iterator[Moment]:
    """The moments of a set, in order. folders: where sources are looked for, by `find`, unless the
    set has kept them."""
    rig = DeafRig(str(recording.start.get("engine", "none")))
    folders = folders or (Path.cwd(), shipped("patterns"))
    session = Session(rig, folders=folders, start=dict(recording.start), deaf=True)
    session.find = find
    if recording.path is not None:
        session.kept.folder = folder_of(recording.path)
    for event in recording.events:
        if event.kind == KIND:
            session.repeat(event)
            continue
        rig.time.advance(max(0, event.sample - rig.time.now()))
        try:
            outcome = session.repeat(event, now=event.sample)
        except DemonError as error:
            yield Moment(event.sample, event, session.state, error=error)
        else:
            yield Moment(event.sample, event, session.state, outcome)
