"""A score in canonical form, with its comments: `demon check --format`.

Statements are unparsed; comments, blank lines (one at most) and blocks (two blanks deep) stay. A
statement that does not parse stays as it is.

Threads: pure functions.
"""

from __future__ import annotations

import re

from demon_live.errors import ScoreError
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.parse import parse_statement
from demon_live.lang.program import Program
from demon_live.lang.split import split
from demon_live.lang.syntax import Node, OpenNode
from demon_live.lang.unparse import unparse as unparse_node

__all__ = ["format_source", "unparse"]

_COMMENT = re.compile(r"""`[^`]*`|"[^"\n]*"|'(?:[^'\\\n]|\\.)*'|(#[^\n]*)""")


def unparse(tree: Program | Node | str) -> str:
    """The canonical text of a program, a statement's node, or a score."""
    if isinstance(tree, Program):
        return format_source(tree.text)
    return format_source(tree) if isinstance(tree, str) else unparse_node(tree)  # type: ignore[arg-type]


def format_source(text: str) -> str:
    """A score, canonically. format_source(format_source(x)) == format_source(x)."""
    out: list[str] = []
    depth, at = 0, 0
    for chunk in split(text, KEYWORDS):
        tail = _between(text[at : chunk.start], out, depth)
        if tail and out:
            out[-1] += f"  {tail}"
        if chunk.kind == "close":
            depth = max(0, depth - 1)
            while out and not out[-1]:
                out.pop()
            out.append("  " * depth + "}")
        else:
            found = parse_statement(chunk.text)
            body = chunk.text if isinstance(found, ScoreError) else unparse_node(found)
            remarks = [m.group(1).rstrip() for m in _COMMENT.finditer(chunk.text) if m.group(1)]
            if isinstance(found, ScoreError):
                remarks = []
            out.append("  " * depth + body + (f"  {' '.join(remarks)}" if remarks else ""))
            if isinstance(found, OpenNode) and found.block:
                depth += 1
        at = chunk.start + len(chunk.text)
    tail = _between(text[at:], out, depth)
    if tail and out:
        out[-1] += f"  {tail}"
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n" if out else ""


def _between(gap: str, out: list[str], depth: int) -> str:
    """Comments and blank lines between two statements; returns a comment on the line before."""
    lines = gap.split("\n")
    tail = lines[0].strip().lstrip(";").strip()
    if not out and tail:
        lines, tail = ["", *lines], ""
    for line in lines[1:]:
        line = line.strip().lstrip(";").strip()
        if line:
            out.append("  " * depth + line)
        elif out and out[-1] and not out[-1].endswith("{"):
            out.append("")
    # The line that the next statement stands on is no blank line.
    if len(lines) > 1 and not lines[-1].strip() and out and not out[-1]:
        out.pop()
        if len(lines) > 2 and not lines[-2].strip():
            out.append("")
    return tail
