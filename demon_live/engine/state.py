"""The state tensors of the slots of one latent shape [T, C], and which slot is where.

State tensors are [capacity, T, C]; live slots lie in front, without holes, in the order of
`slots`. Admitting and moving slots is device work like a step's, and may be a graph.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine import noise, solver
from demon_live.engine.cuda_graphs import Graphs
from demon_live.engine.rows import Slot
from demon_live.engine.staging import StagingBuffer, upload

R = TypeVar("R")

#: Latents of the host that a GPU keeps.
_SOURCES = 4


class SlotState:
    """Slots of T = frames and C = channels, and their tensors.

    fields: noise; shared by all shapes. capture: on a GPU, run device work as graphs.
    """

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        fields: noise.NoiseCache,
        capture: bool = True,
    ) -> None:
        self.frames, self.channels, self.device = frames, channels, device
        self.slots: list[Slot] = []
        # Whether fields of noise are made and kept on the host.
        self._on_host = device.type == "cpu"
        self._uploaded: dict[int, tuple[Floats, Tensor]] = {}
        self._fields = fields
        self._staging = StagingBuffer(device)
        self.graphs = Graphs(device, capture)
        self._state: dict[str, Tensor] = {}
        self._capacity = 0

    def _rows(self, name: str) -> Tensor:
        """The live rows of a state tensor, which is allocated (zeros) at its first use."""
        if name not in self._state:
            self._state[name] = self._blank()
        return self._state[name][: len(self.slots)]

    def _blank(self) -> Tensor:
        shape = (self._capacity, self.frames, self.channels)
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` slots; the tensors never shrink."""
        if capacity <= self._capacity:
            return
        live, self._capacity = len(self.slots), capacity
        for name, old in self._state.items():
            self._state[name] = self._blank()
            self._state[name][:live] = old[:live]
        self.graphs.clear()

    def _field(self, slot: Slot, purpose: int, step: int = 0) -> Tensor:
        """A noise field of the slot's seed, [T, C]."""
        field = torch.empty((self.frames, self.channels), device=self.device)
        return self._fields.fill(noise.key(slot.request.seed, purpose, step), field)

    def _fill(self, row: Tensor, array: Floats) -> None:
        """Write a latent of the host into a row. A GPU keeps the last few: sources come again."""
        if self._on_host:
            row.numpy()[:] = array
            return
        known = self._uploaded.get(id(array))
        if known is None or known[0] is not array:
            tensor = upload(np.array(array, dtype=np.float32), self.device)
            known = self._uploaded[id(array)] = array, tensor
            while len(self._uploaded) > _SOURCES:
                self._uploaded.pop(next(iter(self._uploaded)))
        row.copy_(known[1])

    def admit(self, slot: Slot) -> None:
        """Add a slot, with its first state."""
        self.reserve(len(self.slots) + 1)
        self.slots.append(slot)
        at, target = len(self.slots) - 1, slot.request.target
        source = self._rows("source")[at]
        if slot.source is None:
            source.zero_()
        else:
            self._fill(source, slot.source)
        if target is not None:
            self._fill(self._rows("target")[at], target)
        self._initialise(at, new=True)

    def _initialise(self, at: int, new: bool = False) -> None:
        """Write the first x of a slot. new: also clear the guidance of the slot that was there."""
        slot, staging = self.slots[at], self._staging
        init = slot.request.init
        curve = None if init is None else np.asarray(init, dtype=np.float64)
        staging.clear()
        for name, c in zip(
            ("n", "s"), solver.birth(float(slot.times[0]), curve, slot.has_source), strict=True
        ):
            staging.put(name, c.astype(np.float32)[..., None])
        key = noise.key(slot.request.seed, noise.BIRTH)
        staging.put("key", noise.signed([key]))
        # The field of the seed, and where it drifts that of its turn, as on a circle.
        angle = slot.request.drift * math.pi / 2
        if angle:
            turned = noise.key(slot.request.seed, noise.DRIFT, slot.request.turn)
            whole = staging.array("n")
            staging.put("n", (whole * math.cos(angle)).astype(np.float32))
            staging.put("n2", (whole * math.sin(angle)).astype(np.float32))
            staging.put("key2", noise.signed([turned]))
        staging.send()
        x, source = self._rows("x")[at], self._rows("source")[at]
        stale = [self._rows(name)[at] for name in ("momentum", "negative") if name in self._state]

        def work() -> None:
            if self._on_host:
                self._fields.fill(key, x)
            else:
                x.copy_(noise.normal_on(staging["key"], self.frames, self.channels)[0])
            x.mul_(staging["n"]).add_(source * staging["s"])
            if angle and self._on_host:
                x.add_(self._fields.fill(turned, torch.empty_like(x)) * staging["n2"])
            elif angle:
                other = noise.normal_on(staging["key2"], self.frames, self.channels)[0]
                x.add_(other * staging["n2"])
            for row in stale if new else ():
                row.zero_()

        self._run(("birth", at, new and len(stale)), (x,), work)

    def drop(self, gone: Sequence[Slot]) -> None:
        """Remove slots; the last ones move into the holes."""
        ids = {slot.id for slot in gone}
        for at in range(len(self.slots) - 1, -1, -1):
            if self.slots[at].id not in ids:
                continue
            last = len(self.slots) - 1
            if at != last:
                self._move(last, at)
                self.slots[at] = self.slots[last]
            self.slots.pop()

    def _move(self, origin: int, to: int) -> None:
        """Move a slot's state to another place."""
        pairs = [(t[to], t[origin]) for n, t in self._state.items() if n not in ("spare", "z")]

        def work() -> None:
            for row, moved in pairs:
                row.copy_(moved)

        self.graphs.run(("move", origin, to, len(pairs), self._state["x"].data_ptr()), work)

    def latent(self, slot: Slot) -> Tensor:
        """The state of a slot, [T, C] on the device: a view, until the next step."""
        return self._rows("x")[self.slots.index(slot)]

    def _run(self, name: Hashable, inputs: Sequence[Tensor], work: Callable[[], R]) -> R:
        """Run device work; its graph holds for this arrangement of slots, memory and staging."""
        if not self.graphs.enabled:
            return work()
        # Nothing may be allocated inside a capture.
        for state in ("x", "spare", "source", "target", "momentum", "negative"):
            self._rows(state)
        noise.warm(self.frames, self.channels, self.device)
        places = (*(tensor.data_ptr() for tensor in inputs), self._staging.address)
        return self.graphs.run((name, len(self.slots), places, self._staging.layout), work)
