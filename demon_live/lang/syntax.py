"""The syntax tree of a score, and back to text. Nodes have places, which equality ignores.

start and end are offsets into the statement's own text, so that an unchanged statement is not
parsed again when a line above it moves. parse(unparse(tree)) == tree for every tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from demon_live.controls import IN, NOTES


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
    """-of, or with op "not": 1 where it is 0."""

    of: Expr
    op: str = "-"


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
    """tempo 128. value: exact number or text; None = none. reading: `bars 2`, `bpm 137`, `half`,
    `every 4`, `+ notes` behind a source, or ""."""

    word: str
    value: Fraction | str | None
    whens: tuple[WhenNode, ...] = ()
    value_start: int = field(default=0, compare=False)
    reading: str = ""


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
    """No scenes: `chain off`. moves: the transition into each scene, if it has one."""

    scenes: tuple[tuple[str, Fraction], ...]
    whens: tuple[WhenNode, ...] = ()
    moves: tuple[WhenNode | None, ...] = ()
    once: bool = False


@dataclass(frozen=True, slots=True)
class OpenNode(Node):
    """deck NAME, deck NAME {, scene NAME {, scene NAME from BASE restart {, master {"""

    kind: str
    name: str
    block: bool
    base: str = ""
    restart: bool = False


StatementNode = BindNode | SettingNode | WordNode | LetNode | GoNode | ChainNode | OpenNode


# --- back to text ----------------------------------------------------------------------------

#: How tight operators bind.
_NOT, _COMPARED, _PRODUCT, _UNARY, _POWER, _POSTFIX = 3, 4, 7, 8, 9, 10
_LEVEL = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARED),
    "~>": 5,
    "<~": 5,
    "+": 6,
    "-": 6,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "%": _PRODUCT,
    "**": _POWER,
}


def meter(beats: Fraction | int) -> str:
    """Beats of a bar as `beats` takes them: 4, or 7/8 for three and a half."""
    for part, unit in ((1, ""), (2, "/8"), (4, "/16")):
        if beats * part == int(beats * part):
            return f"{int(beats * part)}{unit}"
    return number(Fraction(beats))


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
                if ("/" in text and level >= _PRODUCT) or (text[0] == "-" and level >= _POWER)
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
            return f"{unparse_expr(node.of, _POSTFIX)}.{node.name}{args}"
        case Neg():
            own = _UNARY if node.op == "-" else _NOT
            text = f"{node.op}{' ' * (node.op == 'not')}{unparse_expr(node.of, own)}"
            return f"({text})" if level > own else text
        case Bin():
            own = _LEVEL[node.op.strip("|")]
            # ~> and <~ lean to the right, comparisons and ** to no side, the others to the left.
            right = node.op in ("~>", "<~")
            alone = own in (_COMPARED, _POWER)
            left_text = unparse_expr(node.left, own + (right or alone))
            below = _UNARY if own == _POWER else own + (not right)
            right_text = unparse_expr(node.right, below)
            # A fraction has no blanks: off(1/8, rev).
            fraction = node.op == "/" and left_text.isdigit() and right_text.isdigit()
            sign = "/" if fraction else f" {node.op} "
            text = f"{left_text}{sign}{right_text}"
            return f"({text})" if own < level else text


def _args(args: tuple[Expr, ...]) -> str:
    return ", ".join(unparse_expr(a) for a in args)


def _whens(whens: tuple[WhenNode | None, ...]) -> str:
    return "".join(
        " now" if w.kind == "now" else f" {w.kind} {number(w.cycles)}" for w in whens if w
    )


def unparse_statement(node: StatementNode) -> str:
    """The text of a statement, without a line end."""
    match node:
        case BindNode():
            name = f"{node.deck}.{node.control}" if node.deck else node.control
            value = "default" if node.expr is None else unparse_expr(node.expr)
            return f"{name} = {value}{_whens(node.whens)}"
        case SettingNode():
            reading = f" {node.reading}" if node.reading else ""
            if (node.word, node.value) == ("hold", "on"):
                return f"hold{_whens(node.whens)}"
            word = node.word.replace("_", " ")
            return f"{word} {_setting_value(node)}{reading}{_whens(node.whens)}"
        case WordNode():
            if node.name == "deck":
                return f"deck {node.args[0]} off{_whens(node.whens)}"
            args = "".join(f" {_bare(a)}" for a in node.args)
            return f"{node.name}{args}{_whens(node.whens)}"
        case LetNode():
            params = f"({', '.join(node.params)})" if node.params else ""
            return f"let {node.name}{params} = {unparse_expr(node.expr)}"
        case GoNode():
            return f"go {_bare(node.scene)}{_whens(node.whens)}"
        case ChainNode():
            moves = node.moves or (None,) * len(node.scenes)
            scenes = ", ".join(
                f"{_whens((m,)).strip()} " * (m is not None) + f"{quoted(n)} {number(k)}"
                for (n, k), m in zip(node.scenes, moves, strict=True)
            )
            once = " once" if node.once else ""
            return f"chain {scenes or 'off'}{once}{_whens(node.whens)}"
        case OpenNode():
            name = "" if node.kind == "master" else f" {node.name}"
            base = f" from {node.base}" if node.base else ""
            restart = " restart" if node.restart else ""
            return f"{node.kind}{name}{base}{restart}{' {' if node.block else ''}"


def _setting_value(node: SettingNode) -> str:
    if node.value is None:
        return "none"
    if isinstance(node.value, Fraction):
        return meter(node.value) if node.word == "beats" else number(node.value)
    if node.word == "source" and node.value in (NOTES, IN):
        return node.value
    if node.word == "source" and not set('"\n') & set(node.value):
        return f'"{node.value}"'
    return quoted(node.value) if node.word == "source" else _bare(node.value)


#: Names that need quotes.
_RESERVED = ("now", "at", "in", "over", "xfade", "none")


def _bare(text: str) -> str:
    """A name, in quotes if it needs them."""
    simple = text.replace("_", "a").isalnum() and text.isascii() and text[0].isalpha()
    return text if simple and text not in _RESERVED else quoted(text)
