"""Everything through which others reach a session: control socket, OSC, web page.

Threads: `doors` belongs to the thread that starts the session.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from demon_live._version import __version__
from demon_live.control.registry import DEFAULT, Claim, Info, available
from demon_live.errors import DemonError
from demon_live.session.session import Session


class Opened(Protocol):
    """An instrument with a session: a `Live`."""

    session: Session


@dataclass(frozen=True)
class Start:
    """How a session is started. name: None = the default one. live: arguments of `Live`.

    scores: what `doctor` shows. osc: [HOST:]PORT to listen at, or None. web: port of the web view,
    0 = the usual one, or None. visuals: a sketch for its visuals, "" = our own, or None. by: its
    owner.
    """

    name: str | None = None
    live: Mapping[str, Any] = field(default_factory=dict)
    scores: tuple[str, ...] = ()
    osc: str | None = None
    web: int | None = None
    visuals: str | None = None
    by: str = ""

    def info(self, *, detached: bool) -> Info:
        """What others may know of it from its first moment on."""
        return Info(
            self.name or DEFAULT,
            os.getpid(),
            time.time(),
            str(self.live.get("engine", "imp")),
            self.scores,
            os.getcwd(),
            __version__,
            detached,
        )


@contextlib.contextmanager
def doors(
    live: Opened, start: Start, stop: threading.Event, claim: Claim | None = None
) -> Iterator[Info]:
    """Open the doors of a session.

    Without a claim (a session that has its terminal to itself) a name is claimed if it is free;
    only a name that was asked for must be. Closed on the way out, the claim given back.
    """
    from demon_live.control.server import ControlServer

    live.session.by = start.by
    with contextlib.ExitStack() as open_:
        info = start.info(detached=False) if claim is None else claim.info
        if claim is None and available():
            claim = _claim(live, start, info)
            if claim is not None:
                open_.callback(claim.release)
        if claim is not None:
            held = claim
            server = ControlServer(
                live.session,
                info.socket,
                who=lambda: info_row(held.info),
                tell=live.session.tell,
                quit=stop.set,
            )
            open_.callback(server.close)
        if start.osc is not None:
            from demon_live.control.osc import OscServer

            osc = OscServer(live.session, start.osc)
            open_.callback(osc.close)
            info = replace(info, osc=osc.address)
        if start.web is not None:
            from demon_live.control.web import WebServer

            sketch = Path(start.visuals) if start.visuals else None
            web = WebServer(live.session, start.web or None, sketch=sketch)
            open_.callback(web.close)
            info = replace(info, web=web.url)
            live.session.tell(f"web view: {web.url}")
            if start.visuals is not None:
                live.session.tell(f"visuals: {web.visuals}")
        if claim is not None:
            claim.publish(info)
        yield info


def _claim(live: Opened, start: Start, info: Info) -> Claim | None:
    try:
        return Claim.take(info)
    except DemonError:
        if start.name is not None:
            raise
        live.session.tell(
            f"a session called {info.name!r} plays already: demon send does not reach this one "
            "(give it a --name)"
        )
        return None


def info_row(info: Info) -> dict[str, Any]:
    """An Info as it crosses processes."""
    return {name: getattr(info, name) for name in Info.__slots__}
