"""Lanes of a batch: the shared values and the requests' own curves, stacked per slot.

Stacks are made anew only when the snapshot or the slots have changed; levels and the gate of morph,
which depend on the step, are a few small arrays a tick. All arrays are on the host, in float64.

Threads: belongs to the engine thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from demon_live.core import Floats
from demon_live.engine.rows import Slot
from demon_live.engine.shared import Snapshot, Value, default
from demon_live.engine.solver import Curve, Lanes


def stack(values: Sequence[Value], frames: int) -> Curve:
    """float64 [n, 1] when all are numbers, [1, T] when all are the same curve, else [n, T]."""
    if all(isinstance(value, float) for value in values):
        return np.array(values, dtype=np.float64)[:, None]
    curves = [np.asarray(value, dtype=np.float64) for value in values]
    if all(value is values[0] for value in values):
        return curves[0][None]
    return np.stack([np.broadcast_to(curve, (frames,)) for curve in curves])


class LaneTable:
    """The stacks of the last snapshot and set of slots of T = frames."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._seen: tuple[int, tuple[int, ...]] | None = None
        self._curves: dict[str, Curve] = {}
        self._blended: NDArray[np.bool_] = np.zeros((0, 1), dtype=np.bool_)
        self._gain: Floats | None = None
        self.masked = False
        self._guided: list[int] = []
        self._guidance: dict[str, Curve] = {}

    def _refresh(self, slots: Sequence[Slot], snapshot: Snapshot) -> None:
        now = (snapshot.version, tuple(slot.id for slot in slots))
        if now == self._seen:
            return
        lanes = [slot.lanes(snapshot) for slot in slots]
        for name in ("velocity", "noise", "morph", "blend"):
            self._curves[name] = self._stacked(name, lanes)
        masks = [slot.request.mask for slot in slots]
        self.masked = any(mask is not None for mask in masks)
        self._curves["mask"] = stack([1.0 if mask is None else mask for mask in masks], self.frames)
        self._blended = np.array([["blend" in seen] for seen in lanes])
        self._gain = self._stack_gain(lanes)
        self._guided = [
            at
            for at, (slot, seen) in enumerate(zip(slots, lanes, strict=True))
            if slot.request.cfg != "off" and np.any(np.asarray(seen.get("guide", 1.0)) != 1.0)
        ]
        guided = [lanes[at] for at in self._guided]
        names = ("guide", "rescale", "momentum") if guided else ()
        curves = {name: self._stacked(name, guided) for name in names}
        self._guidance = {n: c for n, c in curves.items() if n == "guide" or c.any()}
        self._seen = now

    def _stacked(self, name: str, lanes: Sequence[Mapping[str, Value]]) -> Curve:
        neutral = default(name)
        return stack([seen.get(name, neutral) for seen in lanes], self.frames)

    def _stack_gain(self, lanes: Sequence[Mapping[str, Value]]) -> Floats | None:
        """`energy` as float32 [n, 1 or T, 1 or C]; None when it is 1 everywhere."""
        found = [seen.get("energy", 1.0) for seen in lanes]
        if all(isinstance(value, float) and value == 1.0 for value in found):
            return None
        if all(value is found[0] for value in found):
            return np.array(self._gain_of(found[0]))[None]
        shaped = [self._gain_of(value) for value in found]
        shape = np.broadcast_shapes(*(gain.shape for gain in shaped))
        return np.stack([np.broadcast_to(gain, shape) for gain in shaped])

    def _gain_of(self, value: Value) -> Floats:
        """[T, 1], [1, C] or [1, 1]. A curve of T values is one along time, also when T = C."""
        array = np.asarray(value, dtype=np.float32)
        if array.ndim == 0:
            return array.reshape(1, 1)
        if array.ndim == 2:
            return array
        return array[:, None] if len(array) == self.frames else array[None, :]

    def step(self, slots: Sequence[Slot], snapshot: Snapshot) -> Lanes:
        """The solver's lanes for the next step of these slots."""
        self._refresh(slots, snapshot)
        t = np.array([[slot.times[slot.k]] for slot in slots])
        u = np.array([[slot.times[slot.k + 1]] for slot in slots])
        late = np.array([[float(slot.k >= slot.steps // 2)] for slot in slots])
        c = self._curves
        return Lanes(
            t,
            u,
            c["velocity"],
            c["noise"],
            c["morph"] * late,
            c["mask"],
            c["blend"],
            self._blended,
        )

    def gain(self, slots: Sequence[Slot], snapshot: Snapshot) -> Floats | None:
        """The channel gain of the model's input, float32 [n or 1, 1 or T, 1 or C]; None
        where it is 1."""
        self._refresh(slots, snapshot)
        return self._gain

    def guided(self, slots: Sequence[Slot], snapshot: Snapshot) -> list[int]:
        """Indices of the slots whose guidance has an effect now: born with cfg, and guide not 1."""
        self._refresh(slots, snapshot)
        return self._guided

    def guidance(self) -> dict[str, Curve]:
        """guide, rescale and momentum of the guided slots; those that are neutral are left out."""
        return self._guidance
