"""From a deck's lanes to a ControlBlock: every frame sampled at the time it will next be HEARD.

A loop is regenerated over and over; frame i of it sounds again when the playhead comes round to
it. So a curve over the loop is not one stretch of the score: what lies ahead of the playhead
belongs to this lap, what lies behind it to the next.

Threads: functions are pure; a `DeckSampler` belongs to the thread that pumps.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from demon_live.controls import CONTROLS, NOTES_HINT, VOICES, find, names, read_duck
from demon_live.core import (
    RATES,
    ControlBlock,
    Floats,
    Loop,
    MixPoints,
    NoteEvent,
    Phrase,
    SlotValues,
)
from demon_live.lang.lane import Lane
from demon_live.lang.pattern import Event
from demon_live.notes.harmony import pitches_of
from demon_live.session.state import DeckState, State
from demon_live.session.tempo import TempoMap

log = logging.getLogger(__name__)

#: How far ahead mix automation reaches, in samples: longer than any stall that sound must survive.
MIX_AHEAD = 2 * RATES.sample_rate
#: The least that is planned ahead for controls of class slot, in samples: longer than a generation
#: takes on an overloaded machine, or its jumps would be seen too late to be on time.
PLAN_AHEAD = 12 * RATES.sample_rate
#: Step of a moving mix automation (100 Hz), in samples.
_MIX_STEP = 480
#: Notes in a lap at most.
MOST_NOTES = 4096
#: A moving pattern of class slot is read again this often, in cycles.
_SLOT_STEP = Fraction(1, 4)


class LaneLike(Protocol):
    """What is needed of a compiled lane (lang.Lane)."""

    @property
    def kind(self) -> str: ...
    @property
    def continuous(self) -> bool: ...
    def sample(self, cycles: NDArray[np.float64]) -> Floats: ...
    def at(self, cycle: Fraction) -> float | str: ...
    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]: ...
    def events(self, begin: Fraction, end: Fraction) -> list[Event]: ...
    @property
    def width(self) -> int: ...
    def weight(self, i: int, cycles: NDArray[np.float64]) -> Floats: ...


def lap_times(loop: Loop, lap: int) -> NDArray[np.int64]:
    """The output sample at which each frame of the loop begins in a lap, int64 [T]."""
    return loop.lap_start(lap) + np.arange(loop.frames, dtype=np.int64) * RATES.hop


def lap_cycles(loop: Loop, tempo: TempoMap, lap: int) -> NDArray[np.float64]:
    """The cycle at which each frame of the loop begins in a lap, float64 [T].

    Laps begin on whole samples, musical time does not: so that equal moments of a periodic score
    are equal in every lap, frames count from the exact beginning.
    """
    times = lap_times(loop, lap)
    segment = tempo.segment_of(int(times[0]))
    if tempo.segment_of(int(times[-1])) is not segment:
        return tempo.cycles_at(times)
    begin = lap_begin(loop, tempo, lap)
    offsets = np.arange(loop.frames, dtype=np.float64) * RATES.hop + 0.4999
    return float(begin) + offsets / float(segment.length)


def lap_begin(loop: Loop, tempo: TempoMap, lap: int) -> Fraction:
    """The exact cycle at which a lap begins."""
    segment = tempo.segment_of(loop.lap_start(lap))
    return segment.cycle + (loop.origin + lap * loop.lap - segment.at) / segment.length


def phrase(lanes: Mapping[str, LaneLike], begin: Fraction, cycles: int) -> Phrase:
    """The notes of a lap that begins at cycle `begin`, ascending.

    A note that goes on from the lap before begins with the lap, and one that goes on behind it
    ends with it; a hit has no length to go on. Times and velocities are rounded, so that equal laps
    of a periodic score are equal phrases.
    """
    notes: list[NoteEvent] = []
    voices = tuple(voice for voice in VOICES if voice in lanes)
    for voice in voices:
        control, level = CONTROLS[voice], lanes.get(f"{voice}_level")
        for event in lanes[voice].events(begin, begin + cycles):
            loud = 1.0 if level is None else float(level.at(event.begin))
            if not control.pitched:
                pitches: tuple[float, ...] = (0.0,) if event.onset else ()
                loud *= float(event.value)
            else:
                pitches = pitches_of(event.value, control)
            if loud > 0:
                at, length = float(event.begin - begin), float(event.end - event.begin)
                notes += [NoteEvent(voice, at, length, p, round(loud, 4)) for p in pitches]
    notes.sort(key=lambda note: (note.begin, note.voice, note.pitch))
    return Phrase(tuple(notes[:MOST_NOTES]), voices)


def next_heard(loop: Loop, now: int, laps: Mapping[str, Floats]) -> dict[str, Floats]:
    """Of curves for this lap and the next, float32 [2, T], what is heard next, float32 [T]."""
    lap, _ = loop.locate(now)
    # The frame that sounds right now has begun already: its start is heard again in the next lap.
    ahead = lap_times(loop, lap) >= now
    return {name: np.where(ahead, two[0], two[1]) for name, two in laps.items()}


def plan(
    lanes: Mapping[str, LaneLike], tempo: TempoMap, begin: int, end: int
) -> tuple[SlotValues, ...]:
    """The values of class slot from output sample `begin` until `end`, ascending.

    An entry begins at every jump of any lane (jump=True) and, while a lane moves continuously,
    each quarter of a cycle (jump=False).
    """
    first, last = tempo.cycle_at(begin), tempo.cycle_at(end)
    jumps: set[Fraction] = set()
    grid: set[Fraction] = set()
    for lane in lanes.values():
        jumps.update(lane.jumps(first, last))
        if lane.continuous:
            step = int(first / _SLOT_STEP) + 1
            while step * _SLOT_STEP < last:
                grid.add(step * _SLOT_STEP)
                step += 1
    jumps.discard(first)
    rows = [SlotValues(begin, {n: lane.at(first) for n, lane in lanes.items()}, jump=False)]
    for cycle in sorted(jumps | grid):
        values = {n: lane.at(cycle) for n, lane in lanes.items()}
        if values != rows[-1].values:
            rows.append(SlotValues(tempo.sample_at(cycle), values, cycle in jumps))
    return tuple(rows)


def held(lanes: Mapping[str, LaneLike], cycle: Fraction) -> dict[str, float | str]:
    """The values of the entry of a plan that holds at `cycle`: as they were when it began."""
    begin = cycle
    if any(lane.continuous for lane in lanes.values()):
        begin = (cycle // _SLOT_STEP) * _SLOT_STEP
        jumps = [j for lane in lanes.values() for j in lane.jumps(begin, cycle)]
        begin = max([begin, *jumps])
    return {name: lane.at(begin) for name, lane in lanes.items()}


def strip_points(name: str, lane: LaneLike, tempo: TempoMap, now: int) -> dict[str, MixPoints]:
    """The automation of one control of the mix strip for the next two seconds, as the mixer takes
    it: delay times in samples; of `duck` one for each of what it makes way for."""
    if name == "duck":
        return duck_points(lane, tempo, now)
    if name != "delaytime":
        return {name: mix_points(lane, tempo, now)}
    borders = [tempo.sample_at(s.cycle) for s in tempo.segments]
    points = mix_points(lane, tempo, now, [b for b in borders if now < b < now + MIX_AHEAD])
    lengths = [float(tempo.segment_of(int(sample)).length) for sample in points.samples]
    return {name: MixPoints(points.samples, np.asarray(points.values * lengths, np.float32))}


def mix_points(lane: LaneLike, tempo: TempoMap, now: int, borders: Sequence[int] = ()) -> MixPoints:
    """The values of a lane of numbers for the next two seconds.

    A jump is two points, one sample apart; the strip itself takes the click out of it. borders:
    further output samples at which it jumps.
    """
    begin, end = now - _MIX_STEP, now + MIX_AHEAD
    jumps = lane.jumps(tempo.cycle_at(begin), tempo.cycle_at(end))
    edges = np.array([*(tempo.sample_at(j) for j in jumps), *borders], np.int64)
    moving = np.arange(begin, end + 1, _MIX_STEP if lane.continuous else end, dtype=np.int64)
    samples = np.unique(np.concatenate([moving, edges - 1, edges]))
    return MixPoints(samples, lane.sample(tempo.cycles_at(samples)))


def with_jump(rows: tuple[SlotValues, ...], sample: int) -> tuple[SlotValues, ...]:
    """A plan that jumps at an output sample, too: other notes are another generation."""
    before = [row for row in rows if row.from_sample < sample]
    after = [row for row in rows if row.from_sample > sample]
    at = [row for row in rows if row.from_sample == sample] or before[-1:]
    return (*before, *(replace(row, from_sample=sample, jump=True) for row in at[:1]), *after)


def duck_points(lane: LaneLike, tempo: TempoMap, now: int) -> dict[str, MixPoints]:
    """How far a strip makes way: "duck DECK" -> depth; "duck" -> the gain that is taken away at
    the beat, which is back half a beat later."""
    first, last = tempo.cycle_at(now - _MIX_STEP), tempo.cycle_at(now + MIX_AHEAD)
    jumps = [first, *lane.jumps(first, last)]
    values = [read_duck(str(lane.at(cycle))) for cycle in jumps]
    begins = np.array([tempo.sample_at(cycle) for cycle in jumps], np.int64)
    beats = np.array(_half_beats(tempo, first, last), np.int64)
    ends = np.array([now + MIX_AHEAD], np.int64)
    samples = np.unique(np.concatenate([begins - 1, begins, beats - 1, beats, ends]))
    holds = np.searchsorted(begins, samples, side="right") - 1
    out = {}
    for name in {name for name, _ in values if name}:
        depths = np.array([far if who == name else 0.0 for who, far in values], np.float32)
        depth = depths[np.maximum(holds, 0)]
        if name == "beat":
            count = [float(tempo.segment_of(int(sample)).beats) for sample in samples]
            phase = (tempo.cycles_at(samples) % 1.0 * count) % 1.0
            depth = (depth * np.maximum(0.0, 1.0 - 2.0 * phase)).astype(np.float32)
        out["duck" if name == "beat" else f"duck {name}"] = MixPoints(samples, depth)
    return out


def _half_beats(tempo: TempoMap, first: Fraction, last: Fraction) -> list[int]:
    """The output samples of all beats and half beats between two cycles."""
    found = []
    for cycle in range(int(first), int(last) + 1):
        count = tempo.segment_at(Fraction(cycle)).beats
        steps = (Fraction(k, 2) / count for k in range(int(2 * count) + 1))
        found += [tempo.sample_at(cycle + step) for step in steps if step < 1]
    return found


def strip_lanes(lanes: Mapping[str, LaneLike]) -> dict[str, LaneLike]:
    """The lanes of class mix. The time of the echo depends on the tempo, so it is always given:
    what was sent rings on when nothing is sent any more."""
    mix = {name: lane for name, lane in lanes.items() if name in names("mix")}
    return {"delaytime": Lane.constant(CONTROLS["delaytime"]), **mix}


class DeckSampler:
    """Samples one deck again and again. The plan is kept while the lanes stay the same."""

    def __init__(self) -> None:
        self._good: dict[str, Floats | dict[str, MixPoints]] = {}
        self._trouble: dict[str, str] = {}
        self._told: set[str] = set()
        self._key: object = None
        self._fresh_until = 0
        self._rows: tuple[SlotValues, ...] = ()
        # The values with which the row began that holds now.
        self._begun: Mapping[str, float | str] = {}
        self._phrased: tuple[object, tuple[Phrase, ...]] = (None, ())

    def block(
        self,
        deck: str,
        version: int,
        lanes: Mapping[str, LaneLike],
        loop: Loop,
        tempo: TempoMap,
        now: int,
        always: bool = False,
    ) -> ControlBlock:
        """All that the score says about the near future of the deck.

        Frames before the loop begins are sampled as if it had begun at `loop.from_sample`. always:
        for a ring that never rests, at the very samples at which frames are heard.
        """
        at = max(now, loop.from_sample)
        # This lap and the next: what is made now may be for either.
        lap, _ = loop.locate(at)
        laps = (lap, lap + 1)
        if always:
            cycles = tempo.cycles_at(np.concatenate([lap_times(loop, k) for k in laps]))
        else:
            cycles = np.concatenate([lap_cycles(loop, tempo, k) for k in laps])
        curves: dict[str, Floats] = {}
        slot: dict[str, LaneLike] = {}
        notes: dict[str, LaneLike] = {}
        mix: dict[str, MixPoints] = {}
        for name, lane in lanes.items():
            control = find(name)
            if control is None:
                continue
            if control.cls == "notes":
                notes[name] = lane
            elif control.shape == "curve":
                curve = self._held(name, partial(lane.sample, cycles))
                if isinstance(curve, np.ndarray) and curve.shape == cycles.shape:
                    curves[name] = curve
            elif control.cls in ("slot", "model"):
                slot[name] = lane
                for i in range(lane.width if lane.width > 1 else 0):
                    weight = self._held(f"{name}.{i}", partial(lane.weight, i, cycles))
                    if isinstance(weight, np.ndarray) and weight.shape == cycles.shape:
                        curves[f"{name}.{i}"] = weight
        if loop.notes and "hint" not in lanes:
            curves["hint"] = np.full(cycles.shape, NOTES_HINT, np.float32)
        for name, lane in strip_lanes(lanes).items():
            points = self._held(name, partial(strip_points, name, lane, tempo, now))
            if isinstance(points, dict):
                mix |= points
        rows = self._plan(slot, loop, tempo, at)
        both = {name: curve.reshape(2, -1) for name, curve in curves.items()}
        heard = next_heard(loop, at, both)
        phrases = self._phrases(notes, loop, tempo, laps)
        if always and len(set(phrases)) > 1:
            rows = with_jump(rows, loop.lap_start(lap + 1))
        return ControlBlock(deck, version, loop, at, heard, rows, mix, both, self._begun, phrases)

    def _phrases(
        self, lanes: Mapping[str, LaneLike], loop: Loop, tempo: TempoMap, laps: tuple[int, ...]
    ) -> tuple[Phrase, ...]:
        """The notes of these laps; () if none are bound. Where a lane fails, the last good ones."""
        key = (lanes, loop, tempo, laps)  # lanes compare by identity
        if lanes and key != self._phrased[0]:
            begins = [lap_begin(loop, tempo, lap) for lap in laps]
            try:
                found = tuple(phrase(lanes, begin, loop.cycles) for begin in begins)
                self._phrased = (key, found)
            # The same wall.
            except Exception as error:
                log.warning("notes", exc_info=True)
                self._trouble["notes"] = f"the notes cannot be worked out ({error})"
        return self._phrased[1] if lanes else ()

    def _held(
        self, name: str, sample: Callable[[], Floats | dict[str, MixPoints]]
    ) -> Floats | dict[str, MixPoints] | None:
        """What a lane gives; when it fails, what it gave last, if that still fits."""
        try:
            self._good[name] = sample()
            self._trouble.pop(name, None)
        # The sampling wall: one lane that fails must not hold up the others.
        except Exception as error:
            log.warning("lane %s", name, exc_info=True)
            self._trouble[name] = f"{name} cannot be sampled ({error})"
        return self._good.get(name)

    def trouble(self) -> list[str]:
        """What went wrong since the last call, each once."""
        new = [text for text in self._trouble.values() if text not in self._told]
        self._told.update(new)
        return new

    def _plan(
        self, lanes: Mapping[str, LaneLike], loop: Loop, tempo: TempoMap, at: int
    ) -> tuple[SlotValues, ...]:
        key = (dict(lanes), loop, tempo)  # lanes compare by identity
        if key != self._key or at >= self._fresh_until:
            self._key, self._fresh_until = key, at + RATES.sample_rate
            ahead = max(PLAN_AHEAD, loop.samples) + RATES.sample_rate
            try:
                self._rows = plan(lanes, tempo, at, at + ahead)
                self._begun = held(lanes, tempo.cycle_at(at))
                return self._rows
            # The same wall: the old plan holds.
            except Exception as error:
                log.warning("plan", exc_info=True)
                self._trouble["plan"] = f"the coming values cannot be worked out ({error})"
                self._rows = self._rows or (SlotValues(at, {}, jump=False),)
        # Within a second the plan only loses what has passed.
        ahead_rows = [row for row in self._rows if row.from_sample > at]
        place = max(0, len(self._rows) - len(ahead_rows) - 1)
        if place:
            self._begun = self._rows[place].values
        return (SlotValues(at, self._rows[place].values, jump=False), *ahead_rows)


class Sampler:
    """Samples all decks of a state. tell: called with a line about a lane that fails."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._decks: dict[str, DeckSampler] = {}
        self._lanes: dict[str, tuple[tuple[object, ...], Mapping[str, LaneLike]]] = {}
        self._versions = itertools.count(1)

    def blocks(self, state: State, now: int) -> dict[str, ControlBlock]:
        """The block of each deck that has a loop, for the time from output sample `now` on."""
        here = state.tempo.cycle_at(now)
        blocks = {}
        for name, deck in state.decks.items():
            if deck.loop is None:
                continue
            lanes, loop = self._lanes_of(state, deck, here), deck.sampled(now)
            sampler = self._decks.setdefault(name, DeckSampler())
            blocks[name] = sampler.block(
                name, next(self._versions), lanes, loop, state.tempo, now, state.always
            )
            for trouble in sampler.trouble():
                self._tell(f"{name}: {trouble}; its last good values hold")
        return blocks

    def master(self, state: State, now: int) -> dict[str, MixPoints]:
        """The automation of the master strip."""
        here = state.tempo.cycle_at(now)
        lanes = state.globals.bound_lanes(here)
        mix = strip_lanes({n: lane.resolve(state.hands) for n, lane in lanes.items()})
        points: dict[str, MixPoints] = {}
        for name, lane in mix.items():
            points |= strip_points(name, lane, state.tempo, now)
        return points

    def _lanes_of(self, state: State, deck: DeckState, here: Fraction) -> Mapping[str, LaneLike]:
        # The same objects while nothing changes, so that the plan made from them stays good.
        gone = tuple(sorted(k for k, cycle in deck.leaving.items() if cycle <= here))
        key = (deck.lanes, gone, state.hands.version, state.sides, state.globals)
        known = self._lanes.get(deck.name)
        if known is None or any(a is not b and a != b for a, b in zip(known[0], key, strict=True)):
            known = self._lanes[deck.name] = (key, state.lanes(deck, here))
        return known[1]
