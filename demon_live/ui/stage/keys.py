"""What the keys do on stage, on top of prompt_toolkit's own editing keys.

Threads: handlers run in the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

if TYPE_CHECKING:
    from demon_live.ui.stage.app import StageView

__all__ = ["bindings"]

_PAGE = 10


def _know_ctrl_enter() -> None:
    """Ctrl-Enter and Shift-Enter, from terminals that tell them from Enter, are Alt-Enter."""
    for code in ("\x1b[27;5;13~", "\x1b[13;5u", "\x1b[27;2;13~", "\x1b[13;2u"):
        ANSI_SEQUENCES[code] = (Keys.Escape, Keys.ControlM)


def bindings(view: StageView) -> KeyBindings:
    """The keys of the stage view."""
    _know_ctrl_enter()
    keys = KeyBindings()
    _playing(keys, view)
    _typing(keys, view)
    _moving(keys, view)
    return keys


def _playing(keys: KeyBindings, view: StageView) -> None:
    scoring, asking = has_focus("score"), has_focus("prompt")

    @keys.add("escape", "enter", filter=scoring)
    def _block(event: KeyPressEvent) -> None:
        view.play_block()

    @keys.add("escape", "enter", filter=asking)
    def _accept(event: KeyPressEvent) -> None:
        view.accept()

    @keys.add("c-s")
    def _all(event: KeyPressEvent) -> None:
        view.play_all()

    @keys.add("escape", ".")
    def _hush(event: KeyPressEvent) -> None:
        view.desk.evaluate("hush")

    @keys.add("escape", "u")
    def _undo(event: KeyPressEvent) -> None:
        view.desk.evaluate("undo")

    @keys.add("escape", "r")
    def _redo(event: KeyPressEvent) -> None:
        view.desk.evaluate("redo")

    for deck in range(1, 9):
        _mute(keys, view, deck)


def _mute(keys: KeyBindings, view: StageView, deck: int) -> None:
    @keys.add(f"f{deck + 1}")
    @keys.add("escape", str(deck))
    def _press(event: KeyPressEvent) -> None:
        view.desk.mute(deck - 1)


def _typing(keys: KeyBindings, view: StageView) -> None:
    scoring, asking = has_focus("score"), has_focus("prompt")

    def _chosen(event: KeyPressEvent) -> bool:
        """Close the list of completions; whether one had been chosen (it stands in the text)."""
        state = event.current_buffer.complete_state
        event.current_buffer.complete_state = None
        return state is not None and state.current_completion is not None

    @keys.add("enter", filter=asking)
    def _enter(event: KeyPressEvent) -> None:
        if _chosen(event):
            return
        if view.complete_statement():
            view.accept()
        else:
            event.current_buffer.newline(copy_margin=True)

    @keys.add("enter", filter=scoring)
    def _newline(event: KeyPressEvent) -> None:
        if not _chosen(event):
            event.current_buffer.newline(copy_margin=True)

    @keys.add("c-o")
    def _open(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=True)

    @keys.add("tab")
    def _tab(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer is view.prompt and not buffer.text and view.desk.offered:
            buffer.insert_text(view.desk.offered)
        elif buffer.complete_state is not None:
            buffer.complete_next()
        elif not buffer.document.current_line_before_cursor.strip():
            buffer.insert_text("  ")
        else:
            buffer.start_completion(select_first=False)

    @keys.add("c-z")
    def _undo(event: KeyPressEvent) -> None:
        event.current_buffer.undo()

    @keys.add("escape", "z")
    def _redo(event: KeyPressEvent) -> None:
        event.current_buffer.redo()


def _moving(keys: KeyBindings, view: StageView) -> None:
    scoring = has_focus("score")
    listing = Condition(lambda: view.app.current_buffer.complete_state is not None)
    helping = Condition(lambda: view.helping)

    @keys.add("s-tab", filter=~listing)
    def _other(event: KeyPressEvent) -> None:
        view.other_side()

    @keys.add("f1")
    def _help(event: KeyPressEvent) -> None:
        view.help()

    @keys.add("escape", filter=helping, eager=True)
    @keys.add("q", filter=helping, eager=True)
    @keys.add("enter", filter=helping, eager=True)
    def _close(event: KeyPressEvent) -> None:
        view.help()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _cancel(event: KeyPressEvent) -> None:
        view.cancel()

    @keys.add("c-q")
    def _leave(event: KeyPressEvent) -> None:
        view.desk.ask_to_leave()

    @keys.add("c-d", filter=has_focus("prompt") & Condition(lambda: not view.prompt.text))
    def _end(event: KeyPressEvent) -> None:
        view.desk.ask_to_leave()

    @keys.add("escape", "s")
    @keys.add("f12")
    def _face(event: KeyPressEvent) -> None:
        view.desk.evaluate("prompt")

    @keys.add("escape", "n")
    @keys.add("c-pagedown")
    def _next(event: KeyPressEvent) -> None:
        view.turn(1)

    @keys.add("escape", "p")
    @keys.add("c-pageup")
    def _before(event: KeyPressEvent) -> None:
        view.turn(-1)

    @keys.add("pagedown", filter=scoring)
    def _down(event: KeyPressEvent) -> None:
        event.current_buffer.cursor_down(_PAGE)

    @keys.add("pageup", filter=scoring)
    def _up(event: KeyPressEvent) -> None:
        event.current_buffer.cursor_up(_PAGE)

    @keys.add("c-l")
    def _clear(event: KeyPressEvent) -> None:
        view.repaint()
