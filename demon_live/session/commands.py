"""Performance words: what may be wrong with each, and what each does to a session.

    hush panic · mute unmute solo unsolo · crossfade · undo redo · snapshot recall · learn · tap ·
    record stop · save load

Every word is checked before anything is changed. Words that concern files or devices of this very
session are not done again by a replay (NOT_REPLAYED): what they led to has its own line in the set.

Threads: under the session's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from demon_live.controls import SETTINGS, Control, find
from demon_live.errors import ScoreError, nearest
from demon_live.lang import Bind, Program, Setting, When, Word
from demon_live.lang.destinations import turned
from demon_live.session.agenda import TIMED
from demon_live.session.edit import Edit
from demon_live.session.inputs import Inputs
from demon_live.session.scores import as_score, write_score
from demon_live.session.state import State
from demon_live.session.status import Outcome
from demon_live.session.tempo import TAPS, tap, tapped
from demon_live.session.undo import Undo
from demon_live.sets.recorder import Recorder

NOT_REPLAYED = frozenset({"record", "stop", "save", "load", "learn", "tap"})


class Playing(Protocol):
    """What commands need of a session."""

    snapshots: dict[str, State]
    undone: Undo
    taps: list[float]
    recorder: Recorder
    inputs: Inputs

    @property
    def author(self) -> str: ...
    @property
    def state(self) -> State: ...
    def swap(self, state: State) -> None: ...
    def edit(self, now: int, base: str = ...) -> Edit: ...
    def commit(self, edit: Edit, state: State) -> None: ...
    def apply(self, text: str, name: str = ...) -> Outcome: ...
    def load(self, path: Path | str) -> Outcome: ...
    def clock(self) -> float: ...


def check_word(session: Playing, word: Word, state: State) -> None:
    """Raises ScoreError if a word cannot be done in `state`. Changes nothing."""
    if word.when.kind not in ("quant", "now") and word.name not in TIMED:
        raise ScoreError(
            f"{word.name} acts at once and takes no {word.when.kind}",
            span=word.span,
            hint="these may wait: " + ", ".join(sorted(TIMED)),
        )
    match word.name:
        case "mute" | "unmute" | "solo" | "crossfade":
            _known(word, word.args, state.decks, "deck")
            if word.name == "crossfade" and len(set(word.args)) == 1:
                raise ScoreError("a deck is on one side only", span=word.span)
        case "recall":
            _known(word, word.args, session.snapshots, "snapshot")
        case "undo" | "redo":
            try:
                session.undone.wanted(word.name, state, session.author)
            except ScoreError as error:
                error.span = word.span
                raise
        case "learn":
            _check_learn(word, state)
        case "record":
            session.recorder.check(word)
        case "save" if os.path.exists(_save_path(word)):
            raise ScoreError(
                f"{_save_path(word)} exists already", span=word.span, hint="choose another name"
            )


def check_decks(text: str, program: Program, state: State) -> None:
    """Raises ScoreError where the prompt says `drumz.gain = .4` and no deck has that name.

    A slip of the finger would begin a deck that plays beside all others.
    """
    reached: list[Bind] = []
    begun: set[str] = set()
    for row in program.statements:
        if isinstance(row, Bind) and text.startswith(f"{row.deck}.", row.span.start):
            reached.append(row)
        elif isinstance(row, Bind | Setting):
            begun.add(row.deck)
    known = sorted(state.decks.keys() | begun)
    for bind in reached:
        if bind.deck not in known:
            near = nearest(bind.deck, known)
            mean = f"did you mean {near[0]}? " if near else ""
            raise ScoreError(
                f"there is no deck {bind.deck!r}",
                span=bind.span,
                hint=f"{mean}a new deck begins with: deck {bind.deck} {{ {bind.control} = ... }}",
            )


def _known(word: Word, names: Iterable[str], there: Iterable[str], what: str) -> None:
    known = sorted(there)
    for name in names:
        if name not in known:
            near = nearest(name, known)
            listed = f"{what}s: {', '.join(known)}" if known else f"there is no {what} yet"
            hint = f"did you mean {near[0]}?" if near else listed
            raise ScoreError(f"there is no {what} {name!r}", span=word.span, hint=hint)


def _target(word: Word) -> tuple[str, str]:
    """The deck and the control that `learn` names: learn blend, learn drums.blend."""
    name = word.args[0]
    deck, dot, control = name.partition(".")
    return (deck, control) if dot and deck != "lora" else ("main", name)


def _turned(state: State, deck: str, name: str) -> Control | None:
    """The control of a deck that a knob is to turn."""
    to = state.decks[deck].to if deck in state.decks else None
    return find(name) if to is None or name == "fader" else turned(name, to.kind)


def _check_learn(word: Word, state: State) -> None:
    if not word.args:
        return
    deck, name = _target(word)
    control = _turned(state, deck, name)
    if control is None or control.cls == "prepared":
        raise ScoreError(
            f"there is no control {name!r} to learn",
            span=word.span,
            hint="learn blend, learn drums.gain, learn fader",
        )
    if control.cls == "notes" and control.shape != "number":
        raise ScoreError(
            f"{name} takes {control.shape}, and a knob gives numbers",
            span=word.span,
            hint=f"its loudness: learn {name}_level; keys play it: {name} = note.segment(16)",
        )
    if not control.numeric:
        raise ScoreError(
            f"{name} takes {'sound files' if control.shape == 'file' else control.shape}, "
            "and a knob gives numbers",
            span=word.span,
            hint="keys and knobs may choose: note = (cc(21) * 24 + 48).round"
            if control.cls == "out"
            else "a knob may choose: prompt = (cc(21) * 2).round.pick('calm', 'acid', 'drone')",
        )
    if deck != "main" and name != "fader":
        _known(word, [deck], state.decks, "deck")


def do_word(session: Playing, word: Word, now: int) -> list[str]:
    """Do it; what happened, one line each."""
    return _WORDS[word.name](session, word, now)


def _moment(session: Playing, word: Word, now: int) -> tuple[int, str]:
    """(output sample from which a word counts, 0 for at once; the same in words)."""
    edit = session.edit(now)
    if word.when.kind not in ("at", "in") and edit.due is None:
        return 0, ""
    cycle = edit.effect(word.when)
    return session.state.tempo.sample_at(cycle), f" · from bar {float(cycle):g}"


def _hush(session: Playing, word: Word, now: int) -> list[str]:
    session.swap(replace(session.state, hushed=True))
    return ["hush · 10 ms fade · the next statement brings the sound back"]


def _panic(session: Playing, word: Word, now: int) -> list[str]:
    _hush(session, word, now)
    state = session.state
    decks = {n: replace(d, lanes=dict(d.bound), leaving={}) for n, d in state.decks.items()}
    shared = replace(state.globals, lanes=dict(state.globals.bound), leaving={})
    session.swap(replace(state, decks=decks, globals=shared, panics=state.panics + 1))
    return ["panic · silence, the ring is empty, transitions are forgotten"]


def _strip(session: Playing, word: Word, now: int) -> list[str]:
    state = session.state
    decks = frozenset(word.args) or frozenset(state.decks)
    muted, soloed = state.muted, state.soloed
    if word.name == "mute":
        muted |= decks
    elif word.name == "unmute":
        muted -= decks
    elif word.name == "solo":
        soloed = decks
    else:
        soloed = frozenset()
    at, when = _moment(session, word, now)
    session.swap(state.with_gates(muted, soloed, at, now))
    names = "" if word.name == "unsolo" else f" {', '.join(sorted(decks))}"
    return [f"{word.name}{names}{when}"]


def _crossfade(session: Playing, word: Word, now: int) -> list[str]:
    if not word.args:
        session.swap(replace(session.state, sides={}))
        return ["crossfade · no deck is under the fader"]
    sides = dict(zip(word.args, "ab", strict=True))
    session.swap(replace(session.state, sides=sides))
    fader = session.state.globals.bound.get("fader")
    place = f"fader = {fader.text}" if fader is not None else "fader 0, so all of the first"
    return [f"crossfade · {word.args[0]} (0) to {word.args[1]} (1) · {place}"]


def _back(session: Playing, word: Word, now: int) -> list[str]:
    try:
        wanted = session.undone.step(word.name, session.state, session.author)
    except ScoreError as error:
        # What the same text says before it.
        return [error.message]
    if wanted is None:
        others = session.undone.others(word.name)
        return [f"nothing of yours to {word.name}" if others else f"nothing to {word.name}"]
    was = session.state.hushed
    messages = go_to(session, wanted, When("quant"), now)
    if was and not wanted.hushed:
        session.swap(replace(session.state, hushed=False))
        messages.append(f"{word.name}: the sound is back")
    elif wanted.hushed and not was and word.name == "redo":
        messages += _hush(session, word, now)
    return messages or [f"{word.name}: nothing changes"]


def go_to(session: Playing, wanted: State, when: When, now: int) -> list[str]:
    """All that `wanted` says, from `when` on. Bindings move there with an over or xfade."""
    edit = session.edit(now)
    edit.restore(wanted, when)
    before = session.state
    timed = when.kind in ("at", "in") or edit.due is not None
    at = edit.state.tempo.sample_at(edit.effect(when)) if timed else 0
    state = replace(
        edit.state,
        files=wanted.files,
        quant=wanted.quant,
        depth=wanted.depth,
        always=wanted.always,
        steps=wanted.steps,
        sides=wanted.sides,
        lets=wanted.lets,
        scenes=wanted.scenes,
    )
    if (wanted.muted, wanted.soloed) != (before.muted, before.soloed):
        state = state.with_gates(wanted.muted, wanted.soloed, at, now)
    session.commit(edit, state)
    if (state.muted, state.soloed) != (before.muted, before.soloed):
        edit.messages.append(_gated(before, state))
    if dict(state.sides) != dict(before.sides):
        under = " and ".join(state.sides) or "no deck"
        edit.messages.append(f"crossfade: {under} under the fader")
    for what in ("quant", "depth", "steps"):
        value = getattr(state, what)
        if value != getattr(before, what):
            edit.messages.append(f"{what} {value if value is not None else 'as at the start'}")
    return edit.messages


def _gated(before: State, state: State) -> str:
    """The words that lead from the mutes and solos of `before` to those of `state`."""
    rows = [("mute", state.muted - before.muted), ("unmute", before.muted - state.muted)]
    if state.soloed != before.soloed:
        rows.append(("solo" if state.soloed else "unsolo", state.soloed))
    return " · ".join(
        " ".join([word, *sorted(decks)]) for word, decks in rows if decks or word == "unsolo"
    )


def _snapshot(session: Playing, word: Word, now: int) -> list[str]:
    name = word.args[0]
    again = name in session.snapshots
    session.snapshots = {**session.snapshots, name: session.state}
    return [f"snapshot {name} · {'taken again' if again else 'taken'} · recall {name}"]


def _recall(session: Playing, word: Word, now: int) -> list[str]:
    messages = go_to(session, session.snapshots[word.args[0]], word.when, now)
    return [f"recall {word.args[0]}", *messages]


def _learn(session: Playing, word: Word, now: int) -> list[str]:
    if not word.args:
        session.inputs.learn(None)
        return ["learn: nothing waits for a knob"]
    deck, control = _target(word)
    session.inputs.learn((deck, control), _turned(session.state, deck, control))
    label = control if deck == "main" or control == "fader" else f"{deck}.{control}"
    problem = session.inputs.problem()
    return [f"learn {label} · move a knob", *([problem] if problem else [])]


def _tap(session: Playing, word: Word, now: int) -> list[str]:
    session.taps = tap(session.taps, session.clock())
    bpm, count, limits = tapped(session.taps), len(session.taps), SETTINGS["tempo"]
    if bpm is None:
        return [f"tap {count} of {TAPS}"]
    if not limits.low <= bpm <= limits.high:
        return [f"tap · {float(bpm):g} bpm is no tempo: {limits.range_text}"]
    # The set says the tempo that was tapped.
    return ["tap", *session.apply(f"tempo {float(bpm):g}", "<tap>").messages]


def _record(session: Playing, word: Word, now: int) -> list[str]:
    # In the first bar it is the whole set that is recorded.
    late = session.state.tempo.cycle_at(now) >= 1
    return [session.recorder.begin(word, now if late else 0)]


def _stop(session: Playing, word: Word, now: int) -> list[str]:
    return [session.recorder.end(now)]


def _save_path(word: Word) -> Path:
    name = word.args[0]
    return Path(name if name.endswith(".demon") else f"{name}.demon")


def _save(session: Playing, word: Word, now: int) -> list[str]:
    path = _save_path(word)
    write_score(path, as_score(session.state, path.parent))
    return [f"saved · {path}"]


def _load(session: Playing, word: Word, now: int) -> list[str]:
    path = Path(word.args[0])
    if not path.suffix and not path.exists():
        # As `save` calls it.
        path = _save_path(word)
    outcome = session.load(path)
    return [*outcome.messages, *outcome.warnings]


_WORDS: Mapping[str, Callable[[Playing, Word, int], list[str]]] = {
    "hush": _hush,
    "panic": _panic,
    "mute": _strip,
    "unmute": _strip,
    "solo": _strip,
    "unsolo": _strip,
    "crossfade": _crossfade,
    "undo": _back,
    "redo": _back,
    "snapshot": _snapshot,
    "recall": _recall,
    "learn": _learn,
    "tap": _tap,
    "record": _record,
    "stop": _stop,
    "save": _save,
    "load": _load,
}
