"""What the ring makes, and what it need not: generations of scores, rendered off line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import Generation
from demon_live.paths import shipped


def figures(options: Options) -> Figures:
    """For each score: generations that were made, how many different ones, those that were taken
    from the store, and windows that were decoded."""
    tour = sorted(shipped("patterns").glob("*.demon"))
    scores = options.scores or tuple(str(path) for path in tour)
    return {score: _economy(options, score) for score in scores}


def _economy(options: Options, score: str) -> dict[str, int]:
    from demon_live.runtime.offline import Offline

    different: set[bytes] = set()
    decoded = [0]
    with opened(options) as engine, Offline(engine) as offline:
        engine.decode = _counted(engine.decode, decoded)  # type: ignore[method-assign]
        ring = offline.output.generator.ring
        ring.tick = _seen(ring.tick, different)  # type: ignore[method-assign]
        offline.session.load(Path(score))
        offline.render(cycles=options.cycles)
        made = ring.stats()
    return {
        "generations": made.made,
        "different": len(different),
        "from_store": made.from_store,
        "decodes": decoded[0],
    }


def _counted(decode: Callable[..., Any], count: list[int]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        count[0] += 1
        return decode(*args)

    return run


def _seen(
    tick: Callable[[], list[Generation]], latents: set[bytes]
) -> Callable[[], list[Generation]]:
    def run() -> list[Generation]:
        done = tick()
        latents.update(hashlib.sha256(one.latent.tobytes()).digest() for one in done)
        return done

    return run
