"""Lanes of a bucket: the shared values and the requests' own curves, stacked per slot.

Stacks are made anew only when the snapshot or the slots have changed; what depends on the step
(levels, the morph's gate) is a few small arrays a tick. All of it is on the host, in float64.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine.border import column, upload
from demon_live.engine.shared import Snapshot, Value, default
from demon_live.engine.slots import Slot
from demon_live.engine.solver import Curve, Lanes

__all__ = ["GuidanceCurves", "LaneTable", "MaskStrength", "stack"]

#: (step k, steps S) -> how much of the masks counts, 0..1.
MaskStrength = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class GuidanceCurves:
    """Each [n, 1, 1] or [n, T, 1]; None = neutral for all of the slots."""

    guide: Tensor
    rescale: Tensor | None
    momentum: Tensor | None


def stack(values: Sequence[Value], frames: int) -> Curve:
    """float64 [n, 1] when all are numbers, else [n, T]."""
    if all(isinstance(value, float) for value in values):
        return np.array(values, dtype=np.float64)[:, None]
    curves = [np.asarray(value, dtype=np.float64) for value in values]
    return np.stack([np.broadcast_to(curve, (frames,)) for curve in curves])


class LaneTable:
    """Remembers the stacks of the last snapshot and set of slots."""

    def __init__(
        self,
        frames: int,
        channels: int,
        device: torch.device,
        mask_strength: MaskStrength | None = None,
    ) -> None:
        self.frames, self.channels, self.device = frames, channels, device
        self._mask_strength = mask_strength
        self._seen: tuple[int, tuple[int, ...]] | None = None
        self._curves: dict[str, Curve] = {}
        self._blended: NDArray[np.bool_] = np.zeros((0, 1), dtype=np.bool_)
        self._gain: Tensor | None = None

    def _refresh(self, slots: Sequence[Slot], snapshot: Snapshot) -> None:
        seen = (snapshot.version, tuple(slot.id for slot in slots))
        if seen == self._seen:
            return
        for name in ("velocity", "noise", "morph", "blend"):
            self._curves[name] = self._stacked(name, slots, snapshot)
        masks = [slot.request.mask for slot in slots]
        self._curves["mask"] = stack([1.0 if mask is None else mask for mask in masks], self.frames)
        self._blended = np.array(
            [[snapshot.get(slot.request.deck, "blend", self.frames) is not None] for slot in slots]
        )
        self._gain = self._stack_gain(slots, snapshot)
        self._seen = seen

    def _stacked(self, name: str, slots: Sequence[Slot], snapshot: Snapshot) -> Curve:
        found = [snapshot.get(slot.request.deck, name, self.frames) for slot in slots]
        neutral = default(name)
        return stack([neutral if value is None else value for value in found], self.frames)

    def _stack_gain(self, slots: Sequence[Slot], snapshot: Snapshot) -> Tensor | None:
        """`energy` as float32 [n, 1 or T, 1 or C]; None when it is 1 everywhere."""
        found = [snapshot.get(slot.request.deck, "energy", self.frames) for slot in slots]
        if all(value is None or (isinstance(value, float) and value == 1.0) for value in found):
            return None
        shaped = [self._gain_of(value) for value in found]
        shape = np.broadcast_shapes(*(gain.shape for gain in shaped))
        full = np.stack([np.broadcast_to(gain, shape) for gain in shaped])
        return upload(full, self.device)

    def _gain_of(self, value: Value | None) -> Floats:
        """[T, 1], [1, C] or [1, 1]. A curve of T values is one along time, also when T = C."""
        array = np.asarray(1.0 if value is None else value, dtype=np.float32)
        if array.ndim == 0:
            return array.reshape(1, 1)
        if array.ndim == 2:
            return array
        return array[:, None] if len(array) == self.frames else array[None, :]

    def step(self, slots: Sequence[Slot], snapshot: Snapshot) -> Lanes:
        """What the solver reads for the next step of these slots."""
        self._refresh(slots, snapshot)
        t = np.array([[slot.times[slot.k]] for slot in slots])
        u = np.array([[slot.times[slot.k + 1]] for slot in slots])
        late = np.array([[float(slot.k >= slot.steps // 2)] for slot in slots])
        c, mask = self._curves, self._curves["mask"]
        if self._mask_strength is not None:
            strength = [[self._mask_strength(slot.k, slot.steps)] for slot in slots]
            mask = 1.0 - (1.0 - mask) * np.array(strength, dtype=np.float64)
        return Lanes(
            t, u, c["velocity"], c["noise"], c["morph"] * late, mask, c["blend"], self._blended
        )

    def gain(self, slots: Sequence[Slot], snapshot: Snapshot) -> Tensor | None:
        """The channel gain of the model's input, or None."""
        self._refresh(slots, snapshot)
        return self._gain

    def guided(self, slots: Sequence[Slot], snapshot: Snapshot) -> list[int]:
        """Indices of the slots whose guidance has an effect now: born with cfg, and guide not 1."""
        return [
            at
            for at, slot in enumerate(slots)
            if slot.request.cfg != "off"
            and np.any(np.asarray(self._value("guide", slot, snapshot)) != 1.0)
        ]

    def _value(self, name: str, slot: Slot, snapshot: Snapshot) -> Value:
        value = snapshot.get(slot.request.deck, name, self.frames)
        return default(name) if value is None else value

    def guidance(self, slots: Sequence[Slot], snapshot: Snapshot) -> GuidanceCurves:
        """The three curves of guidance for some slots."""

        def curve(name: str) -> tuple[Tensor, bool]:
            stacked = self._stacked(name, slots, snapshot)
            return column(stacked, self.device), bool(stacked.any())

        guide, _ = curve("guide")
        rescale, rescaled = curve("rescale")
        momentum, moving = curve("momentum")
        return GuidanceCurves(guide, rescale if rescaled else None, momentum if moving else None)
