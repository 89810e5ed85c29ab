"""Split a score into statements, so that one error does not hide the next.

A statement ends at the end of its line, at ";", or at a brace of `deck NAME {` or `scene NAME {`.
It goes on inside brackets, behind an operator or "=", and on lines that begin with `.method`.
A line that clearly begins a new statement ends an old one even if a bracket was left open there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

_PIECE = re.compile(
    r"""`[^`]*`?|"[^"\n]*"?|'(?:[^'\\\n]|\\.)*'?|#[^\n]*|[()\[\]{};\n]|[^`"'#()\[\]{};\n]+"""
)
_GOES_ON = re.compile(r"(?:[-+*/%=,(\[|]|~>|<~|\b(?:over|at|in|and|or|not))$")
_CLOSING = re.compile(r"(?:\s|#[^\n]*\n)*\)")
_OPENS = re.compile(r"\s*(?:deck|scene|master)\b")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A statement: its text, and where that begins in the score. close: a lone "}"."""

    text: str
    start: int
    kind: Literal["statement", "close"] = "statement"


def comments(text: str) -> list[tuple[int, int]]:
    """The comments of a text: [start, end). A # inside quotes begins none."""
    return [m.span() for m in _PIECE.finditer(text) if m.group()[0] == "#"]


def whole(text: str, start: int, end: int) -> str:
    """The expression text[start:end] with the parentheses around its nodes: those that open before
    it, as in `(a + b) * 2`, or close after it."""
    opened: list[int] = []
    first = start
    for found in _PIECE.finditer(text, 0, end):
        if found.group() == "(":
            opened.append(found.start())
        elif found.group() == ")" and opened:
            at = opened.pop()
            first = min(first, at) if found.start() >= start else first
    for _ in (at for at in opened if at >= start):
        closing = _CLOSING.match(text, end)
        end = closing.end() if closing else end
    return text[first:end]


def _begins(words: Collection[str]) -> re.Pattern[str]:
    alternatives = "|".join(sorted(words))
    return re.compile(rf"\s*(?:[A-Za-z_][\w.]*\s*=(?!=)|(?:{alternatives})\b(?!\s*\()|\}})")


def split(text: str, words: Collection[str]) -> list[Chunk]:
    """The statements of a score, in order. words: those that begin a statement without "="."""
    begins, ahead = _begins(words), _Ahead(text)
    out: list[Chunk] = []
    start, depth, opener = 0, 0, False

    def take(end: int) -> None:
        nonlocal start, depth, opener
        body = text[start:end]
        lead = len(body) - len(body.lstrip())
        body = body.strip()
        if body and not _only_comments(body):
            out.append(Chunk(body, start + lead))
        start, depth, opener = end, 0, False

    for found in _PIECE.finditer(text):
        piece, at = found.group(), found.start()
        if piece in "([":
            depth += 1
        elif piece in ")]":
            depth = max(0, depth - 1)
        elif piece == "\n":
            inside = depth > 0 or _continues(text, start, found.end(), ahead)
            if inside and not begins.match(text, ahead.solid(found.end())):
                continue
            take(at)
            start = found.end()
        elif piece == ";" and not depth:
            take(at)
            start = found.end()
        elif piece == "{" and not depth:
            opener = _OPENS.match(text, start) is not None
            if opener:
                take(found.end())
        elif piece == "}" and "{" not in text[start:at]:
            take(at)
            out.append(Chunk("}", at, "close"))
            start = found.end()
    take(len(text))
    return out


def _only_comments(body: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in body.split("\n"))


def uncommented(line: str) -> str:
    """A line without its comment (a # inside quotes is none)."""
    if "#" not in line:
        return line.rstrip()
    out = ""
    for found in _PIECE.finditer(line):
        if found.group().startswith("#"):
            break
        out += found.group()
    return out.rstrip()


_NEXT = re.compile(r"\s*(?:#[^\n]*\n\s*)*")
_DOT = re.compile(r"\.[A-Za-z_]")
_SPACE = re.compile(r"\s*")


class _Ahead:
    """Looks ahead over blank lines and comments, once for each run of them.

    A search at each line end of a run would take the square of its length.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._spaces = self._comments = (0, -1)

    def solid(self, at: int) -> int:
        """The first character from `at` on that is no space."""
        self._spaces = self._reach(_SPACE, self._spaces, at)
        return self._spaces[1]

    def dotted(self, at: int) -> bool:
        """True if `.method` comes first from `at` on, after comments."""
        self._comments = self._reach(_NEXT, self._comments, at)
        return _DOT.match(self._text, self._comments[1]) is not None

    def _reach(self, what: re.Pattern[str], known: tuple[int, int], at: int) -> tuple[int, int]:
        if known[0] <= at <= known[1]:
            return known
        found = what.match(self._text, at)
        return (at, found.end() if found is not None else at)


def _continues(text: str, start: int, after: int, ahead: _Ahead) -> bool:
    """True if the statement that begins at `start` continues after the line end at `after`."""
    line = uncommented(text[max(start, text.rfind("\n", 0, after - 1) + 1) : after - 1])
    if line and _GOES_ON.search(line):
        return True
    if not line.strip() and not text[start:after].strip():
        return False
    return ahead.dotted(after)


def is_complete(text: str) -> bool:
    """False while more lines must follow at the prompt: open brackets, a trailing operator.

    A blank last line always ends the input.
    """
    if not text.rpartition("\n")[2].strip():
        return True
    depth = 0
    for found in _PIECE.finditer(text):
        piece = found.group()
        if piece in "([{":
            depth += 1
        elif piece in ")]}":
            depth -= 1
        elif piece[0] == "`" and (len(piece) == 1 or piece[-1] != "`"):
            return False
    if depth > 0:
        return False
    last = uncommented(text.rstrip().split("\n")[-1])
    return not (
        re.search(r"(?:[-+*/%=,(\[.|]|\b(?:and|or|not))$", last) and not last.endswith("..")
    )
