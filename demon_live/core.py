"""The frozen types that cross borders: threads, processes, the numpy-torch border.

Time is counted in samples of the output stream (int, 48 kHz, 0 = first sample ever played) and in
cycles (Fraction). Arrays in these types are never written to after construction.

Threads: everything here is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RATES",
    "ControlBlock",
    "Floats",
    "Generation",
    "Loop",
    "MixPoints",
    "Pcm",
    "Rates",
    "Request",
    "SlotStatus",
    "SlotValues",
    "Sound",
]

Floats = NDArray[np.float32]


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
    every loop of a deck; nothing of an older epoch is placed.
    """

    epoch: int
    deck: str
    from_sample: int
    origin: Fraction
    lap: Fraction
    cycles: int
    bpm: Fraction
    beats: int
    frames: int
    source: str | None = None

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
    continuous pattern was merely sampled anew.
    """

    from_sample: int
    values: Mapping[str, float | str]
    jump: bool = True


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Sound:
    """A sound file that a score names: what an engine may be asked to sound like.

    key: decided by the samples alone, so that another content is another sound, whatever its name.
    audio: float32 [n, 2] at 48 kHz; empty where nothing will sound. name: of the file, to be told.
    """

    key: str
    audio: Floats = field(compare=False, repr=False)
    name: str = field(default="", compare=False)


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
    Only controls that are bound are present. plan: class slot, ascending in time; the first entry
    holds now. mix: class mix. sampled_at: the output sample at which it was made.
    """

    deck: str
    version: int
    loop: Loop
    sampled_at: int
    lanes: Mapping[str, Floats] = field(default_factory=dict)
    plan: Sequence[SlotValues] = ()
    mix: Mapping[str, MixPoints] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One generation to be made. Everything not given has a neutral default.

    frames, channels: T and C of the latent. denoise in [0, 1]. seed: any int. source: float32
    [T, C], the latent that is transformed. condition: whatever the model's rows understand.
    negative: condition of the guidance's second pass. shift: None = the ring's. init: float32 [T]
    or None. target: float32 [T, C] for `morph`; None = source. mask: float32 [T] (1 = new).
    conditions: further (condition, weight [T] or float, first, last) with first..last as
    fractions of the steps. feedback, feedback_depth: mix of an earlier generation of this deck.
    hear_from: the output sample from which it is meant to be heard. values: what the score said,
    for displays and placement. epoch: of the loop it belongs to.
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


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """A slot as a view shows it: which deck, how many of its steps are done, its denoise."""

    deck: str
    step: int
    steps: int
    denoise: float


@dataclass(frozen=True, slots=True)
class Pcm:
    """A decoded stretch of a loop: samples [start, start + n), cyclic. audio: float32 [n, 2]."""

    deck: str
    epoch: int
    start: int
    audio: Floats
