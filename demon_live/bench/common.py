"""What the parts of the bench share: options, an engine while it is measured, the machine.

Threads: main thread only.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demon_live._version import __version__

if TYPE_CHECKING:
    from demon_live.models.engine import Engine

__all__ = ["Figures", "Options", "machine", "opened"]

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What `demon bench` was asked for. seconds: length of the loop. depth: None = several.

    score: of latency, scheduled changes instead of edits; jack: those also in real time at a JACK
    server without hardware; plot: their histogram as an SVG. gpus: of ring, so many voices that
    play as one. delay, jitter (ms), loss (%): of the link of remote, each way; minutes: how long it
    is played; cut: seconds without a link, 0 for none.
    """

    engine: str = "imp"
    backend: str = "auto"
    depth: int | None = None
    seconds: float = 16.0
    random_weights: bool = False
    score: bool = False
    jack: bool = False
    plot: str | None = None
    gpus: int = 0
    delay: float = 40.0
    jitter: float = 15.0
    loss: float = 1.0
    minutes: float = 1.5
    cut: float = 5.0


@contextlib.contextmanager
def opened(options: Options) -> Iterator[Engine]:
    """The engine that the options name, closed at the end."""
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
