"""A choir: N rings, one for each GPU, that play as one ring of N times the depth.

    Choir   the desk: requests, shared values, the admission clock, stamps. No tensors.
    Voice   a ring that admits what it is told, when it is told; in a process or an actor of its own
    Order   what a voice is told for one tick; Answer: what it gives back

The k-th admission goes to the voice with the fewest generations in flight, in turn: so admissions,
and with them completions, lie evenly between each other in phase. All voices make a tick at the
same time, with the same snapshot of the shared values, and noise depends on nothing but a request's
seed and its step. So what comes out is what a single ring of N times the depth gives: the same
latents (bit for bit where the model computes rows independently), seeds, versions and ticks.

ahead: orders that may be on their way before answers are waited for. 0 is exact in everything. With
1 no voice waits for the desk; latents come out a tick later, and `feedback` sees them a tick later.

Threads: a Choir and a Voice belong to one thread each, of two processes as a rule.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from demon_live.core import Floats, Generation, Request, SlotStatus
from demon_live.engine.ring import Ring, _changed, _with_feedback
from demon_live.engine.shared import Snapshot
from demon_live.engine.slots import VelocityModel
from demon_live.engine.threads import threads
from demon_live.errors import EngineError

__all__ = ["Answer", "Choir", "Finished", "Link", "Lost", "Order", "Voice"]


class Lost(EngineError):
    """A voice is gone; what it had in flight is gone with it."""


@dataclass(frozen=True, slots=True)
class Order:
    """One tick of a voice. changes, before the admissions: ("drop", serials) or ("migrate", deck,
    denoise, shift). admit: (serial, request). snapshot: (version, common bank, banks of decks);
    None: as before. strengths: of adapters from this tick on; None: as before.
    """

    tick: int
    depth: int
    steps: int
    changes: tuple[tuple[Any, ...], ...] = ()
    admit: tuple[tuple[int, Request], ...] = ()
    snapshot: tuple[int, Mapping[str, Any], Mapping[str, Any]] | None = None
    strengths: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A generation as a voice knows it. latent: None where it was not finite."""

    serial: int
    latent: Floats | None
    versions: tuple[int, ...]
    born: int
    retired: int


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of an order. trouble: why the model made no step, or ""."""

    finished: tuple[Finished, ...] = ()
    trouble: str = ""


class Link(Protocol):
    """The way to a voice: orders and answers, in order, one for one. Both raise Lost."""

    def send(self, order: Order) -> None: ...
    def receive(self) -> Answer: ...
    def close(self) -> None: ...


class Voice(Ring):
    """A ring under orders. resolve: what a request's conditions are to this voice's own model."""

    def __init__(
        self,
        model: VelocityModel,
        *,
        shift: float,
        device: str | torch.device = "cpu",
        resolve: Callable[[Request], Request] = lambda request: request,
        **more: Any,
    ) -> None:
        super().__init__(model, steps=1, depth=1, shift=shift, device=device, **more)
        self._resolve = resolve
        self._state = Snapshot(0, MappingProxyType({}), MappingProxyType({}))

    def obey(self, order: Order) -> Answer:
        """Make a tick. An error of the model leaves every slot that did not step where it was."""
        self.tick_number, self.depth, self.steps = order.tick, order.depth, order.steps
        if order.snapshot is not None:
            version, everywhere, decks = order.snapshot
            self._state = Snapshot(version, MappingProxyType(everywhere), MappingProxyType(decks))
        trouble = ""
        with torch.no_grad(), threads(1) as for_model:
            self._change(order)
            for serial, request in order.admit:
                self._serial = serial
                self._start(self._resolve(request))
            # As in the engine's own tick, a model may fail in any way.
            try:
                for bucket in self._buckets.values():
                    if bucket.slots:
                        bucket.advance(self.model, self._state, for_model)
                        self._retire(bucket)
            except Exception as error:  # noqa: BLE001
                trouble = f"{type(error).__name__}: {error}"
        return Answer(tuple(self._finished()), trouble)

    def _change(self, order: Order) -> None:
        for kind, *what in order.changes:
            if kind == "drop":
                dead = set(what[0])
                self._free(lambda slot, dead=dead: slot.id in dead)  # type: ignore[misc]
            else:
                deck, denoise, shift = what
                self.migrate(deck, denoise=denoise, shift=shift)
        bank = getattr(self.model, "weights", None)
        if order.strengths is not None and bank is not None:
            bank.commit(bank.prepare(dict(order.strengths)))

    def _finished(self) -> list[Finished]:
        out = []
        for slot, tick, latent in self._handover.receive(self.tick_number):
            fine = bool(np.isfinite(np.vdot(latent, latent)))
            out.append(
                Finished(slot.id, latent if fine else None, tuple(slot.versions), slot.born, tick)
            )
        return out


@dataclass(slots=True)
class _Flying:
    """A generation in flight, as the desk knows it. ends: the tick that makes its last step."""

    request: Request
    born: int
    steps: int
    ends: int


@dataclass(slots=True, eq=False)
class _Part:
    """A voice as the desk knows it. told: the version of the snapshot that it has."""

    link: Link
    flying: dict[int, _Flying] = field(default_factory=dict)
    changes: list[tuple[Any, ...]] = field(default_factory=list)
    admit: list[tuple[int, Request]] = field(default_factory=list)
    told: int = -1


class _Adapters:
    """The names of the voices' adapters, for `Weights` to check and count by."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.strengths = tuple(names), dict[str, float]()
        self.fresh: dict[str, float] | None = None

    def prepare(self, strengths: Mapping[str, float]) -> Mapping[str, float]:
        return strengths

    def done(self, refit: Any) -> bool:
        return True

    def commit(self, refit: Mapping[str, float]) -> None:
        self.strengths = self.fresh = dict(refit)


class _Absent:
    """The desk has no model: only its voices do."""

    def __init__(self, adapters: Sequence[str]) -> None:
        self.weights = _Adapters(adapters)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        raise EngineError("the desk of a choir computes nothing")


class Choir(Ring):
    """See the module. depth: of all voices together; on_admit, shift: as of a Ring.

    adapters: names of the voices' LoRAs. wire: a request as the voices are told it (a condition
    that is no plain data must become some). tell: a line for the performer.
    """

    def __init__(
        self,
        links: Sequence[Link],
        *,
        steps: int = 8,
        depth: int = 8,
        shift: float = 3.0,
        on_admit: Callable[[str], Request | None] | None = None,
        adapters: Sequence[str] = (),
        ahead: int = 0,
        wire: Callable[[Request], Request] = lambda request: request,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        if not links:
            raise EngineError("a choir needs at least one voice")
        self._absent = _Absent(adapters)
        super().__init__(self._absent, steps=steps, depth=depth, shift=shift, on_admit=on_admit)
        self._parts = [_Part(link) for link in links]
        self._ahead, self._wire, self._tell = ahead, wire, tell
        self._sent: deque[int] = deque()
        self._turn = 0

    @property
    def voices(self) -> int:
        """How many sing."""
        return len(self._parts)

    # -- what goes in --------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        """To the voice with the fewest in flight; of those, the one whose turn it is."""
        count = len(self._parts)
        order = [(self._turn + i) % count for i in range(count)]
        at = min(order, key=lambda i: self._busy(self._parts[i]))
        self._turn = (at + 1) % count
        part, serial = self._parts[at], self._serial
        source = _with_feedback(request, self._desks.enlist(request.deck))
        told = self._wire(replace(request, source=source, feedback=0.0))
        part.admit.append((serial, told))
        ends = self.tick_number + self.steps - 1
        part.flying[serial] = _Flying(request, self.tick_number, self.steps, ends)
        self._serial += 1

    def _busy(self, part: _Part) -> int:
        return sum(one.ends >= self.tick_number for one in part.flying.values())

    @property
    def in_flight(self) -> int:
        """Slots that the next tick finds taken."""
        return sum(self._busy(part) for part in self._parts)

    def _free(self, dead: Callable[[Any], bool]) -> None:
        for part in self._parts:
            gone = [serial for serial, one in part.flying.items() if dead(one)]
            for serial in gone:
                del part.flying[serial]
            if gone:
                part.changes.append(("drop", tuple(gone)))

    def migrate(
        self, deck: str, *, denoise: float | None = None, shift: float | None = None
    ) -> int:
        """See `Ring.migrate`."""
        moved = 0
        for part in self._parts:
            mine = [
                one
                for one in part.flying.values()
                if one.request.deck == deck and one.ends >= self.tick_number
            ]
            for one in mine:
                one.request = _changed(one.request, denoise, shift)
            if mine:
                part.changes.append(("migrate", deck, denoise, shift))
            moved += len(mine)
        if moved:
            self._shared.bump()
        return moved

    # -- a tick --------------------------------------------------------------------------------

    def tick(self) -> list[Generation]:
        """One tick of every voice at the same time; all finished generations, newest last.

        Raises EngineError when a model failed (its slots stay where they were), or when no voice
        is left. A voice that is lost costs what it had in flight; the others sing on.
        """
        self._admit()
        self._weigh()
        strengths, self._absent.weights.fresh = self._absent.weights.fresh, None
        snapshot = self._shared.snapshot()
        for part in list(self._parts):
            order = self._order(part, snapshot, strengths)
            try:
                part.link.send(order)
            except Lost as error:
                self._lose(part, error)
        self._sent.append(self.tick_number)
        self.tick_number += 1
        out: list[Generation] = []
        while len(self._sent) > self._ahead:
            self._sent.popleft()
            out += self._collect()
        return out

    def _order(
        self, part: _Part, snapshot: Snapshot, strengths: Mapping[str, float] | None
    ) -> Order:
        news = None
        if part.told != snapshot.version:
            part.told = snapshot.version
            decks = {deck: dict(bank) for deck, bank in snapshot.decks.items()}
            news = (snapshot.version, dict(snapshot.everywhere), decks)
        order = Order(
            self.tick_number,
            -(-self.depth // len(self._parts)),
            self.steps,
            tuple(part.changes),
            tuple(part.admit),
            news,
            strengths,
        )
        part.changes, part.admit = [], []
        return order

    def _collect(self) -> list[Generation]:
        """The answers of all voices to the oldest order."""
        found: list[tuple[int, Generation]] = []
        trouble = ""
        for part in list(self._parts):
            try:
                answer = part.link.receive()
            except Lost as error:
                self._lose(part, error)
                continue
            for one in answer.finished:
                self._take(part, one, found)
            if answer.trouble:
                trouble = answer.trouble
                for flying in part.flying.values():
                    flying.ends += 1
        if not self._parts:
            raise EngineError("no voice of the choir is left")
        if trouble:
            raise EngineError(trouble)
        found.sort(key=lambda pair: pair[0])
        for _, generation in found:
            # In the order of their births, whichever voice was heard first: feedback counts them.
            desk = self._desks.get(generation.request.deck)
            if desk is not None:
                desk.history.appendleft(generation.latent)
        return [generation for _, generation in found]

    def _take(self, part: _Part, one: Finished, found: list[tuple[int, Generation]]) -> None:
        flying = part.flying.pop(one.serial, None)
        if flying is None:
            return  # of an epoch that has ended since
        if one.latent is None:
            self.dropped += 1
            return
        generation = Generation(one.latent, flying.request, one.versions, one.born, one.retired)
        found.append((one.serial, generation))

    def _lose(self, part: _Part, error: Lost) -> None:
        self._parts.remove(part)
        with contextlib.suppress(Lost, OSError):
            part.link.close()
        self._tell(f"a voice of the choir is gone ({error.message}); {len(self._parts)} sing on")
        if not self._parts:
            raise EngineError("no voice of the choir is left") from error

    def flush(self) -> list[Generation]:
        """See `Ring.flush`; waits for every answer."""
        asked, self.on_admit = self.on_admit, None
        done: list[Generation] = []
        try:
            while any(part.flying for part in self._parts) or self._desks.waiting():
                done += self.tick()
        finally:
            self.on_admit = asked
        return done

    def slots(self) -> tuple[SlotStatus, ...]:
        """What is in flight, oldest first."""
        flying = sorted(
            ((serial, one) for part in self._parts for serial, one in part.flying.items()),
            key=lambda pair: pair[0],
        )
        return tuple(
            SlotStatus(
                one.request.deck,
                max(0, min(one.steps, one.steps - 1 - one.ends + self.tick_number)),
                one.steps,
                one.request.denoise,
            )
            for _, one in flying
        )

    def preview(self, deck: str) -> Generation | None:
        """The voices keep their predictions to themselves: None."""
        return None

    def close(self) -> None:
        """End every voice."""
        super().close()
        for part in self._parts:
            with contextlib.suppress(Lost, OSError):
                part.link.close()
        self._parts = []
