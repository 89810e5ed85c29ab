"""Live-code a diffusion model.

A score in a small pattern language drives an always-running ring engine. The names exported
here load lazily, so that `import demon_live` costs nothing and `demon check` never loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DemonError", "Session", "__version__", "render"]

if TYPE_CHECKING:
    from demon_live.errors import DemonError
    from demon_live.perform.render import render
    from demon_live.perform.session import Session


def __getattr__(name: str) -> Any:
    if name == "DemonError":
        from demon_live.errors import DemonError

        return DemonError
    if name == "Session":
        from demon_live.perform.session import Session

        return Session
    if name == "render":
        from demon_live.perform.render import render

        return render
    raise AttributeError(f"module 'demon_live' has no attribute {name!r}")
