"""The help of the stage view: what the keys do, and the word under the cursor.

Threads: pure functions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from demon_live.errors import DemonError
from demon_live.ui import guide, text
from demon_live.ui.stage.painter import Row

__all__ = ["CLOSE", "KEYS", "explained", "overlay"]

#: The last row of what opens over the score.
CLOSE: Row = [("class:hint", "Enter or Esc closes this")]

KEYS = (
    ("Alt-Enter", "play the block under the cursor (Ctrl-Enter too)"),
    ("Ctrl-S", "play the whole score, and save it"),
    ("Shift-Tab", "from the score to the prompt, and back"),
    ("Alt-.", "hush: silence at once, anything played wakes it"),
    ("F2 .. F9", "mute deck 1 .. 8, and back (Alt-1 .. 8 too)"),
    ("Alt-u  Alt-r", "undo, redo what plays"),
    ("Ctrl-Z  Alt-z", "undo, redo what is typed"),
    ("Alt-n  Alt-p", "next score, previous score"),
    ("Tab", "complete the word"),
    ("Ctrl-C", "close this; the sound goes on"),
    ("Alt-s", "the prompt without the stage; `stage` comes back"),
    ("Ctrl-Q", "leave"),
)


def overlay(word: str, columns: int, rows: int) -> list[Row]:
    """The help as rows that fit on the screen; about `word` first, if there is such a word."""
    width = max(20, min(columns - 6, 92))
    shown: list[Row] = []
    if word and rows >= 20:
        try:
            for kind, said in guide.about(word):
                style = f"class:{kind}" if kind else ""
                lines = said.rstrip("\n").split("\n")
                shown += [[(style, text.fit_to(line, width))] for line in lines]
            shown.append([("", "")])
        except DemonError:
            shown = []
    for key, what in KEYS:
        shown.append([("bold", f"{key:<14}"), ("", text.fit_to(what, max(4, width - 14)))])
    return shown[: max(1, rows - 2)]


def explained(rows: Sequence[Row], columns: int) -> list[Row]:
    """Rows of an explanation, broken where they are too long for the screen."""
    width = max(20, columns - 8)
    out: list[Row] = []
    for row in rows:
        line = "".join(t for _, t in row)
        if text.cells(line) <= width:
            out.append(row)
            continue
        style = row[-1][0]
        out += [[(style, part)] for part in textwrap.wrap(line, width, subsequent_indent=" " * 4)]
    return out
