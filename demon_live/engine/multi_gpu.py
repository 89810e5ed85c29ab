"""N rings, one for each GPU, that play as one ring of N times the depth.

    MultiGpuRing   requests, shared values, the pace of admissions, stamps; no tensors
    WorkerRing     a ring that carries out orders, in a process or a Ray actor of its own
    TickOrder      one tick of a worker; WorkerReply: its result

An admission goes to the worker with the fewest generations in flight, in turn, so that admissions
and completions lie evenly between each other. All workers make a tick at the same time, with the
same snapshot of the shared values, and noise depends only on a request's seed and its step. So the
result is that of a single ring of N times the depth: the same latents (bit for bit where the model
computes rows independently), seeds, versions and ticks.

ahead: orders that may be under way before replies are waited for. 0 is exact in everything. With 1
no worker waits for the next order; latents come a tick later, and `feedback` sees them a tick
later.

Threads: a MultiGpuRing and a WorkerRing belong to one thread each, as a rule of two processes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import torch

from demon_live.core import Floats, Generation, Request, SlotStatus
from demon_live.engine.admission import source_with_feedback
from demon_live.engine.ring import Ring, changed_request
from demon_live.engine.rows import VelocityModel
from demon_live.engine.shared import Snapshot
from demon_live.engine.staging import torch_threads
from demon_live.errors import EngineError


class WorkerLost(EngineError):
    """A worker is gone, and with it its generations in flight."""


@dataclass(frozen=True, slots=True)
class TickOrder:
    """One tick of a worker.

    Attributes:
        changes: ("clear",), ("drop", serials), ("migrate", deck, denoise, shift), ("steer", deck,
            hear_from, curves) or ("timbre", name, sound), before the admissions.
        admit: (serial, request).
        snapshot: (version, common bank, banks of decks); None: as before.
        strengths: of adapters from this tick on; None: as before.
    """

    tick: int
    depth: int
    steps: int
    changes: tuple[tuple[Any, ...], ...] = ()
    admit: tuple[tuple[int, Request], ...] = ()
    snapshot: tuple[int, Mapping[str, Any], Mapping[str, Any]] | None = None
    strengths: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WorkerResult:
    """A generation that a worker has finished. latent: None if it was not finite."""

    serial: int
    latent: Floats | None
    versions: tuple[int, ...]
    born: int
    retired: int


@dataclass(frozen=True, slots=True, eq=False)
class WorkerReply:
    """The result of an order. trouble: why the model made no step, or ""."""

    finished: tuple[WorkerResult, ...] = ()
    trouble: str = ""


class WorkerLink(Protocol):
    """A channel to a worker: one reply for each order, in order. Both raise WorkerLost."""

    def send(self, order: TickOrder) -> None: ...
    def receive(self) -> WorkerReply: ...
    def close(self) -> None: ...


class WorkerRing(Ring):
    """A ring that carries out orders. resolve: puts its model's own conditions into a request.
    set_timbre: of its engine."""

    def __init__(
        self,
        model: VelocityModel,
        *,
        shift: float,
        device: str | torch.device = "cpu",
        resolve: Callable[[Request], Request] = lambda request: request,
        set_timbre: Callable[[str, Floats], None] = lambda name, audio: None,
        **more: Any,
    ) -> None:
        super().__init__(model, steps=1, depth=1, shift=shift, device=device, **more)
        self._resolve, self._set_timbre = resolve, set_timbre
        self._state = Snapshot(0, MappingProxyType({}), MappingProxyType({}))

    def run(self, order: TickOrder) -> WorkerReply:
        """Make a tick. An error of the model leaves every slot that did not step where it was."""
        self.tick_number, self.depth, self.steps = order.tick, order.depth, order.steps
        if order.snapshot is not None:
            version, everywhere, decks = order.snapshot
            self._state = Snapshot(version, MappingProxyType(everywhere), MappingProxyType(decks))
        trouble = ""
        with torch.no_grad(), torch_threads(1) as for_model:
            self._change(order)
            for serial, request in order.admit:
                self._serial = serial
                self._start(self._resolve(request))
            # As in the engine's own tick, a model may fail in any way.
            try:
                for batch in self._batches.values():
                    if batch.slots:
                        batch.advance(self.model, self._state, for_model)
                        self._retire(batch)
            except Exception as error:  # noqa: BLE001
                trouble = f"{type(error).__name__}: {error}"
        results = tuple(
            WorkerResult(slot.id, latent, tuple(slot.versions), slot.born, tick)
            for slot, tick, latent in self._finished()
        )
        return WorkerReply(results, trouble)

    def _change(self, order: TickOrder) -> None:
        for kind, *what in order.changes:
            if kind == "steer":
                self.steer(*what)
            elif kind == "clear":
                self._free(lambda slot: True)
            elif kind == "timbre":
                self._set_timbre(*what)
            elif kind == "drop":
                dead = set(what[0])
                self._free(lambda slot, dead=dead: slot.id in dead)  # type: ignore[misc]
            else:
                deck, denoise, shift = what
                self.migrate(deck, denoise=denoise, shift=shift)
        bank = getattr(self.model, "weights", None)
        if order.strengths is not None and bank is not None:
            bank.commit(bank.prepare(dict(order.strengths)))


@dataclass(slots=True)
class _InFlight:
    """A generation in flight. ends: the tick that makes its last step. key: see `Store`."""

    request: Request
    born: int
    steps: int
    ends: int
    key: bytes | None


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker, and the orders for its next tick. version: of the snapshot that it has."""

    link: WorkerLink
    in_flight: dict[int, _InFlight] = field(default_factory=dict)
    changes: list[tuple[Any, ...]] = field(default_factory=list)
    admit: list[tuple[int, Request]] = field(default_factory=list)
    version: int = -1


class _AdapterNames:
    """The adapters of the workers by name, as the `Bank` of AdapterStrengths. fresh: to be sent."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.strengths = tuple(names), dict[str, float]()
        self.fresh: dict[str, float] | None = None

    def prepare(self, strengths: Mapping[str, float]) -> Mapping[str, float]:
        return strengths

    def done(self, refit: Any) -> bool:
        return True

    def commit(self, refit: Mapping[str, float]) -> None:
        self.strengths = self.fresh = dict(refit)


class _NoModel:
    """Stands for the model: only the workers have one."""

    def __init__(self, adapters: Sequence[str]) -> None:
        self.weights = _AdapterNames(adapters)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        raise EngineError("a multi-GPU ring has no model of its own")


class MultiGpuRing(Ring):
    """See the module.

    Args:
        links: one to each worker; they stay open when the ring is closed.
        steps, shift, on_admit: as of a Ring; depth: of all workers together.
        adapters: names of the workers' LoRAs.
        ahead: see the module.
        encode: a request as it is sent; its condition must be plain data.
        tell: takes a line for the performer.
        news: changes for all workers; any thread may add some.
    """

    def __init__(
        self,
        links: Sequence[WorkerLink],
        *,
        steps: int = 8,
        depth: int = 8,
        shift: float = 3.0,
        on_admit: Callable[[str], Request | None] | None = None,
        adapters: Sequence[str] = (),
        ahead: int = 0,
        encode: Callable[[Request], Request] = lambda request: request,
        tell: Callable[[str], None] = lambda text: None,
        news: deque[tuple[Any, ...]] | None = None,
    ) -> None:
        if not links:
            raise EngineError("a multi-GPU ring needs at least one worker")
        self._names = _NoModel(adapters)
        super().__init__(self._names, steps=steps, depth=depth, shift=shift, on_admit=on_admit)
        # Of a ring before this one nothing stays.
        self._workers = [_Worker(link, changes=[("clear",)]) for link in links]
        self._news = deque[tuple[Any, ...]]() if news is None else news
        self._ahead, self._encode, self._tell = ahead, encode, tell
        self._sent: deque[int] = deque()
        self._turn = 0

    @property
    def links(self) -> list[WorkerLink]:
        """To the workers that are left."""
        return [worker.link for worker in self._workers]

    # -- requests ------------------------------------------------------------------------------

    def _start(self, request: Request, alone: int = 0) -> None:
        """Send it to the worker with the fewest in flight; of those, the one whose turn it is."""
        count = len(self._workers)
        order = [(self._turn + i) % count for i in range(count)]
        at = min(order, key=lambda i: self._busy(self._workers[i]))
        self._turn = (at + 1) % count
        worker, serial = self._workers[at], self._serial
        source = source_with_feedback(request, self._decks.enlist(request.deck))
        sent = self._encode(replace(request, source=source, feedback=0.0))
        worker.admit.append((serial, sent))
        ends = self.tick_number + self.steps - 1
        key, now = self._key(request), self.tick_number
        worker.in_flight[serial] = _InFlight(request, now, self.steps, ends, key)
        self._serial += 1

    def _busy(self, worker: _Worker) -> int:
        return sum(one.ends >= self.tick_number for one in worker.in_flight.values())

    @property
    def in_flight(self) -> int:
        """Slots that are taken at the next tick."""
        return sum(self._busy(worker) for worker in self._workers)

    def _free(self, dead: Callable[[Any], bool]) -> None:
        for worker in self._workers:
            gone = [serial for serial, one in worker.in_flight.items() if dead(one)]
            for serial in gone:
                del worker.in_flight[serial]
            if gone:
                worker.changes.append(("drop", tuple(gone)))

    def migrate(
        self, deck: str, *, denoise: float | None = None, shift: float | None = None
    ) -> int:
        """See `Ring.migrate`."""
        moved = 0
        for worker in self._workers:
            mine = [
                one
                for one in worker.in_flight.values()
                if one.request.deck == deck and one.ends >= self.tick_number
            ]
            for one in mine:
                one.request, one.key = changed_request(one.request, denoise, shift), None
            if mine:
                worker.changes.append(("migrate", deck, denoise, shift))
            moved += len(mine)
        if moved:
            self._shared.bump()
        return moved

    def steer(self, deck: str, hear_from: int, curves: Mapping[str, Floats]) -> None:
        """See `Ring.steer`."""
        for worker in self._workers:
            worker.changes.append(("steer", deck, hear_from, dict(curves)))
            for one in worker.in_flight.values():
                if (one.request.deck, one.request.hear_from) == (deck, hear_from):
                    one.request, one.key = replace(one.request, curves=curves), None
        self._shared.bump()

    # -- a tick --------------------------------------------------------------------------------

    def tick(self) -> list[Generation]:
        """One tick of all workers at the same time; all finished generations, newest last. Those
        that were in the store come first.

        The generations in flight of a worker that is lost are lost; the other workers go on.

        Raises:
            EngineError: a model failed (its slots stay where they were), or no worker is left.
        """
        self._admit()
        self._weigh()
        news = [self._news.popleft() for _ in tuple(self._news)]
        for worker in self._workers:
            worker.changes += news
        strengths, self._names.weights.fresh = self._names.weights.fresh, None
        snapshot = self._shared.snapshot()
        for worker in list(self._workers):
            order = self._order(worker, snapshot, strengths)
            try:
                worker.link.send(order)
            except WorkerLost as error:
                self._lose(worker, error)
        self._sent.append(self.tick_number)
        self.tick_number += 1
        out: list[Generation] = []
        while len(self._sent) > self._ahead:
            self._sent.popleft()
            out += self._collect()
        out, self._from_store = self._from_store + out, []
        return out

    def _flying(self) -> list[_InFlight]:
        return [one for worker in self._workers for one in worker.in_flight.values()]

    def _keep_none_in_flight(self) -> None:
        for one in self._flying():
            one.key = None

    def requests(self, deck: str) -> list[Request]:
        return [one.request for one in self._flying() if one.request.deck == deck]

    def _order(
        self, worker: _Worker, snapshot: Snapshot, strengths: Mapping[str, float] | None
    ) -> TickOrder:
        news = None
        if worker.version != snapshot.version:
            worker.version = snapshot.version
            decks = {deck: dict(bank) for deck, bank in snapshot.decks.items()}
            news = (snapshot.version, dict(snapshot.everywhere), decks)
        order = TickOrder(
            self.tick_number,
            -(-self.depth // len(self._workers)),
            self.steps,
            tuple(worker.changes),
            tuple(worker.admit),
            news,
            strengths,
        )
        worker.changes, worker.admit = [], []
        return order

    def _collect(self) -> list[Generation]:
        """The generations of all workers for the oldest order."""
        found: list[tuple[int, Generation]] = []
        trouble = ""
        for worker in list(self._workers):
            try:
                reply = worker.link.receive()
            except WorkerLost as error:
                self._lose(worker, error)
                continue
            for one in reply.finished:
                self._take(worker, one, found)
            if reply.trouble:
                trouble = reply.trouble
                for flying in worker.in_flight.values():
                    flying.ends += 1
        if not self._workers:
            raise EngineError("no worker of the multi-GPU ring is left")
        if trouble:
            raise EngineError(trouble)
        found.sort(key=lambda pair: pair[0])
        for _, generation in found:
            # In the order of their births, whichever reply came first: feedback counts them.
            entry = self._decks.get(generation.request.deck)
            if entry is not None:
                entry.history.appendleft(generation.latent)
        return [generation for _, generation in found]

    def _take(
        self, worker: _Worker, one: WorkerResult, found: list[tuple[int, Generation]]
    ) -> None:
        flying = worker.in_flight.pop(one.serial, None)
        if flying is None:
            return  # its epoch has ended
        if one.latent is None:
            self.dropped += 1
            return
        self._made += 1
        self._store.put(flying.key, one.latent)
        generation = Generation(one.latent, flying.request, one.versions, one.born, one.retired)
        found.append((one.serial, generation))

    def _lose(self, worker: _Worker, error: WorkerLost) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(WorkerLost, OSError):
            worker.link.close()
        self._tell(f"a GPU worker is lost ({error.message}); {len(self._workers)} play on")
        if not self._workers:
            raise EngineError("no worker of the multi-GPU ring is left") from error

    def flush(self) -> list[Generation]:
        """See `Ring.flush`; waits for every reply."""
        on_admit, self.on_admit = self.on_admit, None
        done: list[Generation] = []
        try:
            while any(worker.in_flight for worker in self._workers) or self._decks.waiting():
                done += self.tick()
        finally:
            self.on_admit = on_admit
        return done

    def slots(self) -> tuple[SlotStatus, ...]:
        """What is in flight, oldest first."""
        flying = sorted(
            ((serial, one) for worker in self._workers for serial, one in worker.in_flight.items()),
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

    def preview(self, deck: str, steps: int | None = None) -> Generation | None:
        """None: predictions stay with the workers."""
        return None
