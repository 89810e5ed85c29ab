"""What a text no longer says: its controls, chains, settings and decks are given up.

What other texts say of them plays again.
"""

from __future__ import annotations

from dataclasses import replace

from demon_live.controls import DECK_SETTINGS
from demon_live.lang import Bind, Chain, Program, Scene, Setting, Statement, When, removed
from demon_live.lang.chain import ChainLane, find_scene
from demon_live.lang.program import same
from demon_live.session.edit import Edit
from demon_live.session.plan import in_force, unplanned
from demon_live.session.scores import folder_of
from demon_live.session.state import GLOBALS, State


def release(edit: Edit, old: Program | None, new: Program | None) -> None:
    """Take back what a file no longer says; what other texts say of it plays again."""
    gone = removed(old, new)
    for row in gone:
        if isinstance(row, Bind):
            _release(edit, row.deck, row.control, When())
    _release_chains(edit, old, new)
    if edit.rules > 1:
        _release_settings(edit, [row for row in gone if isinstance(row, Setting)], _decks_of(new))
    for name in sorted(_decks_of(old) - _decks_of(new)):
        deck = edit.state.decks.get(name)
        if deck is not None and not deck.bound and not _named_elsewhere(edit, name):
            edit.drop(name)


def overridden(state: State, name: str, program: Program) -> tuple[Statement, ...]:
    """The statements of a score that plays which something else has taken the place of: the prompt,
    an undo, the end of a deck. What another score says instead stays."""
    moved = {
        (row.deck, row.word)
        for scene in (*program.scenes.values(), *state.scenes.values())
        for row in scene.body
        if isinstance(row, Setting)
    }
    chained = {
        (row.deck, row.control)
        for chain in program.chains
        for scene, _ in chain.scenes
        if scene in state.scenes
        for row in state.scenes[scene].body
        if isinstance(row, Bind)
    }
    lost = {key for key in chained if not _says(state, name, *key)}
    last = {(row.deck, row.control): row for row in program.statements if isinstance(row, Bind)}
    rows: list[Statement] = []
    for row in program.statements:
        if isinstance(row, Bind):
            key = row.deck, row.control
            wanted = row is last[key] and key not in chained
            if wanted and not _says(state, name, *key, nothing=row.lane is None):
                rows.append(row)
        elif isinstance(row, Setting):
            if (row.deck, row.word) not in moved and _taken(state, name, row):
                rows.append(row)
        elif (isinstance(row, Chain) and lost) or (
            isinstance(row, Scene) and not same(state.scenes.get(row.name), row)
        ):
            rows.append(row)
    return tuple(rows)


def _says(state: State, name: str, deck: str, control: str, nothing: bool = False) -> bool:
    """Whether a score has its say about a control, if only below another score."""
    if deck != GLOBALS and deck not in state.decks:
        return False
    said = state.deck(deck).said.get(control, ())
    if nothing:
        return not said or said[-1].score != ""
    return any(row.score == name for row in said) and said[-1].score != ""


_RESTORED = frozenset({"tempo", "cps", "beats", "loop", "source", "quant", "depth", "steps", "to"})


def _taken(state: State, name: str, row: Setting) -> bool:
    """Whether a setting is not in force, and no other score says why."""
    clocked = state.ramp or state.link or state.clock == "in"
    if row.word not in _RESTORED or (clocked and row.word in ("tempo", "cps", "beats")):
        return False
    others = [
        other
        for score, program in state.files.items()
        for other in program.statements
        if score != name
        and isinstance(other, Setting)
        and (other.deck, other.word) == (row.deck, row.word)
    ]
    return not in_force(state, row) and not any(in_force(state, other) for other in others)


def _release(edit: Edit, name: str, control: str, when: When) -> None:
    if name != GLOBALS and name not in edit.state.decks:
        return
    deck = edit.state.deck(name)
    said = deck.said.get(control, ())
    others = edit.others(name, control) if edit.rules > 1 else ()
    same = said[-1].key == others[-1].key if said and others else said == others
    if same and edit.rules > 1:
        edit.state = edit.state.with_deck(deck.with_said(control, others))
    else:
        edit.bind_lane(name, control, others, edit.effect(when), when)


def _release_chains(edit: Edit, old: Program | None, new: Program | None) -> None:
    spoken = {c.key for c in new.chains} if new else set()
    over = [c for c in old.chains if c.key not in spoken] if old else []
    if over and not spoken:
        edit.state = unplanned(edit.state, edit.now)
    bodies = [
        find_scene(name, edit.scenes, chain.span).body for chain in over for name, _ in chain.scenes
    ]
    for bind in (row for body in bodies for row in body if isinstance(row, Bind)):
        known = {GLOBALS: edit.state.globals, **edit.state.decks}
        deck = known.get(bind.deck)
        if deck is not None and isinstance(deck.bound.get(bind.control), ChainLane):
            _release(edit, bind.deck, bind.control, bind.when)


def _release_settings(edit: Edit, gone: list[Setting], decks: set[str]) -> None:
    """A setting stays as it is, unless it is in force and another score says another value. One of
    the `decks` that go on sounds again where nothing says any more where it goes."""
    for row in gone:
        found = [
            (name, other)
            for name, program in _other_files(edit)
            for other in program.statements
            if isinstance(other, Setting) and (other.deck, other.word) == (row.deck, row.word)
        ]
        if found and in_force(edit.state, row) and not in_force(edit.state, found[-1][1]):
            name, other = found[-1]
            edit.base, base = folder_of(name), edit.base
            edit.set(other)
            edit.base = base
        elif row.word == "to" and not found and row.deck in decks:
            edit.set(replace(row, value=None, reading=""))
    if edit.renew:
        edit.begin = edit.begin if edit.begin is not None else edit.effect(When(), True)
        edit.build_loops()


def _other_files(edit: Edit) -> list[tuple[str, Program]]:
    return [(name, p) for name, p in edit.state.files.items() if name != edit.name]


def _named_elsewhere(edit: Edit, deck: str) -> bool:
    return edit.rules > 1 and any(deck in _decks_of(p) for _, p in _other_files(edit))


def _decks_of(program: Program | None) -> set[str]:
    """The decks that a text names."""
    rows = program.statements if program else ()
    bound = {row.deck for row in rows if isinstance(row, Bind)}
    staged = {r.deck for r in rows if isinstance(r, Setting) and r.word in DECK_SETTINGS}
    return (bound | staged) - {GLOBALS}
