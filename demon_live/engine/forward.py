"""From slots to one batched velocity call and back to one velocity per slot.

Rows are laid out as: the first condition of every slot, then further conditions, then negative
ones. Merging is vectorised over slots; the loop is over the (few) conditions of one slot.

Threads: pure, but for what the model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats
from demon_live.engine import staging as border
from demon_live.engine.shared import Snapshot
from demon_live.engine.slots import Row, Slot, VelocityModel, active_conditions
from demon_live.engine.workspace import Workspace
from demon_live.errors import EngineError

__all__ = ["Plan", "batch", "call", "lay_out", "merge", "post"]


@dataclass(slots=True)
class Plan:
    """The rows of a call. owner: per row, the index of its slot. first: rows 0..slots-1.

    extra: per level j, (slot indices, row indices, weights) of the slots that have a j-th further
    condition. negative: (slot indices, row indices).
    """

    rows: list[Row] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    extra: list[tuple[list[int], list[int], list[Floats | float]]] = field(default_factory=list)
    negative: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))


def _row(
    slot: Slot,
    condition: Any,
    snapshot: Snapshot,
    kind: Literal["positive", "negative"] = "positive",
) -> Row:
    deck = slot.request.deck
    return Row(
        slot.request,
        condition,
        slot.k,
        slot.steps,
        float(slot.times[slot.k]),
        deck,
        slot.id,
        kind,
        snapshot.model_lanes(deck, slot.request.frames),
    )


def lay_out(slots: Sequence[Slot], snapshot: Snapshot, negatives: Sequence[int]) -> Plan:
    """The rows for the next step of `slots`; negatives: indices of those with a second pass."""
    plan = Plan()
    for index, slot in enumerate(slots):
        plan.rows.append(_row(slot, slot.request.condition, snapshot))
        plan.owner.append(index)
    for index, slot in enumerate(slots):
        for level, (condition, weight) in enumerate(active_conditions(slot)):
            if level == len(plan.extra):
                plan.extra.append(([], [], []))
            owners, places, weights = plan.extra[level]
            owners.append(index)
            places.append(len(plan.rows))
            weights.append(weight)
            plan.rows.append(_row(slot, condition, snapshot))
            plan.owner.append(index)
    for index in negatives:
        plan.negative[0].append(index)
        plan.negative[1].append(len(plan.rows))
        plan.rows.append(_row(slots[index], slots[index].request.negative, snapshot, "negative"))
        plan.owner.append(index)
    return plan


def post(plan: Plan, mail: border.Mail, slots: int, frames: int) -> None:
    """Put what the device work of this plan reads into the mail: levels, row numbers, weights."""
    mail.put("levels", np.array([row.t for row in plan.rows], dtype=np.float32))
    if len(plan.rows) != slots:
        mail.put("owner", np.array(plan.owner, dtype=np.int64))
    for level, (owners, places, weights) in enumerate(plan.extra):
        mail.put(f"extra{level}", np.array([owners, places], dtype=np.int64))
        mail.put(f"weights{level}", _curves(weights, frames))


def batch(x: Tensor, mail: border.Mail, work: Workspace) -> Tensor:
    """The rows of the call, [B, T, C]: x itself, or x with the rows of further passes."""
    if not mail.has("owner"):
        return x
    owner = mail["owner"]
    out = work.get("batch", (len(owner), *x.shape[1:]))
    return torch.index_select(x, 0, owner, out=out)


def call(model: VelocityModel, x: Tensor, t: Tensor, plan: Plan) -> Tensor:
    """The velocities of all rows, [B, T, C], from one call of the model."""
    v = torch.as_tensor(model.velocity(x, t, plan.rows))
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


def merge(v: Tensor, plan: Plan, mail: border.Mail, slots: int) -> Tensor:
    """One velocity per slot, [slots, T, C]: v = sum_i w_i v_i / max(sum_i w_i, 1e-8) per frame.

    The first condition has weight 1. Slots with one condition keep the bits of their row.
    """
    first = v[:slots]
    if not plan.extra:
        return first
    total = torch.ones((slots, v.shape[1], 1), dtype=torch.float32, device=v.device)
    result = first.clone()
    for level in range(len(plan.extra)):
        (at, places), weight = mail[f"extra{level}"].unbind(0), mail[f"weights{level}"]
        result.index_add_(0, at, weight * v.index_select(0, places))
        total.index_add_(0, at, weight)
    touched = mail["extra0"][0]
    mean = result.index_select(0, touched) / total.index_select(0, touched).clamp_min(1e-8)
    return result.index_copy_(0, touched, mean)
