"""Messages of the stage view: the log above its prompt, and the help that opens over the score.

Threads: the event loop's.
"""

from __future__ import annotations

import re
import textwrap
from collections import deque
from collections.abc import Sequence

from demon_live.errors import DemonError
from demon_live.ui import guide, show, text
from demon_live.ui.text import Row

_CLOSE: Row = [("class:hint", "Enter or Esc closes this")]
_KEYS = (
    ("Alt-Enter", "play the block under the cursor (Ctrl-Enter too)"),
    ("Ctrl-S", "play the whole score, and save it"),
    ("Shift-Tab", "from the score to the prompt, and back"),
    ("Alt-.", "hush: silence at once, anything played wakes it"),
    ("F2 .. F9", "mute deck 1 .. 8, and back (Alt-1 .. 8 too)"),
    ("Alt-u  Alt-r", "undo, redo what plays"),
    ("Alt-t", "tap the tempo; Alt-- and Alt-= move it by a beat a minute"),
    ("mouse", "a click on a deck's title mutes it, a drag on a constant moves it"),
    ("Ctrl-Z  Alt-z", "undo, redo what is typed"),
    ("Alt-n  Alt-p", "next score, previous score"),
    ("Tab", "complete the word"),
    ("Ctrl-C", "close this; the sound goes on"),
    ("Alt-s", "the prompt without the stage; `stage` comes back"),
    ("Ctrl-Q", "end the session, or leave one that you joined"),
)
_EXCERPT = re.compile(r"  +\d+ \| ")
_LOG = 64
#: Columns beside an explanation over the score.
MARGIN = 8
#: How long the answer to a key keeps its place, in seconds.
_ANSWER = 5.0


class EventLog:
    """Events in their order; the answer to a key stays last for a while, whatever events follow."""

    def __init__(self) -> None:
        self._log: deque[Row] = deque(maxlen=_LOG)
        self._answer: list[Row] = []
        self._until = 0.0

    def event(self, rows: list[Row]) -> None:
        """Add an event."""
        self._log.extend(rows)

    def answer(self, rows: list[Row], now: float) -> None:
        """Add the answer to a statement of second `now`."""
        self._log.extend(self._answer)
        self._answer, self._until = rows, now + _ANSWER

    def rows(self, now: float) -> list[Row]:
        """The last rows, the oldest first."""
        if self._answer and now > self._until:
            self._log.extend(self._answer)
            self._answer = []
        return [*self._log, *self._answer]


def rows_of(pieces: show.Pieces) -> list[Row]:
    """Pieces as rows, without excerpts of the score, which stands above."""
    rows: list[Row] = []
    row: list[tuple[str, str]] = []
    for kind, words in pieces:
        if kind.startswith(("pygments", "error.caret")) or (not kind and _EXCERPT.match(words)):
            continue
        for i, part in enumerate(words.split("\n")):
            if i:
                rows.append(row)
                row = []
            if part:
                row.append((f"class:{kind}" if kind else "", part))
    rows.append(row)
    return [row for row in rows if any(t.strip() for _, t in row)]


def overlay(word: str, columns: int, rows: int) -> list[Row]:
    """The help as rows that fit on the screen; about `word` first, if there is such a word."""
    width = max(20, min(columns - 6, 92))
    shown: list[Row] = []
    if word and rows >= 20:
        try:
            for kind, words in guide.about(word):
                style = f"class:{kind}" if kind else ""
                lines = words.rstrip("\n").split("\n")
                shown += [[(style, text.fit_to(line, width))] for line in lines]
            shown.append([("", "")])
        except DemonError:
            shown = []
    for key, what in _KEYS:
        shown.append([("bold", f"{key:<14}"), ("", text.fit_to(what, max(4, width - 14)))])
    return shown[: max(1, rows - 2)]


def explained(rows: Sequence[Row], columns: int, most: int) -> list[Row]:
    """Rows of an explanation that fit on the screen, long ones wrapped."""
    width = max(20, columns - MARGIN)
    out: list[Row] = []
    for row in rows:
        line = "".join(t for _, t in row)
        if text.cells(line) <= width:
            out.append(row)
            continue
        style = row[-1][0]
        out += [[(style, part)] for part in textwrap.wrap(line, width, subsequent_indent=" " * 4)]
    return [*out[: most - 2], [("", "")], _CLOSE]
