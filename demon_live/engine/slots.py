"""A generation in flight, and what the model sees of it.

Threads: Slot belongs to the engine thread; Row is immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from demon_live.core import Floats, Request
from demon_live.engine.shared import Value

__all__ = ["Row", "Slot", "VelocityModel", "active_conditions"]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a batched velocity call.

    request: of its slot. condition: this row's own (the request's, a further one, or the negative
    one). index: the step k, of `steps`. t: the level, the same number as in the tensor, without a
    device read. slot: an id that is never used twice. shared: lanes that the model reads at every
    step (`hint`, `prompt_mix`), name -> float or read-only float32 [T]; absent = its default.
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

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        """x: float32 [B, T, C]; t: float32 [B]; one Row each -> [B, T, C]. x is read only."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """A generation in flight. times: float64 [S + 1]; k: steps done; row: its place in that step.

    Its tensors live in a bucket, at the index that the slot has in the bucket's list.
    """

    id: int
    request: Request
    times: NDArray[np.float64]
    has_source: bool
    born: int
    source: Floats | None = None
    k: int = 0
    row: int = -1
    negative_kept: bool = False
    versions: list[int] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def done(self) -> bool:
        return self.k >= self.steps


def active_conditions(slot: Slot) -> list[tuple[Any, Floats | float]]:
    """(condition, weight) of the further conditions that take part in the slot's next step."""
    place = slot.k / slot.steps
    return [
        (condition, weight)
        for condition, weight, first, last in slot.request.conditions
        if first <= place < last
    ]
