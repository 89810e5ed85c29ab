"""The frozen types that cross threads, processes and the numpy-torch border.

Time is counted in samples of the output stream (int, 48 kHz, 0 = first sample ever played) and in
cycles (Fraction). Arrays in these types are never written to after construction.

`EngineState` and `MixState` are what a session publishes: each is whole, the newest version wins,
and whoever gets one makes itself agree with it. Start, restart and resume are the same act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demon_live.pictures import of_latent

Floats = NDArray[np.float32]
#: Beats of a cycle: whole, or those of a meter (7/8 has 7/2).
Beats = int | Fraction


def plain_beats(beats: Beats) -> float:
    """Beats as displays and models take them: 4, or 3.5."""
    return beats if isinstance(beats, int) else float(beats)


@dataclass(frozen=True, slots=True)
class Rates:
    """Geometry of latents and audio. One latent frame is `hop` samples."""

    frame_hz: int = 25
    sample_rate: int = 48000
    hop: int = 1920


RATES = Rates()


@dataclass(frozen=True, slots=True)
class Loop:
    """Where a deck stands in time, from `from_sample` on, until a newer loop of the deck begins.

    Lap k of the loop begins at sample floor(origin + k * lap + 1/2); `lap` is the exact length of
    the loop in samples (cycles * samples per cycle) and `origin` the exact place of a lap's
    beginning, so bar lines never drift. frames: T, even, covers the longest lap. epoch grows with
    every loop of a deck; nothing of an older epoch is placed. notes: what is transformed is played
    by the notes of the score, over the source if there is one.
    """

    epoch: int
    deck: str
    from_sample: int
    origin: Fraction
    lap: Fraction
    cycles: int
    bpm: Fraction
    beats: Beats
    frames: int
    source: str | None = None
    notes: bool = False

    @property
    def file(self) -> str:
        """The name of its PCM: written by the engine, read by the mixer."""
        return f"{self.deck}-{self.epoch}.loop"

    @property
    def source_file(self) -> str | None:
        """The name of the PCM that is transformed; None: generations begin from noise."""
        return None if self.source is None else f"{self.deck}-{self.epoch}.source"

    @property
    def samples(self) -> int:
        """Samples in the longest lap: the length of the loop's PCM."""
        return -(-self.lap.numerator // self.lap.denominator)

    def lap_start(self, k: int) -> int:
        """The sample at which lap k begins."""
        # In whole numbers, with one denominator for both: the mixer asks for each block of each
        # deck, and a Fraction would take ten times as long for the same answer.
        origin, lap = self.origin, self.lap
        top = origin.numerator * lap.denominator + k * lap.numerator * origin.denominator
        bottom = origin.denominator * lap.denominator
        return (2 * top + bottom) // (2 * bottom)

    def locate(self, sample: int) -> tuple[int, int]:
        """(lap, position in it) of an output sample."""
        origin, lap = self.origin, self.lap
        since = sample * origin.denominator - origin.numerator
        k = since * lap.denominator // (origin.denominator * lap.numerator)
        # A lap begins on the nearest sample: this may be one lap off, either way.
        begin = self.lap_start(k)
        if begin > sample:
            return k - 1, sample - self.lap_start(k - 1)
        following = self.lap_start(k + 1)
        return (k + 1, sample - following) if following <= sample else (k, sample - begin)

    def next_heard(self, position: int, now: int) -> int:
        """The first output sample >= now at which `position` of the loop sounds."""
        k, here = self.locate(now)
        return self.lap_start(k if position >= here else k + 1) + position


@dataclass(frozen=True, slots=True)
class SlotValues:
    """Values of class slot (name -> number or text) that hold from output sample `from_sample` on.

    jump: True where the score jumps here (the splice belongs on this very sample); False where a
    continuous pattern was only sampled again.
    """

    from_sample: int
    values: Mapping[str, float | str]
    jump: bool = True


#: Files that end so are sound files.
SOUND_ENDINGS = (
    ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".caf", ".w64", ".rf64", ".au",
)  # fmt: skip


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Sound:
    """A sound file that a score names: what an engine may be asked to sound like.

    key: decided by the samples alone, so that another content is another sound, whatever its name.
    audio: float32 [n, 2] at 48 kHz; empty in a dry run. name: of the file, for messages.
    """

    key: str
    audio: Floats = field(compare=False, repr=False)
    name: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """A note or a hit of a voice (`controls.VOICES`), in cycles since its lap began.

    pitch: of MIDI, c4 is 60; 0 of a drum. velocity: 0..1, its level included, so up to 2.
    """

    voice: str
    begin: float
    length: float
    pitch: float
    velocity: float


@dataclass(frozen=True, slots=True)
class Phrase:
    """All notes of one lap, ascending. voices: those that the score binds, resting ones too."""

    notes: tuple[NoteEvent, ...] = ()
    voices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MixPoints:
    """An automation of the mix strip: straight lines between points, held before and after.

    samples: int64 [n], ascending output samples. values: float32 [n].
    """

    samples: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, slots=True)
class ControlBlock:
    """All that a deck's score says about the near future. The newest block of a deck wins.

    lanes: class step, name -> float32 [T]; frame i holds the value for the time it is next heard.
    Only controls that are bound are present. laps: the same, float32 [2, T], for the lap in which
    it was made and for the next one. plan: class slot, ascending in time; the first entry holds
    now. held: what the entry that holds now was when it began. mix: class mix. sampled_at: the
    output sample at which it was made. phrases: class notes, of the laps of `laps`; () if the score
    binds none.
    """

    deck: str
    version: int
    loop: Loop
    sampled_at: int
    lanes: Mapping[str, Floats] = field(default_factory=dict)
    plan: Sequence[SlotValues] = ()
    mix: Mapping[str, MixPoints] = field(default_factory=dict)
    laps: Mapping[str, Floats] = field(default_factory=dict)
    held: Mapping[str, float | str] = field(default_factory=dict)
    phrases: tuple[Phrase, ...] = ()

    def phrase_at(self, sample: int) -> Phrase | None:
        """The notes of the lap of an output sample, None if the score binds none."""
        first, _ = self.loop.locate(max(self.sampled_at, self.loop.from_sample))
        return self.phrases[sample >= self.loop.lap_start(first + 1)] if self.phrases else None

    @property
    def jumps(self) -> list[int]:
        """The output samples at which a value of class slot jumps."""
        return [row.from_sample for row in self.plan[1:] if row.jump]


@dataclass(frozen=True, slots=True, eq=False)
class EngineDeck:
    """What the engine should do for a deck.

    loop: the newest. block: the newest, None before the first sampling; it may be of an older loop.
    moves: control -> (serial, value): generations in flight move to `value` once for each serial.
    """

    loop: Loop
    block: ControlBlock | None = None
    moves: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timbre:
    """A sound that generations may be asked to sound like. label: what the performer calls it."""

    key: str
    label: str

    @property
    def file(self) -> str:
        """The name of its PCM."""
        return f"timbre-{self.key}"


@dataclass(frozen=True, slots=True, eq=False)
class EngineState:
    """What the engine should be doing.

    depth, steps: None = as it was opened. timbres: all that may be asked for. panics: how often
    everything in flight was thrown away. always: generate on and on, also what is known already.
    latents: report each generation.
    engine: the one that should play, "" = the one that was started. detail: of decks whose score
    says none.
    """

    decks: Mapping[str, EngineDeck] = field(default_factory=dict)
    depth: int | None = None
    steps: int | None = None
    timbres: tuple[Timbre, ...] = ()
    panics: int = 0
    always: bool = False
    latents: bool = False
    engine: str = ""
    detail: float = 0.0

    @property
    def inputs(self) -> list[str]:
        """The names of the PCM that the engine reads: timbres, then the sources of loops."""
        sources = (deck.loop.source_file for deck in self.decks.values())
        return [*(timbre.file for timbre in self.timbres), *(name for name in sources if name)]


@dataclass(frozen=True, slots=True)
class Gate:
    """Which decks are heard from output sample `at` on. soloed: if any, only these are."""

    at: int = 0
    muted: frozenset[str] = frozenset()
    soloed: frozenset[str] = frozenset()
    hushed: bool = False

    def opens(self, deck: str) -> bool:
        """Whether the deck is heard."""
        return deck not in self.muted and (not self.soloed or deck in self.soloed)


@dataclass(frozen=True, slots=True, eq=False)
class MixDeck:
    """What is heard of a deck.

    loops: what plays, then what comes, each from its `from_sample` on. version: of `points`.
    points: automation of the strip; None before the first sampling. ends: the output sample at
    which the deck fades out, None = it stays. out: the first of the two channels it goes to.
    """

    loops: tuple[Loop, ...]
    version: int = 0
    points: Mapping[str, MixPoints] | None = None
    ends: int | None = None
    out: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class MixState:
    """What the sound should be doing. gates: ascending. recording: path of the file, or None.
    master: automation of the strip of the sum. tracks: record each deck apart, too."""

    decks: Mapping[str, MixDeck] = field(default_factory=dict)
    gates: tuple[Gate, ...] = ()
    recording: str | None = None
    master: Mapping[str, MixPoints] = field(default_factory=dict)
    tracks: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One generation to be made. Everything not given has a neutral default.

    frames, channels: T and C of the latent. denoise in [0, 1]. seed: any int. source: float32
    [T, C], the latent that is transformed. drift, turn: how far the noise is turned, 0 to 1, and
    towards which other noise of the seed. condition: whatever the model's rows understand.
    negative: condition of the guidance's second pass. shift: None = the ring's. init: float32 [T]
    or None. target: float32 [T, C] for `morph`; None = source. mask: float32 [T] (1 = new).
    conditions: further (condition, weight [T] or float, first, last) with first..last as
    fractions of the steps. feedback, feedback_depth: mix of an earlier generation of this deck.
    hear_from: the output sample from which it is meant to be heard. values: what the score said,
    for displays and placement. epoch: of the loop it belongs to. curves: class step, name ->
    float32 [T], the generation's own; None = those that the ring shares. identity: what condition,
    conditions and negative mean, comparable; None = not known: the generation is never stored.
    lanes: float32 [T, 46], the notes of its lap as `notes.lanes` says them; None = not told. hand:
    it changes what sounds already, so that it is made before all others.
    """

    frames: int
    channels: int
    denoise: float = 1.0
    seed: int = 0
    source: Floats | None = None
    condition: Any = None
    deck: str = "main"
    shift: float | None = None
    init: Floats | None = None
    target: Floats | None = None
    mask: Floats | None = None
    conditions: Sequence[tuple[Any, Floats | float, float, float]] = ()
    negative: Any = None
    cfg: str = "off"
    feedback: float = 0.0
    feedback_depth: int = 1
    epoch: int = 0
    hear_from: int = 0
    values: Mapping[str, float | str] = field(default_factory=dict)
    curves: Mapping[str, Floats] | None = None
    identity: tuple[object, ...] | None = None
    lanes: Floats | None = None
    drift: float = 0.0
    turn: int = 0
    hand: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """A finished latent. latent: float32 [T, C]. born, retired: tick numbers.

    versions: for each of its steps, the version of the shared state that the step saw.
    """

    latent: Floats
    request: Request
    versions: tuple[int, ...]
    born: int
    retired: int

    def __repr__(self) -> str:
        asked = self.request
        frames, channels = self.latent.shape
        return (
            f"<Generation {frames} x {channels} of {asked.deck}, denoise {asked.denoise:g}, "
            f"seed {asked.seed}, ticks {self.born} to {self.retired}>"
        )

    def _repr_svg_(self) -> str:
        return of_latent(self.latent, repr(self).strip("<>")).svg


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """A slot as a view shows it: which deck, how many of its steps are done, its denoise."""

    deck: str
    step: int
    steps: int
    denoise: float


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Telemetry of the engine process.

    generations: those that were made; from_store: those that were known already; resting: nothing
    is in flight; depth: of the ring, which `depth auto` moves. tick_ms: mean time of a tick;
    period_ms: time between ticks; decode_ms: of a window; lead_ms: how far ahead of the playhead
    the newest window was written; late: windows that came too late and were cut or dropped;
    dropped: non-finite generations; on_time_ms: for the last scheduled jump, how late its first
    generation was (0 = on its sample); shed: what is given up while the engine is late, in words;
    link_ms, jitter_ms: of an engine on another machine, the median time of a window on its way and
    how much the slowest twentieth takes longer.
    """

    ticks: int = 0
    generations: int = 0
    from_store: int = 0
    resting: bool = False
    depth: int = 0
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
