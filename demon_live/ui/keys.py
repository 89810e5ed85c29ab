"""What the keys do.

Threads: handlers run in the prompt's event loop.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prompt_toolkit.application import get_app
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

if TYPE_CHECKING:
    from demon_live.ui.prompt import Repl

__all__ = ["bindings", "editing_mode"]


def editing_mode() -> EditingMode:
    """Emacs keys, or vi keys where DEMON_KEYS=vi asks for them."""
    return EditingMode.VI if os.environ.get("DEMON_KEYS") == "vi" else EditingMode.EMACS


def bindings(repl: Repl) -> KeyBindings:
    """The keys of the prompt, on top of prompt_toolkit's own."""
    keys = KeyBindings()
    typing = has_focus("score")
    empty = Condition(lambda: not get_app().current_buffer.text)

    @keys.add("enter", filter=typing)
    def _enter(event: KeyPressEvent) -> None:
        state = event.current_buffer.complete_state
        if state is not None and state.current_completion is not None:
            # The chosen completion already stands in the text: only close the list.
            event.current_buffer.complete_state = None
        elif repl.complete_statement():
            repl.accept()
        else:
            event.current_buffer.newline(copy_margin=True)

    @keys.add("escape", "enter", filter=typing)
    def _evaluate(event: KeyPressEvent) -> None:
        repl.accept()

    offered = Condition(lambda: bool(repl.desk.offered))

    @keys.add("tab", filter=typing & empty & offered)
    def _take(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(repl.desk.offered)

    @keys.add("c-o", filter=typing)
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=True)

    @keys.add("escape", ".")
    def _hush(event: KeyPressEvent) -> None:
        repl.evaluate("hush")

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _cancel(event: KeyPressEvent) -> None:
        repl.cancel()

    @keys.add("c-d", filter=typing & empty)
    def _leave(event: KeyPressEvent) -> None:
        repl.leave()

    @keys.add("escape", "s")
    @keys.add("f12")
    def _stage(event: KeyPressEvent) -> None:
        repl.evaluate("stage")

    @keys.add("f1")
    def _explain(event: KeyPressEvent) -> None:
        repl.explain()

    @keys.add("c-l")
    def _clear(event: KeyPressEvent) -> None:
        event.app.renderer.clear()

    for digit in range(1, 10):
        _mute_key(keys, repl, digit)
    return keys


def _mute_key(keys: KeyBindings, repl: Repl, digit: int) -> None:
    @keys.add("escape", str(digit))
    def _mute(event: KeyPressEvent) -> None:
        repl.mute(digit - 1)
