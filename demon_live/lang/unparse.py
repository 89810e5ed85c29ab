"""Syntax trees and scores as canonical text: what `demon check --format` prints.

parse(unparse(tree)) == tree for every tree. In a score statements are unparsed; comments, blank
lines (one at most) and blocks (two blanks deep) stay, and so do statements that do not parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from demon_live.errors import ScoreError
from demon_live.lang.keywords import KEYWORDS
from demon_live.lang.parse import parse_statement
from demon_live.lang.program import Program
from demon_live.lang.split import comments, split
from demon_live.lang.syntax import (
    Bin,
    BindNode,
    Call,
    ChainNode,
    Expr,
    GoNode,
    Hole,
    LetNode,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    OpenNode,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
)

_LEVEL = {
    "<": 1,
    "<=": 1,
    ">": 1,
    ">=": 1,
    "==": 1,
    "!=": 1,
    "~>": 2,
    "<~": 2,
    "+": 3,
    "-": 3,
    "*": 4,
    "/": 4,
    "%": 4,
}


def number(value: Fraction) -> str:
    """An exact number as it is written: .25, 8, 1/3."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, digits = value.denominator, 0
    for p in (2, 5):
        count = 0
        while rest % p == 0:
            rest //= p
            count += 1
        digits = max(digits, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    whole, part = divmod(abs(value.numerator) * 10**digits // value.denominator, 10**digits)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole or ''}.{part:0{digits}d}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unparse_expr(node: Expr, level: int = 0) -> str:
    """The text of an expression; in parentheses if it binds looser than `level`."""
    match node:
        case Num():
            text = number(node.value)
            return (
                f"({text})"
                if ("/" in text and level >= 4) or (text[0] == "-" and level >= 6)
                else text
            )
        case Mini():
            mark = "`" if "\n" in node.text or '"' in node.text else '"'
            return f"{mark}{node.text}{mark}"
        case Text():
            return quoted(node.value)
        case Hole():
            return "_"
        case Name():
            return node.name
        case ListNode():
            return "[" + ", ".join(unparse_expr(i) for i in node.items) + "]"
        case Call():
            return f"{node.name}({_args(node.args)})"
        case Method():
            args = "" if node.args is None else f"({_args(node.args)})"
            return f"{unparse_expr(node.of, 6)}.{node.name}{args}"
        case Neg():
            text = f"-{unparse_expr(node.of, 5)}"
            return f"({text})" if level > 5 else text
        case Bin():
            own = _LEVEL[node.op]
            # ~> and <~ lean to the right, the others to the left.
            right = node.op in ("~>", "<~")
            left_text = unparse_expr(node.left, own + right)
            right_text = unparse_expr(node.right, own + (not right))
            # A fraction is one number to the eye: off(1/8, rev).
            fraction = node.op == "/" and left_text.isdigit() and right_text.isdigit()
            sign = "/" if fraction else f" {node.op} "
            text = f"{left_text}{sign}{right_text}"
            return f"({text})" if own < level else text


def _args(args: tuple[Expr, ...]) -> str:
    return ", ".join(unparse_expr(a) for a in args)


def _whens(whens: tuple[WhenNode, ...]) -> str:
    return "".join(" now" if w.kind == "now" else f" {w.kind} {number(w.cycles)}" for w in whens)


def unparse_statement(node: StatementNode) -> str:
    """The text of a statement, without a line end."""
    match node:
        case BindNode():
            name = f"{node.deck}.{node.control}" if node.deck else node.control
            value = "default" if node.expr is None else unparse_expr(node.expr)
            return f"{name} = {value}{_whens(node.whens)}"
        case SettingNode():
            return f"{node.word} {_setting_value(node)}{_whens(node.whens)}"
        case WordNode():
            args = "".join(f" {_bare(a)}" for a in node.args)
            return f"{node.name}{args}{_whens(node.whens)}"
        case LetNode():
            params = f"({', '.join(node.params)})" if node.params else ""
            return f"let {node.name}{params} = {unparse_expr(node.expr)}"
        case GoNode():
            return f"go {_bare(node.scene)}{_whens(node.whens)}"
        case ChainNode():
            scenes = ", ".join(f"{quoted(n)} {number(k)}" for n, k in node.scenes)
            return f"chain {scenes}{_whens(node.whens)}"
        case OpenNode():
            return f"{node.kind} {node.name}{' {' if node.block else ''}"


def _setting_value(node: SettingNode) -> str:
    if node.value is None:
        return "none"
    if isinstance(node.value, Fraction):
        return number(node.value)
    if node.word == "source" and not set('"\n') & set(node.value):
        return f'"{node.value}"'
    return quoted(node.value) if node.word == "source" else _bare(node.value)


#: Bare, these would be read as something else than a name.
_RESERVED = ("now", "at", "in", "over", "xfade", "none")


def _bare(text: str) -> str:
    """A name without quotes where it can do without."""
    simple = text.replace("_", "a").isalnum() and text.isascii() and text[0].isalpha()
    return text if simple and text not in _RESERVED else quoted(text)


# --- scores ----------------------------------------------------------------------------------


def unparse(tree: Program | StatementNode | str) -> str:
    """The canonical text of a program, a statement's node, or a score."""
    if isinstance(tree, Program):
        return format_source(tree.text)
    return format_source(tree) if isinstance(tree, str) else unparse_statement(tree)


@dataclass(slots=True)
class _FormatRow:
    """A line: its depth, code, the comment behind it; name: of a binding, to line up the "="."""

    depth: int
    code: str
    comment: str = ""
    name: str = ""


def format_source(text: str) -> str:
    """A score, canonically. format_source(format_source(x)) == format_source(x).

    In a run of bindings the "=" stand in a column, and so do the comments of a run of lines.
    """
    rows: list[_FormatRow] = []
    depth, at = 0, 0
    for chunk in split(text, KEYWORDS):
        _between(text[at : chunk.start], rows, depth)
        at = chunk.start + len(chunk.text)
        if chunk.kind == "close":
            depth = max(0, depth - 1)
            while rows and not rows[-1].code and not rows[-1].comment:
                rows.pop()
            rows.append(_FormatRow(depth, "}"))
            continue
        found = parse_statement(chunk.text)
        if isinstance(found, ScoreError):
            rows.append(_FormatRow(depth, chunk.text))
            continue
        remarks = [chunk.text[a:b].rstrip() for a, b in comments(chunk.text)]
        row = _FormatRow(depth, unparse_statement(found), " ".join(remarks))
        if isinstance(found, BindNode):
            row.name = row.code[: row.code.index(" = ")]
        rows.append(row)
        depth += isinstance(found, OpenNode) and found.block
    _between(text[at:], rows, depth)
    while rows and not rows[-1].code and not rows[-1].comment:
        rows.pop()
    return "".join(line.rstrip() + "\n" for line in _lines(rows))


def _between(gap: str, rows: list[_FormatRow], depth: int) -> None:
    """Comments and blank lines between statements; the first may stand behind the one before."""
    lines = [re.sub(r"^[;\s]+", "", line).rstrip() for line in gap.split("\n")]
    if lines[0] and rows and rows[-1].code and not rows[-1].comment:
        rows[-1].comment = lines[0]
    elif lines[0]:
        rows.append(_FormatRow(depth, "", lines[0]))
    # The last piece is the beginning of the next statement's own line.
    for line in lines[1:-1] if not lines[-1] else lines[1:]:
        blank = not rows or (not rows[-1].code and not rows[-1].comment)
        if line:
            rows.append(_FormatRow(depth, "", line))
        elif not blank and not rows[-1].code.endswith("{"):
            rows.append(_FormatRow(depth, ""))


def _lines(rows: list[_FormatRow]) -> Iterator[str]:
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


def _runs(
    rows: list[_FormatRow], belongs: Callable[[_FormatRow], bool]
) -> Iterator[list[_FormatRow]]:
    """Rows in their order, as runs: neighbours of one depth that belong together, others alone."""
    run: list[_FormatRow] = []
    for r in rows:
        if run and not (belongs(r) and belongs(run[-1]) and r.depth == run[-1].depth):
            yield run
            run = []
        run.append(r)
    if run:
        yield run
