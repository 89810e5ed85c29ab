"""Parse a statement to a syntax tree, with lark's LALR parser; and format a score.

No other module imports lark. The grammar is built on first use (25 ms). Statements are cached by
their text: a reload parses only those that changed.

The canonical format (`demon check --format`) unparses statements and preserves comments, blank
lines (one at most), blocks (two blanks deep) and statements that do not parse.

Threads: parsers are read only once built; results are immutable.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

import lark
from lark import Lark, Token, Transformer

from demon_live.controls import PLUS_NOTES, SETTINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.diagnostics import explain
from demon_live.lang.keywords import KEYWORDS, PERFORMANCE
from demon_live.lang.mini_syntax import MAX_NESTING
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
    children,
    number,
    unparse_statement,
)

#: Characters of a statement at most, so that none takes long to parse.
MAX_STATEMENT = 16 * 1024


class _Build(Transformer[Token, Any]):
    """Rules of the grammar to nodes."""

    def start(self, c: builtins.list[Any]) -> StatementNode:
        return c[0]  # type: ignore[no-any-return]

    # --- expressions ---
    def number(self, c: builtins.list[Token]) -> Num:
        return Num(_start(c[0]), _end(c[0]), _exact(c[0]))

    def mini(self, c: builtins.list[Token]) -> Mini:
        return Mini(_start(c[0]), _end(c[0]), str(c[0])[1:-1])

    def text(self, c: builtins.list[Token]) -> Text:
        return Text(_start(c[0]), _end(c[0]), unquote(c[0]))

    def hole(self, c: builtins.list[Token]) -> Hole:
        return Hole(_start(c[0]), _end(c[0]))

    def call(self, c: builtins.list[Any]) -> Expr:
        if len(c) == 1:
            return Name(_start(c[0]), _end(c[0]), str(c[0]))
        return Call(_start(c[0]), c[1][1], str(c[0]), c[1][0])

    def args(self, c: builtins.list[Any]) -> tuple[tuple[Expr, ...], int]:
        return tuple(x for x in c[1:-1] if x is not None), _end(c[-1])

    def method(self, c: builtins.list[Any]) -> Method:
        args, end = (c[2][0], c[2][1]) if len(c) == 3 else (None, _end(c[1]))
        return Method(c[0].start, end, c[0], str(c[1]), args, _start(c[1]))

    def group(self, c: builtins.list[Any]) -> Expr:
        return c[1]  # type: ignore[no-any-return]

    def list(self, c: builtins.list[Any]) -> ListNode:
        return ListNode(_start(c[0]), _end(c[-1]), tuple(x for x in c[1:-1] if x is not None))

    def bin(self, c: builtins.list[Any]) -> Bin:
        return Bin(c[0].start, c[2].end, str(c[1]), c[0], c[2])

    def compare(self, c: builtins.list[Any]) -> Expr:
        """a < b < c is a < b and b < c."""
        made: Expr = Bin(c[0].start, c[2].end, str(c[1]), c[0], c[2])
        for i in range(2, len(c) - 1, 2):
            more = Bin(c[i].start, c[i + 2].end, str(c[i + 1]), c[i], c[i + 2])
            made = Bin(made.start, more.end, "and", made, more)
        return made

    def neg(self, c: builtins.list[Any]) -> Expr:
        if c[0] == "-" and isinstance(c[1], Num):
            return Num(_start(c[0]), c[1].end, -c[1].value)
        return Neg(_start(c[0]), c[1].end, c[1], str(c[0]))

    def pos(self, c: builtins.list[Any]) -> Expr:
        return c[1]  # type: ignore[no-any-return]

    # --- statements ---
    def figure(self, c: builtins.list[Token]) -> Num:
        return self.number(c)

    def minus(self, c: builtins.list[Any]) -> Num:
        return Num(_start(c[0]), c[1].end, -c[1].value)

    def amount(self, c: builtins.list[Any]) -> Num:
        a, b, op = c[0].value, c[2].value, str(c[1])
        if op in "/%":
            # Division by zero becomes 0: the check of the range names it.
            value = Fraction(0) if not b else a / b if op == "/" else a % b
        else:
            value = a * b if op == "*" else a + b if op == "+" else a - b
        # So does a number that no setting takes: it must not grow without end.
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        return Num(c[0].start, c[2].end, value if bits < 512 else Fraction(0))

    def signed(self, c: builtins.list[Num]) -> tuple[Fraction, int, int]:
        return c[0].value, c[0].start, c[0].end

    def when(self, c: builtins.list[Any]) -> WhenNode:
        if c[0].type in ("NOW", "BANG"):
            return WhenNode(_start(c[0]), _end(c[0]), "now", Fraction(0))
        return WhenNode(_start(c[0]), c[1][2], str(c[0]), c[1][0])

    def target(self, c: builtins.list[Token]) -> tuple[str, str | None, int, int]:
        start, end = _start(c[0]), _end(c[-1])
        if len(c) == 1:
            return str(c[0]), None, start, end
        if c[0] == "lora":
            return f"lora.{c[1]}", None, start, end
        return str(c[1]), str(c[0]), start, end

    def binding(self, c: builtins.list[Any]) -> BindNode:
        control, deck, start, end = c[0]
        whens = tuple(c[2:])
        if isinstance(c[1], Token):
            expr, last = None, _end(c[1])
        else:
            expr, last = c[1], c[1].end
        return BindNode(start, whens[-1].end if whens else last, control, expr, whens, deck, end)

    def fade(self, c: builtins.list[Any]) -> BindNode:
        whens = tuple(c[2:])
        last = whens[-1].end if whens else c[1].end
        return BindNode(_start(c[0]), last, str(c[0]), c[1], whens, None, _end(c[0]))

    def reading(self, c: builtins.list[Token]) -> tuple[str, int]:
        return " ".join([str(c[0]), *(number(_exact(t)) for t in c[1:])]), _end(c[-1])

    def setting(self, c: builtins.list[Any]) -> SettingNode:
        whens = tuple(w for w in c[1:] if isinstance(w, WhenNode))
        name = "_".join(str(c[0]).split())  # nudge in is nudge_in
        if len(c) == 1 or isinstance(c[1], WhenNode):
            end = whens[-1].end if whens else _end(c[0])
            return SettingNode(_start(c[0]), end, str(c[0]), "on", whens, _start(c[0]))
        value = c[1]
        reading, read_end = next((r for r in c[2:] if isinstance(r, tuple)), ("", 0))
        for plus in (t for t in c[2:] if isinstance(t, Token)):
            reading, read_end = f"{reading} {PLUS_NOTES}".lstrip(), _end(plus)
        if isinstance(value, Token):
            first, last = _start(value), _end(value)
            plain: Fraction | str | None = (
                unquote(value) if value.type in ("TEXT", "STRING") else str(value)
            )
            if plain == "none" and value.type == "NAME":
                plain = None
        else:
            plain, first, last = value
        end = whens[-1].end if whens else max(last, read_end)
        return SettingNode(_start(c[0]), end, name, plain, whens, first, reading)

    def to(self, c: builtins.list[Any]) -> SettingNode:
        """The words behind the kind are its reading."""
        whens = tuple(w for w in c if isinstance(w, WhenNode))
        kind, *rest = [t for t in c[1:] if isinstance(t, Token)]
        end = whens[-1].end if whens else _end(rest[-1] if rest else kind)
        value = None if kind == "none" else str(kind)
        return SettingNode(_start(c[0]), end, "to", value, whens, _start(kind), " ".join(rest))

    def word(self, c: builtins.list[Any]) -> WordNode:
        args = tuple(unquote(t) for t in c[1:] if isinstance(t, Token))
        whens = tuple(w for w in c[1:] if isinstance(w, WhenNode))
        last = c[-1].end if isinstance(c[-1], WhenNode) else _end(c[-1])
        return WordNode(_start(c[0]), last, str(c[0]), args, whens)

    def params(self, c: builtins.list[Token]) -> tuple[str, ...]:
        return tuple(str(t) for t in c)

    def let(self, c: builtins.list[Any]) -> LetNode:
        params = c[2] if len(c) == 4 else ()
        return LetNode(_start(c[0]), c[-1].end, str(c[1]), params, c[-1])

    def go(self, c: builtins.list[Any]) -> GoNode:
        whens = tuple(c[2:])
        return GoNode(_start(c[0]), whens[-1].end if whens else _end(c[1]), unquote(c[1]), whens)

    def chain_item(self, c: builtins.list[Token]) -> tuple[str, Fraction, WhenNode | None, int]:
        *move, name, length = c
        when = None
        if move:
            when = WhenNode(_start(move[0]), _end(move[1]), str(move[0]), _exact(move[1]))
        return unquote(name), _exact(length), when, _end(length)

    def chain(self, c: builtins.list[Any]) -> ChainNode:
        items = [x for x in c[1:] if isinstance(x, tuple)]
        whens = tuple(x for x in c[1:] if isinstance(x, WhenNode))
        last = c[-1]
        end = whens[-1].end if whens else last[3] if isinstance(last, tuple) else _end(last)
        scenes, moves = tuple((i[0], i[1]) for i in items), tuple(i[2] for i in items)
        once = any(isinstance(x, Token) and x.type == "ONCE" for x in c)
        return ChainNode(_start(c[0]), end, scenes, whens, moves if any(moves) else (), once)

    def open(self, c: builtins.list[Token]) -> OpenNode:
        said = {token.type: str(after) for token, after in pairwise(c)}
        block, restart = c[-1].type == "BRACE", any(t.type == "RESTART" for t in c)
        name = str(c[0]) if c[0].type == "MASTER" else str(c[1])
        base = said.get("FROM", "")
        return OpenNode(_start(c[0]), _end(c[-1]), str(c[0]), name, block, base, restart)

    def deck_off(self, c: builtins.list[Any]) -> WordNode:
        whens = tuple(c[3:])
        end = whens[-1].end if whens else _end(c[2])
        return WordNode(_start(c[0]), end, str(c[0]), (str(c[1]),), whens)


def _exact(token: str) -> Fraction:
    """The number of a token. Fraction(str) takes five times as long."""
    if token.isdigit():
        return Fraction(int(token))
    whole, _, part = token.partition(".")
    if part.isdigit():
        return Fraction(int(whole + part), 10 ** len(part))
    return Fraction(str(token))


def _start(token: Token) -> int:
    return token.start_pos or 0


def _end(token: Token) -> int:
    return token.end_pos or 0


def unquote(token: str) -> str:
    """The text of a quoted token (or the token itself, if it is bare)."""
    raw = str(token)
    if raw[:1] == "'":
        return re.sub(r"\\(.)", r"\1", raw[1:-1])
    return raw[1:-1] if raw[:1] in ('"', "`") else raw


@lru_cache(maxsize=1)
def _grammar() -> str:
    text = resources.files("demon_live.lang").joinpath("grammar.lark").read_text("utf-8")
    plain = "|".join(word for word in SETTINGS if word != "to")
    return text.replace("%SETTINGS%", plain).replace("%WORDS%", "|".join(PERFORMANCE))


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_grammar(), parser="lalr", transformer=_Build(), maybe_placeholders=False)


@lru_cache(maxsize=1)
def _bare_parser() -> Lark:
    """Without a transformer, for completion."""
    return Lark(_grammar(), parser="lalr", maybe_placeholders=False)


def _too_deep(text: str, statement: StatementNode) -> ScoreError | None:
    """An error if expressions nest deeper than MAX_NESTING."""
    if len(text) <= MAX_NESTING or not isinstance(statement, (BindNode, LetNode)):
        return None
    todo: list[tuple[Expr | None, int]] = [(statement.expr, 1)]
    while todo:
        node, depth = todo.pop()
        if node is None:
            continue
        if depth > MAX_NESTING:
            span = Span.of(text, node.start, node.end)
            message, hint = f"nested deeper than {MAX_NESTING}", "give parts names with let"
            return ScoreError(message, span=span, hint=hint, source=text)
        todo += [(child, depth + 1) for child in children(node)]
    return None


@lru_cache(maxsize=2048)
def parse_statement(text: str) -> StatementNode | ScoreError:
    """The node of one statement, or its error (span into `text`)."""
    if len(text) > MAX_STATEMENT:
        span = Span.of(text, MAX_STATEMENT, MAX_STATEMENT + 1)
        message = f"a statement has at most {MAX_STATEMENT // 1024} KiB"
        return ScoreError(message, span=span, hint="give parts names with let", source=text)
    try:
        node: StatementNode = _parser().parse(text)  # type: ignore[assignment]
        return _too_deep(text, node) or _metered(text, node)
    except lark.exceptions.UnexpectedInput as error:
        at = getattr(error, "pos_in_stream", None)
        token = getattr(error, "token", None)
        if token is not None and token.type == "$END":
            at = None
        wanted = sorted(getattr(error, "accepts", None) or getattr(error, "allowed", None) or ())
        return explain(text, len(text) if at is None else at, wanted)


_METER = re.compile(r"(\d{1,2})\s*/\s*(2|4|8|16)\b(?!\s*[-+*/%.])")


def _metered(text: str, node: StatementNode) -> StatementNode:
    """`beats 7/8` is a meter: its value in the beats that tempo counts."""
    if isinstance(node, SettingNode) and node.word == "beats":
        return replace(node, value=read_meter(text, node.value_start) or node.value)
    return node


def read_meter(text: str, start: int = 0) -> Fraction | None:
    """The beats of a meter, 7/2 for 7/8; None if none stands there."""
    meter = _METER.match(text, start)
    return None if meter is None else Fraction(4 * int(meter[1]), int(meter[2]))


def expected(text: str) -> set[str]:
    """The terminals that may follow `text`, the beginning of a statement."""
    interactive = _bare_parser().parse_interactive(text)
    try:
        for _ in interactive.iter_parse():
            pass
    except lark.exceptions.UnexpectedInput:
        return set()
    return set(interactive.accepts())  # type: ignore[no-untyped-call]


# --- canonical text -------------------------------------------------------------------------


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


_SEMICOLON = re.compile(r"[ \t]*;")


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
            # Without its ";" a broken statement might continue on the next line.
            ended = _SEMICOLON.match(text, at) is not None
            rows.append(_FormatRow(depth, chunk.text + ";" * ended))
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
