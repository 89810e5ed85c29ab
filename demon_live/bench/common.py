"""What the benches share: options, an open engine, the machine."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demon_live._version import __version__
from demon_live.core import RATES

if TYPE_CHECKING:
    from demon_live.models.engine import Engine

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of `demon bench`.

    seconds: length of the loop. depth: None = several. scores, cycles: of `economy`; no score is
    the whole tour.
    """

    engine: str = "imp"
    backend: str = "auto"
    depth: int | None = None
    seconds: float = 16.0
    random_weights: bool = False
    scores: tuple[str, ...] = ()
    cycles: float = 16.0

    @property
    def frames(self) -> int:
        """Frames of the loop; an even number."""
        frames = round(self.seconds * RATES.frame_hz)
        return frames + frames % 2


@contextlib.contextmanager
def opened(options: Options) -> Iterator[Engine]:
    """The engine that the options name; closed at the end."""
    from demon_live.models.engine import open_engine

    engine = open_engine(
        options.engine, backend=options.backend, random_weights=options.random_weights
    )
    try:
        yield engine
    finally:
        engine.close()


def machine() -> dict[str, Any]:
    """Where and when the figures were taken."""
    return {
        "demon": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
