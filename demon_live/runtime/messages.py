"""What the session tells the engine, and what the engine tells the session.

Frozen, picklable, small. Blocks: the newest of a deck wins. Everything else is never dropped.

Threads: everything here is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from demon_live.core import ControlBlock, Loop
from demon_live.runtime.tick_stats import TurnStats
from demon_live.session.status import EngineStatus

__all__ = [
    "Block", "DropDeck", "DropTimbre", "Migrate", "MoveLoop", "Note", "Panic", "PrepareLoop",
    "Ready", "Report", "SetRing", "SetTimbre", "ToEngine", "ToSession",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class PrepareLoop:
    """A deck gets a new loop. loop: path of its PCM ring, already filled with what plays first.

    source: path of the PCM (same shape) that is transformed; None = from noise.
    """

    loop: Loop
    buffer: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MoveLoop:
    """From loop.from_sample on a deck's laps begin elsewhere; epoch, frames and PCM stay."""

    loop: Loop


@dataclass(frozen=True, slots=True)
class Block:
    """The newest word on a deck."""

    block: ControlBlock


@dataclass(frozen=True, slots=True)
class Migrate:
    """Move the generations in flight of a deck to new values of denoise or shift, at once."""

    deck: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SetRing:
    """A new depth or number of steps; None leaves it."""

    depth: int | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class DropDeck:
    """The deck is gone."""

    deck: str


@dataclass(frozen=True, slots=True)
class SetTimbre:
    """A sound that generations may be asked to sound like, under a name that no other sound has.

    audio: path of its PCM. To be encoded beside the ticks; until then what was asked for plays on.
    label: what the performer calls it.
    """

    name: str
    audio: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class DropTimbre:
    """Nothing asks for this sound any more: an engine that begins anew need not be told it."""

    name: str


@dataclass(frozen=True, slots=True)
class Panic:
    """Throw away everything in flight."""


ToEngine = (
    PrepareLoop | MoveLoop | Block | Migrate | SetRing | DropDeck | SetTimbre | DropTimbre | Panic
)


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is open. notes: each step down from the best backend, with why. device: cpu, .."""

    description: str
    notes: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Report:
    """Telemetry, ten times a second."""

    status: EngineStatus = field(default_factory=EngineStatus)
    turns: TurnStats = field(default_factory=TurnStats)


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the performer."""

    text: str


ToSession = Ready | Report | Note
