"""What a session publishes, and what it plays on.

`engine_state` and `mix_state` derive from the State what engine and mixer should be doing: pure
functions. An `Output` is an engine, a mixer and a playhead, live or offline.

Threads: an output's methods are called under the session's lock and must not block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from demon_live.core import (
    ControlBlock,
    EngineDeck,
    EngineState,
    EngineStatus,
    Floats,
    Gate,
    MixDeck,
    MixPoints,
    MixState,
    Sound,
    Timbre,
)
from demon_live.session.state import State
from demon_live.session.tempo import Playhead, VirtualPlayhead


class Output(Protocol):
    """Engine, mixer and playhead, as the session sees them."""

    playhead: Playhead
    engine_name: str
    device_name: str
    #: The controls that the engine obeys; None: not known.
    controls: frozenset[str] | None

    def reserve(self, audio: Mapping[str, Floats]) -> None:
        """Make room for the PCM of states that are to be published, before anything is decided.

        Args:
            audio: name -> float32 [n, 2], of loops, sources and timbres; names that are known are
                passed over. Of a loop it is what plays until something is generated.

        Raises:
            FileError: there is no room.
        """

    def publish(self, engine: EngineState, mix: MixState) -> None:
        """What engine and mixer should be doing from now on; each keeps the newest."""

    def check_prompt(self, prompt: str) -> list[str]:
        """One line for each word of a prompt that the engine does not know."""

    def engine_status(self) -> EngineStatus: ...
    def meters(self) -> tuple[int, tuple[float, float]]:
        """(dry blocks, peak of left and right in dBFS)."""

    def heard(self) -> int:
        """The output sample that is at the ear now, at most the playhead's."""


class NullOutput:
    """Plays nothing; its playhead moves when it is advanced. For dry runs and tests."""

    def __init__(self, engine: str = "none") -> None:
        self.time = VirtualPlayhead()
        self.playhead: Playhead = self.time
        self.engine_name = engine
        self.device_name = "none"
        self.controls: frozenset[str] | None = None
        #: What was published last.
        self.engine, self.mix = EngineState(), MixState()

    def reserve(self, audio: Mapping[str, Floats]) -> None:
        """Nothing will sound."""

    def publish(self, engine: EngineState, mix: MixState) -> None:
        self.engine, self.mix = engine, mix

    def check_prompt(self, prompt: str) -> list[str]:
        return []

    def engine_status(self) -> EngineStatus:
        return EngineStatus()

    def meters(self) -> tuple[int, tuple[float, float]]:
        return 0, (-120.0, -120.0)

    def heard(self) -> int:
        return self.playhead.now()


Blocks = Mapping[str, ControlBlock]


def timbre_of(sound: Sound) -> Timbre:
    """A sound as the engine knows it: by its key and the name of its PCM."""
    return Timbre(sound.key, sound.name)


def engine_state(
    state: State, blocks: Blocks, sounds: frozenset[Sound], latents: bool = False
) -> EngineState:
    """What the engine should be doing.

    Args:
        state: what plays.
        blocks: the newest of each deck.
        sounds: all timbres that may be asked for.
        latents: someone waits for generations.
    """
    decks = {
        name: EngineDeck(deck.loop, blocks.get(name), deck.moves)
        for name, deck in state.decks.items()
        if deck.loop is not None
    }
    timbres = tuple(timbre_of(sound) for sound in sorted(sounds, key=lambda s: s.key))
    steered = (state.depth, state.steps, timbres, state.panics)
    ring = (state.always, latents, state.engine, state.detail)
    return EngineState(decks, *steered, *ring)


def mix_state(
    state: State,
    blocks: Blocks,
    master: Mapping[str, MixPoints],
    recording: str | None,
    tracks: bool = False,
) -> MixState:
    """What the sound should be doing.

    master: automation of the master strip. recording: path of the file that is being written.
    tracks: one more for each deck.
    """
    decks = {deck.name: MixDeck(deck.loops, ends=at, out=deck.out) for deck, at in state.ending}
    for name, deck in state.decks.items():
        block = blocks.get(name)
        if deck.to is not None:
            # What it was before may still fade out.
            continue
        if block is None:
            decks[name] = MixDeck(deck.loops, out=deck.out)
        else:
            decks[name] = MixDeck(deck.loops, block.version, block.mix, out=deck.out)
    gates = tuple(replace(g, hushed=state.hushed) for g in state.gates or (Gate(),))
    heard = {name: deck for name, deck in decks.items() if deck.loops}
    return MixState(heard, gates, recording, master, tracks)
