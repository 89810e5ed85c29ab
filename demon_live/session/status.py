"""What displays show: frozen snapshots of a session, in bars and words, and how they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from demon_live.audio.sound_input import InputStatus, SoundInput
from demon_live.controls import FADER, find
from demon_live.core import RATES, EngineStatus, Floats, Loop, Phrase, SlotStatus, plain_beats
from demon_live.errors import DemonError
from demon_live.lang import Lane, Let, Program, Scene
from demon_live.session.assets import name_of
from demon_live.session.capture import shown
from demon_live.session.output import Output
from demon_live.session.sampler import lap_begin, phrase
from demon_live.session.state import DeckState, State
from demon_live.session.tempo import TempoMap
from demon_live.sets.recorder import Recorder

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
    notes: of a note control, what it plays over the loop, as next heard: (begin and length in parts
    of the loop, height 0..1 in the voice's range, velocity); None for others.
    value: now. next: what is coming, in words ("'dub' in 2 bars"), or "".
    """

    control: str
    text: str
    value: float | str
    samples: Floats | None = None
    notes: tuple[tuple[float, float, float, float], ...] | None = None
    next: str = ""
    low: float = 0.0
    high: float = 1.0
    coming: str = ""


@dataclass(frozen=True, slots=True)
class DeckView:
    """One deck. playhead: 0..1 of its loop. cycles: the loop's length. side: of the crossfader,
    "a" or "b", or "" when it is not under it. read: beats and tempo of its source, in words. to:
    where it goes instead of the loudspeaker, or "". taken: how far a take of the input is ("in: bar
    3 of 4"), or ""."""

    name: str
    cycles: int
    playhead: float
    source: str | None
    muted: bool
    soloed: bool
    lanes: tuple[LaneView, ...] = ()
    side: str = ""
    read: str = ""
    to: str = ""
    taken: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that a toolbar or a stage view shows.

    cycle: where the next sample that is not yet decided lies; the ear hears it ahead_ms later.
    recording_lost: the sound of the recording cannot be written now. master: the controls of the
    strip over all decks. sound_in: what is played into, None without an input. out: of what decks
    send elsewhere, the messages that were lost and the stretches that were late.
    """

    cycle: float
    bpm: float
    beats: float
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
    recording_lost: bool = False
    hushed: bool = False
    fader: float | None = None
    master: tuple[LaneView, ...] = ()
    errors: Mapping[str, DemonError] = field(default_factory=dict)
    telemetry: EngineStatus = field(default_factory=EngineStatus)
    ahead_ms: float = 0.0
    sound_in: InputStatus | None = None
    out: tuple[int, int] = (0, 0)


#: Points of a lane's picture.
POINTS = 256
#: How far ahead coming changes of words are announced, in cycles.
_LOOK_AHEAD = 16
#: Trouble is shown this long, in samples.
_TROUBLE = 10 * RATES.sample_rate


class Grader:
    """How the last seconds went. late: gaps in the sound, or no engine; tight: windows that came
    too late to be used; else fine."""

    def __init__(self) -> None:
        self._seen = {"dry": 0, "late": 0}
        self._at = {"dry": -_TROUBLE, "late": -_TROUBLE}

    def __call__(self, telemetry: EngineStatus, dry: int, now: int) -> Grade:
        for name, count in (("dry", dry), ("late", telemetry.late)):
            if count > self._seen[name]:
                self._at[name] = now
            self._seen[name] = count
        if now - self._at["dry"] < _TROUBLE or not telemetry.alive:
            return "late"
        return "tight" if now - self._at["late"] < _TROUBLE else "fine"


def describe(
    state: State,
    output: Output,
    recorder: Recorder,
    errors: Mapping[str, DemonError],
    grader: Grader,
    sound_in: SoundInput | None = None,
) -> Status:
    """Everything that a toolbar shows, now."""
    now = output.playhead.now()
    dry, peaks = output.meters()
    telemetry = output.engine_status()
    return Status(
        cycle=float(state.tempo.cycle_at(now)),
        bpm=float(state.tempo.segment_of(now).bpm),
        beats=plain_beats(state.beats),
        engine=output.engine_name,
        device=output.device_name,
        decks=tuple(_deck(d, state, now) for d in state.decks.values()),
        slots=telemetry.slots,
        tick_ms=telemetry.tick_ms,
        lead_ms=telemetry.lead_ms,
        dry=dry,
        peak_db=peaks,
        grade=grader(telemetry, dry, now),
        fader=_fader(state, state.tempo.cycle_at(now)),
        master=_master(state, now),
        recording=recorder.name,
        recording_lost=recorder.lost,
        hushed=state.hushed,
        errors=errors,
        telemetry=telemetry,
        ahead_ms=max(0, now - output.heard()) * 1000 / RATES.sample_rate,
        sound_in=None if sound_in is None else sound_in.status(output.heard()),
    )


def _deck(deck: DeckState, state: State, now: int) -> DeckView:
    loop = deck.playing(now)
    playhead = loop.locate(now)[1] / loop.samples if loop else 0.0
    if deck.to is not None:
        deck, playhead = replace(deck, cycles=1), float(state.tempo.cycle_at(now) % 1)
    said, _ = deck.source_said
    return DeckView(
        name=deck.name,
        cycles=loop.cycles if loop else deck.cycles,
        playhead=min(1.0, max(0.0, playhead)),
        source=None if said == "none" else said,
        muted=deck.name in state.muted,
        soloed=deck.name in state.soloed,
        lanes=_bound(deck, loop, state, now),
        side=state.sides.get(deck.name, ""),
        read=_read(deck),
        to="" if deck.to is None else str(deck.to),
        taken=shown(deck, state.tempo, now),
    )


def _bound(deck: DeckState, loop: Loop | None, state: State, now: int) -> tuple[LaneView, ...]:
    here = state.tempo.cycle_at(now)
    return tuple(
        _lane(name, lane.resolve(state.hands), loop, state.tempo, now, here)
        for name, lane in deck.lanes.items()
        if name in deck.bound
    )


def _master(state: State, now: int) -> tuple[LaneView, ...]:
    """The strip over all decks; the fader stands beside it."""
    lanes = _bound(state.globals, None, state, now)
    return tuple(lane for lane in lanes if lane.control != FADER.name)


def _read(deck: DeckState) -> str:
    if deck.file is None or deck.file != deck.source or deck.beats_known is None:
        return ""
    _, beats, tempo = deck.beats_known
    return f"{beats} beat{'s' * (beats != 1)} at {round(tempo, 2):g} bpm"


def _fader(state: State, here: Fraction) -> float | None:
    """Where the crossfader stands, None if no deck is under it."""
    lane = state.globals.lanes.get("fader")
    if not state.sides:
        return None
    return 0.0 if lane is None else float(lane.resolve(state.hands).at(here))


def _lane(
    name: str, lane: Lane, loop: Loop | None, tempo: TempoMap, now: int, here: Fraction
) -> LaneView:
    control = lane.spec if lane.spec.cls == "out" else find(name)
    text = lane.sounding(here).text
    waits = lane.text if lane.text != text else ""
    if control is not None and control.cls == "notes" and control.shape != "number":
        notes = _notes(lane, loop, tempo, now) if loop is not None else ()
        return LaneView(name, text, str(lane.at(here)), notes=notes, coming=waits)
    if control is not None and control.cls == "out" and control.numeric:
        return LaneView(name, text, round(float(lane.at(here)), 3), coming=waits)
    if lane.kind == "number" and control is not None:
        low, high = control.low, control.high
        return LaneView(
            name,
            text,
            round(float(lane.at(here)), 3),
            samples=None if loop is None else _picture(lane, loop, tempo, now, low, high),
            low=control.low,
            high=control.high,
            coming=waits,
        )
    plays = name_of(str(lane.at(here)))
    return LaneView(name, text, plays, next=_coming(lane, here), coming=waits)


@lru_cache(maxsize=256)
def _played(lane: Lane, begin: Fraction, cycles: int) -> Phrase:
    """The notes of a lane in a lap: a display asks for the same ones a dozen times a second."""
    return phrase({lane.control: lane}, begin, cycles)


def _notes(
    lane: Lane, loop: Loop, tempo: TempoMap, now: int
) -> tuple[tuple[float, float, float, float], ...]:
    """What a note control plays over the loop: ahead of the playhead in this lap, else the next."""
    lap, position = loop.locate(now)
    here, out = position / loop.samples, []
    for k in (lap, lap + 1):
        for note in _played(lane, lap_begin(loop, tempo, k), loop.cycles).notes:
            begin = note.begin / loop.cycles
            if (begin + note.length / loop.cycles > here) == (k == lap):
                low, high = lane.spec.low, lane.spec.high
                height = (note.pitch - low) / max(high - low, 1e-9) if note.pitch else 0.0
                out.append((begin, note.length / loop.cycles, height, note.velocity))
    return tuple(sorted(out))


def _picture(lane: Lane, loop: Loop, tempo: TempoMap, now: int, low: float, high: float) -> Floats:
    """The curve over the loop, each point at the time it is next heard, 0..1 of the range."""
    lap, position = loop.locate(now)
    at = np.linspace(0, loop.samples, POINTS, endpoint=False).astype(np.int64)
    starts = np.where(at >= position, loop.lap_start(lap), loop.lap_start(lap + 1))
    values = lane.sample(tempo.cycles_at(starts + at))
    return np.asarray((values - low) / max(high - low, 1e-9), np.float32)


def _coming(lane: Lane, here: Fraction) -> str:
    ahead = [j for j in lane.jumps(here, here + _LOOK_AHEAD) if j > here]
    if not ahead:
        return ""
    away = float(ahead[0] - here)
    word = name_of(str(lane.at(ahead[0])))
    return f"{word!r} in {away:.{0 if away >= 1.5 else 1}f} bars"


def named(program: Program) -> list[str]:
    """One line for each word and scene that a text defines."""
    out = []
    for row in program.statements:
        if isinstance(row, Scene):
            out.append(f"scene {row.name} · go {row.name}")
        elif isinstance(row, Let):
            params = f"({', '.join(row.node.params)})" if row.node.params else ""
            out.append(f"{row.name}{params} · a word from now on")
    return out


#: Characters of a statement that an event shows.
_SHOWN = 120


def came_in(name: str, text: str, by: str = "") -> str:
    """An event: what came in by which door, and by whom, so that everybody sees it."""
    first, _, more = " ".join(text.split(" ")).strip().partition("\n")
    door = name.strip("<>")
    who = f"{by} ({door})" if by else door
    return f"{who}: {first[:_SHOWN]}{' ...' if more or len(first) > _SHOWN else ''}"


def db(level: float) -> float:
    """Linear level -> dBFS, at least -120."""
    return max(-120.0, 20 * float(np.log10(max(level, 1e-6))))


def explain(error: DemonError, text: str, file: str, saved: str | None, playing: bool) -> None:
    """Add to an error its text, and what plays on.

    Args:
        error: and those that were found with it.
        text: what was evaluated.
        file: name of the score, or "" at the prompt.
        saved: when the version that plays was saved, or None.
        playing: whether anything plays.
    """
    for one in error.errors:
        one.name = one.name or file
        if one.span is not None and one.source is None:
            one.source = text
        one.playing = None
    what = f"{Path(file).stem} as saved at {saved}" if saved else "everything, as before"
    error.errors[-1].playing = what if playing else None
