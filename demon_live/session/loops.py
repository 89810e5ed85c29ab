"""The loops of decks: where they stand in time, and the sound of their sources.

Threads: a LoopBuilder belongs to the edit that has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from demon_live.audio.files import tempo_in_name
from demon_live.controls import NOTES_HINT
from demon_live.core import RATES, Beats, Floats, Loop
from demon_live.errors import DemonError, FileError, Span
from demon_live.session.assets import DecodedSource, DecodedSources
from demon_live.session.state import DeckState, State, make_loop
from demon_live.session.tempo import bars


class LoopBuilder:
    """Makes loops, and reads and fits their sources.

    Args:
        look, decoded, epoch, dry, rules: as of an `Edit`.
        say: called with a line for the performer.

    Attributes:
        loops: the new ones.
        audio: the PCM of new loops and sources, by name.
        sourced: decks whose source was named by this edit: theirs must be there.
    """

    def __init__(
        self,
        look: Callable[[str, str], Path],
        decoded: DecodedSources,
        epoch: Callable[[], int],
        dry: bool,
        rules: int,
        say: Callable[[str], None],
    ) -> None:
        self._look, self._decoded, self._epoch = look, decoded, epoch
        self._dry, self._rules, self._say = dry, rules, say
        self.loops: list[Loop] = []
        self.audio: dict[str, Floats] = {}
        self.sourced: set[str] = set()
        self._info: list[str] = []

    def build(self, state: State, name: str, span: Span | None, begin: Fraction, now: int) -> State:
        """The state with a new loop of a deck from cycle `begin` on; decided at sample `now`.

        span: what names the source. Raises DemonError.
        """
        deck = state.decks[name]
        loop = make_loop(deck, state.tempo, begin, self._epoch())
        deck, source = self.read_source(deck, loop, span)
        empty = (0 if self._dry else loop.samples, 2)
        self.audio[loop.file] = source if source is not None else np.zeros(empty, np.float32)
        if source is not None and loop.source_file is not None:
            self.audio[loop.source_file] = source
        self.loops.append(loop)
        what = f"loop of {deck.cycles} cycle{'s' * (deck.cycles != 1)}"
        made = [self._info[-1]] if source is not None else []
        made += ["from notes" + _hint_of(deck)] if deck.notes else []
        self._say(
            f"{deck.name}: {what}, {', '.join(made) or 'from noise'} · from bar {bars(begin)}"
        )
        return state.with_deck(deck.with_loop(loop, now))

    def read_source(
        self, deck: DeckState, loop: Loop, span: Span | None
    ) -> tuple[DeckState, Floats | None]:
        """The sound of a deck's source for a loop, and the deck, which knows its tempo then."""
        if deck.file is None:
            return deck, None
        try:
            if self._dry:
                return deck, self._seen_source(self._look(deck.file, deck.base))
            sound = self._decode(deck.file, deck)
            length, known = len(sound.audio), deck.beats_known
            if deck.file != deck.source and deck.take is not None:
                fitted, info = sound.fit(loop, tempo_of(deck.take.beats, length))
                self._info.append(info.removeprefix(f"{sound.name}: "))
                return deck, fitted
            if known is None or known[0] != length or self._rules < 2:
                known = (length, *sound.beats_in(loop, deck.tempo_reading))
                deck = replace(deck, beats_known=known)
            fitted, info = sound.fit(loop, known[1:])
        except DemonError as error:
            # The line of the score that names the file is where a performer looks.
            error.span = error.span or span
            raise
        stated = deck.tempo_reading or tempo_in_name(sound.name)
        guess = "" if stated else " (guessed: bars 2, bpm 90, half or double behind it says it)"
        self._info.append(f"{info}{guess}, of a file of {sound.read}")
        return deck, fitted

    def _decode(self, source: str, deck: DeckState) -> DecodedSource:
        """The sound of a deck's source; one that is gone blocks only the text that names it."""
        try:
            sound = self._decoded.read(self._look(source, deck.base))
        except DemonError:
            known = self._decoded.get(source, deck.base)
            if known is None or deck.name in self.sourced:
                raise
            self._say(f"{known.name} cannot be read now: what was read of it plays on")
            return known
        self._decoded.add(source, deck.base, sound)
        return sound

    def _seen_source(self, path: Path) -> Floats:
        if not path.is_file():
            raise FileError(f"there is no file {path}", hint="is it where the set was played?")
        self._info.append(path.name)
        return np.zeros((0, 2), np.float32)


def tempo_of(beats: Beats, samples: int) -> tuple[Beats, float]:
    """The beats of a sound of so many samples, and its tempo."""
    return beats, float(beats) * 60 * RATES.sample_rate / samples


def _hint_of(deck: DeckState) -> str:
    return "" if "hint" in deck.bound else f" (hint = {NOTES_HINT:g}, unless it is said)"
