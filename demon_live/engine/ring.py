"""The ring: generations in flight, one batched solver step of all of them a tick.

    submit / on_admit -> mailbox -> slot -> S ticks, one step each -> Generation
    share             -> shared state -> one snapshot a tick, read by every step

A slot is admitted each S / D ticks (D slots, S steps), so completions come evenly. What a tick
reads is one immutable snapshot, and a generation carries the version that each of its steps saw:
latency is a fact that tests assert. Generations of a dead epoch never come out.

Threads: all methods belong to one thread, the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from demon_live.core import Floats, Generation, Request, SlotStatus
from demon_live.engine.admission import (
    AdmissionPace,
    RingDeck,
    RingDecks,
    check_request,
    source_with_feedback,
)
from demon_live.engine.batch import SlotBatch
from demon_live.engine.guidance import Dcw
from demon_live.engine.noise import NoiseCache
from demon_live.engine.rows import Slot, VelocityModel
from demon_live.engine.shared import SharedState
from demon_live.engine.solver import timesteps
from demon_live.engine.staging import Readback, torch_threads
from demon_live.engine.store import RingStats, Store, key_of
from demon_live.engine.weights import PREFIX, AdapterStrengths
from demon_live.errors import DemonError, UsageError

#: Latents of all engines have a deviation near 1: larger than this a generation has exploded.
_LARGEST = 1000.0
#: Generations that one tick takes from the store at most.
_MOST_FOUND = 64


class Ring:
    """D slots of S steps over a model.

    Args:
        model: anything with `velocity(x [B, T, C], t [B], rows) -> [B, T, C]`; a model with
            adapters has them as `weights` (engine.weights.Bank).
        steps, depth: S and D.
        shift: of requests that name none.
        on_admit: called for a deck's request at the tick that admits it, when its mailbox is
            empty; None = nothing to play.
        dcw: wavelet correction; off by default.
        noise_bytes: bound of the noise that a CPU keeps.
        background: prepare changes of weights beside the ticks (live), not in the tick (renders).
        capture: on a GPU, launch a tick's device work as CUDA graphs.
        store_bytes: bound of the finished generations that are kept (`engine.store`).

    Attributes:
        tick_number: ticks done.
        dropped: generations that were not finite.
        stale: requests of dead epochs.
        refused: requests of on_admit that cannot be played; trouble: the last one's error.
        version: of the shared state; weighed_at: the version of the last change of weights.
    """

    def __init__(
        self,
        model: VelocityModel,
        *,
        steps: int = 8,
        depth: int = 4,
        shift: float = 3.0,
        device: str | torch.device = "cpu",
        on_admit: Callable[[str], Request | None] | None = None,
        dcw: Dcw | None = None,
        noise_bytes: int = 96 << 20,
        background: bool = False,
        capture: bool = True,
        store_bytes: int = 64 << 20,
    ) -> None:
        timesteps(steps, 1.0, shift)
        self.model, self.steps, self.depth, self.shift = model, steps, _depth(depth), shift
        self.on_admit = on_admit
        self.tick_number = self.dropped = self.stale = self.refused = 0
        self.trouble: DemonError | None = None
        self.weighed_at = 1 << 62
        self._device = torch.device(device)
        self._dcw, self._capture = dcw, capture
        self._noise = NoiseCache(self._device, noise_bytes)
        self._shared = SharedState()
        self._store = Store(store_bytes)
        self._from_store: list[Generation] = []
        self._made = self._taken = 0
        self._weights = AdapterStrengths(getattr(model, "weights", None), background)
        self._pace = AdmissionPace(steps, depth)
        self._decks = RingDecks()
        # By T, C and whether a hand waits for them: those are stepped apart from the others.
        self._batches: dict[tuple[int, int, bool], SlotBatch] = {}
        self._hurried: list[tuple[Request, int]] = []
        # Each latent with its slot and the tick of its last step.
        self._readback: Readback[tuple[Slot, int]] = Readback()
        self._serial = 0

    # -- requests and values -------------------------------------------------------------------

    def submit(self, request: Request) -> Request | None:
        """Put a request into its deck's mailbox; the latest wins.

        A request of a dead epoch is counted in `stale` and dropped. One of an epoch to come may be
        in flight beside the present one, which ends with `new_epoch`.

        Returns:
            The request that it replaced.

        Raises:
            ScoreError: the request cannot be played.
        """
        entry = self._decks.enlist(request.deck)
        if request.epoch < entry.epoch:
            self.stale += 1
            return None
        self._check(entry, request)
        entry.mailbox, old = request, entry.mailbox
        return old

    def _check(self, entry: RingDeck, request: Request) -> None:
        check_request(request, self.steps, self.shift)
        if entry.renewed:
            # Curves of the epoch that ended serve on if the length is the same.
            self._shared.keep_lengths(request.deck, {request.frames})
            entry.renewed = False
        self._shared.fits(request.deck, request.frames, request.channels)
        entry.frames[request.epoch] = request.frames
        entry.channels = request.channels

    def share(self, name: str, value: object, deck: str | None = None) -> None:
        """Set a shared value from the next tick on.

        With `blend` the solver is the paper's re-noising with the source blended in
        (`solver.blended`), from the next step on, also for slots in flight; without it, Euler's.
        Without a source, it blends towards zeros.

        Args:
            name: a control of class step, or `lora.NAME`, which takes effect at the tick after its
                weights are prepared.
            value: a number, a curve float32 [T] for loops of that length, or None, which removes
                the value. `energy` also takes one value per channel, [C] (or [1, C], to be certain
                where T = C).
            deck: whose value; it wins over the common one (None).

        Raises:
            ScoreError: a wrong name or length, or a value that is not finite.
        """
        if name.startswith(PREFIX):
            self._weights.want(name, value, deck)
            return
        self._shared.write(name, value, deck, self._decks.lengths(deck), self._decks.channels(deck))

    def prepare(self, deck: str, epoch: int, frames: int) -> None:
        """Announce the T of an epoch to come, so that its curves can be shared ahead of it."""
        self._decks.enlist(deck).frames[epoch] = frames

    def enlist(self, deck: str, weight: float = 1.0) -> None:
        """Make a deck known (for `on_admit`) and set its share of admissions; 0 = none."""
        self._decks.enlist(deck).weight = max(0.0, weight)

    def dismiss(self, deck: str) -> None:
        """Forget a deck: its slots are freed, its mailbox and its shared values are gone."""
        self._free(lambda slot: slot.request.deck == deck)
        self._decks.dismiss(deck)
        self._shared.forget(deck)
        self._weights.forget(deck)

    def new_epoch(self, deck: str, epoch: int) -> None:
        """End all epochs of a deck before `epoch`: their slots are freed at once, none comes out.

        Feedback's history goes with them, and so do the deck's curves of lengths that are gone.
        """
        entry = self._decks.enlist(deck)
        if epoch <= entry.epoch:
            return
        entry.epoch = epoch
        entry.history.clear()
        entry.frames = {e: frames for e, frames in entry.frames.items() if e >= epoch}
        entry.renewed = not entry.frames
        if entry.mailbox is not None and entry.mailbox.epoch < epoch:
            entry.mailbox = None
        if entry.frames:
            self._shared.keep_lengths(deck, set(entry.frames.values()))
        self._free(lambda slot: slot.request.deck == deck and slot.request.epoch < epoch)
        if self.in_flight < self.depth:
            # Nothing of the deck is in flight: let it not wait for its turn as well.
            self._decks.put_first(entry)
            self._pace.hasten(self.tick_number)

    def _free(self, dead: Callable[[Slot], bool]) -> None:
        for batch in self._batches.values():
            batch.drop([slot for slot in batch.slots if dead(slot)])
        self._readback.drop(lambda key: dead(key[0]))

    def resize(self, depth: int | None = None, steps: int | None = None) -> None:
        """Another depth, or number of steps. Slots above the depth finish first; nothing is lost,
        and phases stay even.

        Slots in flight keep the steps that they were born with, so that one that is born later
        with fewer may come out before them.
        """
        if steps is not None:
            timesteps(steps, 1.0, self.shift)
            self.steps = steps
        self.depth = self.depth if depth is None else _depth(depth)
        self._pace.retune(self.steps, self.depth)

    def migrate(
        self, deck: str, *, denoise: float | None = None, shift: float | None = None
    ) -> int:
        """Move the deck's slots in flight to another schedule, at their own step, with one effect
        on the next tick. Returns how many moved; a request in the mailbox is not touched.

        The generations carry the new values in their requests, and the move counts as a version.
        """
        moved = 0
        with torch.no_grad():
            for batch in self._batches.values():
                places = [i for i, s in enumerate(batch.slots) if s.request.deck == deck]
                if not places:
                    continue
                slots = [batch.slots[i] for i in places]
                requests = [changed_request(slot.request, denoise, shift) for slot in slots]
                times = [
                    self._times(request, slot.has_source, slot.steps)
                    for request, slot in zip(requests, slots, strict=True)
                ]
                pulls = [
                    _fall(slot.request.denoise, request.denoise) if slot.has_source else 0.0
                    for request, slot in zip(requests, slots, strict=True)
                ]
                batch.migrate(places, times, pulls)
                for slot, request in zip(slots, requests, strict=True):
                    slot.request, slot.key = request, None
                moved += len(places)
        if moved:
            self._shared.bump()
        return moved

    def steer(self, deck: str, hear_from: int, curves: Mapping[str, Floats]) -> None:
        """Give a deck's generations in flight other curves of their own, from the next tick on.

        hear_from: of their requests. They go into no store.
        """
        for batch in self._batches.values():
            for slot in batch.slots:
                request = slot.request
                if (request.deck, request.hear_from) == (deck, hear_from):
                    slot.request, slot.key = replace(request, curves=curves), None
                    self._shared.bump()

    def hurry(self, request: Request, alone: int) -> None:
        """Admit a request at the next tick: before all others, beside the depth.

        Until it has made `alone` steps the generations in flight that are not hurried keep theirs,
        unless it is not the only one in a hurry.
        """
        self._check(self._decks.enlist(request.deck), request)
        self._hurried.append((replace(request, hand=True), alone))

    @property
    def hurried(self) -> int:
        """Generations that are admitted before others: in flight, or at the next tick."""
        batches = self._batches.items()
        in_flight = sum(len(batch.slots) for (_, _, hand), batch in batches if hand)
        return in_flight + len(self._hurried)

    def hasten(self) -> None:
        """Let the next admission wait for a free slot only, not for its turn in the stagger."""
        self._pace.hasten(self.tick_number)

    def forget(self) -> None:
        """Empty the store, and keep nothing of what is in flight: the model did not make it."""
        self._store.clear()
        self._keep_none_in_flight()

    def _keep_none_in_flight(self) -> None:
        """What is in flight is no generation of its request alone: it goes into no store."""
        for batch in self._batches.values():
            for slot in batch.slots:
                slot.key = None

    def stats(self) -> RingStats:
        """What was made, what was taken from the store, and whether the ring rests."""
        return RingStats(self._made, self._taken, not self.in_flight)

    # -- a tick --------------------------------------------------------------------------------

    def tick(self) -> list[Generation]:
        """Admit what is due, step every slot once, return all finished generations, newest last;
        those that were in the store come first.

        An error of the model leaves every slot that did not step where it was.
        """
        with torch.no_grad(), torch_threads(1) as for_model:
            self._admit()
            self._weigh()
            snapshot = self._shared.snapshot()
            for batch in self._stepping():
                batch.advance(self.model, snapshot, for_model)
                self._retire(batch)
            found, self._from_store = self._from_store, []
            done = self._hand_out()
        self.tick_number += 1
        return found + done

    def _stepping(self) -> list[SlotBatch]:
        """The batches that make a step in this tick."""
        batches = [batch for batch in self._batches.values() if batch.slots]
        alone = [b for b in batches if any(slot.k < slot.alone for slot in b.slots)]
        return alone or batches

    def flush(self) -> list[Generation]:
        """Tick until nothing is in flight and the mailboxes are empty; returns all generations."""
        on_admit, self.on_admit = self.on_admit, None
        done: list[Generation] = []
        try:
            while self.in_flight or self._decks.waiting():
                done += self.tick()
        finally:
            self.on_admit = on_admit
        return done

    def _weigh(self) -> None:
        """Use other weights from this tick on, for all slots alike; they count as a version."""
        if self._weights.before_tick():
            self._shared.bump()
            # What is in flight is made with both.
            self._keep_none_in_flight()
            self.weighed_at = self.version
        if self._weights.trouble is not None:
            self.trouble, self._weights.trouble = self._weights.trouble, None

    def _admit(self) -> None:
        hurried, self._hurried = self._hurried, []
        for first, alone in hurried:
            if not self._take_from_store(first):
                self._start(first, 0 if self.hurried else alone)
        while (
            self._pace.is_due(self.tick_number)
            and self.in_flight < self.depth
            and len(self._from_store) < _MOST_FOUND
        ):
            request = self._next_request()
            if request is None:
                return
            if self._take_from_store(request):
                continue
            self._start(request)
            self._pace.admit(self.tick_number)

    def _key(self, request: Request) -> bytes | None:
        # Adapters are of the whole ring, and may change while the generation is in flight.
        return None if self.strengths else key_of(request, self.steps, self.shift)

    def _take_from_store(self, request: Request) -> bool:
        latent = self._store.get(self._key(request))
        if latent is None:
            return False
        self._taken += 1
        now = self.tick_number
        self._from_store.append(Generation(latent, request, (self.version,), now, now))
        return True

    def _next_request(self) -> Request | None:
        """The request of the deck whose turn it is, among those that have one."""
        for entry in self._decks.in_turn():
            request = entry.mailbox or self._pull(entry)
            entry.mailbox = None
            if request is None:
                continue
            if request.epoch < entry.epoch:
                self.stale += 1
                continue
            self._decks.count_turn(entry)
            return request
        return None

    def _pull(self, entry: RingDeck) -> Request | None:
        """A request from `on_admit`. One deck's bad request must not hold up the others' ticks."""
        if self.on_admit is None:
            return None
        try:
            request = self.on_admit(entry.deck)
            if request is not None:
                self._check(entry, request)
        except DemonError as error:
            self.refused, self.trouble = self.refused + 1, error
            return None
        return request

    def _start(self, request: Request, alone: int = 0) -> None:
        entry = self._decks.enlist(request.deck)
        source = source_with_feedback(request, entry)
        has_source = source is not None
        slot = Slot(
            self._serial,
            request,
            self._times(request, has_source, self.steps),
            has_source,
            self.tick_number,
            source,
            key=self._key(request),
            alone=alone,
        )
        self._serial += 1
        shape = (request.frames, request.channels, request.hand)
        if shape not in self._batches:
            # Shapes without slots free their memory.
            self._batches = {k: b for k, b in self._batches.items() if b.slots}
            self._batches[shape] = SlotBatch(
                *shape[:2], self._device, self._noise, self._dcw, self._capture
            )
        self._batches[shape].reserve(self.depth)
        self._batches[shape].admit(slot)

    def _times(self, request: Request, has_source: bool, steps: int) -> NDArray[np.float64]:
        """A request's schedule. Without a source there is nothing to keep: denoise counts as 1."""
        denoise = request.denoise if has_source else 1.0
        return timesteps(steps, denoise, self.shift if request.shift is None else request.shift)

    def _retire(self, batch: SlotBatch) -> None:
        done = [slot for slot in batch.slots if slot.done]
        for slot in done:
            self._readback.send((slot, self.tick_number), batch.latent(slot))
        batch.drop(done)

    def _hand_out(self) -> list[Generation]:
        """The finished generations, in the order of their births; others are counted as dropped."""
        out = []
        for slot, tick, latent in self._finished():
            if latent is None:
                self.dropped += 1
                continue
            entry = self._decks.get(slot.request.deck)
            if entry is not None:
                entry.history.appendleft(latent)
            self._made += 1
            self._store.put(slot.key, latent)
            out.append(Generation(latent, slot.request, tuple(slot.versions), slot.born, tick))
        return out

    def _finished(self) -> list[tuple[Slot, int, Floats | None]]:
        """(slot, tick of its last step, latent), by birth; None for a latent that is not sound."""
        received = sorted(self._readback.receive(), key=lambda entry: entry[0][0].id)
        return [
            (slot, tick, latent if _is_sound(latent) else None) for (slot, tick), latent in received
        ]

    @property
    def graphs(self) -> tuple[int, int]:
        """CUDA graphs that were captured, and launches of them."""
        all_of_them = [batch.graphs for batch in self._batches.values()]
        return sum(g.captured for g in all_of_them), sum(g.replayed for g in all_of_them)

    def close(self) -> None:
        """End the worker that prepares weights, if there is one."""
        self._weights.close()

    @property
    def version(self) -> int:
        return self._shared.version

    @property
    def strengths(self) -> Mapping[str, float]:
        """The adapters that are in force, name -> strength."""
        return self._weights.in_force

    @property
    def in_flight(self) -> int:
        """Slots in the ring, those above a smaller new depth included."""
        return sum(len(batch.slots) for batch in self._batches.values())

    def requests(self, deck: str) -> list[Request]:
        """What is in flight for a deck."""
        slots = (slot for batch in self._batches.values() for slot in batch.slots)
        return [slot.request for slot in slots if slot.request.deck == deck]

    @property
    def free(self) -> bool:
        """Whether the next tick would admit a request."""
        return self._room() > 0

    def _room(self) -> int:
        return min(self._pace.count(self.tick_number), self.depth - self.in_flight)

    def wants(self) -> list[str]:
        """The decks whose requests the next tick would admit: build theirs now, submit, tick."""
        return [entry.deck for entry in self._decks.in_turn()][: max(0, self._room())]

    def slots(self) -> tuple[SlotStatus, ...]:
        """What is in flight, oldest first."""
        slots = sorted(
            (slot for batch in self._batches.values() for slot in batch.slots),
            key=lambda slot: slot.id,
        )
        return tuple(SlotStatus(s.request.deck, s.k, s.steps, s.request.denoise) for s in slots)

    def preview(self, deck: str, steps: int | None = None) -> Generation | None:
        """The clean prediction of the deck's most advanced slot, so that a change is heard before
        its generation is finished. None when no slot of it has made a step, or it is not sound.

        steps: of a slot that a hand waits for and that has made just so many.
        """
        stepped = [
            (slot.k, -slot.id, batch, place)
            for batch in self._batches.values()
            for place, slot in enumerate(batch.slots)
            if slot.request.deck == deck
            and slot.row >= 0
            and (steps is None or (slot.request.hand and slot.k == steps))
        ]
        if not stepped:
            return None
        _, _, batch, place = max(stepped, key=lambda found: found[:2])
        slot = batch.slots[place]
        with torch.no_grad():
            latent = batch.predictions([place])[0].cpu().numpy()
        if not _is_sound(latent):
            return None
        return Generation(
            latent, slot.request, tuple(slot.versions), slot.born, self.tick_number - 1
        )


def _depth(depth: int) -> int:
    if depth < 1:
        raise UsageError(f"a ring holds at least 1 generation, not {depth}", hint="depth 4")
    return depth


def _is_sound(latent: Floats) -> bool:
    """Whether a latent is finite and has not exploded."""
    return bool(np.abs(latent).max(initial=0.0) <= _LARGEST)  # False for NaN, too


def _fall(old: float, new: float) -> float:
    """The part by which a denoise falls, 0..1; 0 when it does not."""
    return max(0.0, 1.0 - new / old) if old > 0.0 else 0.0


def changed_request(request: Request, denoise: float | None, shift: float | None) -> Request:
    return replace(
        request,
        denoise=request.denoise if denoise is None else denoise,
        shift=request.shift if shift is None else shift,
    )
