"""`open_engine` chooses a backend of an engine, and notes each step down once.

Importing this module is quick; torch loads when an engine opens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from demon_live.errors import EngineError, nearest
from demon_live.models.manifest import FAMILY, load_manifest, own_engine
from demon_live.models.protocol import Engine as Engine
from demon_live.models.protocol import Row as Row


def default_threads() -> int:
    """Threads for the model: two where there are two cores, as the sound has its own process."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(2, len(os.sched_getaffinity(0))))
    return max(1, min(2, os.cpu_count() or 1))


def open_engine(
    name_or_path: str | Path = "imp",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    random_weights: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Engine:
    """Open a shipped engine by name, or another by the path of its TOML or as MODULE:CLASS.

    Args:
        name_or_path: a name such as `imp` or of an entry point, the path of a manifest, or
            MODULE:CLASS of an `EngineBase`.
        backend: auto, or one that the manifest lists.
        device: auto, cpu or cuda.
        threads: of the model on a CPU.
        random_weights: the true shapes with random weights, to measure speed.
        progress: called with what is being done, where it takes long.

    Raises:
        EngineError: no such engine or backend, files missing or damaged, no such device.
    """
    manifest = load_manifest(name_or_path)
    if manifest.family not in ("imp", "acestep", FAMILY):
        raise EngineError(
            f"engine {manifest.name} is of family {manifest.family!r}, which is not played",
            hint="families that play: imp, acestep",
        )
    if backend not in ("auto", *manifest.backends):
        near = nearest(backend, manifest.backends)
        has = f"it has: auto, {', '.join(manifest.backends)}"
        raise EngineError(
            f"engine {manifest.name} has no backend {backend!r}",
            hint=f"did you mean {near[0]}?" if near else has,
        )
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, this is {threads}")
    # OpenMP threads that spin at barriers stall for whole time slices once another process (the
    # sound, the prompt) wants a core: a tick of 110 ms took seconds. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if manifest.family == FAMILY and (own := own_engine(str(name_or_path))) is not None:
        engine: Engine = own()
        return engine
    if manifest.family == "acestep":
        from demon_live.models.acestep.open import open_ace

        count = threads or default_threads()
        return open_ace(manifest, backend, device, count, random_weights, progress)
    from demon_live.models.imp.engine import open_imp

    return open_imp(manifest, backend, device, threads or default_threads(), random_weights)
