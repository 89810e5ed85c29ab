"""What is playing: one immutable value, swapped by a single assignment.

Threads: everything here is immutable; the sampling thread reads the newest reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from demon_live.controls import EVERY, FADER, IN, NOTES, PLUS_NOTES
from demon_live.core import RATES, Beats, Gate, Loop
from demon_live.lang.chain import faded
from demon_live.lang.controllers import EMPTY, ControllerHistory
from demon_live.lang.destinations import Destination
from demon_live.session.tempo import TempoMap, next_multiple

if TYPE_CHECKING:
    from demon_live.lang import Lane, Let, Program, Scene, Setting, When

#: The "deck" of lanes that belong to the whole loop: the crossfader.
GLOBALS = ""
#: A loop needs this long to be prepared (source encoded, ring primed) before it plays, in samples.
NOTICE = 3 * RATES.sample_rate // 2
#: A step of a ramp is prepared this long before it begins, in samples.
STEP_NOTICE = NOTICE + RATES.sample_rate // 2


def label_of(deck: str, control: str) -> str:
    """A control of a deck as a score says it; `gain` of no deck is that of the master."""
    if deck == GLOBALS:
        return control if control == FADER.name else f"master.{control}"
    return f"{deck}.{control}"


class Said(NamedTuple):
    """What a text binds to a control. score: its name, "" at the prompt. key: what it means."""

    score: str
    lane: Lane
    key: str


@dataclass(frozen=True, slots=True)
class Capture:
    """What a deck takes of the input.

    begin: the cycle from which on it listens. every: cycles from one take to the next; 0: there is
    one. notes: those of the score are played over it. overdub: a take is added to what is there.
    hold: nothing is taken. timbre: a take becomes the timbre alone.
    """

    begin: Fraction
    every: int = 0
    notes: bool = False
    overdub: bool = False
    hold: bool = False
    timbre: bool = False

    @property
    def reading(self) -> str:
        """What a score says behind `source in`."""
        return f"{f'{EVERY} {self.every}' * bool(self.every)} {PLUS_NOTES * self.notes}".strip()


@dataclass(frozen=True, slots=True)
class Take:
    """A loop of the input that a deck plays. name: of its file. beats: in it. since: the beginning
    of the capture that gave it. timbre: it is the timbre alone."""

    name: str
    beats: Beats
    since: Fraction
    timbre: bool = False


@dataclass(frozen=True, slots=True)
class DeckState:
    """One deck.

    lanes: control -> function of time, transitions included. said: control -> what texts bind to
    it, without transitions; the last one plays. leaving: control -> cycle from which it is unbound.
    source: as written in the score; base: folder it is relative to. reading: what the score says
    behind it; beats_known: the samples, beats and tempo of it that were decided. capture: what is
    taken of the input; take: the newest, which has the place of the source. loops: the one that
    plays, then those that come. out: of `core.MixDeck`; moves: of `core.EngineDeck`. to: where it
    goes instead of the loudspeaker; it has no loops then.
    """

    name: str
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    said: Mapping[str, tuple[Said, ...]] = field(default_factory=dict)
    leaving: Mapping[str, Fraction] = field(default_factory=dict)
    cycles: int = 4
    source: str | None = None
    base: str = ""
    reading: str = ""
    beats_known: tuple[int, Beats, float] | None = None
    capture: Capture | None = None
    take: Take | None = None
    loops: tuple[Loop, ...] = ()
    out: int = 1
    moves: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    to: Destination | None = None

    @property
    def file(self) -> str | None:
        """The source that is a file."""
        if self.take is not None and not self.take.timbre:
            return self.take.name
        return None if self.source == NOTES else self.source

    @property
    def notes(self) -> bool:
        """Whether the notes of the score are its source, or part of it."""
        if self.capture is not None and not self.capture.timbre:
            return self.capture.notes or (self.source == NOTES and self.take is None)
        return self.source == NOTES or self.reading.endswith(PLUS_NOTES)

    @property
    def tempo_reading(self) -> str:
        """What the score says of the tempo of the file."""
        return self.reading.removesuffix(PLUS_NOTES).rstrip()

    @property
    def source_said(self) -> tuple[str, str]:
        """The source as a score says it, and what it says behind it."""
        if self.capture is not None and not self.capture.timbre:
            return IN, self.capture.reading
        return self.source or "none", self.reading

    @property
    def listens(self) -> bool:
        """Whether something is still to be taken of the input."""
        wanted = self.capture
        if wanted is None or wanted.hold:
            return False
        taken = self.take is not None and self.take.since == wanted.begin
        return bool(wanted.every) or wanted.overdub or not taken

    @property
    def loop(self) -> Loop | None:
        """The newest loop, which may still lie ahead."""
        return self.loops[-1] if self.loops else None

    @property
    def before(self) -> Loop | None:
        """The loop that plays until the newest begins."""
        return self.loops[-2] if len(self.loops) > 1 else None

    @property
    def geometry(self) -> tuple[object, ...]:
        """What the score says of it beside what it binds, besides the tempo."""
        return self.cycles, self.source, self.reading, self.capture, self.out, self.to

    def formed_as(self, other: DeckState) -> DeckState:
        """This deck with all that `geometry` of another compares, and what was found out of it."""
        return replace(
            self,
            cycles=other.cycles,
            source=other.source,
            base=other.base,
            reading=other.reading,
            beats_known=other.beats_known,
            capture=other.capture,
            take=other.take,
            out=other.out,
            to=other.to,
        )

    @property
    def material(self) -> tuple[object, ...]:
        """What a loop of the deck is made of, besides the tempo."""
        return self.cycles, self.file, self.tempo_reading, self.notes, self.to

    @property
    def bound(self) -> Mapping[str, Lane]:
        """control -> the lane that plays, without transitions (for undo, display and diff)."""
        return {control: rows[-1].lane for control, rows in self.said.items()}

    def moved(self, control: str, value: float) -> DeckState:
        """With another value of a control for the generations in flight."""
        serial = 1 + max((n for n, _ in self.moves.values()), default=0)
        return replace(self, moves={**self.moves, control: (serial, value)})

    def with_said(self, control: str, rows: tuple[Said, ...]) -> DeckState:
        """The deck with other texts binding a control; () unbinds it."""
        said = {name: old for name, old in self.said.items() if name != control}
        return replace(self, said={**said, control: rows} if rows else said)

    def with_loop(self, loop: Loop, now: int) -> DeckState:
        """The deck with a new loop; those planned for the same or a later sample are dropped."""
        kept = [x for x in self.loops if x.from_sample < loop.from_sample]
        begun = [x for x in kept if x.from_sample <= now][-1:]
        ahead = [x for x in kept if x.from_sample > now]
        return replace(self, loops=(*begun, *ahead, loop))

    def bound_lanes(self, here: Fraction) -> Mapping[str, Lane]:
        """The lanes, without those that have reverted by cycle `here`."""
        gone = {name for name, cycle in self.leaving.items() if cycle <= here}
        return {name: lane for name, lane in self.lanes.items() if name not in gone}

    def sampled(self, now: int) -> Loop:
        """The loop that its lanes are sampled for: the newest, unless it is the same loop moved,
        which is the old one until then."""
        loop, before = self.loop, self.before
        assert loop is not None
        if before is not None and before.epoch == loop.epoch and now < loop.from_sample:
            return before
        return loop

    def playing(self, now: int) -> Loop | None:
        """The loop that sounds at output sample `now`."""
        begun = [loop for loop in self.loops if loop.from_sample <= now]
        return begun[-1] if begun else next(iter(self.loops), None)


@dataclass(frozen=True, slots=True)
class Planned:
    """Settings of a scene in a chain, from `cycle` on, and again each `every` cycles (0: once).

    base: the folder that file names are relative to.
    """

    cycle: Fraction
    rows: tuple[Setting, ...]
    every: Fraction = Fraction(0)
    base: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that an accepted statement may change.

    globals: lanes that belong to no deck (the fader, the master). sides: deck -> side of the
    crossfader, "a" or "b". lets: the words of the prompt. hands: what the controllers did; undo
    leaves it as it is.
    link, clock, nudge: how time is shared with others (control.sync); nudge in ms. nudge_in:
        the same of the input.
    ramp: the steps of the tempo that are still to come, (cycle, bpm); the tempo map has them.
    plan: the settings that a chain brings, ascending; the tempo map has those of the next rounds.
    always: generate on and on (`ring always`). engine: as in EngineState. detail: of decks whose
    score says none.
    muted, soloed: as the last word left them; gates: when that is heard. ending: decks that fade
    out at an output sample. panics: how often there was a `panic`.
    """

    tempo: TempoMap
    bpm: Fraction = Fraction(120)
    beats: Beats = 4
    quant: Fraction = Fraction(1)
    decks: Mapping[str, DeckState] = field(default_factory=lambda: MappingProxyType({}))
    files: Mapping[str, Program] = field(default_factory=lambda: MappingProxyType({}))
    hushed: bool = False
    muted: frozenset[str] = frozenset()
    soloed: frozenset[str] = frozenset()
    gates: tuple[Gate, ...] = ()
    ending: tuple[tuple[DeckState, int], ...] = ()
    panics: int = 0
    depth: int | None = None
    steps: int | None = None
    always: bool = False
    detail: float = 1.0
    globals: DeckState = field(default_factory=lambda: DeckState(GLOBALS))
    sides: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scenes: Mapping[str, Scene] = field(default_factory=lambda: MappingProxyType({}))
    lets: Mapping[str, Let] = field(default_factory=lambda: MappingProxyType({}))
    hands: ControllerHistory = EMPTY
    link: bool = False
    clock: str = "off"
    nudge: float = 0.0
    nudge_in: float = 0.0
    ramp: tuple[tuple[Fraction, Fraction], ...] = ()
    plan: tuple[Planned, ...] = ()
    engine: str = ""

    def with_deck(self, deck: DeckState) -> State:
        """The state with this deck added or replaced."""
        if deck.name == GLOBALS:
            return replace(self, globals=deck)
        return replace(self, decks={**self.decks, deck.name: deck})

    def deck(self, name: str) -> DeckState:
        """A deck that is there, or the lanes of the loop."""
        return self.globals if name == GLOBALS else self.decks[name]

    def without_deck(self, name: str, at: int, now: int) -> State:
        """The state without a deck, which fades out at output sample `at`."""
        decks = {k: v for k, v in self.decks.items() if k != name}
        # What has faded out is forgotten a second later.
        ending = [row for row in self.ending if row[1] > now - RATES.sample_rate]
        return replace(self, decks=decks, ending=(*ending, (self.decks[name], at)))

    def with_destination(self, name: str, to: Destination, at: int, now: int) -> State:
        """The state with a deck that goes elsewhere; its own sound fades out at output sample
        `at`."""
        deck, state = self.decks[name], self
        if deck.loops:
            state = self.without_deck(name, at, now)
        return state.with_deck(replace(deck, to=to, loops=()))

    def with_gates(self, muted: frozenset[str], soloed: frozenset[str], at: int, now: int) -> State:
        """The state with other decks muted and soloed from output sample `at` on.

        What waits for a later sample is changed by the same difference.
        """

        def changed(gate: Gate, at: int) -> Gate:
            return Gate(
                at,
                (gate.muted | (muted - self.muted)) - (self.muted - muted),
                (gate.soloed | (soloed - self.soloed)) - (self.soloed - soloed),
            )

        gates = self.gates or (Gate(),)
        at = max(at, gates[0].at)
        before = [g for g in gates if g.at < at]
        later = [changed(g, g.at) for g in gates if g.at > at]
        first = changed([g for g in gates if g.at <= at][-1], at)
        rows = [*before, first, *later]
        past = [g for g in rows if g.at <= now][-1:]
        return replace(
            self,
            muted=muted,
            soloed=soloed,
            gates=(*past, *(g for g in rows if g.at > now)),
        )

    @property
    def next_step(self) -> Fraction | None:
        """The cycle of the next step of a ramp or a plan."""
        steps = [cycle for cycle, _ in self.ramp[:1]] + [p.cycle for p in self.plan[:1]]
        return min(steps, default=None)

    @property
    def said(self) -> tuple[object, ...]:
        """What a performer would call "what plays": two states that agree in it are one for undo.

        Not the transitions on the way, nor the tempo map, nor the files' texts.
        """
        decks = {n: (dict(d.bound), d.geometry) for n, d in self.decks.items()}
        ring = (self.quant, self.depth, self.steps, self.always)
        heard = (self.hushed, self.muted, self.soloed, dict(self.sides), dict(self.globals.bound))
        return (decks, self.bpm, self.beats, *ring, *heard, dict(self.scenes), dict(self.lets))

    def renamed(self, old: str, new: str) -> State:
        """The state with another name for a score."""

        def own(deck: DeckState) -> DeckState:
            said = {
                control: tuple(r._replace(score=new) if r.score == old else r for r in rows)
                for control, rows in deck.said.items()
            }
            return replace(deck, said=said)

        files = {new if name == old else name: program for name, program in self.files.items()}
        files[new] = replace(files[new], name=new)
        decks = {name: own(deck) for name, deck in self.decks.items()}
        return replace(self, files=files, decks=decks, globals=own(self.globals))

    def lanes(self, deck: DeckState, here: Fraction) -> Mapping[str, Lane]:
        """What sounds of a deck at cycle `here`: with the hands on its controllers, under the
        fader, without those that have reverted."""
        lanes = {n: lane.resolve(self.hands) for n, lane in deck.bound_lanes(here).items()}
        shared = {n: lane.resolve(self.hands) for n, lane in self.globals.bound_lanes(here).items()}
        return faded(deck.name, lanes, self.sides, shared)


def effect_cycle(
    state: State, when: When, now: int, due: Fraction | None = None, prepared: bool = False
) -> Fraction:
    """The cycle at which a statement takes effect.

    Args:
        state: what plays.
        when: what the statement says.
        now: output sample of the decision.
        due: the cycle that it is meant for; None: the next quantum.
        prepared: it needs new loops.
    """
    tempo = state.tempo
    here = tempo.cycle_at(now)
    earliest = max(tempo.cycle_at(now + NOTICE), here) if prepared else here
    if due is not None:
        due = max(due, earliest)
        if when.kind == "at" and when.cycles > 0:
            return next_multiple(due, when.cycles)
        return due + when.cycles if when.kind == "in" else due
    if when.kind == "now":
        return earliest
    if when.kind == "at" and when.cycles > 0:
        return next_multiple(earliest, when.cycles)
    if when.kind == "in":
        return max(Fraction(here // 1) + when.cycles, earliest)
    if state.quant == 0:
        return earliest
    cycle = next_multiple(earliest, state.quant)
    return cycle if cycle > here else cycle + state.quant


def frames_for(lap: Fraction) -> int:
    """Smallest even number of latent frames that covers a lap (in samples)."""
    samples = -(-lap.numerator // lap.denominator)
    frames = -(-samples // RATES.hop)
    return frames + frames % 2


def make_loop(deck: DeckState, tempo: TempoMap, cycle: Fraction, epoch: int) -> Loop:
    """The loop of a deck that begins at `cycle`. Laps begin at cycles divisible by its length."""
    segment = tempo.segment_at(cycle)
    lap = deck.cycles * segment.length
    first = (cycle // deck.cycles) * deck.cycles
    return Loop(
        epoch=epoch,
        deck=deck.name,
        from_sample=tempo.sample_at(cycle),
        origin=tempo.exact(cycle) - (cycle - first) * segment.length,
        lap=lap,
        cycles=deck.cycles,
        bpm=segment.bpm,
        beats=segment.beats,
        frames=frames_for(lap),
        source=deck.file,
        notes=deck.notes,
    )
