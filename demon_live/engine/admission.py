"""Admission to the ring: a mailbox per deck, an even stagger, decks in turn, checked requests.

A slot lives S ticks, so D slots make one admission each S / D ticks. Keeping exactly that pace,
also after a pause or a resize, makes completions come evenly. A request is taken only at its
admission, so a change waits S + S / D - 1 ticks at most until its first completion.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from demon_live.core import Floats, Request
from demon_live.engine.solver import timesteps
from demon_live.errors import ScoreError
from demon_live.notes.lanes import LANES

#: Finished latents that a deck remembers for `feedback`.
HISTORY = 8
_CFG_MODES = ("off", "full", "initialize", "self")

#: The last arrays that were checked. While an array is here, no other has its id.
_finite_arrays: dict[int, Floats] = {}
_REMEMBERED = 16


class AdmissionPace:
    """When slots may enter. due: the (fractional) tick from which the next one may."""

    def __init__(self, steps: int, depth: int) -> None:
        self.gap = Fraction(steps, depth)
        self.due = Fraction(0)

    def is_due(self, tick: int) -> bool:
        """Whether a slot may enter at this tick."""
        return self.due <= tick

    def count(self, tick: int) -> int:
        """How many slots may enter at this tick."""
        pace = copy(self)
        count = 0
        while pace.is_due(tick):
            pace.admit(tick)
            count += 1
        return count

    def admit(self, tick: int) -> None:
        """Count a slot that enters. Fractions of a tick carry over; longer waits move the phase."""
        self.due = (self.due if tick - self.due < 1 else Fraction(tick)) + self.gap

    def retune(self, steps: int, depth: int) -> None:
        """Another pace, counted from the last admission."""
        gap = Fraction(steps, depth)
        self.due += gap - self.gap
        self.gap = gap

    def hasten(self, tick: int) -> None:
        """Let the next slot enter at this tick: slots were freed before their time."""
        self.due = min(self.due, Fraction(tick))


@dataclass(slots=True, eq=False)
class RingDeck:
    """A deck as the ring knows it.

    Attributes:
        mailbox: the request that waits for admission; the latest replaces it.
        frames: T of each living epoch.
        renewed: nothing of its new epoch was seen yet.
        weight: its share of admissions; 0 = none.
        turn: the pass of stride scheduling.
        history: finished latents, newest first.
    """

    deck: str
    epoch: int = 0
    mailbox: Request | None = None
    frames: dict[int, int] = field(default_factory=dict)
    renewed: bool = False
    channels: int | None = None
    weight: float = 1.0
    turn: float = 0.0
    history: deque[Floats] = field(default_factory=lambda: deque(maxlen=HISTORY))


class RingDecks:
    """All decks, served in proportion to their weights (stride scheduling, Waldspurger 1995)."""

    def __init__(self) -> None:
        self._decks: dict[str, RingDeck] = {}

    def get(self, deck: str) -> RingDeck | None:
        return self._decks.get(deck)

    def enlist(self, deck: str) -> RingDeck:
        """The entry of a deck; a new one starts level with the others."""
        entry = self._decks.get(deck)
        if entry is None:
            entry = RingDeck(deck, turn=min((d.turn for d in self._decks.values()), default=0.0))
            self._decks[deck] = entry
        return entry

    def dismiss(self, deck: str) -> None:
        self._decks.pop(deck, None)

    def in_turn(self) -> list[RingDeck]:
        """Decks in the order in which they are served; those of weight 0 are left out."""
        return sorted((d for d in self._decks.values() if d.weight > 0.0), key=lambda d: d.turn)

    def count_turn(self, entry: RingDeck) -> None:
        """Count a turn of a deck; those before it in turn had no request."""
        for other in self._decks.values():
            # An idle deck must not save up turns and then starve the others.
            other.turn = max(other.turn, entry.turn)
        entry.turn += 1.0 / entry.weight

    def put_first(self, entry: RingDeck) -> None:
        """Serve this deck next."""
        entry.turn = min(other.turn for other in self._decks.values()) - 1e-9

    def lengths(self, deck: str | None) -> set[int]:
        """Every T of a deck's living epochs, or of all decks."""
        entries = self._decks.values() if deck is None else filter(None, [self._decks.get(deck)])
        return {frames for entry in entries for frames in entry.frames.values()}

    def channels(self, deck: str | None) -> set[int]:
        """Every C of a deck, or of all decks."""
        entries = self._decks.values() if deck is None else filter(None, [self._decks.get(deck)])
        return {entry.channels for entry in entries if entry.channels is not None}

    def waiting(self) -> bool:
        """Whether a request lies in a mailbox."""
        return any(entry.mailbox is not None for entry in self._decks.values())


# -- requests


def check_request(request: Request, steps: int, shift: float) -> None:
    """Raise ScoreError for a request that cannot be played: values, modes, shapes, finiteness."""
    frames, channels = request.frames, request.channels
    if frames < 1 or channels < 1:
        raise ScoreError(f"a latent of {frames} frames and {channels} channels is empty")
    timesteps(steps, request.denoise, shift if request.shift is None else request.shift)
    if request.cfg not in _CFG_MODES:
        raise ScoreError(f"cfg cannot be {request.cfg!r}", hint="one of " + ", ".join(_CFG_MODES))
    if not 0.0 <= request.feedback <= 1.0:
        raise ScoreError(f"feedback goes from 0 to 1, this is {request.feedback:g}")
    if request.feedback_depth < 1:
        raise ScoreError(f"feedback_depth counts from 1, this is {request.feedback_depth}")
    _array("source", request.source, (frames, channels))
    _array("target", request.target, (frames, channels))
    _array("lanes", request.lanes, (frames, LANES))
    _array("init", request.init, (frames,))
    _array("mask", request.mask, (frames,))
    for _, weight, _, _ in request.conditions:
        if np.ndim(weight) == 0:
            weight = np.full(frames, weight, dtype=np.float32)
        _array("the weight of a condition", np.asarray(weight), (frames,))


def _array(name: str, array: Floats | None, shape: Sequence[int]) -> None:
    if array is None:
        return
    if np.shape(array) != tuple(shape):
        raise ScoreError(
            f"{name} has the shape {np.shape(array)}, the request needs {tuple(shape)}",
            hint="one row for each frame of the loop",
        )
    if not _finite(array):
        raise ScoreError(f"{name} has values that are not finite")


def _finite(array: Floats) -> bool:
    """Arrays of requests are never written to, and the same source comes with each: remember."""
    if _finite_arrays.get(id(array)) is array:
        return True
    if not np.isfinite(array).all():
        return False
    _finite_arrays[id(array)] = array
    while len(_finite_arrays) > _REMEMBERED:
        _finite_arrays.pop(next(iter(_finite_arrays)), None)
    return True


def source_with_feedback(request: Request, entry: RingDeck) -> Floats | None:
    """(1 - f) source + f (the n-th last generation, or the oldest of those there are)."""
    if request.feedback == 0.0 or not entry.history:
        return request.source
    earlier = entry.history[min(request.feedback_depth, len(entry.history)) - 1]
    if earlier.shape != (request.frames, request.channels):
        return request.source
    f = np.float32(request.feedback)
    own = np.zeros_like(earlier) if request.source is None else request.source
    return np.asarray((1 - f) * own + f * earlier, dtype=np.float32)
