"""Finished latents on their way from the device to the host.

On a CPU they are there at once. On a GPU the copy runs behind the tick's work; waiting for it at
the end of the same tick leaves the device idle until the host has laid out the next one. With
`overlap`, latents are handed out by the next tick, after its work was launched: the device never
waits, and they come at the same time by the clock. They stay in the pinned memory that they came
through: a copy of a megabyte costs more than the few that are held at a time.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine.slots import Slot

__all__ = ["Handover"]


@dataclass(slots=True)
class _Parcel:
    slot: Slot
    tick: int
    latent: Tensor
    ready: torch.cuda.Event | None


class Handover:
    """Takes device rows, gives (slot, tick of its last step, float32 [T, C])."""

    def __init__(self, device: torch.device, overlap: bool) -> None:
        self._cuda = device.type == "cuda"
        self._overlap = overlap and self._cuda
        self._parcels: list[_Parcel] = []

    @property
    def empty(self) -> bool:
        return not self._parcels

    def send(self, slot: Slot, tick: int, row: Tensor) -> None:
        """Start the copy of a row, which may be overwritten by later work of the same stream."""
        if not self._cuda:
            self._parcels.append(_Parcel(slot, tick, row.clone(), None))
            return
        host = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
        host.copy_(row, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        self._parcels.append(_Parcel(slot, tick, host, ready))

    def receive(self, tick: int) -> list[tuple[Slot, int, Floats]]:
        """What is to be handed out at the end of a tick, oldest first."""
        due = [p for p in self._parcels if not self._overlap or p.tick < tick]
        self._parcels = [p for p in self._parcels if self._overlap and p.tick >= tick]
        out = []
        for parcel in sorted(due, key=lambda p: p.slot.id):
            latent = parcel.latent.numpy()
            if parcel.ready is not None:
                parcel.ready.synchronize()
            out.append((parcel.slot, parcel.tick, latent))
        return out

    def forget(self, deck: str, epoch: int | None) -> None:
        """Lose what is on its way of a deck: of epochs before `epoch`, or of all."""
        self._parcels = [
            p
            for p in self._parcels
            if p.slot.request.deck != deck or (epoch is not None and p.slot.request.epoch >= epoch)
        ]
