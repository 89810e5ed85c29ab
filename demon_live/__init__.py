"""Live-code a diffusion model.

A score in a small pattern language drives an always-running ring engine. The names exported
here load lazily, so that `import demon_live` costs nothing and `demon check` never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from demon_live._version import __version__

__all__ = ["DemonError", "Live", "Offline", "Session", "__version__", "render"]

_HOMES = {
    "DemonError": "demon_live.errors",
    "Live": "demon_live.runtime.live",
    "Offline": "demon_live.runtime.offline",
    "Session": "demon_live.session.session",
    "render": "demon_live.replay.render",
}

if TYPE_CHECKING:
    from demon_live.errors import DemonError
    from demon_live.replay.render import render
    from demon_live.runtime.live import Live
    from demon_live.runtime.offline import Offline
    from demon_live.session.session import Session


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'demon_live' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    if name == "Session":
        # The session package knows nothing of renders; the name for scripts is joined here.
        found.replay = staticmethod(
            lambda *args, **options: __getattr__("render")(*args, **options)
        )
    return found
