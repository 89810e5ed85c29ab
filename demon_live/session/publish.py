"""From the State to what engine and mixer should be doing: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from demon_live.core import (
    ControlBlock,
    EngineDeck,
    EngineState,
    Gate,
    MixDeck,
    MixState,
    Sound,
    Timbre,
)
from demon_live.session.state import State

Blocks = Mapping[str, ControlBlock]


def engine_state(state: State, blocks: Blocks, sounds: frozenset[Sound]) -> EngineState:
    """What the engine should be doing.

    Args:
        state: what plays.
        blocks: the newest of each deck.
        sounds: all timbres that may be asked for.
    """
    decks = {
        name: EngineDeck(deck.loop, blocks.get(name), deck.moves)
        for name, deck in state.decks.items()
        if deck.loop is not None
    }
    timbres = tuple(Timbre(s.key, s.name) for s in sorted(sounds, key=lambda s: s.key))
    return EngineState(decks, state.depth, state.steps, timbres, state.panics)


def mix_state(state: State, blocks: Blocks, recording: str | None) -> MixState:
    """What the sound should be doing. recording: path of the file that is being written."""
    decks = {deck.name: MixDeck(deck.loops, ends=at) for deck, at in state.ending}
    for name, deck in state.decks.items():
        block = blocks.get(name)
        if block is None:
            decks[name] = MixDeck(deck.loops)
        else:
            decks[name] = MixDeck(deck.loops, block.version, block.mix)
    gates = tuple(replace(g, hushed=state.hushed) for g in state.gates or (Gate(),))
    heard = {name: deck for name, deck in decks.items() if deck.loops}
    return MixState(heard, gates, recording)
