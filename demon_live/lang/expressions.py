"""Expressions made into patterns: names looked up, arguments counted and converted, kinds checked.

Errors are raised as ScoreError with places in the statement's own text; the compiler moves them to
the score and goes on with the next statement.

Threads: a Scope belongs to the compilation of one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS
from demon_live.errors import ScoreError, Span
from demon_live.lang.arguments import (
    CONVERT,
    Varying,
    bound,
    counted,
    has_hole,
    remedy,
    unknown_call,
    word_for_number,
)
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.mini import build
from demon_live.lang.mini_syntax import parse_mini
from demon_live.lang.pattern import Pattern, PatternError, as_time
from demon_live.lang.rhythm import combine
from demon_live.lang.scope import (
    LOTS,
    OTHER,
    SIGNALS,
    Scope,
    Thunk,
    controller,
    fold,
    known,
    places_of,
    plain,
    unknown,
)
from demon_live.lang.sequence import pure, timecat
from demon_live.lang.syntax import (
    Bin,
    Call,
    Expr,
    Hole,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    Text,
)
from demon_live.lang.transform import bind, late
from demon_live.lang.words import OPERATORS, WORDS, Param, Word

__all__ = ["compile_expr"]

# --- numbers ---------------------------------------------------------------------------------


# --- expressions -----------------------------------------------------------------------------


def compile_expr(node: Expr, scope: Scope) -> Pattern:
    """The pattern of an expression. Raises ScoreError."""
    number = fold(node, scope)
    if number is not None:
        return pure(plain(number))
    scope = scope.deeper(node)
    try:
        return _compile(node, scope)
    except PatternError as error:
        raise scope.fail(str(error), node, remedy(str(error))) from error


def _compile(node: Expr, scope: Scope) -> Pattern:
    match node:
        case Mini():
            return _mini(node, scope)
        case Text():
            return pure(node.value)
        case Hole():
            if scope.hole is None:
                raise scope.fail(
                    '"_" stands for the pattern inside a function',
                    node,
                    "write it in an argument: off(1/8, _ * .5)",
                )
            return scope.hole
        case ListNode():
            return timecat([(Fraction(1), compile_expr(i, scope)) for i in node.items])
        case Name():
            return _name(node, scope)
        case Call():
            return _call(node, scope)
        case Method():
            return _method(node, scope)
        case Neg():
            return combine(_numeric(node.of, scope), pure(-1), OPERATORS["*"])
        case Bin():
            return _binary(node, scope)
        case Num():
            return pure(plain(node.value))


def _mini(node: Mini, scope: Scope) -> Pattern:
    try:
        tree = parse_mini(node.text)
        if scope.mark is not None:
            tree = scope.mark(tree, scope.source, node.start + 1)
        return build(tree, node.text, scope.chances)
    except ScoreError as error:
        found = error.span or Span(0, 0, 1, 1)
        place = Span.of(scope.source, node.start + 1 + found.start, node.start + 1 + found.end)
        raise ScoreError(error.message, span=scope.outer or place, hint=error.hint) from error


def _numeric(node: Expr, scope: Scope) -> Pattern:
    """An operand of arithmetic: words are an error at their place."""
    pattern = compile_expr(node, scope)
    if pattern.text:
        found = places_of(node, lambda v: isinstance(v, str))
        raise word_for_number(found[0] if found else None, node, scope)
    return pattern


def _binary(node: Bin, scope: Scope) -> Pattern:
    if node.op in ("~>", "<~"):
        return _shifted(node, scope)
    left, right = _numeric(node.left, scope), _numeric(node.right, scope)
    return combine(left, right, OPERATORS[node.op])


def _shifted(node: Bin, scope: Scope) -> Pattern:
    """1/4 ~> p: p, a quarter later."""
    sign = 1 if node.op == "~>" else -1
    pattern = compile_expr(node.right, scope)
    exact = fold(node.left, scope)
    if exact is not None:
        return late(pattern, sign * exact)
    return bind(
        _numeric(node.left, scope), lambda v: late(pattern, sign * as_time(v)), text=pattern.text
    )


# --- names -----------------------------------------------------------------------------------


def _name(node: Name, scope: Scope) -> Pattern:
    name = node.name
    if name in scope.params:
        found = scope.params[name]
        return (
            compile_expr(found.expr, replace(found.scope, depth=scope.depth))
            if isinstance(found, Thunk)
            else found
        )
    if name in scope.lets:
        return _let(node, name, (), scope)
    if name in SIGNALS:
        return SIGNALS[name][0]
    if name in LOTS:
        return LOTS[name](scope.chances.next())
    if name in OTHER:
        return OTHER[name]
    if name in CONTROLLERS:
        return controller(name, (), node, scope)
    word = WORDS.get(name)
    if word is not None:
        if word.of:
            raise scope.fail(
                f'"{name}" is a function and needs a pattern',
                node,
                f"write {word.example.split('= ')[1]}",
            )
        return _apply(word, None, (), node, scope)
    raise unknown(name, node, scope)


def _let(
    node: Name | Call,
    name: str,
    args: Sequence[Expr],
    scope: Scope,
    receiver: Pattern | None = None,
) -> Pattern:
    definition, source = scope.lets[name]
    given, n = len(args) + (receiver is not None), len(definition.params)
    if given != n:
        shown = f"{name}({', '.join(definition.params)})" if definition.params else name
        raise scope.fail(
            f"{name} takes {n} argument{'s' * (n != 1)}, not {given}",
            node,
            f"it is {shown}",
        )
    scope.work.left -= 1
    if scope.work.left <= 0:
        raise scope.fail("the let words of this line unfold too far", node)
    params: dict[str, Thunk | Pattern] = {}
    names = list(definition.params)
    if receiver is not None:
        params[names.pop(0)] = receiver
    params.update({p: Thunk(a, scope) for p, a in zip(names, args, strict=True)})
    place = scope.outer or Span.of(scope.source, node.start, node.end)
    inner = replace(scope.deeper(node), source=source, params=params, outer=place, hole=None)
    return compile_expr(definition.expr, inner)


# --- calls -----------------------------------------------------------------------------------


def _call(node: Call, scope: Scope) -> Pattern:
    name = node.name
    if name in scope.lets:
        return _let(node, name, node.args, scope)
    if name in CONTROLLERS and not (name == "note" and _is_pattern(node.args, scope)):
        return controller(name, node.args, node, scope)
    word = WORDS.get(name)
    if word is None:
        if name in SIGNALS or name in LOTS or name in OTHER:
            if node.args:
                raise scope.fail(f"{name} takes no arguments", node, f"write {name}.slow(4)")
            return _name(Name(node.start, node.end, name), scope)
        raise unknown_call(name, node, scope)
    if not word.of:
        return _apply(word, None, node.args, node, scope)
    if not node.args or len(node.args) <= sum(not p.optional and not p.many for p in word.params):
        raise scope.fail(f"{name} needs a pattern", node, f"write {word.example.split('= ')[1]}")
    # fast(2, "0 1"): the pattern comes last, as in Strudel.
    return _apply(word, node.args[-1], node.args[:-1], node, scope)


def _is_pattern(args: Sequence[Expr], scope: Scope) -> bool:
    """note("c e g") names notes; note and note(1) are keys of a controller."""
    return len(args) == 1 and fold(args[0], scope) is None


def _method(node: Method, scope: Scope) -> Pattern:
    name = Name(node.at, node.at + len(node.name), node.name)
    if node.name in scope.lets:
        receiver = compile_expr(node.of, scope)
        return _let(
            Call(node.at, node.end, node.name, node.args or ()),
            node.name,
            node.args or (),
            scope,
            receiver,
        )
    word = WORDS.get(node.name)
    if word is None:
        if node.name in CONTROLS:
            raise scope.fail(
                f'"{node.name}" is a control of its own, not a method',
                name,
                f"write it on its own line: {node.name} = ...",
            )
        raise unknown(node.name, name, scope, method=True)
    if node.args is None and any(not p.optional and not p.many for p in word.params):
        raise scope.fail(
            f"{node.name} needs {counted(word)}", name, f"write {word.example.split('= ')[1]}"
        )
    if not word.of:
        if not (word.params and word.params[0].many):
            raise scope.fail(
                f"{node.name} stands alone, not behind a pattern",
                name,
                f"write {word.example.split('= ')[1]}",
            )
        return _apply(word, None, (node.of, *(node.args or ())), node, scope)
    return _apply(word, node.of, node.args or (), node, scope)


def _apply(
    word: Word, of: Expr | Pattern | None, args: Sequence[Expr], node: Any, scope: Scope
) -> Pattern:
    """The word with its arguments converted; patterned times and numbers are bound."""
    receiver: Pattern | None = None
    if word.of:
        assert of is not None
        receiver = of if isinstance(of, Pattern) else compile_expr(of, scope)
        if word.group == "values" and receiver.text and word.name not in ("note", "invert"):
            raise _misplaced(None if isinstance(of, Pattern) else of, node, scope)
    many = bool(word.params) and word.params[-1].many
    least = sum(not p.optional and not p.many for p in word.params)
    if len(args) < least or (not many and len(args) > len(word.params)):
        raise scope.fail(
            f"{word.name} takes {counted(word)}", node, f"write {word.example.split('= ')[1]}"
        )
    values: list[Any] = []
    for i, arg in enumerate(args):
        param = word.params[min(i, len(word.params) - 1)]
        values.append(_argument(param, arg, word, scope))
    values += [p.default for p in word.params[len(args) :] if not p.many]
    more = {"key": scope.chances.next()} if word.lots else {}
    front = [receiver] if receiver is not None else []
    return bound(lambda *vs: word.make(*front, *vs, **more), values, word, receiver)


def _misplaced(written: Expr | None, node: Any, scope: Scope) -> ScoreError:
    """An error for words where numbers belong, at the first of them."""
    found = places_of(written, lambda v: isinstance(v, str)) if written is not None else []
    return word_for_number(found[0] if found else None, node, scope)


def _argument(param: Param, arg: Expr, word: Word, scope: Scope) -> Any:
    match param.kind:
        case "F":
            return _function(arg, scope, word)
        case "P" | "G":
            pattern = compile_expr(arg, scope)
            if param.kind == "P" and pattern.text and word.group != "several" and not param.many:
                raise _misplaced(arg, arg, scope)
            return pattern
        case "L":
            return _list(arg, scope)
        case "S":
            return _section(arg, word, scope)
    return _scalar(param, arg, word, scope)


def _scalar(param: Param, arg: Expr, word: Word, scope: Scope) -> Any:
    exact = fold(arg, scope)
    if isinstance(arg, Name) and arg.name in WORDS and WORDS[arg.name].of:
        raise scope.fail(
            f"{word.name} needs a number for {param.name}, and {arg.name} is a function",
            arg,
            f"write {word.example.split('= ')[1]}",
        )
    if exact is not None:
        if param.kind == "I" and exact.denominator != 1:
            raise scope.fail(
                f"{word.name} needs a whole number for {param.name}",
                arg,
                f"write {word.example.split('= ')[1]}",
            )
        if abs(exact) > 10**9:
            raise scope.fail(f"{param.name} of {word.name} is too large", arg)
        return (
            exact if param.kind == "T" else exact.numerator if param.kind == "I" else float(exact)
        )
    pattern = compile_expr(arg, scope)
    convert = CONVERT[param.kind]
    if pattern.text:
        raise scope.fail(
            f"{word.name} needs a number for {param.name}",
            arg,
            f"write {word.example.split('= ')[1]}",
        )
    if pattern.const is not None:
        return convert(pattern.const[0])
    return Varying(pattern, convert)


def _list(arg: Expr, scope: Scope) -> Any:
    items = arg.items if isinstance(arg, ListNode) else (arg,)
    if len(items) > 256:
        raise scope.fail("a list here holds at most 256 values", arg)
    out: list[Any] = []
    for item in items:
        exact = fold(item, scope)
        if exact is not None:
            out.append(plain(exact) if exact.denominator != 1 else exact.numerator)
        elif isinstance(item, Text):
            out.append(item.value)
        else:
            pattern = compile_expr(item, scope)
            if pattern.const is None:
                raise scope.fail("a list here holds plain values", item, "write [0, .5, 1]")
            out.append(pattern.const[0])
    return out if isinstance(arg, ListNode) else out[0]


def _section(arg: Expr, word: Word, scope: Scope) -> tuple[Fraction, Pattern]:
    if not isinstance(arg, ListNode) or len(arg.items) != 2:
        raise scope.fail(
            f"{word.name} takes pairs: [cycles, pattern]",
            arg,
            f"write {word.example.split('= ')[1]}",
        )
    length = fold(arg.items[0], scope)
    if length is None or length <= 0:
        raise scope.fail("the length of a section is a number above 0", arg.items[0])
    return length, compile_expr(arg.items[1], scope)


# --- functions in argument place -------------------------------------------------------------


def _function(arg: Expr, scope: Scope, word: Word) -> Callable[[Pattern], Pattern]:
    """rev · fast(2) · _ * .5 · a let with one argument missing · a chain of these."""
    maker = _partial(arg, scope)
    if maker is None:
        if isinstance(arg, Name) and not known(arg.name, scope):
            raise unknown(arg.name, arg, scope, method=True)
        raise scope.fail(
            f"{word.name} takes a function here",
            arg,
            "a function is a word such as rev, fast(2), or an expression with _: _ * .5",
        )
    return maker


def _partial(arg: Expr, scope: Scope) -> Callable[[Pattern], Pattern] | None:
    if has_hole(arg):
        return lambda p: compile_expr(arg, replace(scope, hole=p))
    name = arg.name if isinstance(arg, (Name, Call)) else None
    if isinstance(arg, (Name, Call)) and name is not None:
        args = arg.args if isinstance(arg, Call) else ()
        if name in scope.params and isinstance(arg, Name):
            thunk = scope.params[name]
            return _partial(thunk.expr, thunk.scope) if isinstance(thunk, Thunk) else None
        if name in scope.lets:
            if len(scope.lets[name][0].params) != len(args) + 1:
                return None
            call = Call(arg.start, arg.end, name, args)
            return lambda p: _let(call, name, args, scope, p)
        word = WORDS.get(name)
        if word is not None and word.of:
            return lambda p: _apply(word, p, args, arg, scope)
        return None
    if isinstance(arg, Method):
        # fast(2).rev: one function after the other.
        first, then = _partial(arg.of, scope), WORDS.get(arg.name)
        if first is not None and then is not None and then.of:
            return lambda p: _apply(then, first(p), arg.args or (), arg, scope)
    return None
