"""Undo and redo of anything that a statement or a word changes, for each author on their own.

States are immutable, so a step keeps those before and after it. What is undone is what plays
(`State.said`); the session lets it take effect at the next quantum, as a change of its own. While
one author plays, a step back is the state before. Where others changed something since, only what
the step changed goes back; where they changed the same, nothing does.

Threads: under the session's lock.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from demon_live.errors import ScoreError
from demon_live.session.state import GLOBALS, DeckState, State, label_of

T = TypeVar("T")
#: Steps that are kept.
LIMIT = 64
#: The author of what is done here; None: the owner of the session.
AUTHOR: ContextVar[str | None] = ContextVar("author", default=None)


@contextlib.contextmanager
def speaking_as(name: str | None) -> Iterator[None]:
    """What is done here is done by `name`."""
    token = AUTHOR.set(name)
    try:
        yield
    finally:
        AUTHOR.reset(token)


class Change(NamedTuple):
    """A change: who made it, and what played before and after it. by: "" is everybody's."""

    by: str
    before: State
    after: State

    def is_of(self, author: str) -> bool:
        """Whether an author may take it back."""
        return not author or self.by in ("", author)


class Undo:
    """The changes so far, and those that were undone."""

    def __init__(self) -> None:
        self._done: deque[Change] = deque(maxlen=LIMIT)
        self._undone: deque[Change] = deque(maxlen=LIMIT)
        self._drag = ""

    def note(self, before: State, now: State, by: str = "", drag: str = "") -> None:
        """A text was applied: one step, if it changed what plays.

        drag: the name of the drag that it belongs to; all of a drag is one step.
        """
        if before is not now and before.said != now.said:
            if drag and drag == self._drag and self._done and self._done[-1].by == by:
                before = self._done.pop().before
            self._drag = drag
            self._done.append(Change(by, before, now))
            kept = [step for step in self._undone if not step.is_of(by)]
            self._undone = deque(kept, LIMIT)

    def others(self, word: str) -> bool:
        """Whether there is something to undo or redo, whoever did it."""
        return bool(self._steps(word)[0])

    def wanted(self, word: str, now: State, by: str = "") -> State | None:
        """The state that `undo` or `redo` of an author leads to; None: there is nothing of theirs.

        Raises ScoreError if somebody else has changed the same since.
        """
        step = self._newest(word, by)
        if step is None:
            return None
        source, target = (step.before, step.after)[:: 1 if word == "undo" else -1]
        if all(other.is_of(by) for other in (*self._done, *self._undone)):
            return source
        merge = _Merge(source, target, now)
        if merge.clashes:
            raise ScoreError(
                f"{self._since(step, merge.clashes)} changed {', '.join(merge.clashes)} since, so "
                f"your {word} would undo that",
                hint="say what you want instead, such as blend = .5",
            )
        return merge.state

    def step(self, word: str, now: State, by: str = "") -> State | None:
        """As `wanted`, and the step is taken."""
        wanted = self.wanted(word, now, by)
        step = self._newest(word, by)
        if wanted is None or step is None:
            return None
        self._drag = ""
        source, target = self._steps(word)
        del source[max(i for i, other in enumerate(source) if other is step)]
        # What is done again leads to what plays now.
        back = step._replace(after=now) if word == "undo" else step._replace(before=now)
        target.append(back)
        return wanted

    def _steps(self, word: str) -> tuple[deque[Change], deque[Change]]:
        return (self._done, self._undone) if word == "undo" else (self._undone, self._done)

    def _newest(self, word: str, by: str) -> Change | None:
        return next((s for s in reversed(self._steps(word)[0]) if s.is_of(by)), None)

    def _since(self, step: Change, names: list[str]) -> str:
        """Who changed one of these since a step."""
        # Of a step that was undone, all may have come since.
        later = takewhile(lambda s: s is not step, reversed(self._done))
        found = [s for s in reversed([*later]) if s.by != step.by]
        found = [s for s in found if _Merge(s.before, s.after, s.after).changed & set(names)]
        return " and ".join(dict.fromkeys(s.by for s in found if s.by)) or "somebody"


@dataclass
class _Merge:
    """`here`, with what is different in `wanted` and `other` as in `wanted`.

    changed: names of what is different there. clashes: those that are different in `here`, too.
    """

    wanted: State
    other: State
    here: State
    changed: set[str] = field(default_factory=set)
    clashes: list[str] = field(default_factory=list)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        a, b, here = self.wanted, self.other, self.here
        bpm, beats = self._part("tempo", (a.bpm, a.beats), (b.bpm, b.beats), (here.bpm, here.beats))
        words = ("quant", "depth", "steps", "always", "hushed")
        single = {w: self._part(w, *(getattr(s, w) for s in (a, b, here))) for w in words}
        tables = ("files", "scenes", "lets")
        named: dict[str, Any] = {
            w: self._table(f"{w[:-1]} {{}}".format, *(getattr(s, w) for s in (a, b, here)))
            for w in tables
        }
        gates: dict[str, Any] = {}
        for word, what in (("muted", "mute"), ("soloed", "solo")):
            rows = [dict.fromkeys(getattr(s, word), True) for s in (a, b, here)]
            gates[word] = frozenset(self._table(f"{what} {{}}".format, *rows))
        decks = {
            name: deck
            for name in dict.fromkeys((*here.decks, *a.decks))
            if (deck := self._deck(name, *(s.decks.get(name) for s in (a, b, here)))) is not None
        }
        shared = self._deck(GLOBALS, a.globals, b.globals, here.globals)
        self.state = replace(
            here,
            bpm=bpm,
            beats=beats,
            decks=decks,
            globals=shared or here.globals,
            sides=self._part("crossfade", a.sides, b.sides, here.sides),
            # The steps of a chain go on; its lanes say whether somebody changed it.
            plan=here.plan if a.plan == b.plan else a.plan,
            **single,
            **named,
            **gates,
        )

    def _part(self, name: str, wanted: T, other: T, here: T) -> T:
        if wanted is other or wanted == other:
            return here
        self.changed.add(name)
        if here is not other and here != other and here != wanted:
            self.clashes.append(name)
        return wanted

    def _table(
        self,
        named: Callable[[str], str],
        a: Mapping[str, T],
        b: Mapping[str, T],
        here: Mapping[str, T],
    ) -> dict[str, T]:
        keys = dict.fromkeys((*here, *a, *b))
        rows = {k: self._part(named(k), a.get(k), b.get(k), here.get(k)) for k in keys}
        return {k: row for k, row in rows.items() if row is not None}

    def _deck(
        self, name: str, a: DeckState | None, b: DeckState | None, here: DeckState | None
    ) -> DeckState | None:
        empty = DeckState(name, cycles=0)
        sides = [deck or empty for deck in (a, b, here)]

        def named(control: str) -> str:
            return control if name == "main" else label_of(name, control)

        kept = here
        if (a is None) != (b is None):
            # The step began or ended the deck. One to which others added something stays.
            self.changed.add(f"deck {name}")
            added = b is not None and here is not None and here.said.keys() - b.said.keys()
            kept = here if added else a
        said = self._table(named, *(deck.said for deck in sides))
        loop = f"loop of {name}"
        self._part(loop, *(deck.geometry for deck in sides))
        if kept is None:
            return None
        if loop in self.changed and a is not None:
            kept = kept.formed_as(a)
        return replace(kept, said=said)
