"""An engine process without a model, for the tests of its supervisor."""

from __future__ import annotations

import numpy as np

from demon_live.children import SharedPipe
from demon_live.core import EngineState, EngineStatus, Generation, Request
from demon_live.models.base import EngineBase
from demon_live.runtime.options import (
    Beat,
    GenerationReport,
    Note,
    Opening,
    Progress,
    Ready,
    Telemetry,
)


def child(fd: int) -> None:
    """Opens, counts a generation for each deck of the newest state, and repeats the timbres."""
    conn = SharedPipe(fd)
    opening: Opening = conn.recv()
    conn.send(Progress("loading 1.2 of 6.3 GB"))
    if opening.options.engine == "slow":
        conn.poll(None)
    if opening.options.engine == "broken":
        raise SystemExit(3)
    conn.send(Ready(f"child {opening.options.engine}", device="cpu"))
    if opening.spare:
        conn.poll(None)
    conn.beat(Beat(), 0.1)
    while True:
        try:
            state: EngineState = conn.recv()
        except EOFError:
            return
        if state.latents:
            request = Request(frames=2, channels=1, condition=object(), seed=3)
            conn.send(
                GenerationReport.of(Generation(np.zeros((2, 1), np.float32), request, (), 0, 1))
            )
        conn.send(Note(f"timbres {' '.join(t.key for t in state.timbres)}"))
        conn.send(Telemetry(EngineStatus(ticks=1, generations=len(state.decks))))


class Broken(EngineBase):
    """An engine that cannot be opened, for a reason that no error of ours foresees."""

    def __init__(self) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")
