"""Syntax trees back to text, canonically: what `demon check --format` prints.

parse(unparse(tree)) == tree for every tree.

Threads: pure functions.
"""

from __future__ import annotations

from fractions import Fraction

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

__all__ = ["number", "unparse", "unparse_expr"]

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


def unparse(node: StatementNode) -> str:
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
            return f"go {_scene(node.scene)}{_whens(node.whens)}"
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


def _scene(name: str) -> str:
    return _bare(name)
