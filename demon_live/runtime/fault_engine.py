"""An engine that fails as DEMON_FAULTS says: for rigs and tests, never loaded otherwise.

Threads: those of the engine it wraps.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from demon_live import faults
from demon_live.errors import EngineError

if TYPE_CHECKING:
    from demon_live.models.engine import Engine


def check_weights(name: str) -> None:
    """Before an engine opens. Raises EngineError as for a damaged file."""
    if faults.hit("weights.corrupt") is not None:
        raise EngineError(
            "flow.safetensors cannot be used: Error while deserializing header",
            hint=f"compare the files with: demon engines verify {name}",
        )


def slow(took: float) -> None:
    """After a turn that took so many seconds: what a slower machine would have taken longer."""
    if (seconds := faults.hit("tick.stall")) is not None:
        time.sleep(seconds)
    if (factor := faults.hit("tick.slow")) is not None:
        time.sleep(max(0.0, took * (factor - 1)))


class Failing:
    """An `Engine` whose model and decoder go wrong where a fault is planned."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def velocity(self, x: Any, t: Any, rows: Any) -> Any:
        """See `Engine.velocity`."""
        if faults.hit("engine.crash") is not None:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        if faults.hit("engine.oom") is not None:
            raise MemoryError("the device has no memory left")
        v = self._engine.velocity(x, t, rows)
        if faults.hit("latent.nan") is not None:
            return v * float("nan")
        if (factor := faults.hit("latent.explode")) is not None:
            return v * factor
        return v

    def decode(self, latent: Any) -> Any:
        """See `Engine.decode`."""
        audio = self._engine.decode(latent)
        return audio * float("nan") if faults.hit("pcm.nan") is not None else audio
