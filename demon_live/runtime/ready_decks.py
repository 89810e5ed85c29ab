"""The decks that a published state asks for: their loops, sources, timbres and needs.

The state is published whole, again and again; `apply` makes what is here agree with it. What takes
long is prepared beside the ring, and enters when it is there.

Threads: everything here belongs to one thread; encoding may run in another (`preparation`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from demon_live.audio.files import retimed
from demon_live.controls import CONTROLS
from demon_live.core import ControlBlock, EngineDeck, EngineState, Floats, Loop, Phrase, Request
from demon_live.engine import Ring
from demon_live.engine.decode import WindowDecoder
from demon_live.engine.detail import DetailDecoder
from demon_live.engine.guidance import Dcw
from demon_live.models.engine import Engine
from demon_live.runtime.guides import Guides
from demon_live.runtime.needs import Asked, Needs
from demon_live.runtime.pace import GUARD
from demon_live.runtime.placement import DeckPlacement, Window, plays_on
from demon_live.runtime.preparation import Source, Sources, Timbres
from demon_live.runtime.scheduler import DeckScheduler, Target, value_at
from demon_live.session.assets import key_of
from demon_live.session.tempo import Playhead

log = logging.getLogger(__name__)

#: Bytes of decoded sound that are kept for each deck: a minute.
_KEPT_SOUND = 24 << 20
_STEP_CONTROLS = tuple(c.name for c in CONTROLS.values() if c.cls == "step")


@dataclass
class EngineLoop:
    """What the engine keeps of one deck."""

    loop: Loop
    source: Floats | None
    placement: DeckPlacement
    decoder: WindowDecoder
    #: Gives back what the codec loses of the source, where there is one.
    detail: DetailDecoder | None = None
    scheduler: DeckScheduler = field(default_factory=DeckScheduler)
    needs: Needs = field(default_factory=Needs)
    block: ControlBlock | None = None
    #: Generate on and on: what is made depends on more than the score, or the score asks for it.
    always: bool = False
    shared: dict[str, Floats] = field(default_factory=dict)
    # Strengths of adapters; the sample that the newest are for, and that of their last change.
    weights: dict[str, float | str] = field(default_factory=dict)
    weighed_for: int = 0
    turned: int = 0
    # What was last asked for of those that the engine has.
    timbre: str = ""


class ReadyDecks:
    """See the module. The arguments are those of `Generator`."""

    def __init__(
        self,
        engine: Engine,
        playhead: Playhead,
        *,
        open_buffer: Callable[[str], Floats],
        read_pcm: Callable[[str], Floats],
        depth: int | None,
        steps: int | None,
        background: bool,
        tell: Callable[[str], None],
        ship: Callable[[Loop, Window], None] | None,
    ) -> None:
        self.engine = engine
        self.playhead = playhead
        self._pool = ThreadPoolExecutor(1, "prepare") if background else None
        self._noted = len(engine.notes)
        self.timbres = Timbres(engine, read_pcm, self._pool)
        self._default = (depth or engine.depth, steps or engine.steps)
        self.ring = self._new_ring(self._default[1], self._default[0])
        self._open = open_buffer
        # What should be done, and the decks that are ready for it.
        self._state = EngineState()
        self._decks: dict[str, EngineLoop] = {}
        self._tell, self._ship = tell, ship
        self._told: set[str] = set()
        self._sources = Sources(engine, read_pcm, self._pool)
        self._guides = Guides(engine, read_pcm, self._pool, self._complain)
        #: Whether every shape of the engine has run once.
        self.warm = not background

    def _on_admit(self, name: str) -> Request | None:
        """The request of a deck for the ring, None: nothing is wanted."""
        raise NotImplementedError

    def _new_ring(self, steps: int, depth: int) -> Ring:
        several = getattr(self.engine, "new_ring", None)
        if several is not None:
            ring: Ring = several(
                steps=steps, depth=depth, on_admit=self._on_admit, tell=self._complain
            )
            return ring
        mode: Any = getattr(self.engine, "dcw", "")
        return Ring(
            self.engine,
            steps=steps,
            depth=depth,
            shift=self.engine.shift,
            device=self.engine.device,
            on_admit=self._on_admit,
            background=self._pool is not None,
            dcw=Dcw(mode) if mode else None,
        )

    def apply(self, state: EngineState) -> None:
        """Agree with a published state; it may be the same one again.

        Cheap, except that without `background` the source of a new loop is encoded here.
        """
        before, self._state = self._state, state
        self._apply_timbres(before, state)
        for name in before.decks.keys() - state.decks.keys():
            if self._decks.pop(name, None) is not None:
                self.ring.dismiss(name)
        for name, wanted in state.decks.items():
            known = before.decks.get(name)
            if known is None or known.loop.epoch != wanted.loop.epoch:
                self._prepare(wanted.loop)
            elif known.loop != wanted.loop:
                self._move(wanted.loop)
        if (state.depth, state.steps) != (before.depth, before.steps):
            depth, steps = self._default
            self.ring.resize(state.depth or depth, state.steps or steps)
            self._ask_again()
        for name, wanted in state.decks.items():
            known = before.decks.get(name)
            if known is not None:
                self._move_in_flight(name, known, wanted)
        if state.panics != before.panics and before.decks:
            self._panic()
        for name, wanted in state.decks.items():
            deck = self._decks.get(name)
            if deck is not None and wanted.block is not None:
                self._take_block(deck, wanted.block)

    def _apply_timbres(self, before: EngineState, state: EngineState) -> None:
        old, new = set(before.timbres), set(state.timbres)
        for timbre in state.timbres:
            if timbre not in old:
                # An engine that starts plays nothing before it knows them all.
                self.timbres.take(timbre.key, timbre.file, timbre.label, first=not self._decks)
                self._collect_timbres()
        for timbre in old - new:
            self.timbres.drop(timbre.key)

    def _move_in_flight(self, name: str, known: EngineDeck, wanted: EngineDeck) -> None:
        values = {
            control: value
            for control, (serial, value) in wanted.moves.items()
            if serial > known.moves.get(control, (0, 0.0))[0]
        }
        if values:
            self.ring.migrate(name, **values)

    def _take_block(self, deck: EngineLoop, block: ControlBlock) -> None:
        fresh = deck.block is None or block.version != deck.block.version
        always = self._state.always or _moves_on(block)
        if block.loop.epoch != deck.loop.epoch or not (fresh or always != deck.always):
            return
        deck.block, deck.always = block, always
        deck.placement.exact = not always
        deck.decoder.keep = 0 if always else _KEPT_SOUND
        self._share(block.deck, deck, block.lanes if always else {})
        if always:
            deck.placement.note(block.sampled_at, block.jumps)
            deck.needs.reset()
            return
        for asked in deck.needs.take(block):
            curves = {n: c for n, c in asked.curves.items() if n in _STEP_CONTROLS}
            self.ring.steer(block.deck, asked.need.begin, curves)
        deck.placement.note(block.sampled_at, deck.needs.edges)

    def forget(self) -> None:
        """Nothing that was made so far counts: it came from a dry run."""
        self.ring.forget()
        self._guides.clear()
        for deck in self._decks.values():
            deck.needs.reset()
            deck.placement.forget()
            if deck.detail is not None:
                deck.detail.forget()

    def _ask_again(self) -> None:
        for deck in self._decks.values():
            deck.scheduler.again()
            deck.needs.again()

    def _move(self, loop: Loop) -> None:
        deck = self._decks.get(loop.deck)
        if deck is not None and deck.loop.epoch == loop.epoch:
            deck.placement.move(loop)
            deck.loop = loop

    def _share(self, name: str, deck: EngineLoop, lanes: Mapping[str, Floats]) -> None:
        wanted = {k: v for k, v in lanes.items() if k in _STEP_CONTROLS}
        for control, curve in wanted.items():
            before = deck.shared.get(control)
            if before is None or not np.array_equal(before, curve):
                self.ring.share(control, curve, deck=name)
        for control in deck.shared.keys() - wanted.keys():
            self.ring.share(control, None, deck=name)
        deck.shared = wanted

    def _prepare(self, loop: Loop) -> None:
        self._carry(loop)
        self._sources.encode(loop)
        if self._pool is None:
            self._collect_sources()

    def _warm_up(self) -> None:
        """The first run of each shape is slow: done while the first source is being encoded."""
        self.warm = True
        frames = next(iter(self._state.decks.values())).loop.frames
        try:
            self.engine.warm_up(frames, self.ring.depth)
        # As in a tick, a model may fail in any way; the first tick will say so again.
        except Exception as error:  # noqa: BLE001
            self._complain(f"engine: {error}")

    def _carry(self, loop: Loop) -> None:
        """At another tempo what plays goes on: it is the new loop until that is generated."""
        old = self._decks.get(loop.deck)
        if self._ship is not None or old is None or old.placement.empty:
            return
        if self.playhead.now() >= loop.from_sample or not plays_on(old.loop, loop):
            return
        buffer = self._open(loop.file)
        playing = old.placement.buffer.copy()
        if self._pool is None:
            buffer[:] = retimed(playing, len(buffer))
        else:
            self._pool.submit(_copy_retimed, playing, buffer)

    def _enter(self, loop: Loop, source: Source | None) -> None:
        wanted = self._state.decks.get(loop.deck)
        if wanted is None or wanted.loop.epoch != loop.epoch:
            return
        latent, detail = None, None
        decoder = WindowDecoder(self.engine.decode, self.engine.margin)
        if source is not None:
            latent = source.latent
            detail = DetailDecoder(self.engine, latent, source.audio)
            decoder = detail.plain
        buffer = self._open(loop.file)
        ship = None if self._ship is None else partial(self._ship, loop)
        decode = decoder.again if detail is None else detail.again
        placement = DeckPlacement(loop, buffer, decode, self.engine.window, ship)
        placement.keeps = self._state.detail > 0.0
        for control in self._decks[loop.deck].shared if loop.deck in self._decks else ():
            self.ring.share(control, None, deck=loop.deck)
        deck = self._decks[loop.deck] = EngineLoop(loop, latent, placement, decoder, detail)
        deck.needs = Needs(partial(self._prepared, deck))
        self._enlist(loop)
        # Its laps may have been moved while it was prepared.
        if wanted.loop != loop:
            self._move(wanted.loop)
        if wanted.block is not None:
            self._take_block(deck, wanted.block)

    def _enlist(self, loop: Loop) -> None:
        self.ring.prepare(loop.deck, loop.epoch, loop.frames)
        self.ring.new_epoch(loop.deck, loop.epoch)

    def _collect_sources(self) -> None:
        for loop, source, problem in self._sources.collect():
            if problem:
                self._complain(f"{loop.deck}: the source could not be encoded: {problem}")
            self._enter(loop, source)

    def _collect_timbres(self) -> None:
        """What was scheduled with a timbre that had not been encoded is made once more."""
        new, troubles = self.timbres.collect()
        for text in troubles:
            self._complain(text)
        # What the model says of a timbre, such as that its weights know none.
        while self._noted < len(self.engine.notes):
            self._tell(self.engine.notes[self._noted])
            self._noted += 1
        if new:
            self._ask_again()

    def _timbre(self, deck: EngineLoop, target: Target) -> str:
        """The key of the timbre that the target names; until it is encoded, of the one before."""
        key = key_of(str(target.values.get("timbre", "")))
        if not key or key in self.timbres.ready:
            deck.timbre = key
        return deck.timbre

    def _panic(self) -> None:
        self.ring.close()
        ring = self._new_ring(self.ring.steps, self.ring.depth)
        # Births are compared: what comes now is newer than all that was made.
        ring.tick_number = self.ring.tick_number
        self.ring = ring
        for name, deck in self._decks.items():
            deck.scheduler.reset()
            deck.needs.reset()
            self._enlist(deck.loop)
            lanes, deck.shared = deck.shared, {}
            self._share(name, deck, lanes)

    def _prepared(self, deck: EngineLoop, asked: Asked) -> bool:
        return self._source_ready(deck, asked.phrase, asked.need.values)

    def _source_ready(
        self, deck: EngineLoop, phrase: Phrase | None, values: Mapping[str, float | str]
    ) -> bool:
        prompt = str(values.get("prompt", ""))
        return not deck.loop.notes or self._guides.ready(deck.loop, phrase or Phrase(), prompt)

    def _guide_of(self, deck: EngineDeck, sample: int) -> Floats | None:
        """What the notes of the lap of an output sample sound like, once they are rendered."""
        if deck.block is None or deck.block.loop.epoch != deck.loop.epoch:
            return None
        phrase = deck.block.phrase_at(sample) or Phrase()
        prompt = str(value_at(deck.block.plan, sample).get("prompt", ""))
        return self._guides.audio(deck.loop, phrase, prompt)

    @property
    def _awaits_guide(self) -> bool:
        """A deck that plays its notes has not heard them yet."""
        now = self.playhead.now()
        return any(
            wanted.loop.notes and self._guide_of(wanted, now) is None
            for wanted in self._state.decks.values()
        )

    def _play_guides(self, lead: int) -> None:
        """A deck without a generation plays its notes as they are. lead: samples."""
        for name, deck in self._decks.items():
            if deck.loop.notes and deck.placement.empty:
                soon = max(self.playhead.now() + lead, deck.loop.from_sample)
                guide = self._guide_of(self._state.decks[name], soon)
                if guide is not None:
                    deck.placement.stand_in(guide, soon, self.playhead.now, GUARD)

    def _source(
        self, deck: EngineLoop, phrase: Phrase | None, values: Mapping[str, float | str]
    ) -> Floats | None:
        """What a generation is made from: the file of the deck, or what the score plays."""
        if not deck.loop.notes:
            return deck.source
        return self._guides.get(deck.loop, phrase or Phrase(), str(values.get("prompt", "")))

    def _complain(self, text: str) -> None:
        # Once: what fails in a tick fails a dozen times a second.
        if text not in self._told:
            self._told.add(text)
            log.warning(text, exc_info=sys.exc_info()[0] is not None)
            self._tell(text)


def _moves_on(block: ControlBlock) -> bool:
    """Whether a generation depends on those before it: feedback, or adapters, which are in force
    for all that is in flight."""
    return any(
        name.startswith("lora.") or (name == "feedback" and value)
        for row in block.plan
        for name, value in row.values.items()
    )


def _copy_retimed(audio: Floats, into: Floats) -> None:
    into[:] = retimed(audio, len(into))
