"""What a statement leaves open: quotes and brackets, found without a parser.

Threads: pure functions.
"""

from __future__ import annotations

import re

__all__ = ["Finding", "masked", "open_bracket", "open_quote", "pieces"]

#: (message, start, end, hint), places in the statement
Finding = tuple[str, int, int, str | None]


def pieces(text: str) -> list[tuple[str, int, int]]:
    """The pieces of a statement: quoted, or one plain character each, or a comment."""
    piece = re.compile(r"""`[^`]*`?|"[^"\n]*"?|'(?:[^'\\\n]|\\.)*'?|#[^\n]*|[^`"'#]""")
    return [(m.group(), m.start(), m.end()) for m in piece.finditer(text)]


def masked(text: str) -> str:
    """The statement with blanks for what stands in quotes and comments: no sign of it misleads."""
    return "".join(
        p if len(p) == 1 else p[0] + "\xa4" * (len(p) - 2) + (p[-1] if p[0] == p[-1] else " ")
        for p, _, _ in pieces(text)
    )


def open_quote(text: str, at: int) -> Finding | None:
    for piece, start, end in pieces(text):
        if piece[0] in "\"'`" and (len(piece) == 1 or piece[-1] != piece[0]):
            closed = _closed(piece) if piece[0] == '"' else piece
            return f"missing closing {piece[0]}", start, end, f"write {closed}{piece[0]}"
    return None


def _closed(mini: str) -> str:
    """Mini-notation that was left off, with the brackets that it still has open."""
    pairs, stack = {"<": ">", "[": "]", "{": "}", "(": ")"}, []
    for sign in mini:
        if sign in pairs:
            stack.append(pairs[sign])
        elif stack and sign == stack[-1]:
            stack.pop()
    return mini.rstrip() + "".join(reversed(stack))


def open_bracket(text: str, at: int) -> Finding | None:
    closing = {"(": ")", "[": "]"}
    stack: list[tuple[str, int]] = []
    for piece, start, _ in pieces(text):
        if piece in closing:
            stack.append((piece, start))
        elif piece in (")", "]"):
            if not stack:
                return f'"{piece}" closes nothing', start, start + 1, "remove it, or open it before"
            opener, where = stack.pop()
            if closing[opener] != piece:
                return (
                    f'"{piece}" where "{closing[opener]}" must close',
                    start,
                    start + 1,
                    f'"{opener}" opened at column {where + 1}',
                )
    if not stack:
        return None
    opener, where = stack[-1]
    return (
        f'missing "{closing[opener]}" opened here',
        where,
        where + 1,
        f'close it with "{closing[opener]}"',
    )
