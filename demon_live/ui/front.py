"""The two faces of a session on a terminal, prompt and stage view, and the way between them.

Threads: main thread only; see desk.py.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from prompt_toolkit.patch_stdout import patch_stdout

from demon_live.ui import show
from demon_live.ui.desk import Desk
from demon_live.ui.port import Port
from demon_live.ui.repl import Repl

__all__ = ["front"]

_log = logging.getLogger(__name__)


def front(
    session: Port,
    *,
    banner: show.Pieces | None = None,
    stop: threading.Event | None = None,
    stage: bool = False,
    theme: str = "dark",
) -> None:
    """Show the prompt (or, with `stage`, the stage view) until the performer leaves.

    theme: ground of the stage view, dark or light. Errors never end it.
    """
    desk = Desk(session, stop=stop)
    try:
        asyncio.run(_faces(desk, banner or [], stage, theme))
    except (EOFError, OSError):
        # The terminal is gone (window closed, line dropped): leave as if asked to.
        _log.warning("the terminal is gone", exc_info=True)
    finally:
        desk.close()


async def _faces(desk: Desk, banner: show.Pieces, stage: bool, theme: str) -> None:
    # Each face is made once: what is being typed, its undo and the scores stay when it is left.
    prompt: Repl | None = None
    view = None
    face = "stage" if stage else "prompt"
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
