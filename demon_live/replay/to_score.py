"""A set as a score that one can edit: what played, cycle by cycle, as scenes in a chain.

What was bound in a cycle becomes a scene; cycles that play the same share one. Tempo, loop and
source stand in the scenes if they change. Mutes, solos and hushes become gain 0, moves begin at
whole cycles and keep their length. What a chain cannot say stands in comments: the crossfader's
decks and the moves of controllers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

from demon_live.controls import FADER, NOTES, PLUS_NOTES, SETTINGS
from demon_live.core import Loop
from demon_live.errors import FileError
from demon_live.lang import Lane, Let, unparse
from demon_live.lang.chain import ChainLane
from demon_live.lang.destinations import Destination
from demon_live.lang.lane import GlideLane
from demon_live.lang.split import comments
from demon_live.lang.syntax import meter, number
from demon_live.runtime.seek import Moment
from demon_live.session.scores import SCORE_LIMIT
from demon_live.session.state import GLOBALS, DeckState, State, label_of
from demon_live.sets.journal import Recording

#: (deck, control) -> expression, with its move
Bindings = Mapping[tuple[str, str], str]
_STATEMENT = 15_000


def _flat(text: str) -> str:
    """An expression on one line, without comments."""
    for start, end in reversed(comments(text)):
        text = text[:start] + text[end:]
    return " ".join(text.split())


def sounding(lane: Lane, cycle: Fraction) -> Lane:
    """The part of a lane that is heard at a cycle: of chains the section."""
    lane = lane.sounding(cycle)
    while isinstance(lane, ChainLane):
        lane = lane.section(cycle).sounding(cycle)
    return lane


def _said(lane: Lane, cycle: Fraction) -> str:
    here = sounding(lane, cycle)
    text = _flat(here.text)
    if isinstance(here, GlideLane) and here.begin <= cycle < here.begin + 1:
        return f"{text} over {float(here.length):g}"
    return text


def bindings(state: State, cycle: Fraction) -> dict[tuple[str, str], str]:
    """What plays at a cycle, as expressions. A deck that is not heard has gain 0."""
    out: dict[tuple[str, str], str] = {}
    for name, deck in state.decks.items():
        begun = (
            deck.loop is not None
            and state.tempo.sample_at(cycle) >= (deck.before or deck.loop).from_sample
        )
        silent = name in state.muted or (state.soloed and name not in state.soloed)
        if deck.to is not None and (silent or state.hushed):
            # Elsewhere nothing is sent.
            continue
        for control, lane in deck.bound_lanes(cycle).items():
            out[name, control] = _said(lane, cycle)
        if deck.to is not None:
            continue
        if silent or state.hushed or not begun:
            out[name, "gain"] = "0"
    for control, lane in state.globals.bound_lanes(cycle).items():
        out[GLOBALS, control] = _said(lane, cycle)
    return out


def settings(state: State, cycle: Fraction) -> dict[tuple[str, str], str]:
    """Tempo, loops and sources at a cycle, as a score says them."""
    segment, sample = state.tempo.segment_at(cycle), state.tempo.sample_at(cycle)
    out = {(GLOBALS, "tempo"): f"{float(segment.bpm):g}", (GLOBALS, "beats"): meter(segment.beats)}
    for name, deck in state.decks.items():
        loop = deck.playing(sample)
        if loop is not None:
            out[name, "loop"] = str(loop.cycles)
            out[name, "source"] = _source_of(loop, deck)
    return out


def _source_of(loop: Loop, deck: DeckState) -> str:
    """The source of a loop, as a score says it; deck: what is known of the file."""
    if loop.source is None:
        return NOTES if loop.notes else "none"
    read = deck.tempo_reading if loop.source == deck.file else ""
    if deck.take is not None and loop.source == deck.take.name:
        read = f"beats {number(Fraction(deck.take.beats))}"
    return " ".join([f'"{loop.source}"', *filter(None, [read, PLUS_NOTES * loop.notes])])


def _cycles(moments: Sequence[Moment], end: int) -> Iterator[tuple[int, State]]:
    """Each whole cycle with the state that was decided by its first sample."""
    i, cycle = 0, 0
    while True:
        at = moments[i].state.tempo.sample_at(Fraction(cycle))
        while i + 1 < len(moments) and moments[i + 1].sample <= at:
            i += 1
            at = moments[i].state.tempo.sample_at(Fraction(cycle))
        if at >= end:
            return
        yield cycle, moments[i].state
        cycle += 1


def to_score(
    recording: Recording, moments: Sequence[Moment], first: int = 0, cycles: int | None = None
) -> str:
    """The score of a set, or of `cycles` of it from cycle `first` on. Raises FileError."""
    states = list(_cycles(moments, recording.length))
    last_cycle = math.inf if cycles is None else first + cycles
    outs = _outs([state for c, state in states if first <= c < last_cycle])
    said = [
        (_there(settings(s, Fraction(c)), s, outs), _there(bindings(s, Fraction(c)), s, outs))
        for c, s in states
    ]
    begin = first if first < len(said) else 0
    still = said[begin][0] if said else {}
    moving = {key for one, _ in said[begin:] for key in one if one[key] != still.get(key)}
    rows = [
        (c, s, {**{k: v for k, v in one.items() if k in moving}, **bound})
        for (c, s), (one, bound) in zip(states, said, strict=True)
    ]
    rows = [r for r in rows if first <= r[0] < last_cycle]
    if not rows or not any(b for _, _, b in rows):
        raise FileError("nothing plays in this stretch of the set", hint="see: demon set show")
    # A chain puts no decks under the fader: it is kept if they were there all the time.
    faded = all(dict(state.sides) == dict(rows[0][1].sides) for _, state, _ in rows)
    every = sorted(
        {key for _, _, b in rows for key in b if faded or key != (GLOBALS, FADER.name)},
        # A scene says first what its loops are made of.
        key=lambda key: (key[0], key[1] not in SETTINGS, key[1]),
    )
    scenes: dict[tuple[str, ...], str] = {}
    chain: list[tuple[str, int]] = []
    last: tuple[str, ...] = ()
    for _, _, here in rows:
        # A move is said once, where it begins: the cycles after it belong to the same scene.
        texts = tuple(here.get(key, _silent(key, here)) for key in every)
        if chain and _still(texts, last):
            chain[-1] = chain[-1][0], chain[-1][1] + 1
            continue
        last = texts
        name = scenes.setdefault(texts, f"s{len(scenes) + 1}")
        chain.append((name, 1))
    head = [*_head(recording, rows, still, outs), *_decks(rows, still, outs)]
    text = "\n".join([*head, *_body(every, scenes, chain, rows), ""])
    if len(text.encode()) > SCORE_LIMIT or max(map(len, text.splitlines())) > _STATEMENT:
        raise FileError(
            f"the set changes too often for one score ({len(scenes)} scenes)",
            hint="take a stretch of it: demon set to-score SET --from 16 --cycles 64",
        )
    return text


def _outs(states: Iterable[State]) -> dict[str, Destination]:
    """The decks that go elsewhere at any time, and where first: a chain does not move them."""
    found: dict[str, Destination] = {}
    for state in states:
        for name, deck in state.decks.items():
            if deck.to is not None:
                found.setdefault(name, deck.to)
    return found


def _there(
    said: dict[tuple[str, str], str], state: State, outs: Mapping[str, Destination]
) -> dict[tuple[str, str], str]:
    """What is said, without decks that are not where the score lets them go."""
    away = {n for n, to in outs.items() if n in state.decks and state.decks[n].to != to}
    return {key: text for key, text in said.items() if key[0] not in away}


def _silent(key: tuple[str, str], said: Bindings) -> str:
    """A control that is not bound; a deck that is not there is not heard either."""
    if key[1] in SETTINGS:
        return ""
    there = any(deck == key[0] for deck, _ in said) or key[0] == GLOBALS
    return "default" if there or key[1] != "gain" else "0"


def _still(texts: tuple[str, ...], last: tuple[str, ...]) -> bool:
    return all(a == b or a == b.rpartition(" over ")[0] for a, b in zip(texts, last, strict=True))


def _head(
    recording: Recording,
    rows: Sequence[tuple[int, State, Bindings]],
    still: Bindings,
    outs: Mapping[str, Destination],
) -> Iterator[str]:
    state = rows[0][1]
    name = recording.path.name if recording.path else "a set"
    yield f"# from {name}, cycles {rows[0][0]} to {rows[-1][0] + 1}"
    yield f"tempo {still[GLOBALS, 'tempo']}"
    if still[GLOBALS, "beats"] != "4":
        yield f"beats {still[GLOBALS, 'beats']}"
    before, goes = state, dict[str, Destination | None](outs)
    for cycle, now, _ in rows:
        if dict(now.sides) != dict(before.sides):
            under = " ".join(deck for deck, _ in sorted(now.sides.items(), key=lambda x: x[1]))
            yield f"# bar {cycle}: crossfade {under} (a chain does not move decks there)"
        for name in sorted(outs.keys() & now.decks.keys()):
            to = now.decks[name].to
            if to != goes[name]:
                goes[name] = to
                where = to.written if to is not None else "none"
                yield f"# bar {cycle}: deck {name} to {where} (a chain does not move decks there)"
        before = now
    if rows[-1][1].hands.version:
        yield "# knobs moved in this set; their moves are not part of the score"
    lets: dict[str, Let] = {}
    for _, now, _ in rows:
        for program in now.files.values():
            lets.update(program.lets)
        lets.update(now.lets)
    yield from (unparse(let.node) for let in lets.values())


def _decks(
    rows: Sequence[tuple[int, State, Bindings]], still: Bindings, outs: Mapping[str, Destination]
) -> Iterator[str]:
    """Each deck as it began."""
    for name in dict.fromkeys(name for _, state, _ in rows for name in state.decks):
        if name in outs:
            yield from ("", f"deck {name}", f"to {outs[name].written}")
            continue
        loop, source = still.get((name, "loop")), still.get((name, "source"))
        if loop is not None and source is not None:
            yield from ("", f"deck {name}", f"loop {loop}", f"source {source}")
    # The scenes that follow speak of the first deck, unless they name another.
    yield from ("", "deck main")


def _body(
    every: Sequence[tuple[str, str]],
    scenes: Mapping[tuple[str, ...], str],
    chain: Sequence[tuple[str, int]],
    rows: Sequence[tuple[int, State, Bindings]],
) -> Iterator[str]:
    for texts, name in scenes.items():
        yield from ("", f"scene {name} {{")
        deck = "main"
        for (on, control), text in zip(every, texts, strict=True):
            if not text:
                continue
            if on not in (deck, GLOBALS):
                yield from ["  }"] if deck != "main" else []
                yield from [f"  deck {on} {{"] if on != "main" else []
                deck = on
            label = label_of(on, control) if on == GLOBALS and control not in SETTINGS else control
            line = f"{label} {text}" if control in SETTINGS else f"{label} = {text}"
            yield f"{'  ' if deck == 'main' else '    '}{line}"
        yield from ["  }", "}"] if deck != "main" else ["}"]
    sides: Mapping[str, str] = rows[0][1].sides
    if any(on == GLOBALS for on, _ in every) and len(sides) == 2:
        yield from ("", "crossfade " + " ".join(sorted(sides, key=lambda d: sides[d])))
    yield from ("", "chain " + ", ".join(f"{name} {length}" for name, length in chain) + " once")
