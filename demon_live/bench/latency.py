"""Edit to ear, control by control.

Threads: main thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from demon_live.bench.common import Figures, Options, opened
from demon_live.core import RATES, Floats

if TYPE_CHECKING:
    from demon_live.backends import Engine

__all__ = ["figures"]

#: What plays while edits are timed: one of each class, and jumps that are known ahead.
PLAYED = """\
tempo 128
loop 2
source "loops/techno_128.flac"
prompt = "<'acid techno, 303' 'dub techno'>"
blend = .9
denoise = .7
gain = 1
"""
EDITS = {"mix": "gain = .5", "step": "blend = .2", "slot": "denoise = .4"}


def figures(options: Options) -> Figures:
    """Edit to ear on the virtual clock: the same performance with and without an edit, compared."""
    from demon_live.engine import measure as parts

    with opened(options) as engine:
        plain, _, on_time = _performance(engine, None)
        heard: dict[str, Any] = {"engine": engine.describe(), "scheduled_late_ms": on_time}
        for cls, edit in EDITS.items():
            edited, at, _ = _performance(engine, edit)
            differ = np.flatnonzero(np.abs(edited - plain).max(axis=1) > 1e-3)
            ms = float(differ[0] - at) * 1000 / RATES.sample_rate if len(differ) else None
            heard[f"{cls}_edit_first_heard_ms"] = ms
    return {**heard, "propagation_ticks": parts.propagation_table()}


def _performance(engine: Engine, edit: str | None) -> tuple[Floats, int, float]:
    """(six seconds of sound, sample of the edit, how late scheduled jumps were in ms)."""
    from demon_live.perform.render import Offline
    from demon_live.places import shipped

    offline = Offline(engine, folders=(shipped("patterns"),))
    offline.session.apply(PLAYED, "bench.demon", "file")
    pieces: list[Floats] = []
    at = 0
    while (now := offline.rig.clock.now()) < 6 * RATES.sample_rate:
        if at == 0 and now >= 3 * RATES.sample_rate:
            at = now
            if edit is not None:
                offline.session.apply(f"{edit} now")
        pieces.append(offline.turn())
    return np.concatenate(pieces), at, offline.rig.engine_status().on_time_ms
