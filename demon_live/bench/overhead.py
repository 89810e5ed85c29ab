"""Everything in a tick but the model, by what is in force: for `demon bench ring`.

The model is one that answers at once, from memory. What is left is the tick's own: admission,
snapshot, coefficients, mask, guidance, noise, the step, and handing out.

Threads: one at a time; nothing here is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Request
from demon_live.engine.ring import Ring
from demon_live.engine.slots import Row

__all__ = ["CASES", "Case", "overhead_table"]


@dataclass(frozen=True, slots=True)
class Case:
    """What is in force. curves: lanes that are curves. held: the same seed for ever."""

    name: str
    shared: Mapping[str, float] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    curves: bool = False
    held: bool = False
    mask: bool = False
    moving: bool = False


#: Guidance counts twice in `full`: its second pass is a row of the batch.
CASES = (
    Case("plain, one seed", held=True),
    Case("plain"),
    Case("fresh noise", {"noise": 0.3}),
    Case("blend curve", {"blend": 0.6}, curves=True),
    Case("guided, self", {"guide": 2.0}, {"cfg": "self"}),
    Case("guided, full", {"guide": 2.0}, {"cfg": "full"}),
    Case(
        "everything, new at each tick",
        {
            "blend": 0.6,
            "velocity": 0.9,
            "noise": 0.3,
            "morph": 0.2,
            "energy": 1.1,
            "guide": 2.0,
            "rescale": 0.5,
            "momentum": -0.5,
        },
        {"cfg": "full"},
        curves=True,
        mask=True,
        moving=True,
    ),
)


class _Ready:
    """Answers with what it answered before."""

    def __init__(self) -> None:
        self._answers: dict[torch.Size, Tensor] = {}

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        if x.shape not in self._answers:
            self._answers[x.shape] = torch.randn(x.shape, device=x.device) * 0.1
        return self._answers[x.shape]


def _ring(case: Case, depth: int, frames: int, channels: int, device: str, capture: bool) -> Ring:
    curve = np.linspace(0.2, 1.0, frames, dtype=np.float32)
    like = Request(
        frames=frames,
        channels=channels,
        denoise=0.7,
        source=np.random.default_rng(0).normal(size=(frames, channels)).astype(np.float32),
        mask=curve if case.mask else None,
        **case.request,
    )
    seeds = count()
    ring = Ring(
        _Ready(),
        steps=8,
        depth=depth,
        device=device,
        overlap=True,
        capture=capture,
        on_admit=lambda deck: replace(like, seed=0 if case.held else next(seeds)),
    )
    ring.enlist("main")
    return ring


def _share(ring: Ring, case: Case, frames: int, tick: int) -> None:
    for name, value in case.shared.items():
        moved = value + (tick % 7) / 100
        curve = moved + np.linspace(0.0, 0.1, frames, dtype=np.float32)
        ring.share(name, curve if case.curves else moved)


def _timed(ring: Ring, before: Callable[[int], None], ticks: int, cuda: bool) -> dict[str, Any]:
    """Times in ms of `ticks` ticks. `before` is not timed."""
    walls, hosts, cpus, devices = [], [], [], []
    for tick in range(ticks):
        before(tick)
        if cuda:
            torch.cuda.synchronize()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
        wall, cpu = time.perf_counter(), time.thread_time()
        ring.tick()
        hosts.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
        if cuda:
            end.record()
            torch.cuda.synchronize()
            devices.append(start.elapsed_time(end))
        walls.append(time.perf_counter() - wall)
    found = {
        "wall_ms": float(np.median(walls)) * 1e3,
        "wall_min_ms": float(np.min(walls)) * 1e3,
        "wall_p95_ms": float(np.percentile(walls, 95)) * 1e3,
        "host_ms": float(np.median(hosts)) * 1e3,
        "cpu_ms": float(np.median(cpus)) * 1e3,
        "cpu_min_ms": float(np.min(cpus)) * 1e3,
    }
    if cuda:
        found["device_ms"] = float(np.median(devices))
    return found


def overhead_table(
    depths: Sequence[int] = (1, 2, 4, 8),
    *,
    frames: int = 1500,
    channels: int = 64,
    device: str = "cpu",
    capture: bool = True,
    ticks: int = 48,
    cases: Sequence[Case] = CASES,
) -> list[dict[str, Any]]:
    """Rows: what, depth, capture, and times in ms: wall (to the end of the device's work), host
    (until the tick returns), cpu (of the calling thread), device (between two events around it).
    The first ticks, in which graphs are captured, are not counted.
    """
    table = []
    cuda = torch.device(device).type == "cuda"
    for case in cases:
        for depth in depths:
            ring = _ring(case, depth, frames, channels, device, capture)
            _share(ring, case, frames, 0)

            def before(tick: int, ring: Ring = ring, case: Case = case) -> None:
                if case.moving:
                    _share(ring, case, frames, tick)

            _timed(ring, before, 40 if cuda else 12, cuda)
            times = _timed(ring, before, ticks, cuda)
            row = {"what": case.name, "depth": depth, "captured": ring.graphs[0], **times}
            table.append(row)
    return table
