"""The syntax tree of a score. Every node knows its place; equality ignores it.

start and end are offsets into the statement's own text, so that an unchanged statement is not
parsed again when a line above it moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Node:
    start: int = field(compare=False)
    end: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Num(Node):
    """A number, exact: .25 is one quarter."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Mini(Node):
    """ "mini-notation": the text between the quotes begins one character after `start`."""

    text: str


@dataclass(frozen=True, slots=True)
class Text(Node):
    """'plain text'"""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Node):
    name: str


@dataclass(frozen=True, slots=True)
class Hole(Node):
    """`_`, the pattern that a function is applied to."""


@dataclass(frozen=True, slots=True)
class ListNode(Node):
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    """name(args)"""

    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Method(Node):
    """of.name(args); args is None where it was written without parentheses."""

    of: Expr
    name: str
    args: tuple[Expr, ...] | None
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Bin(Node):
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Neg(Node):
    of: Expr


Expr = Num | Mini | Text | Name | Hole | ListNode | Call | Method | Bin | Neg


def children(node: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside an expression."""
    match node:
        case ListNode():
            return node.items
        case Call():
            return node.args
        case Method():
            return (node.of, *(node.args or ()))
        case Bin():
            return (node.left, node.right)
        case Neg():
            return (node.of,)
    return ()


def has_hole(node: Expr) -> bool:
    """True if `_` stands in the expression."""
    return isinstance(node, Hole) or any(has_hole(c) for c in children(node))


# --- statements ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WhenNode(Node):
    """One `now`, `!`, `at 8`, `in 2`, `over 4`, `xfade 4`."""

    kind: str
    cycles: Fraction


@dataclass(frozen=True, slots=True)
class BindNode(Node):
    """control = expr; expr None is `default`. deck: where `deck.control` was written."""

    control: str
    expr: Expr | None
    whens: tuple[WhenNode, ...] = ()
    deck: str | None = None
    name_end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SettingNode(Node):
    """tempo 128. value: exact number or text; None = none."""

    word: str
    value: Fraction | str | None
    whens: tuple[WhenNode, ...] = ()
    value_start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class WordNode(Node):
    """hush, mute drums, save friday"""

    name: str
    args: tuple[str, ...]
    whens: tuple[WhenNode, ...] = ()


@dataclass(frozen=True, slots=True)
class LetNode(Node):
    name: str
    params: tuple[str, ...]
    expr: Expr


@dataclass(frozen=True, slots=True)
class GoNode(Node):
    scene: str
    whens: tuple[WhenNode, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainNode(Node):
    scenes: tuple[tuple[str, Fraction], ...]
    whens: tuple[WhenNode, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenNode(Node):
    """deck NAME, deck NAME {, scene NAME {"""

    kind: str
    name: str
    block: bool


StatementNode = BindNode | SettingNode | WordNode | LetNode | GoNode | ChainNode | OpenNode
