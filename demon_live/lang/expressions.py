"""Compile expressions to patterns: look up names, count and convert arguments, check kinds.

Errors are ScoreErrors with places in the statement's own text; the compiler moves them to the
score and goes on with the next statement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS
from demon_live.errors import ScoreError, Span
from demon_live.lang.controllers import CONTROLLERS
from demon_live.lang.functions import FUNCTIONS, OPERATORS, operate
from demon_live.lang.mini import build
from demon_live.lang.mini_syntax import CHANCE, parse_mini
from demon_live.lang.pattern import Pattern, PatternError, as_time, less_work, plain
from demon_live.lang.registry import Function, Param, Transform
from demon_live.lang.rhythm import bind, combine, fmap, inverse
from demon_live.lang.scope import (
    CONVERT,
    Scope,
    Thunk,
    Varying,
    bound,
    controller,
    fold,
    joined,
    misplaced_word,
    salted,
    spread,
    two_words,
    unknown,
    unknown_call,
)
from demon_live.lang.signals import RANDOM, SIGNALS
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
    has_hole,
)
from demon_live.lang.transform import late, pure, silence, timecat

#: Values in a list of plain values at most.
_LIST = 256


def compile_expr(node: Expr, scope: Scope) -> Pattern:
    """The pattern of an expression. Raises ScoreError."""
    number = fold(node, scope)
    if number is not None:
        return pure(plain(number))
    scope = scope.deeper(node)
    try:
        return _compile(node, scope)
    except PatternError as error:
        raise scope.fail(str(error), node, less_work(error)) from error


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
            inner = _numbers(node.of, scope)
            if node.op == "not":
                return fmap(inner, inverse)
            return combine(inner, pure(-1), OPERATORS["*"])
        case Bin():
            return _binary(node, scope)
        case Num():
            return pure(plain(node.value))


def _mini(node: Mini, scope: Scope) -> Pattern:
    try:
        tree = parse_mini(node.text)
        if scope.mark is not None:
            tree = scope.mark(tree, scope.source, node.start + 1)
        return build(tree, node.text, scope.chances.numbered())
    except ScoreError as error:
        found = error.span or Span(0, 0, 1, 1)
        place = Span.of(scope.source, node.start + 1 + found.start, node.start + 1 + found.end)
        raise ScoreError(error.message, span=scope.outer or place, hint=error.hint) from error


def _binary(node: Bin, scope: Scope) -> Pattern:
    if node.op in ("~>", "<~"):
        return _shifted(node, scope)
    return operate(node.op, _numbers(node.left, scope), _numbers(node.right, scope))


def _shifted(node: Bin, scope: Scope) -> Pattern:
    """1/4 ~> p: p, a quarter later."""
    sign = 1 if node.op == "~>" else -1
    pattern = compile_expr(node.right, scope)
    exact = fold(node.left, scope)
    if exact is not None:
        return late(pattern, sign * exact)
    return bind(
        _numbers(node.left, scope), lambda v: late(pattern, sign * as_time(v)), text=pattern.text
    )


# --- names -----------------------------------------------------------------------------------


def _name(node: Name, scope: Scope) -> Pattern:
    name = node.name
    if name in scope.params:
        found = scope.params[name]
        if isinstance(found, Thunk):
            inner = replace(found.scope, depth=scope.depth, chances=scope.chances)
            return compile_expr(found.expr, inner)
        return found
    if name in scope.lets:
        return _let(node, name, (), scope)
    if name in SIGNALS:
        return SIGNALS[name][0]
    if name in RANDOM:
        return RANDOM[name][0](scope.chances.next())
    if name == "silence":
        return silence
    if name in CONTROLLERS:
        return controller(name, (), node, scope)
    function = FUNCTIONS.get(name)
    if function is not None:
        if function.method:
            message = f'"{name}" is a function and needs a pattern'
            raise scope.fail(message, node, function.advice)
        return _apply(function, None, (), node, scope)
    raise unknown(name, node, scope)


def _let(
    node: Name | Call,
    name: str,
    args: Sequence[Expr],
    scope: Scope,
    receiver: Pattern | None = None,
) -> Pattern:
    definition, source = scope.lets[name]
    count, n = len(args) + (receiver is not None), len(definition.params)
    if count != n:
        shown = f"{name}({', '.join(definition.params)})" if definition.params else name
        message = f"{name} takes {n} argument{'s' * (n != 1)}, not {count}"
        raise scope.fail(message, node, f"it is {shown}")
    if name in scope.calls:
        hint = "a let stands for its expression, which must end somewhere"
        raise scope.fail(f"{name} calls itself", node, hint)
    scope.work.left -= 1
    if scope.work.left <= 0:
        raise scope.fail("the let words of this line unfold too far", node)
    params: dict[str, Thunk | Pattern] = {}
    names = list(definition.params)
    if receiver is not None:
        params[names.pop(0)] = receiver
    params.update({p: Thunk(a, scope) for p, a in zip(names, args, strict=True)})
    place = scope.outer or Span.of(scope.source, node.start, node.end)
    inner = replace(
        scope.deeper(node),
        source=source,
        params=params,
        outer=place,
        hole=None,
        calls=scope.calls | {name},
    )
    return compile_expr(definition.expr, inner)


# --- calls -----------------------------------------------------------------------------------


def _call(node: Call, scope: Scope) -> Pattern:
    name = node.name
    if name in scope.lets:
        return _let(node, name, node.args, scope)
    if name in CONTROLLERS and not (name == "note" and _is_pattern(node.args, scope)):
        return controller(name, node.args, node, scope)
    function = FUNCTIONS.get(name)
    if function is None:
        if name in SIGNALS or name in RANDOM or name == "silence":
            if name in RANDOM and len(node.args) == 1:
                return RANDOM[name][0](salted(node.args[0], scope).chances.next())
            if node.args:
                raise scope.fail(f"{name} takes no arguments", node, f"write {name}.slow(4)")
            return _name(Name(node.start, node.end, name), scope)
        raise unknown_call(name, node, scope)
    if not function.method:
        return _apply(function, None, node.args, node, scope)
    if name == "salt" and len(node.args) == 2:
        return compile_expr(node.args[1], salted(node.args[0], scope))
    if not node.args or len(node.args) <= function.least:
        raise scope.fail(f"{name} needs a pattern", node, function.advice)
    # fast(2, "0 1"): the pattern comes last, as in Strudel.
    return _apply(function, node.args[-1], node.args[:-1], node, scope)


def _is_pattern(args: Sequence[Expr], scope: Scope) -> bool:
    """note("c e g") names notes; note and note(1) are keys of a controller."""
    return len(args) == 1 and fold(args[0], scope) is None


def _method(node: Method, scope: Scope) -> Pattern:
    node = joined(node)
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
    if node.name == "salt" and node.args is not None and len(node.args) == 1:
        return compile_expr(node.of, salted(node.args[0], scope))
    function = FUNCTIONS.get(node.name)
    if function is None:
        if node.name in CONTROLS:
            raise scope.fail(
                f'"{node.name}" is a control of its own, not a method',
                name,
                f"write it on its own line: {node.name} = ...",
            )
        if isinstance(node.of, Name) and not scope.knows(node.of.name):
            raise unknown(node.of.name, node.of, scope)
        raise unknown(node.name, name, scope, method=True)
    if node.args is None and function.least:
        raise scope.fail(f"{node.name} needs {function.counted}", name, function.advice)
    if not function.method:
        if not function.many:
            message = f"{node.name} stands alone, not behind a pattern"
            raise scope.fail(message, name, function.advice)
        return _apply(function, None, (node.of, *(node.args or ())), node, scope)
    return _apply(function, node.of, node.args or (), node, scope)


# --- arguments -------------------------------------------------------------------------------


def _apply(
    function: Function, of: Expr | Pattern | None, args: Sequence[Expr], node: Any, scope: Scope
) -> Pattern:
    """Call a function of the table with converted arguments; patterned numbers are bound."""
    receiver: Pattern | None = None
    if function.method:
        assert of is not None
        receiver = of if isinstance(of, Pattern) else compile_expr(of, scope)
        if function.numeric and receiver.text:
            raise misplaced_word(None if isinstance(of, Pattern) else of, node, scope)
    if function.many:
        args = spread(function, args)
    if function.name == "choose" and scope.chances.by_place:
        function = FUNCTIONS["randcat"]
    if len(args) < function.least or (not function.many and len(args) > len(function.params)):
        raise scope.fail(f"{function.name} takes {function.counted}", node, function.advice)
    params = function.params
    values = [
        _argument(params[min(i, len(params) - 1)], arg, function, scope)
        for i, arg in enumerate(args)
    ]
    values += [p.default for p in params[len(args) :] if not p.many]
    more = {"key": scope.chances.next()} if function.random else {}
    front = [receiver] if receiver is not None else []
    text = receiver is not None and receiver.text
    try:
        return bound(lambda *vs: function.make(*front, *vs, **more), values, text)
    except PatternError as error:
        place = next((a for p, a in zip(params, args, strict=False) if p.name == error.param), None)
        if place is None:
            raise
        raise scope.fail(str(error), place, less_work(error) or function.advice) from error


def _argument(param: Param, arg: Expr, function: Function, scope: Scope) -> Any:
    match param.kind:
        case "Transform":
            return _transform(arg, scope, function)
        case "Pattern" | "Gate":
            return compile_expr(arg, scope)
        case "Numbers":
            return _numbers(arg, scope)
        case "Values":
            return _list(arg, scope)
        case "Section":
            return _pair(arg, function, scope, "cycles, pattern")
        case "Weighted":
            return _pair(arg, function, scope, "pattern, weight")
    return _scalar(param, arg, function, scope)


def _numbers(arg: Expr, scope: Scope) -> Pattern:
    """A pattern of numbers: words are an error at their place."""
    pattern = compile_expr(arg, scope)
    if pattern.text:
        raise misplaced_word(arg, arg, scope)
    return pattern


def _scalar(param: Param, arg: Expr, function: Function, scope: Scope) -> Any:
    """A number, or a pattern of numbers that is to be bound."""
    needs = f"{function.name} needs a number for {param.name}"
    exact = fold(arg, scope)
    if isinstance(arg, Name) and arg.name in FUNCTIONS and FUNCTIONS[arg.name].method:
        raise scope.fail(f"{needs}, and {arg.name} is a function", arg, function.advice)
    if exact is not None:
        if param.kind == "Count" and exact.denominator != 1:
            message = f"{function.name} needs a whole number for {param.name}"
            raise scope.fail(message, arg, function.advice)
        if abs(exact) > 10**9:
            raise scope.fail(f"{param.name} of {function.name} is too large", arg)
        if param.kind == "Chance" and not 0 <= exact <= 1:
            raise scope.fail(CHANCE, arg, f"write {plain(exact / 100)} for {plain(exact)}%")
        kinds = {"Time": exact, "Count": exact.numerator}
        return kinds.get(param.kind, float(exact))
    pattern = compile_expr(arg, scope)
    convert = CONVERT[param.kind]
    if pattern.text:
        raise scope.fail(needs, arg, function.advice)
    if pattern.const is not None:
        return convert(pattern.const[0])
    return Varying(pattern, convert)


def _list(arg: Expr, scope: Scope) -> Any:
    """A list of plain values, or one value."""
    items = arg.items if isinstance(arg, ListNode) else (arg,)
    if len(items) > _LIST:
        raise scope.fail(f"a list here holds at most {_LIST} values", arg)
    out: list[Any] = []
    for item in items:
        exact = fold(item, scope)
        if exact is not None:
            out.append(plain(exact))
        elif isinstance(item, Text):
            out.append(item.value)
        elif isinstance(item, Name) and item.name == "inf" and isinstance(arg, ListNode):
            out.append(math.inf)
        else:
            pattern = compile_expr(item, scope)
            if pattern.const is None:
                raise scope.fail("a list here holds plain values", item, "write [0, .5, 1]")
            out.append(pattern.const[0])
    return out if isinstance(arg, ListNode) else out[0]


def _pair(arg: Expr, function: Function, scope: Scope, form: str) -> tuple[Fraction, Pattern]:
    """A number above 0 and a pattern, from [cycles, pattern] or [pattern, weight]."""
    if not isinstance(arg, ListNode) or len(arg.items) != 2:
        raise scope.fail(f"{function.name} takes pairs: [{form}]", arg, function.advice)
    last = form.endswith("weight")
    number, pattern = arg.items[last], arg.items[not last]
    length = fold(number, scope)
    if length is None or length <= 0:
        what = "a weight" if last else "the length of a section"
        raise scope.fail(f"{what} is a number above 0", number)
    return length, compile_expr(pattern, scope)


# --- functions in argument place -------------------------------------------------------------


def _transform(arg: Expr, scope: Scope, function: Function) -> Transform:
    """rev · fast(2) · _ * .5 · a let with one argument missing · a chain of these."""
    made = _partial(arg, scope)
    if made is None:
        if isinstance(arg, Name) and not scope.knows(arg.name):
            raise unknown(arg.name, arg, scope, method=True)
        raise scope.fail(
            f"{function.name} takes a function here",
            arg,
            "a function is a word such as rev, fast(2), or an expression with _: _ * .5",
        )
    return made


def _partial(arg: Expr, scope: Scope) -> Transform | None:
    if has_hole(arg):
        return lambda p: compile_expr(arg, replace(scope, hole=p))
    if isinstance(arg, (Name, Call)):
        name, args = arg.name, arg.args if isinstance(arg, Call) else ()
        if name in scope.params and isinstance(arg, Name):
            thunk = scope.params[name]
            if not isinstance(thunk, Thunk):
                return None
            return _partial(thunk.expr, replace(thunk.scope, chances=scope.chances))
        if name in scope.lets:
            if len(scope.lets[name][0].params) != len(args) + 1:
                return None
            call = Call(arg.start, arg.end, name, args)
            return lambda p: _let(call, name, args, scope, p)
        function = FUNCTIONS.get(name)
        if function is not None and function.method:
            return lambda p: _apply(function, p, args, arg, scope)
        return None
    if isinstance(arg, Method):
        if isinstance(arg.of, Name) and (words := two_words(arg.of.name, arg.name)):
            return _partial(Call(arg.start, arg.end, words, arg.args or ()), scope)
        method = joined(arg)
        args = method.args or ()
        if method.name == "salt" and len(args) == 1:
            return _partial(method.of, salted(args[0], scope))
        # fast(2).rev: one function after the other.
        first, then = _partial(method.of, scope), FUNCTIONS.get(method.name)
        if first is not None and then is not None and then.method:
            return lambda p: _apply(then, first(p), args, method, scope)
    return None
