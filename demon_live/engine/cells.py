"""The cells of one latent shape [T, C]: state tensors, and which slot is in which.

State tensors are [capacity, T, C]; live slots lie in front, without holes, in the order of
`slots`. Filling, moving and emptying cells is device work like a step's, and may be a graph.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine import rng, solver
from demon_live.engine import staging as border
from demon_live.engine.cuda_graphs import Graphs
from demon_live.engine.slots import Slot

__all__ = ["Cells"]

#: Latents of the host that a GPU keeps.
_SOURCES = 4

R = TypeVar("R")


class Cells:
    """Cells for slots of T = frames and C = channels. capture: run device work as graphs."""

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        noise: rng.NoiseCache,
        capture: bool = True,
    ) -> None:
        self.frames, self.channels, self.device = frames, channels, device
        self.slots: list[Slot] = []
        # Whether fields of noise are made and kept on the host.
        self._hosted = device.type == "cpu"
        self._uploaded: dict[int, tuple[Floats, Tensor]] = {}
        self._noise = noise
        self._mail = border.Mail(device)
        self.graphs = Graphs(device, capture)
        self._state: dict[str, Tensor] = {}
        self._capacity = 0

    def _rows(self, name: str) -> Tensor:
        """The live rows of a state tensor, which is made (zeros) when it is first asked for."""
        if name not in self._state:
            self._state[name] = self._blank()
        return self._state[name][: len(self.slots)]

    def _blank(self) -> Tensor:
        shape = (self._capacity, self.frames, self.channels)
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def reserve(self, capacity: int) -> None:
        """Room for so many slots; the tensors never shrink."""
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
        return self._noise.fill(rng.key(slot.request.seed, purpose, step), field)

    def _fill(self, row: Tensor, array: Floats) -> None:
        """Write a latent of the host into a row. A GPU keeps the last few: a source comes again."""
        if self._hosted:
            row.numpy()[:] = array
            return
        held = self._uploaded.get(id(array))
        if held is None or held[0] is not array:
            tensor = border.upload(np.array(array, dtype=np.float32), self.device)
            held = self._uploaded[id(array)] = array, tensor
            while len(self._uploaded) > _SOURCES:
                self._uploaded.pop(next(iter(self._uploaded)))
        row.copy_(held[1])

    def admit(self, slot: Slot) -> None:
        """Give a slot a cell and its first state."""
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
        self._give_birth(at, new=True)

    def _give_birth(self, at: int, new: bool = False) -> None:
        """The first x of a slot. new: what was kept in its cell is forgotten as well."""
        slot, mail = self.slots[at], self._mail
        init = slot.request.init
        curve = None if init is None else np.asarray(init, dtype=np.float64)
        mail.open()
        for name, c in zip(
            ("n", "s"), solver.birth(float(slot.times[0]), curve, slot.has_source), strict=True
        ):
            mail.put(name, c.astype(np.float32)[..., None])
        key = rng.key(slot.request.seed, rng.BIRTH)
        mail.put("key", rng.signed([key]))
        mail.send()
        x, source = self._rows("x")[at], self._rows("source")[at]
        kept = [self._rows(name)[at] for name in ("momentum", "negative") if name in self._state]

        def work() -> None:
            if self._hosted:
                self._noise.fill(key, x)
            else:
                x.copy_(rng.normal_on(mail["key"], self.frames, self.channels)[0])
            x.mul_(mail["n"]).add_(source * mail["s"])
            for row in kept if new else ():
                row.zero_()

        self._run(("birth", at, new and len(kept)), (x,), work)

    def drop(self, gone: Sequence[Slot]) -> None:
        """Free the cells of some slots; the last ones move into the holes."""
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
        """Another cell for a slot's state."""
        rows = [(t[to], t[origin]) for n, t in self._state.items() if n not in ("spare", "z")]

        def work() -> None:
            for row, moved in rows:
                row.copy_(moved)

        self.graphs.run(("move", origin, to, len(rows), self._state["x"].data_ptr()), work)

    def latent(self, slot: Slot) -> Tensor:
        """The state of a slot, [T, C] on the device: a view, until the next step."""
        return self._rows("x")[self.slots.index(slot)]

    def _run(self, name: Hashable, inputs: Sequence[Tensor], work: Callable[[], R]) -> R:
        """Device work, captured for this very arrangement of slots, memory and mail."""
        if not self.graphs.enabled:
            return work()
        # What is made when it is first asked for must not be asked for in a capture.
        for state in ("x", "spare", "source", "target", "momentum", "negative"):
            self._rows(state)
        rng.warm(self.frames, self.channels, self.device)
        places = (*(tensor.data_ptr() for tensor in inputs), self._mail.address)
        return self.graphs.run((name, len(self.slots), places, self._mail.layout), work)
