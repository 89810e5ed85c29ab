"""What a score plays elsewhere, worked out ahead of the sound.

A stretch of cycles gives the messages of each deck that says `to`, with the output samples at which
they belong: OSC, SuperDirt's notes, MIDI; and the events of every deck, for visuals. A step of a
pattern is a message; a curve, a knob and a constant are one where their value changes, and at each
bar.

Threads: pure functions of a State, but for `sent`, which belongs to the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from demon_live.controls import CONTROLS
from demon_live.core import RATES
from demon_live.errors import ScoreError
from demon_live.lang.chain import ChainLane, RestartedLane
from demon_live.lang.destinations import cc_of
from demon_live.lang.lane import ControllerLane, Lane, PatternLane, TransitionLane
from demon_live.lang.pattern import Event
from demon_live.notes.harmony import written_pitches
from demon_live.session.state import DeckState, State
from demon_live.session.tempo import TempoMap

#: Values of a moving curve: 40 a second.
GRID = RATES.sample_rate // 40
#: A stretch in which an event is looked for that sounds at its beginning, in cycles.
_MOMENT = Fraction(1, 1 << 20)
#: How hard a MIDI note is that says nothing of it.
_VELOCITY = 0.8
Value = float | str
#: (deck, name) -> what was sent last of a curve.
Sent = MutableMapping[tuple[str, str], object]


@dataclass(frozen=True, slots=True)
class OscMessage:
    """A message that belongs at an output sample."""

    sample: int
    address: str
    values: tuple[int | float | str, ...]


@dataclass(frozen=True, slots=True)
class MidiNote:
    """A note from one output sample to another. channel: 0 to 15. pitch, velocity: 0 to 127."""

    sample: int
    end: int
    channel: int
    pitch: int
    velocity: int


@dataclass(frozen=True, slots=True)
class MidiControl:
    """Raw bytes that belong at an output sample."""

    sample: int
    data: bytes


def is_open(state: State, deck: str, sample: int) -> bool:
    """Whether a deck is neither muted nor hushed at an output sample."""
    if state.hushed:
        return False
    gates = [gate for gate in state.gates if gate.at <= sample] or state.gates[:1]
    if not gates:
        return True
    return deck not in gates[-1].muted and (not gates[-1].soloed or deck in gates[-1].soloed)


def playing(state: State, sample: int) -> dict[str, DeckState]:
    """The decks that play at an output sample, those that are about to end among them."""
    ending = {deck.name: deck for deck, at in state.ending if sample < at}
    return {**ending, **state.decks}


def _lanes(state: State, deck: DeckState, cycle: Fraction) -> dict[str, Lane]:
    return {n: lane.resolve(state.hands) for n, lane in deck.bound_lanes(cycle).items()}


def _part(lane: Lane, cycle: Fraction) -> Lane:
    """The part of a lane that plays at a cycle."""
    while True:
        if isinstance(lane, TransitionLane) and cycle >= lane.over:
            lane = lane.new
        elif isinstance(lane, ChainLane) and lane.sounding(cycle) is lane:
            lane = lane.section(cycle)
        elif isinstance(lane, RestartedLane):
            cycle -= lane.begin
            lane = lane.lane
        elif lane.sounding(cycle) is lane:
            return lane
        else:
            lane = lane.sounding(cycle)


def _is_curve(lane: Lane, cycle: Fraction) -> bool:
    """Whether a lane has a value at a cycle, but no steps that begin."""
    part = _part(lane, cycle)
    if isinstance(part, PatternLane):
        constant = part.pattern.const is not None or part.pattern.curve is not None
        return constant or part.continuous
    # What a knob does is not known before it moves.
    return part.continuous and not isinstance(part, ControllerLane)


def _steps(lane: Lane, begin: Fraction, end: Fraction) -> list[Event]:
    """The steps that begin in [begin, end), ascending."""
    found = [e for e in lane.events(begin, end) if e.onset and not _is_curve(lane, e.begin)]
    return sorted(found, key=lambda event: event.begin)


def _value_at(lane: Lane, cycle: Fraction) -> Value | None:
    """The value at a cycle; None in a rest."""
    found: list[Event] = lane.events(cycle, cycle + _MOMENT)
    if found:
        value: Value = found[-1].value
        return value
    return lane.at(cycle) if _is_curve(lane, cycle) else None


def _moments(lane: Lane, tempo: TempoMap, begin: Fraction, end: Fraction) -> list[int]:
    """The output samples in a stretch at which the value of a curve may be another."""
    first, last = tempo.sample_at(begin), tempo.sample_at(end)
    cycles = [*lane.jumps(begin, end), *map(Fraction, range(-(-begin // 1), -(-end // 1)))]
    grid = range(-(-first // GRID) * GRID, last, GRID) if lane.continuous else (first,)
    moments = {*grid, *map(tempo.sample_at, cycles)}
    return sorted(moment for moment in moments if moment < last)


def _changes(
    key: tuple[str, str],
    lane: Lane,
    tempo: TempoMap,
    begin: Fraction,
    end: Fraction,
    sent: Sent,
    form: Callable[[Value], object] = lambda value: value,
) -> Iterator[tuple[int, Value]]:
    """(output sample, value) of a curve where it changes, and at each bar. form: what is sent."""
    if not (_is_curve(lane, begin) or _is_curve(lane, end)):
        sent.pop(key, None)
        return
    moments = _moments(lane, tempo, begin, end)
    cycles = tempo.cycles_at(np.array(moments, np.int64))
    numbers = lane.sample(cycles) if lane.kind == "number" else None
    for i, moment in enumerate(moments):
        exact = tempo.cycle_at(moment)
        if not _is_curve(lane, exact):
            sent.pop(key, None)
            continue
        value: Value = str(lane.at(exact)) if numbers is None else float(numbers[i])
        bar = tempo.sample_at(Fraction(round(exact))) == moment
        if form(value) != sent.get(key) or bar:
            sent[key] = form(value)
            yield moment, value


def _plain(value: Value) -> Value:
    return value if isinstance(value, str) else float(value)


def _length(tempo: TempoMap, event: Event) -> int:
    """The length of a whole event, in samples."""
    assert event.whole_begin is not None
    assert event.whole_end is not None
    return tempo.sample_at(event.whole_end) - tempo.sample_at(event.whole_begin)


def steps(state: State, deck: DeckState, begin: Fraction, end: Fraction) -> dict[str, list[Event]]:
    """The steps of each lane of a deck that begin in [begin, end)."""
    lanes = _lanes(state, deck, begin)
    return {name: _steps(lane, begin, end) for name, lane in lanes.items()}


def events(tempo: TempoMap, deck: str, found: Mapping[str, list[Event]]) -> Iterator[OscMessage]:
    """Steps that sound, for visuals: /demon/event DECK NAME VALUE CYCLE SECONDS."""
    for name, rows in found.items():
        for event in rows:
            seconds = _length(tempo, event) / RATES.sample_rate
            row = (deck, name, _plain(event.value), float(event.begin), seconds)
            yield OscMessage(tempo.sample_at(event.begin), "/demon/event", row)


def osc(
    state: State,
    deck: DeckState,
    begin: Fraction,
    end: Fraction,
    found: Mapping[str, list[Event]],
    sent: Sent,
) -> Iterator[OscMessage]:
    """What a deck sends that says `to osc`: /DECK/NAME VALUE. found: its `steps`."""
    tempo = state.tempo
    for name, lane in _lanes(state, deck, begin).items():
        rows = [(tempo.sample_at(event.begin), event.value) for event in found[name]]
        rows += _changes((deck.name, name), lane, tempo, begin, end, sent)
        for sample, value in sorted(rows, key=lambda row: row[0]):
            yield OscMessage(sample, f"/{deck.name}/{name}", (_plain(value),))


# --- SuperDirt -------------------------------------------------------------------------------


def superdirt(
    state: State, deck: DeckState, begin: Fraction, end: Fraction, orbit: int = 0
) -> Iterator[OscMessage]:
    """The notes of a deck that says `to superdirt`: /dirt/play with names and values, as Tidal.

    orbit: where it says none itself.

    The first of s, note and n that has steps gives the rhythm; the others are read where a step
    begins, and a rest of one of them is a rest of the note.
    """
    lanes, tempo = _lanes(state, deck, begin), state.tempo
    rhythm = _rhythm(lanes, begin)
    if rhythm is None:
        return
    for event in _begins(lanes[rhythm], begin, end):
        found = {n: _value_at(lane, event.begin) for n, lane in lanes.items() if n != rhythm}
        found[rhythm] = event.value
        segment = tempo.segment_at(event.begin)
        head: dict[str, int | float | str] = {
            "_id_": deck.name,
            "cps": RATES.sample_rate / float(segment.length),
            "cycle": float(event.begin),
            "delta": _length(tempo, event) / RATES.sample_rate,
            "orbit": orbit,
        }
        for row in _dirt_rows(found):
            flat: list[int | float | str] = []
            for pair in {**head, **row}.items():
                flat += pair
            yield OscMessage(tempo.sample_at(event.begin), "/dirt/play", tuple(flat))


def _rhythm(lanes: Mapping[str, Lane], begin: Fraction) -> str | None:
    names = [name for name in ("s", "note", "n") if name in lanes]
    stepped = [name for name in names if not _is_curve(lanes[name], begin)]
    return next(iter([*stepped, *names]), None)


def _begins(lane: Lane, begin: Fraction, end: Fraction) -> list[Event]:
    """The steps of a lane; a constant begins at each cycle."""
    return sorted((e for e in lane.events(begin, end) if e.onset), key=lambda event: event.begin)


def _dirt_rows(found: Mapping[str, Value | None]) -> list[dict[str, int | float | str]]:
    """Names and values of a note, one row for each note of a chord; none if one of them rests."""
    row: dict[str, int | float | str] = {}
    for name, value in found.items():
        if value is None or value == "":
            return []
        row[name] = _plain(value)
    sound, colon, number = str(row.get("s", "")).partition(":")
    if colon and number.isdigit():
        row |= {"s": sound, "n": float(number)}
    if "orbit" in row:
        row["orbit"] = int(float(row["orbit"]))
    if not isinstance(row.get("note"), str):
        return [row]
    # SuperDirt counts from the middle c.
    return [{**row, "note": pitch - 60.0} for pitch in _pitches(row["note"])]


def _pitches(value: Value) -> tuple[float, ...]:
    """The pitches of a number, a note name or the name of a chord; () for another word."""
    try:
        return (float(value),)
    except ValueError:
        with contextlib.suppress(ScoreError):
            return written_pitches(value, CONTROLS["chord"])
    return ()


# --- MIDI ------------------------------------------------------------------------------------


def midi(
    state: State, deck: DeckState, begin: Fraction, end: Fraction, sent: Sent
) -> Iterator[MidiNote | MidiControl]:
    """What a deck sends that says `to midi`: notes, controllers, bends and programs."""
    assert deck.to is not None
    lanes, channel = _lanes(state, deck, begin), deck.to.channel - 1
    for name in ("note", "chord"):
        if name in lanes:
            yield from _notes(state.tempo, lanes, name, channel, begin, end)
    for name, lane in lanes.items():
        if cc_of(name) is None and name not in ("bend", "program"):
            continue
        key, once = (deck.name, name), name == "program"
        rows = [(state.tempo.sample_at(e.begin), e.value) for e in _steps(lane, begin, end)]
        form = partial(_control, channel, name)
        rows += _changes(key, lane, state.tempo, begin, end, {} if once else sent, form)
        for sample, value in sorted(rows, key=lambda row: row[0]):
            data = form(value)
            # A program that is sent again would cut the sound of many a synth.
            if data and not (once and sent.get(key) == data):
                if once:
                    sent[key] = data
                yield MidiControl(sample, data)


def _control(channel: int, name: str, value: Value) -> bytes:
    """A controller from 0 to 1, a bend from -1 to 1, a program from 0 to 127; b"" for a word."""
    if isinstance(value, str):
        return b""
    if name == "program":
        return bytes((0xC0 | channel, min(max(round(float(value)), 0), 127)))
    number = cc_of(name)
    if number is None:
        bend = min(max(round(8192 + float(value) * 8192), 0), 16383)
        return bytes((0xE0 | channel, bend & 127, bend >> 7))
    return bytes((0xB0 | channel, number, _seven(float(value))))


def _seven(part: float) -> int:
    return min(max(round(part * 127), 0), 127)


def _notes(
    tempo: TempoMap,
    lanes: Mapping[str, Lane],
    name: str,
    channel: int,
    begin: Fraction,
    end: Fraction,
) -> Iterator[MidiNote]:
    for event in _begins(lanes[name], begin, end):

        def read(other: str, default: float, at: Fraction = event.begin) -> float:
            value = _value_at(lanes[other], at) if other in lanes else default
            return 0.0 if value is None or isinstance(value, str) else float(value)

        velocity = _seven(read("velocity", _VELOCITY) * read("gain", 1.0))
        legato = read("legato", 1.0)
        if velocity <= 0 or legato <= 0:
            continue
        sample = tempo.sample_at(event.begin)
        over = max(sample + 1, sample + round(_length(tempo, event) * legato))
        for pitch in dict.fromkeys(round(p) for p in _pitches(event.value)):
            if 0 <= pitch <= 127:
                yield MidiNote(sample, over, channel, pitch, velocity)
