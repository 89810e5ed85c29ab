"""How fast an engine is here: what `demon bench decode` and `demon bench ring` report.

Times are wall times of single calls in milliseconds; cpu is the process's CPU time per call, so
cpu / wall is the number of cores in use (spinning threads would show there).

Threads: call from a thread that may use the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demon_live.core import RATES, Request
from demon_live.models.engine import Engine

__all__ = ["decode", "tick"]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    request: Request
    condition: Any
    shared: Mapping[str, Any] = field(default_factory=dict)


def _timed(call: Callable[[], object], seconds: float, at_least: int = 5) -> dict[str, float]:
    """Call again and again for `seconds`: median, 95th percentile and CPU time per call."""
    call()
    walls: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while len(walls) < at_least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
    total, cpu = time.perf_counter() - began, time.process_time() - cpu
    median, p95 = np.quantile(walls, [0.5, 0.95])
    return {
        "calls": len(walls),
        "median_ms": round(float(median) * 1e3, 3),
        "p95_ms": round(float(p95) * 1e3, 3),
        "cpu_ms": round(cpu / len(walls) * 1e3, 3),
        "cores": round(cpu / total, 2),
    }


def decode(engine: Engine, *, window: int | None = None, seconds: float = 2.0) -> dict[str, Any]:
    """Decoding of one window with its margins, and how many times real time its sound is.

    realtime counts the `window` frames that are kept, not the margins.
    """
    frames = window or engine.window
    shape = (1, frames + 2 * engine.margin, engine.channels)
    latent = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found: dict[str, Any] = dict(_timed(lambda: engine.decode(latent), seconds))
    heard = frames * RATES.hop / RATES.sample_rate
    found["realtime"] = round(heard / (found["median_ms"] / 1e3), 1)
    return {"engine": engine.describe(), "window": frames, "margin": engine.margin, **found}


def tick(
    engine: Engine, *, depth: int | None = None, frames: int = 400, seconds: float = 2.0
) -> dict[str, Any]:
    """One batched velocity call of `depth` rows of `frames` frames: the model's part of a tick."""
    import torch

    rows_wanted = depth or engine.depth
    request = Request(frames=frames, channels=engine.channels)
    bars = 8
    bpm = bars * 4 * 60.0 * RATES.frame_hz / frames
    condition = engine.condition("techno", bpm=bpm, cycles=bars, beats=4, frames=frames)
    rows = [_Row(request, condition) for _ in range(rows_wanted)]
    noise = np.random.default_rng(0).standard_normal(
        (rows_wanted, frames, engine.channels), dtype=np.float32
    )
    x = torch.from_numpy(noise).to(engine.device)
    t = torch.linspace(1.0, 0.1, rows_wanted).to(engine.device)

    def call() -> None:
        v = engine.velocity(x, t, rows)
        if engine.device.type == "cuda":
            v.flatten()[0].item()

    found: dict[str, Any] = dict(_timed(call, seconds))
    per_second = 1e3 / found["median_ms"]
    found["generations_per_second"] = round(per_second * rows_wanted / engine.steps, 3)
    return {"engine": engine.describe(), "depth": rows_wanted, "frames": frames, **found}
