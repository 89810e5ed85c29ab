"""Measurements of the ring, as plain data for `demon bench`.

    ring_table         tick, model and other time by depth, generations a second, gaps
    policy_table       our admission beside the earlier engines': first effect, gaps, a sweep
    propagation_table  onset and convergence of every control, in ticks, from real runs of a ring
    convergence_table  how completions approach the new state after an edit
    preview_table      how near the prediction after each step is to what comes out

Threads: one at a time; nothing here is shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.bench.propagation import convergence_table, propagation_table
from demon_live.core import Floats, Request
from demon_live.engine.baseline import Upstream
from demon_live.engine.ring import Ring
from demon_live.engine.slots import Row, VelocityModel

__all__ = [
    "convergence_table",
    "policy_table",
    "preview_table",
    "propagation_table",
    "recommend",
    "ring_table",
    "sweep_table",
    "sweep_ticks",
]

Table = list[dict[str, Any]]


class _Timed:
    """A model that adds up the time of its calls."""

    def __init__(self, model: VelocityModel) -> None:
        self._model, self.seconds = model, 0.0

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        _settle(x.device)
        before = time.perf_counter()
        v = self._model.velocity(x, t, rows)
        _settle(x.device)
        self.seconds += time.perf_counter() - before
        return v


def _settle(device: torch.device) -> None:
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
    lanes: dict[str, float] | None = None,
) -> Table:
    """A row for each depth, `seconds` in all. Times in ms, medians unless they say otherwise.

    other_ms: a tick but for the model's calls. first_effect_ms: the worst wait of a change of
    class slot. lanes: shared values that are in force. A seed that moves with every generation
    makes it the costly case.
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
        timed = _Timed(model)
        ring = _started(timed, steps, depth, shift, device, like)
        for name, value in (lanes or {}).items():
            ring.share(name, value)
        table.append({"depth": depth, **_time_ticks(ring, timed, seconds / len(depths))})
    return table


def _started(
    model: VelocityModel,
    steps: int,
    depth: int,
    shift: float,
    device: str | torch.device,
    like: Request,
) -> Ring:
    """A ring that always has a request, each with a seed of its own."""
    seeds = count()
    ring = Ring(
        model,
        steps=steps,
        depth=depth,
        shift=shift,
        device=device,
        on_admit=lambda deck: replace(like, seed=next(seeds)),
    )
    ring.enlist("main")
    return ring


def _time_ticks(ring: Ring, timed: _Timed, seconds: float) -> dict[str, Any]:
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
        "largest_gap_ticks": _largest_gap(done),
        "first_effect_ms": worst * tick,
    }


def _largest_gap(completions: Sequence[int]) -> int | None:
    """Ticks from a tick with a completion to the next one, at most."""
    at = np.flatnonzero(np.asarray(completions) > 0)
    return int(np.diff(at).max()) if len(at) > 1 else None


def recommend(table: Table) -> dict[str, Any]:
    """The depth to play at, from `ring_table`: of those within a tenth of the most generations a
    second, the one whose changes are heard soonest. Depth is a choice, not a speed-up: where the
    tick grows as fast as the depth, this is 1, and more depth buys evenness alone.
    """
    best = max(row["generations_per_s"] for row in table)
    near = [row for row in table if row["generations_per_s"] >= 0.9 * best]
    row = min(near, key=lambda row: (row["first_effect_ms"], row["depth"]))
    return {
        key: row[key]
        for key in ("depth", "tick_ms", "generations_per_s", "first_effect_ms", "largest_gap_ticks")
    }


def preview_table(
    model: VelocityModel,
    request: Request,
    steps: int,
    *,
    shift: float = 3.0,
    device: str | torch.device = "cpu",
) -> Table:
    """How near the clean prediction after each step is to the finished latent: error is the RMS of
    the difference over that of the latent. A small one early means that decoding predictions
    lets a change be heard before its generation is finished."""
    ring = Ring(model, steps=steps, depth=1, shift=shift, device=device)
    ring.submit(request)
    previews: list[Floats] = []
    for _ in range(steps - 1):
        ring.tick()
        preview = ring.preview(request.deck)
        if preview is not None:
            previews.append(preview.latent)
    final = ring.flush()[-1].latent
    size = float(np.sqrt(np.mean(final**2))) or 1.0
    return [
        {"step": k + 1, "steps": steps, "error": float(np.sqrt(np.mean((p - final) ** 2))) / size}
        for k, p in enumerate(previews)
    ]


# -- policies ----------------------------------------------------------------------------------


class _Still:
    """A model of no cost, for rings of which only the order matters."""

    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        return x


_Tick = Callable[[float], list[float]]


def _upstream(steps: int, depth: int, reset: bool) -> _Tick:
    """A function that submits a value, ticks, and gives what came out."""
    ring = Upstream(steps, depth, reset)

    def tick(value: float) -> list[float]:
        ring.submit(value)
        done = ring.tick()
        return [] if done is None else [done]

    return tick


def _ours(steps: int, depth: int) -> _Tick:
    ring = Ring(_Still(), steps=steps, depth=depth)
    source = np.zeros((2, 1), dtype=np.float32)

    def tick(value: float) -> list[float]:
        ring.submit(Request(frames=2, channels=1, denoise=value, source=source))
        return [generation.request.denoise for generation in ring.tick()]

    return tick


def _first_effects(make: Callable[[], _Tick], steps: int, late: int) -> list[int]:
    """Ticks to the first completion that knows a change, for a change at each of many phases."""
    waits = []
    for change in range(4 * steps, 6 * steps):
        tick = make()
        for now in range(change + 4 * steps):
            if 0.5 in tick(0.5 if now >= change else 0.9):
                waits.append(now - change + 1 - late)
                break
    return waits


def policy_table(steps: int = 8, depths: Sequence[int] = (1, 2, 4, 8)) -> Table:
    """First effect of a change of class slot (ticks: min, mean, max) and the largest gap between
    completions, one request submitted a tick: mailbox and even stagger beside DEMON's FIFO.

    A generation of the FIFO leaves with the tick after its last step; it is counted with that
    step, as its paper does.
    """
    table: Table = []
    for depth in depths:
        policies: tuple[tuple[str, Callable[[], _Tick], int], ...] = (
            ("fifo", lambda d=depth: _upstream(steps, d, False), 1),  # type: ignore[misc]
            ("mailbox, even stagger", lambda d=depth: _ours(steps, d), 0),  # type: ignore[misc]
        )
        for name, make, late in policies:
            waits = _first_effects(make, steps, late)
            tick = make()
            counts = [len(tick(0.9)) for _ in range(10 * steps)][4 * steps :]
            table.append(
                {
                    "policy": name,
                    "depth": depth,
                    "first_effect_min": min(waits),
                    "first_effect_mean": float(np.mean(waits)),
                    "first_effect_max": max(waits),
                    "largest_gap_ticks": _largest_gap(counts),
                }
            )
    return table


def _policies(steps: int, depth: int) -> tuple[tuple[str, Callable[[], _Tick]], ...]:
    return (
        ("global reset", lambda: _upstream(steps, depth, True)),
        ("fifo", lambda: _upstream(steps, depth, False)),
        ("mailbox, even stagger", lambda: _ours(steps, depth)),
    )


def sweep_table(steps: int = 8, depth: int = 8, ticks: int = 60) -> Table:
    """A denoise that moves at every tick (the paper's Table 13): completions in `ticks` ticks, and
    the longest wait for one, in ticks, after a single change (1 = no dead air)."""
    return [
        {
            "policy": name,
            "depth": depth,
            "ticks": ticks,
            "completions": sum(_swept(make(), steps, ticks)),
            "longest_wait_ticks": _wait(make(), steps),
        }
        for name, make in _policies(steps, depth)
    ]


def sweep_ticks(steps: int = 8, depth: int = 8, ticks: int = 60) -> Table:
    """The same sweep, for a picture: completions of every tick."""
    return [
        {"policy": name, "completions": _swept(make(), steps, ticks)}
        for name, make in _policies(steps, depth)
    ]


def _swept(tick: _Tick, steps: int, ticks: int) -> list[int]:
    for _ in range(4 * steps):
        tick(1.0)
    return [len(tick(1.0 - 0.8 * (n + 1) / ticks)) for n in range(ticks)]


def _wait(tick: _Tick, steps: int) -> int | None:
    before = [len(tick(1.0)) for _ in range(4 * steps)][3 * steps :]
    return _largest_gap(before + [len(tick(0.5)) for _ in range(4 * steps)])
