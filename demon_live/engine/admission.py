"""Who enters the ring, and when: a mailbox per deck, an even stagger, decks in turn.

A slot lives S ticks, so D slots come to one admission each S / D ticks. Keeping exactly that pace,
also after a pause or a resize, makes completions come evenly, and taking the request as late as
the admission itself makes a change wait S + S / D - 1 ticks at most until its first completion.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

from demon_live.core import Floats, Request

__all__ = ["HISTORY", "Clock", "Desk", "Desks"]

#: Finished latents that a deck remembers for `feedback`.
HISTORY = 8


class Clock:
    """The admission clock: `due` is the (fractional) tick from which the next slot may enter."""

    def __init__(self, steps: int, depth: int) -> None:
        self.gap = Fraction(steps, depth)
        self.due = Fraction(0)

    def open(self, tick: int) -> bool:
        """Whether a slot may enter at this tick."""
        return self.due <= tick

    def count(self, tick: int) -> int:
        """How many slots may enter at this tick."""
        clock = Clock(1, 1)
        clock.gap, clock.due = self.gap, self.due
        admitted = 0
        while clock.open(tick):
            clock.admitted(tick)
            admitted += 1
        return admitted

    def admitted(self, tick: int) -> None:
        """A slot entered. Fractions of a tick carry over; a longer wait moves the phase."""
        self.due = (self.due if tick - self.due < 1 else Fraction(tick)) + self.gap

    def retune(self, steps: int, depth: int) -> None:
        """Another pace, counted from the last admission."""
        gap = Fraction(steps, depth)
        self.due += gap - self.gap
        self.gap = gap

    def hasten(self, tick: int) -> None:
        """The next slot may enter at this tick: cells were freed before their time."""
        self.due = min(self.due, Fraction(tick))


@dataclass(slots=True, eq=False)
class Desk:
    """What the ring knows of a deck.

    frames: T of each living epoch. renewed: nothing of its new epoch was seen yet. history:
    finished latents, newest first. turn: stride scheduling's pass.
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


class Desks:
    """All decks, served in proportion to their weights (stride scheduling, Waldspurger 1995)."""

    def __init__(self) -> None:
        self._desks: dict[str, Desk] = {}

    def get(self, deck: str) -> Desk | None:
        return self._desks.get(deck)

    def enlist(self, deck: str) -> Desk:
        """The desk of a deck; a new one starts level with the others."""
        desk = self._desks.get(deck)
        if desk is None:
            desk = Desk(deck, turn=min((d.turn for d in self._desks.values()), default=0.0))
            self._desks[deck] = desk
        return desk

    def dismiss(self, deck: str) -> None:
        self._desks.pop(deck, None)

    def in_turn(self) -> list[Desk]:
        """Desks in the order in which they are to be served; weight 0 is never served."""
        return sorted((d for d in self._desks.values() if d.weight > 0.0), key=lambda d: d.turn)

    def served(self, desk: Desk) -> None:
        """Count a turn of `desk`; those that were asked before it had nothing to say."""
        for other in self._desks.values():
            # Whoever is idle must not save up turns and then starve the others.
            other.turn = max(other.turn, desk.turn)
        desk.turn += 1.0 / desk.weight

    def first(self, desk: Desk) -> None:
        """Serve this desk next."""
        desk.turn = min(other.turn for other in self._desks.values()) - 1e-9

    def lengths(self, deck: str | None) -> set[int]:
        """Every T of a deck's living epochs, or of all decks."""
        desks = self._desks.values() if deck is None else filter(None, [self._desks.get(deck)])
        return {frames for desk in desks for frames in desk.frames.values()}

    def channels(self, deck: str | None) -> set[int]:
        """Every C of a deck, or of all decks."""
        desks = self._desks.values() if deck is None else filter(None, [self._desks.get(deck)])
        return {desk.channels for desk in desks if desk.channels is not None}

    def waiting(self) -> bool:
        """Whether a request lies in a mailbox."""
        return any(desk.mailbox is not None for desk in self._desks.values())
