"""What a view may know: frozen snapshots, made by the session, drawn by any front end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from demon_live.core import Floats, SlotStatus
from demon_live.errors import DemonError

Grade = Literal["fine", "tight", "late"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an accepted statement will do, one line each. warnings: printed, nothing refused."""

    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """The names that this session knows, for completion.

    lets: the words that `let` defined, name -> parameters. folders: where sources are looked for,
    besides a score's own. What an engine knows (its prompts' words) its manifest tells.
    """

    decks: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    lets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LaneView:
    """One control of a deck.

    text: the expression that sounds, as it was written; coming: one that was accepted and waits
    for its bar, or "".
    samples: float32 [n], the curve over the loop, 0..1 of the control's range; None for words.
    value: now. next: what is coming, in words ("'dub' in 2 bars"), or "".
    """

    control: str
    text: str
    value: float | str
    samples: Floats | None = None
    next: str = ""
    low: float = 0.0
    high: float = 1.0
    coming: str = ""


@dataclass(frozen=True, slots=True)
class DeckView:
    """One deck. playhead: 0..1 of its loop. cycles: the loop's length. side: of the crossfader,
    "a" or "b", or "" when it is not under it."""

    name: str
    cycles: int
    playhead: float
    source: str | None
    muted: bool
    soloed: bool
    lanes: tuple[LaneView, ...] = ()
    side: str = ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Telemetry of the engine process.

    tick_ms: mean time of a tick; period_ms: time between ticks; decode_ms: of a window;
    lead_ms: how far ahead of the playhead the newest window was written; late: windows that came
    too late and were cut or dropped; dropped: non-finite generations; on_time_ms: for the last
    scheduled jump, how late its first generation was (0 = on its sample); shed: what is given up
    while the engine is late, in words; link_ms, jitter_ms: of an engine on another machine, the
    median time of a window on its way and how much the slowest twentieth takes longer.
    """

    ticks: int = 0
    generations: int = 0
    tick_ms: float = 0.0
    period_ms: float = 0.0
    decode_ms: float = 0.0
    lead_ms: float = 0.0
    late: int = 0
    dropped: int = 0
    on_time_ms: float = 0.0
    slots: tuple[SlotStatus, ...] = ()
    alive: bool = True
    shed: str = ""
    link_ms: float = 0.0
    jitter_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that a toolbar or a stage view shows.

    cycle: where the next sample that is not yet decided lies; the ear hears it ahead_ms later.
    """

    cycle: float
    bpm: float
    beats: int
    engine: str
    device: str
    decks: tuple[DeckView, ...] = ()
    slots: tuple[SlotStatus, ...] = ()
    tick_ms: float = 0.0
    lead_ms: float = 0.0
    dry: int = 0
    peak_db: tuple[float, float] = (-120.0, -120.0)
    grade: Grade = "fine"
    recording: str | None = None
    hushed: bool = False
    fader: float | None = None
    errors: Mapping[str, DemonError] = field(default_factory=dict)
    telemetry: EngineStatus = field(default_factory=EngineStatus)
    ahead_ms: float = 0.0
