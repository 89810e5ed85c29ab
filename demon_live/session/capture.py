"""What decks take of the input: which loop, when, and what becomes of it.

A loop of the input becomes a source when it is over, on the first bar that leaves the engine the
time to prepare it. It lies in the source where it was played: a beat that was played on beat 2 is
on beat 2. Signals of the input (`in_level` ...) become moves, as those of a knob.

Threads: `Captures` belongs to the session's pump, under its lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from demon_live.audio.features import InputFeatures
from demon_live.audio.files import SEAM, closed
from demon_live.audio.sound_input import SoundInput
from demon_live.controls import EVERY, IN, PLUS_NOTES, THRU
from demon_live.core import RATES, Floats
from demon_live.lang import Bind, Lane, Setting, Statement
from demon_live.lang.controllers import INPUT_SIGNALS, Key, Move
from demon_live.session.state import Capture, DeckState, State
from demon_live.session.tempo import TempoMap, bars, next_multiple

#: A loop whose peak is below this was not played: -60 dBFS.
_QUIET = 1e-3
#: Level above which a sum of layers that is over full scale is rounded: -3 dBFS.
_KNEE = 0.7
#: By how much the tempo of a loop may wander.
_STEADY = Fraction(1, 100)
#: Change of a signal that is worth a move.
_LEAST = 0.004
#: Samples of signals that are caught up at most.
_LATEST = RATES.sample_rate


def needs_input(row: Statement) -> bool:
    """Whether a statement means something only with an input."""
    if isinstance(row, Setting):
        return (row.word, row.value) in (("source", IN), ("overdub", "on"))
    if not isinstance(row, Bind) or row.lane is None:
        return False
    return (
        row.control == THRU
        or bool(kinds_of([row.lane]))
        or any(name == IN for name, _ in row.files)
    )


def kinds_of(lanes: Iterable[Lane]) -> set[str]:
    """The signals of the input that lanes name."""
    return {key.kind for lane in lanes for key in lane.keys if key.kind in INPUT_SIGNALS}


def listening(deck: DeckState, row: Setting, at: Fraction) -> tuple[DeckState, str]:
    """A deck with a setting of the input from cycle `at` on, and a line for the performer."""
    wanted = deck.capture
    if row.word == "source":
        read = row.reading.removesuffix(PLUS_NOTES).rstrip()
        every = int(read.removeprefix(EVERY) or 0)
        wanted = Capture(at, every, row.reading.endswith(PLUS_NOTES))
        when = f"each {every} bars the last loop" if every else "the next whole loop"
        said = f"{when} that is played in becomes the source"
    elif row.word == "overdub" and row.value == "on":
        begin = Capture(at) if wanted is None or wanted.timbre else wanted
        wanted = replace(begin, begin=at, overdub=True, hold=False)
        said = f"each loop that is played in is added, from bar {bars(_first(at, deck.cycles))} on"
    elif wanted is None:
        return deck, f"{deck.name}: nothing is taken of the input"
    elif row.word == "overdub":
        wanted = replace(
            wanted, overdub=False, hold=wanted.hold or (wanted.overdub and not wanted.every)
        )
        said = "nothing more is added"
    elif row.value == "on":
        wanted, said = replace(wanted, hold=True), "the source stays as it is"
    else:
        again = wanted.every or wanted.overdub or deck.take is None
        wanted = replace(wanted, begin=at if again else wanted.begin, hold=False)
        said = "it is taken of the input again" if again else "the source stays as it is"
    return replace(deck, capture=wanted), f"{deck.name}: {said}"


def _first(cycle: Fraction, cycles: int) -> Fraction:
    """The cycle from which on whole loops are played."""
    return next_multiple(cycle, Fraction(cycles))


def shown(deck: DeckState, tempo: TempoMap, now: int) -> str:
    """How far a take of a deck is, for displays: "in: bar 3 of 4"; "" without one."""
    wanted, loop = deck.capture, deck.playing(now)
    if wanted is None or loop is None:
        return ""
    if not deck.listens:
        return "in: held"
    here, first = tempo.cycle_at(now), _first(wanted.begin, loop.cycles)
    if here < first:
        return f"in: from bar {bars(first)}"
    return f"in: bar {int(here % loop.cycles) + 1} of {loop.cycles}"


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A loop that was played in. audio: float32 [n, 2], from the beginning of the deck's loop on.
    present: float32 [n], 0 where the input was gone. end: its last cycle."""

    deck: str
    end: Fraction
    cycles: int
    audio: Floats
    present: Floats

    @property
    def missing(self) -> float:
        """Seconds in which the input was gone."""
        return float((self.present < 1).sum()) / RATES.sample_rate

    @property
    def quiet(self) -> bool:
        """Whether nothing was played."""
        return float(np.abs(self.audio).max(initial=0.0)) < _QUIET

    def over(self, under: Floats | None, overdub: bool) -> tuple[Floats, str]:
        """It, over what was there: where the input was gone, or everywhere; and a line if the sum
        had to be made softer."""
        if under is None or not (overdub or self.missing):
            return self.audio, ""
        under = np.resize(under, self.audio.shape) if len(under) < len(self.audio) else under
        amount = 1.0 if overdub else (1 - self.present)[:, None]
        total = np.asarray(self.audio + under[: len(self.audio)] * amount, np.float32)
        peak = float(np.abs(total).max(initial=0.0))
        if peak <= 1.0:
            return total, ""
        over = 20 * math.log10(peak)
        said = (
            f"{self.deck}: the layers were {over:.1f} dB over full scale: their peaks are rounded"
        )
        return _below_full_scale(total), said


def _below_full_scale(audio: Floats) -> Floats:
    """Below the knee as it is, above it ever less."""
    level = np.abs(audio)
    above = np.tanh((level - _KNEE) / (1 - _KNEE)) * (1 - _KNEE)
    rounded = np.copysign(np.float32(_KNEE) + above, audio)
    return np.asarray(np.where(level <= _KNEE, audio, rounded), np.float32)


class Captures:
    """See the module. input: what is played into, None without one."""

    def __init__(self, source: SoundInput | None = None) -> None:
        self.input = source
        #: deck -> (beginning of its capture, the cycle from which on it listens, its last take).
        self._seen: dict[str, tuple[Fraction, Fraction, Fraction]] = {}
        self._features = InputFeatures()
        self._next: int | None = None
        self._told: dict[str, float] = {}

    def want(self, state: State) -> None:
        """The device is open while something listens."""
        if self.input is not None:
            decks = [d for d in (*state.decks.values(), state.globals) if d.to is None]
            wanted = any(deck.listens or THRU in deck.bound for deck in decks)
            self.input.nudge = state.nudge_in
            self.input.want(wanted or bool(_kinds(state)))

    def due(self, state: State, now: int) -> Iterator[tuple[Played | None, str]]:
        """The loops that are over at output sample `now`, and what is to be said; None: a loop is
        left out."""
        if self.input is None:
            return
        until = min(now, self.input.end())
        for name, deck in state.decks.items():
            loop = deck.playing(now)
            if not deck.listens or loop is None:
                self._seen.pop(name, None)
                continue
            end = self._end(deck, loop.cycles, state.tempo, now, until)
            if end is None:
                continue
            where = f"{name}: bars {bars(end - loop.cycles)} to {bars(end)}"
            if not _steady(state.tempo, end - loop.cycles, end):
                yield None, f"{where} are left out: the tempo changed in them"
                continue
            played = self._read(name, loop.cycles, state.tempo, end)
            if played.quiet:
                gone = "the input was gone" if played.missing else "nothing was played"
                yield None, f"{where} are left out: {gone}"
                continue
            less = f", {played.missing:.2f} s of them were lost" if played.missing else ""
            yield played, f"{where} of the input{less}"

    def _end(
        self, deck: DeckState, cycles: int, tempo: TempoMap, now: int, until: int
    ) -> Fraction | None:
        """The end of the newest loop that is over and was not looked at."""
        wanted = deck.capture
        assert wanted is not None
        begin, since, last = self._seen.get(deck.name, (None, Fraction(0), Fraction(0)))
        if begin != wanted.begin:
            since = last = max(wanted.begin, tempo.cycle_at(now))
        period = Fraction(wanted.every or cycles)
        if wanted.overdub:
            period = max(period, Fraction(cycles))
        newest = tempo.cycle_at(until) // period * period
        if tempo.sample_at(newest) > until:
            newest -= period
        found = newest if newest > last and newest >= since + cycles else None
        self._seen[deck.name] = wanted.begin, since, last if found is None else found
        return found

    def _read(self, name: str, cycles: int, tempo: TempoMap, end: Fraction) -> Played:
        assert self.input is not None
        first, last = tempo.sample_at(end - cycles), tempo.sample_at(end)
        audio, present = self.input.read(first, last), np.ones(last - first, np.float32)
        ramp = np.linspace(1, 0, SEAM, dtype=np.float32)
        for a, b in self.input.holes(first, last):
            a, b = a - first, b - first
            before, behind = present[max(0, a - SEAM) : a], present[b : b + SEAM]
            present[a:b] = 0
            np.minimum(before, ramp[SEAM - len(before) :], out=before)
            np.minimum(behind, ramp[::-1][: len(behind)], out=behind)
        if (present < 1).any():
            audio = audio * present[:, None]
        turn = round((end % cycles) / cycles * len(audio))
        if turn:
            audio = np.roll(closed(audio), turn, axis=0)
            present = np.roll(present, turn)
        return Played(name, end, cycles, audio, present)

    def moves(self, state: State, now: int) -> Iterator[tuple[int, list[Move]]]:
        """(output sample, moves) of the signals that are named, up to output sample `now`."""
        kinds = _kinds(state) if self.input is not None else set()
        if self.input is None or not kinds:
            self._next = None
            return
        until = min(now, self.input.end())
        if self._next is None or self._next < until - _LATEST:
            self._next, self._told = max(0, until // RATES.hop - 1) * RATES.hop, {}
            self._features = InputFeatures()
        while self._next + RATES.hop <= until:
            heard = self._features.hear(self.input.read(self._next, self._next + RATES.hop))
            self._next += RATES.hop
            new = {k: round(heard[k], 4) for k in INPUT_SIGNALS if k in kinds}
            new = {k: v for k, v in new.items() if abs(v - self._told.get(k, 9)) >= _LEAST}
            self._told |= new
            if new:
                yield self._next, [Move(Key(kind, 0, 1), value) for kind, value in new.items()]


def _kinds(state: State) -> set[str]:
    """The signals of the input that anything names."""
    decks = (*state.decks.values(), state.globals)
    return kinds_of(lane for deck in decks for lane in (*deck.lanes.values(), *deck.bound.values()))


def _steady(tempo: TempoMap, first: Fraction, last: Fraction) -> bool:
    """Whether a stretch has one tempo, as good as."""
    inside = [s.bpm for s in tempo.segments if first < s.cycle < last]
    rates = [tempo.segment_at(first).bpm, *inside]
    return max(rates) - min(rates) <= _STEADY * min(rates)
