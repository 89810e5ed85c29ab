"""What an engine process reports to the session; what it should do is a `core.EngineState`."""

from __future__ import annotations

from dataclasses import dataclass, field

from demon_live.runtime.tick_stats import TurnStats
from demon_live.session.status import EngineStatus


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is open. notes: each step down from the best backend, with why. device: cpu, .."""

    description: str
    notes: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Numbers of the engine, ten times a second."""

    status: EngineStatus = field(default_factory=EngineStatus)
    turns: TurnStats = field(default_factory=TurnStats)


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the performer."""

    text: str


Report = Ready | Telemetry | Note
