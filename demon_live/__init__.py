"""Live-code a diffusion model.

A score in a small pattern language drives an always-running ring engine. The names exported
here load lazily, so that `import demon_live` costs nothing and `demon check` never loads torch.
"""

from __future__ import annotations

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from demon_live._version import __version__

_HOMES = {
    "AsyncSession": "control.remote_session",
    "DemonError": "errors",
    "Engine": "models.protocol",
    "EngineBase": "models.base",
    "Generated": "replay.generate",
    "Generation": "core",
    "Handle": "session.agenda",
    "Live": "runtime.live",
    "Offline": "runtime.offline",
    "Recording": "sets.journal",
    "RemoteSession": "control.remote_session",
    "Rendered": "replay.render",
    "Request": "core",
    "Ring": "engine",
    "Score": "lang.dsl_score",
    "Session": "session.session",
    "aconnect": "control.remote_session",
    "connect": "control.remote_session",
    "curve": "lang.dsl_samples",
    "generate": "replay.generate",
    "midi": "lang.dsl_samples",
    "onsets": "lang.dsl_samples",
    "open_engine": "models.engine",
    "render": "replay.render",
    "timesteps": "engine",
}

if _TYPE_CHECKING:
    from demon_live.control.remote_session import AsyncSession as AsyncSession
    from demon_live.control.remote_session import RemoteSession as RemoteSession
    from demon_live.control.remote_session import aconnect as aconnect
    from demon_live.control.remote_session import connect as connect
    from demon_live.core import Generation as Generation
    from demon_live.core import Request as Request
    from demon_live.dsl import curve as curve
    from demon_live.dsl import midi as midi
    from demon_live.dsl import onsets as onsets
    from demon_live.engine import Ring as Ring
    from demon_live.engine import timesteps as timesteps
    from demon_live.errors import DemonError as DemonError
    from demon_live.lang.dsl_score import Score as Score
    from demon_live.models.base import EngineBase as EngineBase
    from demon_live.models.engine import open_engine as open_engine
    from demon_live.models.protocol import Engine as Engine
    from demon_live.replay.generate import Generated as Generated
    from demon_live.replay.generate import generate as generate
    from demon_live.replay.render import Rendered as Rendered
    from demon_live.replay.render import render as render
    from demon_live.runtime.live import Live as Live
    from demon_live.runtime.offline import Offline as Offline
    from demon_live.session.agenda import Handle as Handle
    from demon_live.session.session import Session as Session
    from demon_live.sets.journal import Recording as Recording

__all__ = [
    "AsyncSession",
    "DemonError",
    "Engine",
    "EngineBase",
    "Generated",
    "Generation",
    "Handle",
    "Live",
    "Offline",
    "Recording",
    "RemoteSession",
    "Rendered",
    "Request",
    "Ring",
    "Score",
    "Session",
    "__version__",
    "aconnect",
    "connect",
    "curve",
    "generate",
    "midi",
    "onsets",
    "open_engine",
    "render",
    "timesteps",
]


def __dir__() -> list[str]:
    return [*__all__, "dsl"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'demon_live' has no attribute {name!r}")
    found = _load(_HOMES[name], name)
    # Packages below know nothing of renders and cuts; the names for scripts are joined here.
    if name == "Session":
        found.replay = staticmethod(
            lambda *args, **options: _load("replay.render", "render")(*args, **options)
        )
    if name == "Recording":
        found.cut = lambda *args, **options: _load("replay.surgery", "cut")(*args, **options)
    return found


def _load(module: str, name: str) -> _Any:
    return getattr(_importlib.import_module(f"demon_live.{module}"), name)
