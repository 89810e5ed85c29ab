"""A score in canonical form, with its comments: `demon check --format`.

Statements are unparsed; comments, blank lines (one at most) and blocks (two blanks deep) stay. A
statement that does not parse stays as it is.

Threads: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from demon_live.errors import ScoreError
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.parse import parse_statement
from demon_live.lang.program import Program
from demon_live.lang.split import comments, split
from demon_live.lang.syntax import BindNode, Node, OpenNode
from demon_live.lang.unparse import unparse as unparse_node

__all__ = ["format_source", "unparse"]


def unparse(tree: Program | Node | str) -> str:
    """The canonical text of a program, a statement's node, or a score."""
    if isinstance(tree, Program):
        return format_source(tree.text)
    return format_source(tree) if isinstance(tree, str) else unparse_node(tree)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Row:
    """A line: its depth, code, the comment behind it; name: of a binding, to line up the "="."""

    depth: int
    code: str
    comment: str = ""
    name: str = ""


def format_source(text: str) -> str:
    """A score, canonically. format_source(format_source(x)) == format_source(x).

    In a run of bindings the "=" stand in a column, and so do the comments of a run of lines.
    """
    rows: list[_Row] = []
    depth, at = 0, 0
    for chunk in split(text, KEYWORDS):
        _between(text[at : chunk.start], rows, depth)
        at = chunk.start + len(chunk.text)
        if chunk.kind == "close":
            depth = max(0, depth - 1)
            while rows and not rows[-1].code and not rows[-1].comment:
                rows.pop()
            rows.append(_Row(depth, "}"))
            continue
        found = parse_statement(chunk.text)
        if isinstance(found, ScoreError):
            rows.append(_Row(depth, chunk.text))
            continue
        remarks = [chunk.text[a:b].rstrip() for a, b in comments(chunk.text)]
        row = _Row(depth, unparse_node(found), " ".join(remarks))
        if isinstance(found, BindNode):
            row.name = row.code[: row.code.index(" = ")]
        rows.append(row)
        depth += isinstance(found, OpenNode) and found.block
    _between(text[at:], rows, depth)
    while rows and not rows[-1].code and not rows[-1].comment:
        rows.pop()
    return "".join(line.rstrip() + "\n" for line in _lines(rows))


def _between(gap: str, rows: list[_Row], depth: int) -> None:
    """Comments and blank lines between statements; the first may stand behind the one before."""
    lines = [re.sub(r"^[;\s]+", "", line).rstrip() for line in gap.split("\n")]
    if lines[0] and rows and rows[-1].code and not rows[-1].comment:
        rows[-1].comment = lines[0]
    elif lines[0]:
        rows.append(_Row(depth, "", lines[0]))
    # The last piece is the beginning of the next statement's own line.
    for line in lines[1:-1] if not lines[-1] else lines[1:]:
        blank = not rows or (not rows[-1].code and not rows[-1].comment)
        if line:
            rows.append(_Row(depth, "", line))
        elif not blank and not rows[-1].code.endswith("{"):
            rows.append(_Row(depth, ""))


def _lines(rows: list[_Row]) -> Iterator[str]:
    """The rows with their columns lined up."""
    for run in _runs(rows, lambda r: bool(r.name)):
        width = max(len(r.name) for r in run)
        for r in run:
            if len(run) > 1 and r.name:
                r.code = f"{r.name:<{width}}{r.code[len(r.name) :]}"
    for run in _runs(rows, lambda r: bool(r.code and r.comment)):
        width = max(2 * r.depth + len(r.code) for r in run)
        for r in run:
            code = "  " * r.depth + r.code
            if r.code and r.comment:
                yield f"{code:<{width}}  {r.comment}"
            else:
                yield code + r.comment


def _runs(rows: list[_Row], belongs: Callable[[_Row], bool]) -> Iterator[list[_Row]]:
    """Rows in their order, as runs: neighbours of one depth that belong together, others alone."""
    run: list[_Row] = []
    for r in rows:
        if run and not (belongs(r) and belongs(run[-1]) and r.depth == run[-1].depth):
            yield run
            run = []
        run.append(r)
    if run:
        yield run
