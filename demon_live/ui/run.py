"""The two views of a session on a terminal, prompt and stage view, and the way between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading

from prompt_toolkit.patch_stdout import patch_stdout

from demon_live.session.session_api import SessionApi
from demon_live.ui import show
from demon_live.ui.controller import FrontEnd, Leaving, UiController
from demon_live.ui.prompt import Repl

_log = logging.getLogger(__name__)


def front(
    session: SessionApi,
    *,
    banner: show.Pieces | None = None,
    stop: threading.Event | None = None,
    stage: bool = False,
    theme: str = "dark",
    first: str = "",
    leaving: Leaving = "end",
    mouse: bool = True,
) -> None:
    """Show the prompt or the stage view until the performer leaves. Errors never end it.

    Args:
        session: evaluates and answers.
        banner: shown above the first prompt.
        stop: leave when it is set.
        stage: begin with the stage view.
        theme: ground of the stage view, dark or light.
        first: a statement to evaluate at once.
        leaving: what Ctrl-D does.
        mouse: whether the views take the mouse.
    """
    controller = UiController(session, stop=stop, leaving=leaving)
    try:
        asyncio.run(_views(controller, banner or [], stage, theme, first, mouse))
    except (EOFError, OSError):
        # The terminal is gone (window closed, line dropped): leave as at `quit`.
        _log.warning("the terminal is gone", exc_info=True)
    finally:
        controller.close()


async def _views(
    controller: UiController,
    banner: show.Pieces,
    stage: bool,
    theme: str,
    first: str,
    mouse: bool,
) -> None:
    def make(name: str) -> FrontEnd:
        if name == "prompt":
            return Repl(controller, banner=banner, mouse=mouse)
        from demon_live.ui.stage.app import StageView

        return StageView(controller, theme=theme, mouse=mouse)

    # Each view is made once: its prompt, undo and scores stay while the other one is shown.
    views: dict[str, FrontEnd] = {}
    name = "stage" if stage else "prompt"
    if first:
        # Once a view is there to show the answer.
        asyncio.get_running_loop().call_soon(controller.evaluate, first)
    while name:
        view = views[name] = views.get(name) or make(name)
        with patch_stdout(raw=True) if name == "prompt" else contextlib.nullcontext():
            name = await view.run()
