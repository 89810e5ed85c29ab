"""Completion, and the line of help on what is being typed.

The language says what may come next; here its answers become a list with range and help.

Threads: called in the prompt's event loop; each call is a fraction of a millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from demon_live.controls import Control, find
from demon_live.lang import complete
from demon_live.ui import guide

__all__ = ["ScoreCompleter", "hint_at"]

_WORD = re.compile(r"[A-Za-z_][\w.]*")
_BOUND = re.compile(r"([A-Za-z_][\w.]*)\s*=(?!=)")
_FILE = re.compile(r"^\s*load\s+['\"]?(.*)$")
_ASKED = re.compile(r"^\s*(?:\?\s*|help\s+)([\w.]*)$")

Names = Callable[[], Mapping[str, Collection[str]]]


class ScoreCompleter(Completer):
    """Completes scores, questions and names of files. names: decks and scenes of the session."""

    def __init__(self, names: Names = dict) -> None:
        self._names = names
        self._files = PathCompleter(file_filter=lambda p: Path(p).is_dir() or p.endswith(".demon"))

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """What may stand at the cursor. While typing only from the second letter of a word on."""
        before = document.text_before_cursor
        line = document.current_line_before_cursor
        if (file := _FILE.match(line)) is not None:
            yield from self._files.get_completions(Document(file[1]), event)
        elif (asked := _ASKED.match(before)) is not None:
            low = asked[1].lower()
            for word in guide.known() if low or event.completion_requested else ():
                if word.startswith(low):
                    yield Completion(word, -len(low))
        else:
            yield from self._score(document, event)

    def _score(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        at = document.cursor_position
        for found in complete(document.text, at, **self._names()):
            typed = at - found.start
            # A list that opens at every blank, or for what is already written, is in the way.
            shown = event.completion_requested or (
                typed > 0 and found.word != document.text[at - typed : at]
            )
            if shown:
                meta = f"{found.display}  {found.help}".strip()
                yield Completion(found.word, -typed, display_meta=meta)


def hint_at(text: str, at: int) -> str:
    """One line on the word at offset `at`, or else on the control that is being bound there."""
    if not text:
        return "? help · tour · Tab completes · Alt-. hushes · Ctrl-D leaves"
    for match in _WORD.finditer(text):
        if match.start() <= at <= match.end():
            line = _line(match.group())
            if line:
                return line
    bound = None
    for match in _BOUND.finditer(text, 0, at):
        bound = match.group(1)
    return _line(bound) if bound else ""


@lru_cache(maxsize=512)
def _line(word: str) -> str:
    control = find(word)
    if control is not None:
        return f"{control.name}  {_summary(control)}"
    found = guide.exact(word.rpartition(".")[2])
    return f"{found.signature or found.name}  {found.line}" if found else ""


def _summary(control: Control) -> str:
    """Range, default and help of a control in one line."""
    default = guide.default_text(control)
    return f"{guide.range_text(control)}, default {default}, {control.cls}.  {control.help}"
