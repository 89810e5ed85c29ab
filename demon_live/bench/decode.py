"""Windows of an engine's decoder against real time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import RATES

if TYPE_CHECKING:
    from demon_live.models.engine import Engine


def figures(options: Options) -> Figures:
    """Times of one window of the engine that the options name."""
    with opened(options) as engine:
        return decode_times(engine)


def decode_times(
    engine: Engine, *, window: int | None = None, seconds: float = 2.0, at_least: int = 5
) -> dict[str, Any]:
    """Decode one window, with its margins, again and again for `seconds`.

    Returns:
        Wall times of a call in ms, processor time per call in ms (`cpu_ms`), cores in use (spinning
        threads would show there), and `realtime`: how many times real time the `window` frames are
        that are left without the margins.
    """
    frames = window or engine.window
    shape = (1, frames + 2 * engine.margin, engine.channels)
    latent = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    engine.decode(latent)
    walls: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while len(walls) < at_least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        engine.decode(latent)
        walls.append(time.perf_counter() - start)
    total, cpu = time.perf_counter() - began, time.process_time() - cpu
    median, p95 = (round(float(q) * 1e3, 3) for q in np.quantile(walls, [0.5, 0.95]))
    heard_ms = frames * RATES.hop * 1e3 / RATES.sample_rate
    return {
        "engine": engine.describe(),
        "window": frames,
        "margin": engine.margin,
        "calls": len(walls),
        "median_ms": median,
        "p95_ms": p95,
        "cpu_ms": round(cpu / len(walls) * 1e3, 3),
        "cores": round(cpu / total, 2),
        "realtime": round(heard_ms / median, 1),
    }
