"""Errors, replies and events as (kind, text) pieces; a front end gives each kind its colour.

Kinds are names of classes in theme.py. This module imports little, so that `demon send` and
`demon check` start at once.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import IO

from demon_live.errors import DemonError

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
    """A fault of demon itself, for a performer to read; the log has the traceback."""
    return [
        ("error", f"this failed inside demon: {type(broken).__name__}: {broken}\n"),
        ("error.hint", "  everything plays on as before; the log has the details\n"),
    ]


def outcome(messages: tuple[str, ...], warnings: tuple[str, ...] = (), width: int = 0) -> Pieces:
    """The effects of an accepted statement, one line each, indented.

    Args:
        messages: the effects.
        warnings: shown below them.
        width: of the terminal, where longer lines wrap; 0: no wrapping.
    """
    lines = [("reply", line) for line in messages]
    lines += [("warning", line) for warning in warnings for line in warning.split("\n")]
    return [(kind, f"{row}\n") for kind, line in lines for row in _indented(line, width)]


def _indented(line: str, width: int) -> list[str]:
    if len(_MARGIN + line) <= width or width < 40:
        return [_MARGIN + line]
    more = f"{_MARGIN}  "
    return textwrap.wrap(line, width - 1, initial_indent=_MARGIN, subsequent_indent=more)


def event(lines: str) -> Pieces:
    """An event: an error from the first line that names a place in a file on, quiet before."""
    pieces: Pieces = []
    for line in lines.split("\n"):
        match = re.match(r"^\S+:\d+:\d+: ", line)
        if match:
            pieces += [("error.place", match.group()), ("error", f"{line[match.end() :]}\n")]
        else:
            pieces.append(_detail(line) if pieces else ("event", f"{line}\n"))
    return pieces


def coloured(score: str) -> Pieces:
    """A score with its colours; kinds are pygments' classes. Ends with a newline."""
    from pygments import lex

    from demon_live.lang.lexer import DemonLexer

    return [
        ("pygments" + "".join(f".{part}" for part in token).lower(), piece)
        for token, piece in lex(score, DemonLexer())
    ]


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
    """Whether to write colours to `stream`: a capable terminal, and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return stream.isatty()
