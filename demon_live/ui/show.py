"""Errors, replies and events as (kind, text) pieces; a front end gives each kind its colour.

Kinds are names of classes in theme.py. This module needs nothing but the standard library, so that
`demon check` stays quick.

Threads: pure functions.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import IO

from demon_live.errors import DemonError

__all__ = ["Pieces", "ansi", "error", "event", "fault", "outcome", "wants_colour"]

Pieces = list[tuple[str, str]]

_PLACE = re.compile(r"^(\S[^\n]*?:\d+:\d+: |[^\s:][^\n:]*: )")
_MARGIN = " " * 7

_ANSI = {
    "reply": "32",
    "event": "90",
    "error": "31",
    "error.place": "1;31",
    "error.caret": "1;31",
    "error.hint": "33",
    "warning": "33",
    "heading": "1",
    "hint": "90",
    "word": "32",
    "name": "36",
    "topic": "1;36",
}


def error(found: DemonError) -> Pieces:
    """An error with its excerpt, caret, remedy and what keeps playing; ends with a newline."""
    pieces: Pieces = []
    for line in str(found).split("\n"):
        # Side by side is for wide screens: at 80 columns the remedy would be torn.
        mark = line.find(" " * 8 + "still playing: ") if len(line) > 78 else -1
        if mark > 0 and line.startswith("  hint: "):
            pieces += [_detail(line[:mark]), _detail("  " + line[mark:].lstrip())]
        else:
            pieces += [_detail(line)] if line.startswith("  ") else _headline(line)
    return pieces


def _detail(line: str) -> tuple[str, str]:
    """A line under the headline of an error: excerpt, caret or remedy."""
    bare = line.strip()
    if bare.startswith("|") and set(bare) <= set("| ^"):
        return ("error.caret", f"{line}\n")
    if bare.startswith(("hint:", "still playing:")):
        return ("error.hint", f"{line}\n")
    return ("", f"{line}\n")


def _headline(line: str) -> Pieces:
    match = _PLACE.match(line)
    place = match.group() if match else ""
    return [("error.place", place), ("error", f"{line[len(place) :]}\n")]


def fault(broken: Exception) -> Pieces:
    """A fault of ours, as a performer should read it; the log has the traceback."""
    return [
        ("error", f"this failed inside demon: {type(broken).__name__}: {broken}\n"),
        ("error.hint", "  everything plays on as before; the log has the details\n"),
    ]


def outcome(messages: tuple[str, ...], warnings: tuple[str, ...] = (), width: int = 0) -> Pieces:
    """What an accepted statement will do, one line each, set in from the prompt.

    width: of the terminal; longer lines go on under their own beginning. 0: as long as they are.
    """
    told = [("reply", line) for line in messages]
    told += [("warning", line) for warning in warnings for line in warning.split("\n")]
    return [(kind, f"{row}\n") for kind, line in told for row in _set_in(line, width)]


def _set_in(line: str, width: int) -> list[str]:
    if len(_MARGIN + line) <= width or width < 40:
        return [_MARGIN + line]
    more = f"{_MARGIN}  "
    return textwrap.wrap(line, width - 1, initial_indent=_MARGIN, subsequent_indent=more)


def event(lines: str) -> Pieces:
    """What came by itself: red from a line that speaks of a place in a file on, quiet otherwise."""
    pieces: Pieces = []
    for line in lines.split("\n"):
        match = re.match(r"^\S+:\d+:\d+: ", line)
        if match:
            pieces += [("error.place", match.group()), ("error", f"{line[match.end() :]}\n")]
        else:
            pieces.append(_detail(line) if pieces else ("event", f"{line}\n"))
    return pieces


def ansi(pieces: Pieces, colour: bool) -> str:
    """The pieces as a string for a terminal, with SGR codes if `colour`."""
    if not colour:
        return "".join(text for _, text in pieces)
    out = []
    for kind, text in pieces:
        code = _ANSI.get(kind)
        body = text.rstrip("\n")
        out.append(f"\x1b[{code}m{body}\x1b[0m{text[len(body) :]}" if code and body else text)
    return "".join(out)


def wants_colour(stream: IO[str]) -> bool:
    """Whether to colour what goes to `stream`: a capable terminal, and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return stream.isatty()
