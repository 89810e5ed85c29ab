"""The keys of the prompt and of the stage view, on top of prompt_toolkit's own editing keys.

Threads: handlers run in the event loop.
"""

from __future__ import annotations

import os
import re
from typing import Protocol

from prompt_toolkit.application import get_app
from prompt_toolkit.data_structures import Point
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.input.ansi_escape_sequences import ANSI_SEQUENCES
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.bindings.mouse import xterm_sgr_mouse_events
from prompt_toolkit.keys import Keys
from prompt_toolkit.mouse_events import MouseEvent
from prompt_toolkit.search import stop_search

from demon_live.ui.controller import FrontEnd

_PAGE = 10
_MOUSE = re.compile(r"\x1b\[<(\d{1,4});(\d{1,5});(\d{1,5})([Mm])")
_IN_PROMPT, _IN_SCORE = has_focus("prompt"), has_focus("score")
_EMPTY = Condition(lambda: not get_app().current_buffer.text)


def editing_mode() -> EditingMode:
    """Emacs keys, or vi keys if DEMON_KEYS=vi."""
    return EditingMode.VI if os.environ.get("DEMON_KEYS") == "vi" else EditingMode.EMACS


def prompt_keys(repl: FrontEnd) -> KeyBindings:
    """The keys of the prompt."""
    keys = _common_keys(repl, "stage")
    offered = Condition(lambda: bool(repl.controller.offered))

    @keys.add("tab", filter=_IN_PROMPT & _EMPTY & offered)
    def _take(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(repl.controller.offered)

    return keys


class StageActions(Protocol):
    """What the keys of the stage view do, beside what both views can."""

    @property
    def helping(self) -> bool: ...
    def turn(self, by: int) -> None: ...
    def other_side(self) -> None: ...
    def play_block(self) -> None: ...
    def play_all(self) -> None: ...
    def mouse(self, event: MouseEvent) -> None: ...


def stage_keys(view: FrontEnd, stage: StageActions) -> KeyBindings:
    """The keys of the stage view, which is both arguments."""
    # Ctrl-Enter and Shift-Enter, from terminals that send codes for them, are Alt-Enter.
    for code in ("\x1b[27;5;13~", "\x1b[13;5u", "\x1b[27;2;13~", "\x1b[13;2u"):
        ANSI_SEQUENCES[code] = (Keys.Escape, Keys.ControlM)
    keys = _common_keys(view, "prompt")
    _evaluating_keys(keys, view, stage)
    _editing_keys(keys, view, stage)
    _moving_keys(keys, view, stage)
    keys.add(Keys.Vt100MouseEvent)(lambda event: _mouse(event, stage))
    return keys


def _mouse(event: KeyPressEvent, stage: StageActions) -> None:
    """Read what a terminal tells of the mouse, `ESC [ < CODE ; COLUMN ; ROW M`."""
    found = _MOUSE.fullmatch(event.data)
    kind = xterm_sgr_mouse_events.get((int(found[1]), found[4])) if found else None
    if found and kind:
        button, what, held = kind
        stage.mouse(MouseEvent(Point(int(found[2]) - 1, int(found[3]) - 1), what, button, held))


def _common_keys(front: FrontEnd, other: str) -> KeyBindings:
    """The keys that both views have. other: the view that Alt-s goes to."""
    keys, controller = KeyBindings(), front.controller

    @keys.add("enter", filter=_IN_PROMPT)
    def _enter(event: KeyPressEvent) -> None:
        if _close_menu(event):
            return
        if front.complete_statement():
            front.accept()
        else:
            event.current_buffer.newline(copy_margin=True)

    keys.add("escape", "enter", filter=_IN_PROMPT)(lambda event: front.accept())
    keys.add("c-o", filter=_IN_PROMPT | _IN_SCORE)(
        lambda event: event.current_buffer.newline(copy_margin=True)
    )
    keys.add("c-z")(lambda event: event.current_buffer.undo())
    keys.add("escape", "z")(lambda event: event.current_buffer.redo())
    keys.add("c-c")(lambda event: _cancel(event, front))
    keys.add("<sigint>")(lambda event: _cancel(event, front))
    keys.add("c-d", filter=_IN_PROMPT & _EMPTY)(lambda event: controller.ask_to_leave("Ctrl-D"))
    keys.add("c-l")(lambda event: front.repaint())
    keys.add("f1")(lambda event: front.explain())
    _statement(keys, front, "hush", "escape", ".")
    _statement(keys, front, "status", "escape", "w")
    _statement(keys, front, "tap", "escape", "t")
    for sign, by in (("-", -1), ("=", 1), ("+", 1)):
        _tempo(keys, front, by, "escape", sign)
    _statement(keys, front, other, "escape", "s")
    _statement(keys, front, other, "f12")
    for deck in range(9):
        _mute(keys, front, deck, "escape", str(deck + 1))
    return keys


def _cancel(event: KeyPressEvent, front: FrontEnd) -> None:
    if event.app.layout.is_searching:
        stop_search()
    else:
        front.cancel()


def _close_menu(event: KeyPressEvent) -> bool:
    """Close the list of completions; whether one was selected (it stands in the text already)."""
    state = event.current_buffer.complete_state
    event.current_buffer.complete_state = None
    return state is not None and state.current_completion is not None


def _statement(keys: KeyBindings, front: FrontEnd, text: str, *sequence: str) -> None:
    keys.add(*sequence)(lambda event: front.controller.evaluate(text))


def _mute(keys: KeyBindings, front: FrontEnd, deck: int, *sequence: str) -> None:
    keys.add(*sequence)(lambda event: front.controller.mute(deck))


def _tempo(keys: KeyBindings, front: FrontEnd, by: float, *sequence: str) -> None:
    keys.add(*sequence)(lambda event: front.controller.change_tempo(by))


def _evaluating_keys(keys: KeyBindings, view: FrontEnd, stage: StageActions) -> None:
    keys.add("escape", "enter", filter=_IN_SCORE)(lambda event: stage.play_block())
    keys.add("c-s")(lambda event: stage.play_all())
    keys.add("c-q")(lambda event: view.controller.ask_to_leave("Ctrl-Q"))
    _statement(keys, view, "undo", "escape", "u")
    _statement(keys, view, "redo", "escape", "r")
    for deck in range(8):
        _mute(keys, view, deck, f"f{deck + 2}")


def _editing_keys(keys: KeyBindings, view: FrontEnd, stage: StageActions) -> None:
    @keys.add("enter", filter=_IN_SCORE)
    def _newline(event: KeyPressEvent) -> None:
        if not _close_menu(event):
            event.current_buffer.newline(copy_margin=True)

    @keys.add("tab")
    def _tab(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer is view.prompt and not buffer.text and view.controller.offered:
            buffer.insert_text(view.controller.offered)
        elif buffer.complete_state is not None:
            buffer.complete_next()
        elif not buffer.document.current_line_before_cursor.strip():
            buffer.insert_text("  ")
        else:
            buffer.start_completion(select_first=False)


def _moving_keys(keys: KeyBindings, view: FrontEnd, stage: StageActions) -> None:
    listing = Condition(lambda: view.app.current_buffer.complete_state is not None)
    helping = Condition(lambda: stage.helping)
    keys.add("s-tab", filter=~listing)(lambda event: stage.other_side())
    for key in ("escape", "q", "enter"):
        keys.add(key, filter=helping, eager=True)(lambda event: view.explain())
    keys.add("escape", "n")(lambda event: stage.turn(1))
    keys.add("c-pagedown")(lambda event: stage.turn(1))
    keys.add("escape", "p")(lambda event: stage.turn(-1))
    keys.add("c-pageup")(lambda event: stage.turn(-1))
    keys.add("pagedown", filter=_IN_SCORE)(lambda event: event.current_buffer.cursor_down(_PAGE))
    keys.add("pageup", filter=_IN_SCORE)(lambda event: event.current_buffer.cursor_up(_PAGE))
