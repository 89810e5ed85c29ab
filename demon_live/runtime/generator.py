"""One turn of the instrument: admit, tick, accept, decode, place. Live and offline run this code.

The loop of the engine process calls `turn` for ever; a render calls it once for each nominal tick
of the virtual playhead. Errors of the model stop at the wall in `turn`: counted, reported once, and
the loops play on as they are.

Threads: everything here belongs to one thread; encoding may run in another (`preparation`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from demon_live.core import (
    RATES,
    EngineStatus,
    Floats,
    Generation,
    Loop,
    Phrase,
    Request,
)
from demon_live.errors import DemonError
from demon_live.models.engine import Engine
from demon_live.runtime.needs import Asked
from demon_live.runtime.pace import GUARD, Pace
from demon_live.runtime.placement import HALF, Window
from demon_live.runtime.ready_decks import EngineLoop, ReadyDecks
from demon_live.runtime.scheduler import Target, build_request
from demon_live.session.tempo import Playhead

log = logging.getLogger(__name__)

#: Samples that a pause between ticks may take.
_PAUSE = RATES.sample_rate // 4
#: Seconds without a tick that worked after which a GPU is opened anew.
_LOST = 3.0


class Generator(ReadyDecks):
    """Drives a ring from ControlBlocks and keeps the decks' loops written ahead of the playhead.

    Args:
        engine: the open model.
        playhead: where the output stands.
        open_buffer: file name -> the PCM of a loop, float32 [samples, 2], writable.
        read_pcm: file name -> the PCM of a source or a timbre, float32 [n, 2].
        tick_samples: the nominal tick.
        depth, steps: of the ring while the state names none; None = the engine's.
        seed: added to every seed.
        background: prepare loops beside the ring (live) or at once (offline, so that renders do not
            depend on the speed of the machine).
        timer: seconds, by which the pace of the ticks is learned; None: learned live, nominal
            offline.
        tell: called with lines for the performer.
        ship: takes decoded windows where the loops are on another machine.
    """

    def __init__(
        self,
        engine: Engine,
        playhead: Playhead,
        *,
        open_buffer: Callable[[str], Floats],
        read_pcm: Callable[[str], Floats],
        tick_samples: int,
        depth: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        background: bool = False,
        timer: Callable[[], float] | None = None,
        tell: Callable[[str], None] = lambda text: None,
        ship: Callable[[Loop, Window], None] | None = None,
    ) -> None:
        super().__init__(
            engine,
            playhead,
            open_buffer=open_buffer,
            read_pcm=read_pcm,
            depth=depth,
            steps=steps,
            background=background,
            tell=tell,
            ship=ship,
        )
        self._first_window = engine.manifest.first_window or engine.window
        self._seed = seed
        self._pace = Pace(tick_samples, learns=background or timer is not None, timer=timer)
        #: Samples that a window is on its way to a loop on another machine; added to the lead.
        self.away = 0
        self._standing = False
        self._written_ahead = 0
        #: Set by load shedding; and the last error of a tick.
        self.window_part, self.gap_fill = 1.0, True
        #: Asked before a loop is written again from a newer generation.
        self.may_refresh: Callable[[], bool] = lambda: True
        self.trouble: Exception | None = None
        #: Called with each generation.
        self.made: Callable[[Generation], None] = lambda generation: None
        #: The error of the last tick, and since when every tick fails.
        self._failing: Exception | None = None
        self._works_until = 0.0

    @property
    def tick_due(self) -> bool:
        """There is something to generate, or in flight."""
        if self.ring.in_flight:
            return True
        reach = self._reach(self.playhead.now())
        wants = (self._wants(deck, *reach) or self._hand(deck) for deck in self._decks.values())
        return any(wants)

    @property
    def hurried(self) -> bool:
        """What a hand asked for is in flight."""
        return any(deck.needs.late is not None for deck in self._decks.values())

    @property
    def paced(self) -> bool:
        """Ticks that follow each other for ever come at the engine's nominal pace."""
        return any(deck.always for deck in self._decks.values())

    @staticmethod
    def _wants(deck: EngineLoop, ready: int, reach: int) -> bool:
        if deck.block is None or deck.always:
            return deck.always
        return deck.needs.choose(ready, reach) is not None

    def _hand(self, deck: EngineLoop) -> Asked | None:
        """What a hand waits for that is not in flight yet."""
        if deck.block is None or deck.always or self._standing:
            return None
        now = self.playhead.now()
        soonest = now + self._samples(self._pace.after(self._draft)) + GUARD + HALF + self.away
        return deck.needs.hand(soonest, now + self.drain)

    @property
    def primed(self) -> bool:
        """Every deck that plays has a generation to play from."""
        return all(not d.placement.empty for d in self._decks.values() if d.block is not None)

    def turn(self) -> None:
        """Admit, tick, place: once. Never raises; errors are counted and reported once."""
        self._collect_sources()
        self._collect_timbres()
        self._count_flying()
        due = self.tick_due
        if not self.warm and self._state.decks and (due or not self._awaits_guide):
            self._warm_up()
        if due:
            try:
                self._tick()
                self._failing = None
            # The tick wall: a model or backend may fail in any way; the loops must play on.
            except Exception as error:  # noqa: BLE001
                self.trouble = self._failing = error
                self._complain(f"engine: {error}")
        else:
            self._failing = None
            self._pace.restart()
        self._guides.turn()
        self._play_guides(self._pace.lead + self.away)
        self._place()
        self._use_pause()

    def _use_pause(self) -> None:
        """Between ticks, while nothing is due soon, an engine does what would hold up a tick."""
        work = getattr(self.engine, "between_ticks", None)
        if work is None or self.behind:
            return
        due = self.playhead.now() + self.drain + _PAUSE
        flying = [
            r for n, deck in self._decks.items() if not deck.always for r in self.ring.requests(n)
        ]
        if any(request.hear_from < due for request in flying):
            return
        try:
            if work():
                self._pace.restart()
        # As in a tick, a model may fail in any way.
        except Exception as error:  # noqa: BLE001
            self.trouble = error
            self._complain(f"engine: {error}")

    def lost(self, now: float) -> Exception | None:
        """The error after which no tick can work: one of CUDA itself, which spoils its context for
        the life of the process, or every tick for `_LOST` seconds. now: seconds."""
        if self._failing is None:
            self._works_until = now
        elif "CUDA error" in str(self._failing) or now - self._works_until > _LOST:
            return self._failing
        return None

    def _tick(self) -> None:
        self._admit_hands()
        self._fit_depth()
        started = self._pace.begin_tick(learn=not self._standing)
        done = self.ring.tick()
        self._count_flying()
        for generation in done:
            self.made(generation)
            self._accept(generation)
        for name, deck in self._decks.items():
            if deck.needs.late is not None:
                self._preview(name, deck)
        if self.ring.trouble is not None:
            self._complain(f"a deck cannot be generated: {self.ring.trouble}")
        self._pace.end_tick(started)

    def _admit_hands(self) -> None:
        """What a hand waits for is admitted at once and makes its first steps alone."""
        for name, deck in self._decks.items():
            asked = self._hand(deck) if self.ring.hurried < self._most else None
            if asked is not None:
                self.ring.hurry(self._request(name, deck, asked), self._draft)

    def _fit_depth(self) -> None:
        """`depth auto` is the least with room for all that must be admitted now."""
        reach = self._reach(self.playhead.now())
        resting = [d for d in self._decks.values() if d.block is not None and not d.always]
        due = sum(deck.needs.due(*reach) for deck in resting)
        if self._state.depth is None:
            busy = self.ring.in_flight - self.ring.hurried
            # It shrinks when the ring is empty.
            least = max(due + busy, self.ring.depth if busy else 1)
            depth = self._most if self.paced else min(self._most, least)
            if depth != self.ring.depth:
                self.ring.resize(depth)
        if due:
            self.ring.hasten()

    @property
    def _most(self) -> int:
        """Generations in flight at most; those that a hand waits for come beside them."""
        return self._state.depth or self._default[0]

    def _count_flying(self) -> None:
        """What the ring has finished, or lost, is in flight no more."""
        for name, deck in self._decks.items():
            begins = [request.hear_from for request in self.ring.requests(name)]
            deck.needs.keep_flying(begins)

    def _preview(self, name: str, deck: EngineLoop) -> None:
        """What a hand asked for is heard from an early prediction, then from its end."""
        found = self.ring.preview(name, self._draft)
        if found is not None and not deck.placement.empty:
            self._place_from(deck, found)

    def _accept(self, generation: Generation) -> None:
        deck = self._decks.get(generation.request.deck)
        if deck is None:
            return
        if generation.versions[-1] >= self.ring.weighed_at and (
            generation.request.hear_from < deck.turned
        ):
            # Made with weights that are for later: not to be heard before.
            request = replace(generation.request, hear_from=deck.turned)
            generation = replace(generation, request=request)
        first = deck.placement.empty and self.playhead.now() <= deck.loop.from_sample
        self._place_from(deck, generation)
        if first and not deck.placement.empty and self._ship is None:
            deck.placement.fill(generation)

    def _place_from(self, deck: EngineLoop, generation: Generation) -> None:
        curves = generation.request.curves
        if deck.detail is not None and generation.request.epoch == deck.loop.epoch:
            curves = deck.shared if curves is None else curves
            deck.detail.note(generation.latent, curves, self._state.detail)
        request = generation.request
        for begin in deck.needs.also(request, self.playhead.now()) if request.hand else ():
            deck.placement.accept(replace(generation, request=replace(request, hear_from=begin)))
        deck.placement.accept(generation)

    def _on_admit(self, name: str) -> Request | None:
        """The request of the very generation that is being admitted: as late as possible."""
        deck = self._decks.get(name)
        if deck is None or deck.block is None:
            return None
        now = self.playhead.now()
        if not deck.always:
            asked = deck.needs.choose(*self._reach(now))
            return None if asked is None else self._request(name, deck, asked)
        target = deck.scheduler.target(deck.block, now, *self._reach(now))
        phrase = deck.block.phrase_at(target.hear_from)
        if not self._source_ready(deck, phrase, target.values):
            return None
        return self._built(name, deck, target, None, phrase)

    def _request(self, name: str, deck: EngineLoop, asked: Asked) -> Request:
        """The request of what is asked for; it counts as in flight."""
        deck.needs.asked(asked)
        target = Target(asked.need.begin, asked.need.values)
        return self._built(name, deck, target, asked.curves, asked.phrase)

    def _built(
        self,
        name: str,
        deck: EngineLoop,
        target: Target,
        curves: Mapping[str, Floats] | None,
        phrase: Phrase | None,
    ) -> Request:
        assert deck.block is not None
        self._weigh(name, deck, target)
        timbre = self._timbre(deck, target)
        return build_request(
            self.engine,
            name,
            deck.loop,
            self._source(deck, phrase, target.values),
            deck.block,
            target,
            self._seed,
            timbre,
            curves,
            phrase,
        )

    def _weigh(self, name: str, deck: EngineLoop, target: Target) -> None:
        """Class model: the weights follow the generation that is heard last of those admitted, so
        that one that was sent ahead for a jump is not made with the weights of before it."""
        if target.hear_from < deck.weighed_for:
            return
        deck.weighed_for = target.hear_from
        wanted = {k: v for k, v in target.values.items() if k.startswith("lora.")}
        for control in deck.weights.keys() | wanted.keys():
            try:
                self.ring.share(control, wanted.get(control), deck=name)
            except DemonError as error:
                self._complain(f"{name}: {error}")
        if wanted != deck.weights:
            deck.weights, deck.turned = wanted, target.hear_from

    @staticmethod
    def _samples(seconds: float) -> int:
        return round(seconds * RATES.sample_rate)

    @property
    def _draft(self) -> int:
        """Steps after which the prediction of what a hand waits for is heard."""
        wanted = self.engine.manifest.draft_steps or self.ring.steps // 2
        return max(1, min(wanted, self.ring.steps - 1))

    def _reach(self, now: int) -> tuple[int, int]:
        """When a generation admitted now can be heard, and until when groups must be served now."""
        interval = self._samples(self._pace.period_s * self.ring.steps / self.ring.depth)
        # While the clock stands still a generation is ready at once.
        ready = now if self._standing else now + self.drain
        # What must be on time is begun earlier by what a handful of slow ticks would cost.
        spare = self._samples(self._pace.stray_s * self.ring.steps**0.5)
        return ready, now + self.drain + 2 * interval + spare

    def prime(self, pump: Callable[[], None], turns: int) -> bool:
        """Before the clock starts: turn until every deck can be heard and all that would come too
        late has been made. pump: samples the score. False: it took more than `turns`."""
        self._standing, rest = True, -1
        for _ in range(turns):
            pump()
            behind = self.behind
            self.turn()
            if behind or not self.primed:
                rest = self.ring.steps
            rest -= 1
            if rest < 0:
                break
        self._standing = False
        self._pace.restart()
        return self.primed

    @property
    def behind(self) -> bool:
        """Something that is heard within reach was not made yet."""
        reach = self._reach(self.playhead.now())
        for deck in self._decks.values():
            if deck.block is None:
                continue
            if deck.always and deck.scheduler.unserved(deck.block, *reach) is not None:
                return True
            if not deck.always and deck.needs.due(*reach):
                return True
        return False

    @property
    def drain(self) -> int:
        """Samples from an admission until its generation can be heard."""
        return (
            self._samples(self._pace.period_s * self.ring.steps)
            + self._pace.lead
            + self.away
            + HALF
        )

    def _place(self) -> None:
        for deck in self._decks.values():
            window = max(4, round(self.engine.window * self.window_part))
            deck.placement.may_refresh = self.may_refresh()
            # Without gap-fill only a newer generation is a reason to write.
            reserve = window * RATES.hop // 2 if self.gap_fill else -(1 << 62)
            if deck.needs.late is not None and not deck.placement.empty:
                # No more of a prediction than is heard before the end is decoded.
                soon = self._samples(self._pace.after(self.ring.steps - self._draft))
                reserve = min(reserve, soon - self._pace.lead)
            # At a jump or the end of a lap a piece is short: go on until the reserve is there.
            for _ in range(4):
                lead, deck.placement.window = self._pace.lead, window
                if deck.placement.hurried:
                    # A hand waits: little, and as near to the playhead as it can be written.
                    lead, deck.placement.window = GUARD + HALF, min(window, self._first_window)
                    deck.placement.hurried = False
                lead += self.away
                piece = deck.placement.next_piece(self.playhead.now(), lead, reserve)
                if piece is None:
                    break
                started, before = self._pace.now(), self.playhead.now()
                if deck.placement.write(piece, self.playhead.now, GUARD):
                    self._written_ahead = max(0, piece.start - self.playhead.now())
                self._pace.decoded(started, self.playhead.now() - before)

    def status(self) -> EngineStatus:
        """A snapshot of plain numbers."""
        made = self.ring.stats()
        late = [d.placement.jump_late for d in self._decks.values()]
        return EngineStatus(
            ticks=self.ring.tick_number,
            generations=made.made,
            from_store=made.from_store,
            resting=made.resting,
            depth=self.ring.depth,
            tick_ms=self._pace.tick_s * 1000,
            period_ms=self._pace.period_s * 1000,
            decode_ms=self._pace.decode_s * 1000,
            lead_ms=self._written_ahead * 1000 / RATES.sample_rate,
            late=sum(d.placement.late for d in self._decks.values()),
            dropped=self.ring.dropped + sum(d.placement.nonfinite for d in self._decks.values()),
            on_time_ms=max(late, default=0) * 1000 / RATES.sample_rate,
            slots=self.ring.slots(),
        )

    def leave(self) -> None:
        """End what runs beside the turns; the engine stays open, for another generator."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.ring.close()

    def close(self) -> None:
        """End everything, the engine too."""
        self.leave()
        self.engine.close()
