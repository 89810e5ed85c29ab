"""Windows of an engine's decoder against real time.

Threads: main thread only.
"""

from __future__ import annotations

from demon_live.bench.common import Figures, Options, opened

__all__ = ["figures"]


def figures(options: Options) -> Figures:
    """Windows of the engine's decoder."""
    from demon_live.models import measure as backend

    with opened(options) as engine:
        return backend.decode(engine)
