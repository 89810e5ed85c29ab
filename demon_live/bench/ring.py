"""Ticks of the ring on an engine, and our admission beside the earlier engines'.

Threads: main thread only.
"""

from __future__ import annotations

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import RATES

__all__ = ["DEPTHS", "figures"]

#: Depths that the ring is timed at, unless one is asked for.
DEPTHS = (1, 2, 4, 8)


def figures(options: Options) -> Figures:
    """Ticks of the ring, and our admission beside the earlier engines'."""
    from demon_live.bench import ring_tables as parts
    from demon_live.bench.overhead import overhead_table

    frames = round(options.seconds * RATES.frame_hz)
    frames += frames % 2
    with opened(options) as engine:
        bars = max(1, round(frames / RATES.frame_hz / 2))
        condition = engine.condition("techno", bpm=120.0, cycles=bars, beats=4, frames=frames)
        rows = parts.ring_table(
            engine,
            engine.steps,
            (options.depth,) if options.depth else DEPTHS,
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
            "recommended": [parts.recommend(rows)],
            "admission": parts.policy_table(engine.steps),
            "sweep": parts.sweep_table(engine.steps),
            "besides_the_model": overhead_table(
                (options.depth,) if options.depth else DEPTHS,
                frames=frames,
                channels=engine.channels,
                device=str(engine.device),
                ticks=24,
            ),
        }
