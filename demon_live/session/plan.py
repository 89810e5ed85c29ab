"""What is decided ahead: the settings that a chain brings, and the steps of a ramp of the tempo.

Threads: pure functions of a State.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from demon_live.core import Beats
from demon_live.lang import Setting
from demon_live.lang.destinations import read_destination
from demon_live.session.settings import beats_of
from demon_live.session.state import Planned, State
from demon_live.session.tempo import TempoMap, bars

#: Steps of a plan whose tempos the tempo map has.
_FORECAST = 64
#: Denominator of the tempo that a ramp begins with.
_FINEST = 10**30


def _rates(start: Fraction, end: Fraction, steps: int) -> list[Fraction]:
    """The tempos of a ramp. Ramps that interrupt each other would make ever longer fractions."""
    start = start.limit_denominator(max(_FINEST, end.denominator))
    return [start + (end - start) * (k + 1) / steps for k in range(steps)]


def next_time(step: Planned, here: Fraction) -> Planned | None:
    """The next time that a step of a plan comes; None: it is over."""
    if step.cycle > here:
        return step
    if not step.every:
        return None
    rounds = (here - step.cycle) // step.every + 1
    return replace(step, cycle=step.cycle + rounds * step.every)


def in_force(state: State, row: Setting) -> bool:
    """Whether a setting has this value."""
    deck = state.decks.get(row.deck)
    if row.word in ("hold", "overdub"):
        wanted = deck.capture if deck is not None else None
        return row.value == ("on" if wanted is not None and getattr(wanted, row.word) else "off")
    if row.word == "source":
        return deck is not None and deck.source_said == (row.value or "none", row.reading)
    if row.word == "to":
        to = read_destination(str(row.value), row.reading) if row.value is not None else None
        return deck is not None and deck.to == to
    if row.value == "auto":
        return state.depth is None
    value: object
    if row.word in ("loop", "out"):
        value = deck and (deck.cycles if row.word == "loop" else deck.out)
    elif row.word == "cps":
        value = state.bpm / 60 / state.beats
    else:
        value = getattr(state, "bpm" if row.word == "tempo" else row.word, None)
    if value is None or isinstance(value, str | bool):
        return False
    return Fraction(str(value)) == Fraction(str(row.value))


def _coming(state: State) -> Iterator[tuple[Fraction, Fraction, Beats]]:
    """(cycle, bpm, beats) of the changes of tempo that the plan will bring."""
    plan = list(state.plan)
    bpm, beats = state.ramp[-1][1] if state.ramp else state.bpm, state.beats
    for _ in range(_FORECAST if plan else 0):
        if not plan:
            return
        step = min(plan, key=lambda planned: planned.cycle)
        plan.remove(step)
        if step.every:
            plan.append(replace(step, cycle=step.cycle + step.every))
        before, over = (bpm, beats), None
        for row in step.rows:
            if row.word == "beats":
                beats = beats_of(row)
            elif row.word in ("tempo", "cps"):
                rate = Fraction(str(row.value))
                bpm = rate if row.word == "tempo" else rate * 60 * beats
                over = row.when if row.when.kind == "over" else row.when.then
        if over is not None:
            rates = _rates(before[0], bpm, max(1, int(over.cycles)))
            yield from ((step.cycle + k, rate, beats) for k, rate in enumerate(rates))
        elif before != (bpm, beats):
            yield step.cycle, bpm, beats


def forecast(state: State) -> State:
    """With the tempos of the plan in the tempo map, so that what is to come has its place."""
    tempo = state.tempo
    for cycle, bpm, beats in _coming(state):
        tempo = tempo.change(cycle, bpm, beats)
    return replace(state, tempo=tempo)


def unplanned(state: State, now: int) -> State:
    """Without what a chain would still bring after output sample `now`."""
    here = state.tempo.cycle_at(now)
    coming = {cycle for cycle, _, _ in _coming(state) if cycle > here}
    first, *others = state.tempo.segments
    kept = (first, *(s for s in others if s.cycle not in coming))
    return replace(state, tempo=TempoMap(kept), plan=())


def ramped(state: State, rows: Sequence[Setting], begin: Fraction) -> tuple[State, str]:
    """`tempo 128 over 4` from cycle `begin` on: the tempo map goes there in steps of a cycle; each
    step's loops are prepared when it is near (`Edit.step`).

    Args:
        state: what plays, with the tempo that is meant.
        rows: all settings of the text.
        begin: their cycle.

    Returns:
        The state, and a line for the performer; "" where nothing moves.
    """
    moves = [(r, r.when if r.when.kind == "over" else r.when.then) for r in rows]
    over = next((m for r, m in moves if r.word in ("tempo", "cps") and m is not None), None)
    if over is None:
        return state, ""
    start, steps = state.tempo.segment_at(begin).bpm, max(1, int(over.cycles))
    rates = _rates(start, state.bpm, steps)
    start = start.limit_denominator(max(_FINEST, state.bpm.denominator))
    tempo, target = state.tempo, state.bpm
    for k, bpm in enumerate(rates):
        tempo = tempo.change(begin + k, bpm, state.beats)
    ramp = tuple((begin + k, bpm) for k, bpm in enumerate(rates))[1:]
    said = (
        f"tempo {float(start):g} to {float(target):g} in {steps} steps of a bar, "
        f"from bar {bars(begin)}"
    )
    return replace(state, tempo=tempo, bpm=rates[0], ramp=ramp), said
