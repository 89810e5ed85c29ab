"""Ticks of the ring: on an engine by depth, and everything in a tick but the model.

The rings here are made as the generator makes them (runtime/generator.py): what is measured is what
plays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import RATES, Request
from demon_live.engine import Ring, VelocityModel

#: Depths at which the ring is timed, without `--depth`.
DEPTHS = (1, 2, 4, 8)

Table = list[dict[str, Any]]


def figures(options: Options) -> Figures:
    """Ticks of the engine's ring, the depth to play at, and a tick without a model."""
    frames = options.frames
    depths = (options.depth,) if options.depth else DEPTHS
    with opened(options) as engine:
        bars = max(1, round(frames / RATES.frame_hz / 2))
        condition = engine.condition("techno", bpm=120.0, cycles=bars, beats=4, frames=frames)
        rows = ring_table(
            engine,
            engine.steps,
            depths,
            frames,
            seconds=6.0 if options.depth else 5.0 * len(DEPTHS),
            channels=engine.channels,
            shift=engine.shift,
            device=engine.device,
            condition=condition,
        )
        return {
            "engine": engine.describe(),
            "loop_s": frames / RATES.frame_hz,
            "ring": rows,
            "recommended": [recommend(rows)],
            "besides_the_model": overhead_table(
                depths,
                frames=frames,
                channels=engine.channels,
                device=str(engine.device),
                ticks=24,
            ),
        }


def largest_gap(completions: Sequence[int]) -> int | None:
    """The most ticks from one tick with a completion to the next. completions: one count a tick."""
    at = np.flatnonzero(np.asarray(completions) > 0)
    return int(np.diff(at).max()) if len(at) > 1 else None


# -- an engine by depth ------------------------------------------------------------------------


class _TimedModel:
    """A model that adds up the time of its calls."""

    def __init__(self, model: VelocityModel) -> None:
        self._model, self.seconds = model, 0.0

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
        _synchronize(x.device)
        before = time.perf_counter()
        v = self._model.velocity(x, t, rows)
        _synchronize(x.device)
        self.seconds += time.perf_counter() - before
        return v


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ring_table(
    model: VelocityModel,
    steps: int,
    depths: Sequence[int],
    frames: int,
    seconds: float = 8.0,
    *,
    channels: int = 64,
    shift: float = 3.0,
    device: str | torch.device = "cpu",
    condition: Any = None,
) -> Table:
    """Time the ticks of a full ring at each depth, for `seconds` in all.

    Each generation has a seed of its own, which is the costly case. Times are medians in ms unless
    their names say otherwise. other_ms: a tick without the model's calls. first_effect_ms: the
    longest wait for the first effect of a change of class slot.
    """
    like = Request(
        frames=frames,
        channels=channels,
        denoise=0.7,
        condition=condition,
        source=np.zeros((frames, channels), dtype=np.float32),
    )
    table: Table = []
    for depth in depths:
        timed, seeds = _TimedModel(model), count()
        ring = Ring(
            timed,
            steps=steps,
            depth=depth,
            shift=shift,
            device=device,
            on_admit=lambda deck, seeds=seeds: replace(like, seed=next(seeds)),  # type: ignore[misc]
        )
        ring.enlist("main")
        table.append({"depth": depth, **_time_ticks(ring, timed, seconds / len(depths))})
    return table


def _time_ticks(ring: Ring, timed: _TimedModel, seconds: float) -> dict[str, Any]:
    for _ in range(ring.steps + 2):
        ring.tick()
    ticks: list[float] = []
    model: list[float] = []
    done: list[int] = []
    start = time.perf_counter()
    while not ticks or time.perf_counter() - start < seconds:
        timed.seconds = 0.0
        before = time.perf_counter()
        done.append(len(ring.tick()))
        ticks.append(time.perf_counter() - before)
        model.append(timed.seconds)
    spent = time.perf_counter() - start
    other = np.subtract(ticks, model)
    tick = float(np.median(ticks)) * 1e3
    worst = ring.steps + -(-ring.steps // ring.depth) - 1
    return {
        "ticks": len(ticks),
        "tick_ms": tick,
        "tick_p95_ms": float(np.percentile(ticks, 95)) * 1e3,
        "model_ms": float(np.median(model)) * 1e3,
        "other_ms": float(np.median(other)) * 1e3,
        "other_min_ms": float(np.min(other)) * 1e3,
        "generations_per_s": sum(done) / spent,
        "largest_gap_ticks": largest_gap(done),
        "first_effect_ms": worst * tick,
    }


def recommend(table: Table) -> dict[str, Any]:
    """The depth to play at, from `ring_table`: of those within a tenth of the most generations a
    second, the one whose changes are heard soonest. Depth is a choice, not a speed-up: where the
    tick grows as fast as the depth, this is 1, and more depth only makes completions more even.
    """
    best = max(row["generations_per_s"] for row in table)
    near = [row for row in table if row["generations_per_s"] >= 0.9 * best]
    row = min(near, key=lambda row: (row["first_effect_ms"], row["depth"]))
    return {
        key: row[key]
        for key in ("depth", "tick_ms", "generations_per_s", "first_effect_ms", "largest_gap_ticks")
    }


# -- everything in a tick but the model --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Controls that are in force while ticks are timed.

    shared: values of class step; as curves if `curves`, new ones at each tick if `moving`.
    request: fields of the requests. one_seed: one for all. mask: the requests have a mask.
    """

    name: str
    shared: Mapping[str, float] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    curves: bool = False
    one_seed: bool = False
    mask: bool = False
    moving: bool = False


#: Guidance counts twice in `full`: its second pass is a row of the batch.
CASES = (
    Case("plain, one seed", one_seed=True),
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


class _ConstantModel:
    """A model that costs nothing: one answer for each shape, from memory."""

    def __init__(self) -> None:
        self._answers: dict[torch.Size, Tensor] = {}

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Any]) -> Tensor:
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
        _ConstantModel(),
        steps=8,
        depth=depth,
        device=device,
        capture=capture,
        on_admit=lambda deck: replace(like, seed=0 if case.one_seed else next(seeds)),
    )
    ring.enlist("main")
    return ring


def _share(ring: Ring, case: Case, frames: int, tick: int) -> None:
    for name, value in case.shared.items():
        moved = value + (tick % 7) / 100
        curve = moved + np.linspace(0.0, 0.1, frames, dtype=np.float32)
        ring.share(name, curve if case.curves else moved)


def _time_tick_parts(
    ring: Ring, before: Callable[[int], None], ticks: int, cuda: bool
) -> dict[str, float]:
    """Times in ms of `ticks` ticks. `before(tick)` is not timed."""
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
    depths: Iterable[int] = DEPTHS,
    *,
    frames: int = 1500,
    channels: int = 64,
    device: str = "cpu",
    capture: bool = True,
    ticks: int = 48,
    cases: Sequence[Case] = CASES,
) -> Table:
    """Admission, snapshot, coefficients, mask, guidance, noise, step and hand-out of a full ring.

    Returns:
        Rows what, depth, captured (CUDA graphs) and times in ms: wall (to the end of the device's
        work), host (until the tick returns), cpu (of the calling thread), device (between two
        events around the tick). The first ticks, in which graphs are captured, are not counted.
    """
    table: Table = []
    cuda = torch.device(device).type == "cuda"
    depths = tuple(depths)
    for case in cases:
        for depth in depths:
            ring = _ring(case, depth, frames, channels, device, capture)
            _share(ring, case, frames, 0)

            def before(tick: int, ring: Ring = ring, case: Case = case) -> None:
                if case.moving:
                    _share(ring, case, frames, tick)

            _time_tick_parts(ring, before, 40 if cuda else 12, cuda)
            times = _time_tick_parts(ring, before, ticks, cuda)
            row = {"what": case.name, "depth": depth, "captured": ring.graphs[0], **times}
            table.append(row)
    return table
