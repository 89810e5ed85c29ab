"""Slots, and the rows of one batched velocity call.

    lay_out     slots -> RowLayout: which rows the call has, and of which slot each is
    call_model  x [B, T, C] and its rows -> v [B, T, C], from the model
    merge_rows  v of all rows -> one velocity for each slot

Rows come in this order: the first condition of every slot, further conditions, negative ones.
Merging is vectorised over slots; its loop is over the few conditions of one slot.

Threads: a Slot belongs to the engine thread; a row is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats, Request
from demon_live.engine.shared import MODEL_LANES, Snapshot, Value
from demon_live.engine.staging import StagingBuffer, Workspace
from demon_live.errors import EngineError


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """One row of a batched velocity call, as the model sees it.

    Attributes:
        request: of the row's slot.
        condition: this row's own: the request's, a further one, or the negative one.
        index: the step k, of `steps`.
        t: the level; the same number as in the tensor, without a read from the device.
        slot: an id that is never used twice.
        shared: lanes that the model reads at every step (`hint`, `prompt_mix`), name -> float or
            read-only float32 [T]; absent = its default.
    """

    request: Request
    condition: Any
    index: int
    steps: int
    t: float
    deck: str
    slot: int
    kind: Literal["positive", "negative"] = "positive"
    shared: Mapping[str, Value] = field(default_factory=dict)


class VelocityModel(Protocol):
    """What a ring needs of a model: the velocity v = noise - x0 of a batch."""

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[BatchRow]) -> Tensor:
        """x: float32 [B, T, C]; t: float32 [B]; one row each -> [B, T, C]. x is read only."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """A generation in flight. Its tensors are in a SlotBatch, at the slot's place in `slots`.

    Attributes:
        id: never used twice.
        times: levels of its schedule, float64 [S + 1].
        source: the request's source, with feedback mixed in; has_source: whether there is one.
        k: steps done.
        row: its row in the last step; -1 before the first.
        has_negative: its negative velocity is in the batch's state.
        versions: of the shared values, one for each step.
        key: of the store; None once its request has been changed in flight.
        alone: while it has made fewer steps, the slots of other batches wait.
    """

    id: int
    request: Request
    times: NDArray[np.float64]
    has_source: bool
    born: int
    source: Floats | None = None
    k: int = 0
    row: int = -1
    has_negative: bool = False
    versions: list[int] = field(default_factory=list)
    key: bytes | None = None
    alone: int = 0

    def lanes(self, snapshot: Snapshot) -> Mapping[str, Value]:
        """The values of class step for its next step: its own, or those that are shared."""
        own, request = self.request.curves, self.request
        return snapshot.lanes(request.deck, request.frames) if own is None else own

    def model_lanes(self, snapshot: Snapshot) -> Mapping[str, Value]:
        """Those of them that the model reads."""
        own, request = self.request.curves, self.request
        if own is None:
            return snapshot.model_lanes(request.deck, request.frames)
        return {name: own[name] for name in MODEL_LANES if name in own}

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def done(self) -> bool:
        return self.k >= self.steps

    @property
    def needs_negative(self) -> bool:
        """Whether the next step has a row for the negative condition. full: each step; initialize:
        the first step; self: none."""
        mode = self.request.cfg
        return mode == "full" or (mode == "initialize" and not self.has_negative)

    def further_conditions(self) -> list[tuple[Any, Floats | float]]:
        """(condition, weight) of the further conditions that take part in the next step."""
        place = self.k / self.steps
        return [
            (condition, weight)
            for condition, weight, first, last in self.request.conditions
            if first <= place < last
        ]


@dataclass(slots=True)
class RowLayout:
    """The rows of a call.

    Attributes:
        rows: the first conditions of all slots, then further ones, then negative ones.
        owner: for each row the index of its slot.
        extra: for each level j, (slot indices, row indices, weights) of the slots that have a j-th
            further condition.
    """

    rows: list[BatchRow] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    extra: list[tuple[list[int], list[int], list[Floats | float]]] = field(default_factory=list)

    def add(
        self,
        index: int,
        slot: Slot,
        condition: Any,
        snapshot: Snapshot,
        kind: Literal["positive", "negative"] = "positive",
    ) -> None:
        """Append a row of the slot at `index`."""
        request = slot.request
        self.owner.append(index)
        self.rows.append(
            BatchRow(
                request,
                condition,
                slot.k,
                slot.steps,
                float(slot.times[slot.k]),
                request.deck,
                slot.id,
                kind,
                slot.model_lanes(snapshot),
            )
        )


def lay_out(slots: Sequence[Slot], snapshot: Snapshot, negatives: Sequence[int]) -> RowLayout:
    """The rows for the next step. negatives: indices of the slots with a negative row."""
    layout = RowLayout()
    for index, slot in enumerate(slots):
        layout.add(index, slot, slot.request.condition, snapshot)
    for index, slot in enumerate(slots):
        for level, (condition, weight) in enumerate(slot.further_conditions()):
            if level == len(layout.extra):
                layout.extra.append(([], [], []))
            owners, places, weights = layout.extra[level]
            owners.append(index)
            places.append(len(layout.rows))
            weights.append(weight)
            layout.add(index, slot, condition, snapshot)
    for index in negatives:
        layout.add(index, slots[index], slots[index].request.negative, snapshot, "negative")
    return layout


def stage_rows(layout: RowLayout, staging: StagingBuffer, slots: int, frames: int) -> None:
    """Put levels, owners and weights of the rows into the staging buffer."""
    staging.put("levels", np.array([row.t for row in layout.rows], dtype=np.float32))
    if len(layout.rows) != slots:
        staging.put("owner", np.array(layout.owner, dtype=np.int64))
    for level, (owners, places, weights) in enumerate(layout.extra):
        staging.put(f"extra{level}", np.array([owners, places], dtype=np.int64))
        staging.put(f"weights{level}", _curves(weights, frames))


def gather_rows(x: Tensor, staging: StagingBuffer, work: Workspace) -> Tensor:
    """The input of the call, [B, T, C]: x itself, or x repeated for further rows."""
    if not staging.has("owner"):
        return x
    owner = staging["owner"]
    out = work.get("batch", (len(owner), *x.shape[1:]))
    return torch.index_select(x, 0, owner, out=out)


def call_model(model: VelocityModel, x: Tensor, t: Tensor, layout: RowLayout) -> Tensor:
    """The velocities of all rows, [B, T, C], from one call of the model."""
    v = torch.as_tensor(model.velocity(x, t, layout.rows))
    if v.shape != x.shape:
        raise EngineError(
            f"the model answered {tuple(v.shape)} to a batch of {tuple(x.shape)}",
            hint="velocity must have the shape of x",
        )
    return v


def _curves(weights: Sequence[Floats | float], frames: int) -> NDArray[np.float32]:
    """Weights as float32 [n, T, 1]."""
    curves = [np.asarray(weight, dtype=np.float32) for weight in weights]
    return np.stack([np.broadcast_to(c, (frames,)) for c in curves])[..., None]


def merge_rows(v: Tensor, layout: RowLayout, staging: StagingBuffer, slots: int) -> Tensor:
    """One velocity per slot, [slots, T, C]: v = sum_i w_i v_i / max(sum_i w_i, 1e-8) per frame.

    The first condition has weight 1. Slots with one condition keep the bits of their row.
    """
    first = v[:slots]
    if not layout.extra:
        return first
    total = torch.ones((slots, v.shape[1], 1), dtype=torch.float32, device=v.device)
    result = first.clone()
    for level in range(len(layout.extra)):
        (at, places), weight = staging[f"extra{level}"].unbind(0), staging[f"weights{level}"]
        result.index_add_(0, at, weight * v.index_select(0, places))
        total.index_add_(0, at, weight)
    touched = staging["extra0"][0]
    mean = result.index_select(0, touched) / total.index_select(0, touched).clamp_min(1e-8)
    return result.index_copy_(0, touched, mean)
