"""Completion, and the line of help on what is being typed.

The language says what may come next; this turns its answers into a list with range and help.

Threads: called in the prompt's event loop; each call is a fraction of a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from demon_live import lang
from demon_live.controls import Control, find
from demon_live.ui import guide

__all__ = ["ScoreCompleter", "hint_at"]

_WORD = re.compile(r"[A-Za-z_][\w.]*")
_BOUND = re.compile(r"([A-Za-z_][\w.]*)\s*=(?!=)")


class ScoreCompleter(Completer):
    """Completes scores, and `?` questions."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text, at = document.text, document.cursor_position
        if text.lstrip().startswith("#"):
            return
        yield from ()


def hint_at(text: str, at: int) -> str:
    """One line on the word at offset `at`, or else on the control that is being bound there."""
    for match in _WORD.finditer(text):
        if match.start() <= at <= match.end():
            line = _line(match.group())
            if line:
                return line
    bound = None
    for match in _BOUND.finditer(text, 0, at):
        bound = match.group(1)
    return _line(bound) if bound else ""


def _line(word: str) -> str:
    control = find(word)
    if control is not None:
        return f"{control.name}  {summary(control)}"
    text = lang.help_for(word)
    return text.split("\n", 1)[0] if text else ""


def summary(control: Control) -> str:
    """Range, default and help of a control in one line."""
    default = guide.default_text(control)
    return f"{control.range_text}, default {default}, {control.cls}.  {control.help}"
