"""The two faces of a session on a terminal, prompt and stage view, and the way between them.

Threads: main thread only; see desk.py.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from prompt_toolkit.patch_stdout import patch_stdout

from demon_live.session.session_api import Port
from demon_live.ui import show
from demon_live.ui.controller import Desk
from demon_live.ui.prompt import Repl

__all__ = ["front"]

_log = logging.getLogger(__name__)


def front(
    session: Port,
    *,
    banner: show.Pieces | None = None,
    stop: threading.Event | None = None,
    stage: bool = False,
    theme: str = "dark",
    first: str = "",
) -> None:
    """Show the prompt (or, with `stage`, the stage view) until the performer leaves.

    theme: ground of the stage view, dark or light. first: what is evaluated at once, as if it had
    been typed. Errors never end it.
    """
    desk = Desk(session, stop=stop)
    try:
        asyncio.run(_faces(desk, banner or [], stage, theme, first))
    except (EOFError, OSError):
        # The terminal is gone (window closed, line dropped): leave as if asked to.
        _log.warning("the terminal is gone", exc_info=True)
    finally:
        desk.close()


async def _faces(desk: Desk, banner: show.Pieces, stage: bool, theme: str, first: str) -> None:
    # Each face is made once: what is being typed, its undo and the scores stay when it is left.
    prompt: Repl | None = None
    view = None
    face = "stage" if stage else "prompt"
    if first:
        # Once a face is there to say the answer.
        asyncio.get_running_loop().call_soon(desk.evaluate, first)
    while face:
        if face == "prompt":
            prompt = prompt or Repl(desk.port, desk=desk, banner=banner)
            with patch_stdout(raw=True):
                face = await prompt._run()
        else:
            if view is None:
                from demon_live.ui.stage.app import StageView

                view = StageView(desk, theme=theme)
            face = await view.run()
