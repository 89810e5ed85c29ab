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
from demon_live.engine import rng
from demon_live.engine.admission import Clock, Desk, Desks
from demon_live.engine.bucket import Bucket
from demon_live.engine.check import check_request
from demon_live.engine.dcw import Dcw
from demon_live.engine.lanes import MaskStrength
from demon_live.engine.readback import Handover
from demon_live.engine.schedule import timesteps
from demon_live.engine.shared import SharedState
from demon_live.engine.slots import Slot, VelocityModel
from demon_live.engine.threads import threads
from demon_live.engine.weights import PREFIX, Weights
from demon_live.errors import DemonError, UsageError

__all__ = ["Ring"]


class Ring:
    """D slots of S steps over a model.

    model: anything with `velocity(x [B, T, C], t [B], rows) -> [B, T, C]`. shift: of requests that
    name none. on_admit: asked for a deck's request at the very tick that admits it, when its
    mailbox is empty; None = nothing to play. dcw: wavelet correction, off by default. parity: the
    staircase of start levels of the DEMON engine, for comparison. overlap: on a GPU, hand latents
    out with the next tick, so that the device never waits for the host. mask_strength: how much
    of a request's mask counts at step k of S, 0..1; all of it when not given. background: prepare
    changes of weights beside the ticks (live), or in the tick itself (renders). capture: on a GPU,
    launch a tick's device work as CUDA graphs.

    A model with adapters has them as `weights` (engine.weights.Bank).

    Counters: tick_number (ticks done), dropped (generations that were not finite), stale (requests
    of dead epochs), refused (requests of on_admit that cannot be played; trouble is the last one's
    error), version (of the shared state), weighed_at (the version that the weights came with).
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
        parity: bool = False,
        overlap: bool = False,
        mask_strength: MaskStrength | None = None,
        noise_bytes: int = 96 << 20,
        background: bool = False,
        capture: bool = True,
    ) -> None:
        timesteps(steps, 1.0, shift)
        self.model, self.steps, self.depth, self.shift = model, steps, _depth(depth), shift
        self.on_admit = on_admit
        self.tick_number = self.dropped = self.stale = self.refused = 0
        self.trouble: DemonError | None = None
        self.weighed_at = 1 << 62
        self._device = torch.device(device)
        self._parity = parity
        self._dcw, self._mask_strength, self._capture = dcw, mask_strength, capture
        self._noise = rng.NoiseCache(self._device, noise_bytes)
        self._shared = SharedState()
        self._weights = Weights(getattr(model, "weights", None), background)
        self._clock = Clock(steps, depth)
        self._desks = Desks()
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self._handover = Handover(self._device, overlap)
        self._serial = 0

    # -- what goes in --------------------------------------------------------------------------

    def submit(self, request: Request) -> Request | None:
        """Put a request into its deck's mailbox; the latest wins. Returns the one it replaced.

        A request of a dead epoch is counted in `stale` and forgotten. One of an epoch to come may
        fly beside the present one, which ends with `new_epoch`. Raises ScoreError for a request
        that cannot be played.
        """
        desk = self._desks.enlist(request.deck)
        if request.epoch < desk.epoch:
            self.stale += 1
            return None
        self._check(desk, request)
        desk.mailbox, old = request, desk.mailbox
        return old

    def _check(self, desk: Desk, request: Request) -> None:
        check_request(request, self.steps, self.shift)
        if desk.renewed:
            # Curves of the epoch that ended serve on if the length is the same.
            self._shared.keep_lengths(request.deck, {request.frames})
            desk.renewed = False
        self._shared.fits(request.deck, request.frames, request.channels)
        desk.frames[request.epoch] = request.frames
        desk.channels = request.channels

    def share(self, name: str, value: object, deck: str | None = None) -> None:
        """Set a control of class step from the next tick on: a number, float32 [T], or None; or a
        `lora.NAME` of class model, a number, from the tick after its weights are worked out.

        A deck's own value wins over the common one; None removes the value. `energy` also takes
        one value per channel, [C] (or [1, C], to be certain where T = C). A curve serves loops of
        its own length. Raises ScoreError for a wrong name, length or a value that is not finite.

        blend: absent, the solver is Euler's; present, it is the paper's re-noising with the source
        blended in (`solver.blended`), from the next step on, also for slots in flight. Without a
        source, it blends towards zeros.
        """
        if name.startswith(PREFIX):
            self._weights.want(name, value, deck)
            return
        self._shared.write(name, value, deck, self._desks.lengths(deck), self._desks.channels(deck))

    def prepare(self, deck: str, epoch: int, frames: int) -> None:
        """Announce the T of an epoch to come, so that its curves can be shared ahead of it."""
        self._desks.enlist(deck).frames[epoch] = frames

    def enlist(self, deck: str, weight: float = 1.0) -> None:
        """Make a deck known (for `on_admit`) and set its share of admissions; 0 = none."""
        self._desks.enlist(deck).weight = max(0.0, weight)

    def dismiss(self, deck: str) -> None:
        """Forget a deck: its slots are freed, its mailbox and its shared values are gone."""
        self._free(lambda slot: slot.request.deck == deck)
        self._handover.forget(deck, None)
        self._desks.dismiss(deck)
        self._shared.forget(deck)
        self._weights.forget(deck)

    def new_epoch(self, deck: str, epoch: int) -> None:
        """End all epochs of a deck before `epoch`: their slots are freed at once, none comes out.

        Feedback's history goes with them, and so do the deck's curves of lengths that are gone.
        """
        desk = self._desks.enlist(deck)
        if epoch <= desk.epoch:
            return
        desk.epoch = epoch
        desk.history.clear()
        desk.frames = {e: frames for e, frames in desk.frames.items() if e >= epoch}
        desk.renewed = not desk.frames
        if desk.mailbox is not None and desk.mailbox.epoch < epoch:
            desk.mailbox = None
        if desk.frames:
            self._shared.keep_lengths(deck, set(desk.frames.values()))
        self._free(lambda slot: slot.request.deck == deck and slot.request.epoch < epoch)
        self._handover.forget(deck, epoch)
        if self.in_flight < self.depth:
            # Nothing of the deck is in flight: it is not to wait for its turn as well.
            self._desks.first(desk)
            self._clock.hasten(self.tick_number)

    def _free(self, dead: Callable[[Slot], bool]) -> None:
        for bucket in self._buckets.values():
            bucket.drop([slot for slot in bucket.slots if dead(slot)])

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
        self._clock.retune(self.steps, self.depth)

    def migrate(
        self, deck: str, *, denoise: float | None = None, shift: float | None = None
    ) -> int:
        """Move the deck's slots in flight to another schedule, at their own step, with one effect
        on the next tick. Returns how many moved; a request in the mailbox is not touched.

        The generations carry the new values in their requests, and the move counts as a version.
        """
        moved = 0
        with torch.no_grad():
            for bucket in self._buckets.values():
                places = [i for i, s in enumerate(bucket.slots) if s.request.deck == deck]
                if not places:
                    continue
                slots = [bucket.slots[i] for i in places]
                requests = [_changed(slot.request, denoise, shift) for slot in slots]
                times = [
                    self._times(request, slot.has_source, slot.steps)
                    for request, slot in zip(requests, slots, strict=True)
                ]
                pulls = [
                    _fall(slot.request.denoise, request.denoise) if slot.has_source else 0.0
                    for request, slot in zip(requests, slots, strict=True)
                ]
                bucket.migrate(places, times, pulls)
                for slot, request in zip(slots, requests, strict=True):
                    slot.request = request
                moved += len(places)
        if moved:
            self._shared.bump()
        return moved

    # -- a tick --------------------------------------------------------------------------------

    def tick(self) -> list[Generation]:
        """Admit what is due, step every slot once, return all finished generations, newest last.

        An error of the model leaves every slot that did not step where it was.
        """
        with torch.no_grad(), threads(1) as for_model:
            self._admit()
            self._weigh()
            snapshot = self._shared.snapshot()
            for bucket in self._buckets.values():
                if bucket.slots:
                    bucket.advance(self.model, snapshot, for_model)
                    self._retire(bucket)
            done = self._hand_out()
        self.tick_number += 1
        return done

    def flush(self) -> list[Generation]:
        """Tick until nothing is in flight and no mailbox holds a request; all that came out."""
        asked, self.on_admit = self.on_admit, None
        done: list[Generation] = []
        try:
            while self.in_flight or self._desks.waiting() or not self._handover.empty:
                done += self.tick()
        finally:
            self.on_admit = asked
        return done

    def _weigh(self) -> None:
        """Other weights from this tick on, for all slots alike: a version like any other."""
        if self._weights.before_tick():
            self._shared.bump()
            self.weighed_at = self.version
        if self._weights.trouble is not None:
            self.trouble, self._weights.trouble = self._weights.trouble, None

    def _admit(self) -> None:
        while self._clock.open(self.tick_number) and self.in_flight < self.depth:
            request = self._next_request()
            if request is None:
                return
            self._start(request)
            self._clock.admitted(self.tick_number)

    def _next_request(self) -> Request | None:
        """The request of the deck whose turn it is, among those that have one."""
        for desk in self._desks.in_turn():
            request = desk.mailbox or self._asked(desk)
            desk.mailbox = None
            if request is None:
                continue
            if request.epoch < desk.epoch:
                self.stale += 1
                continue
            self._desks.served(desk)
            return request
        return None

    def _asked(self, desk: Desk) -> Request | None:
        """What `on_admit` gives. One deck's bad request must not hold up the others' ticks."""
        if self.on_admit is None:
            return None
        try:
            request = self.on_admit(desk.deck)
            if request is not None:
                self._check(desk, request)
        except DemonError as error:
            self.refused, self.trouble = self.refused + 1, error
            return None
        return request

    def _start(self, request: Request) -> None:
        desk = self._desks.enlist(request.deck)
        source = _with_feedback(request, desk)
        has_source = source is not None
        slot = Slot(
            self._serial,
            request,
            self._times(request, has_source, self.steps),
            has_source,
            self.tick_number,
            source,
        )
        self._serial += 1
        shape = (request.frames, request.channels)
        if shape not in self._buckets:
            # A shape that nothing uses any more gives its memory back.
            self._buckets = {k: b for k, b in self._buckets.items() if b.slots}
            device, noise = self._device, self._noise
            self._buckets[shape] = Bucket(
                *shape, device, noise, self._dcw, self._mask_strength, self._capture
            )
        self._buckets[shape].reserve(self.depth)
        self._buckets[shape].admit(slot)

    def _times(self, request: Request, has_source: bool, steps: int) -> NDArray[np.float64]:
        """A request's schedule. Without a source there is nothing to keep: denoise counts as 1."""
        denoise = request.denoise if has_source else 1.0
        return timesteps(
            steps, denoise, self.shift if request.shift is None else request.shift, self._parity
        )

    def _retire(self, bucket: Bucket) -> None:
        done = [slot for slot in bucket.slots if slot.done]
        for slot in done:
            self._handover.send(slot, self.tick_number, bucket.latent(slot))
        bucket.drop(done)

    def _hand_out(self) -> list[Generation]:
        """The finished generations, in the order of their births; the damaged ones are counted."""
        out = []
        for slot, tick, latent in self._handover.receive(self.tick_number):
            # One pass: a sum of squares is finite if all that is in it is.
            if not np.isfinite(np.vdot(latent, latent)):
                self.dropped += 1
                continue
            desk = self._desks.get(slot.request.deck)
            if desk is not None:
                desk.history.appendleft(latent)
            out.append(Generation(latent, slot.request, tuple(slot.versions), slot.born, tick))
        return out

    @property
    def graphs(self) -> tuple[int, int]:
        """CUDA graphs that were captured, and launches of them."""
        all_of_them = [bucket.graphs for bucket in self._buckets.values()]
        return sum(g.captured for g in all_of_them), sum(g.replayed for g in all_of_them)

    def close(self) -> None:
        """End the worker that prepares weights, if there is one."""
        self._weights.close()

    # -- what can be asked ---------------------------------------------------------------------

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
        return sum(len(bucket.slots) for bucket in self._buckets.values())

    @property
    def free(self) -> bool:
        """Whether the next tick would admit a request."""
        return self._room() > 0

    def _room(self) -> int:
        return min(self._clock.count(self.tick_number), self.depth - self.in_flight)

    def wants(self) -> list[str]:
        """The decks whose requests the next tick would admit: build theirs now, submit, tick."""
        return [desk.deck for desk in self._desks.in_turn()][: max(0, self._room())]

    def slots(self) -> tuple[SlotStatus, ...]:
        """What is in flight, oldest first."""
        slots = sorted(
            (slot for bucket in self._buckets.values() for slot in bucket.slots),
            key=lambda slot: slot.id,
        )
        return tuple(SlotStatus(s.request.deck, s.k, s.steps, s.request.denoise) for s in slots)

    def preview(self, deck: str) -> Generation | None:
        """The clean prediction of the deck's most advanced slot, so that a change is heard before
        its generation is finished. None when no slot of it has made a step, or it is not finite.
        """
        found: tuple[Bucket, int] | None = None
        for bucket in self._buckets.values():
            for place, slot in enumerate(bucket.slots):
                if (
                    slot.request.deck == deck
                    and slot.row >= 0
                    and (found is None or slot.k > found[0].slots[found[1]].k)
                ):
                    found = bucket, place
        if found is None:
            return None
        bucket, place = found
        slot = bucket.slots[place]
        with torch.no_grad():
            latent = bucket.predictions([place])[0].cpu().numpy()
        if not np.isfinite(latent).all():
            return None
        return Generation(
            latent, slot.request, tuple(slot.versions), slot.born, self.tick_number - 1
        )


def _depth(depth: int) -> int:
    if depth < 1:
        raise UsageError(f"a ring holds at least 1 generation, not {depth}", hint="depth 4")
    return depth


def _fall(old: float, new: float) -> float:
    """The part by which a denoise falls, 0..1; 0 when it does not."""
    return max(0.0, 1.0 - new / old) if old > 0.0 else 0.0


def _changed(request: Request, denoise: float | None, shift: float | None) -> Request:
    return replace(
        request,
        denoise=request.denoise if denoise is None else denoise,
        shift=request.shift if shift is None else shift,
    )


def _with_feedback(request: Request, desk: Desk) -> Floats | None:
    """(1 - f) source + f (the n-th last generation, or the oldest of those there are)."""
    if request.feedback == 0.0 or not desk.history:
        return request.source
    earlier = desk.history[min(request.feedback_depth, len(desk.history)) - 1]
    if earlier.shape != (request.frames, request.channels):
        return request.source
    f = np.float32(request.feedback)
    own = np.zeros_like(earlier) if request.source is None else request.source
    return np.asarray((1 - f) * own + f * earlier, dtype=np.float32)
