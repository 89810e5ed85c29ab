"""Expressions made into patterns: names looked up, arguments counted and converted, kinds checked.

Errors are raised as ScoreError with places in the statement's own text; the compiler moves them to
the score and goes on with the next statement.

Threads: a Scope belongs to the compilation of one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS, STAGE
from demon_live.errors import ScoreError, Span, nearest
from demon_live.lang import signals
from demon_live.lang.mini import Chances, build
from demon_live.lang.mini_syntax import MAX_NESTING, parse_mini
from demon_live.lang.mini_syntax import Node as MiniNode
from demon_live.lang.pattern import (
    Pattern,
    PatternError,
    as_time,
    bind,
    late,
    pure,
    silence,
    timecat,
)
from demon_live.lang.rhythm import combine
from demon_live.lang.syntax import (
    Bin,
    Call,
    Expr,
    Hole,
    LetNode,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    Text,
)
from demon_live.lang.words import OPERATORS, WORDS, Param, Word

__all__ = ["Scope", "compile_expr", "fold", "places_of"]

#: Expansions of `let` words in one statement.
_MAX_WORK = 4096
_SIGNALS = signals.SIGNALS
#: Signals that draw lots.
_LOTS: dict[str, Callable[[int], Pattern]] = {"rand": signals.rand, "perlin": signals.perlin}
_OTHER = {"silence": silence}


@dataclass(frozen=True, slots=True)
class Thunk:
    """An argument of a `let`, with the scope that it was written in."""

    expr: Expr
    scope: Scope


@dataclass(slots=True)
class Work:
    """What one statement has used up."""

    left: int = _MAX_WORK


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean here. source: the text that the places of nodes refer to."""

    source: str
    lets: Mapping[str, tuple[LetNode, str]]
    chances: Chances
    work: Work
    params: Mapping[str, Thunk | Pattern]
    hole: Pattern | None = None
    depth: int = 0
    #: The place of the call, for errors inside a `let` of another statement.
    outer: Span | None = None

    def fail(self, message: str, node: Any, hint: str | None = None) -> ScoreError:
        if self.outer is not None:
            return ScoreError(message, span=self.outer, hint=hint)
        return ScoreError(message, span=Span.of(self.source, node.start, node.end), hint=hint)

    def deeper(self, node: Any) -> Scope:
        if self.depth >= MAX_NESTING:
            raise self.fail(f"nested deeper than {MAX_NESTING}", node, "give a part a name with let")
        return replace(self, depth=self.depth + 1)


# --- numbers ---------------------------------------------------------------------------------


def fold(node: Expr, scope: Scope) -> Fraction | None:
    """The exact value of an expression made of numbers alone, else None."""
    match node:
        case Num():
            return node.value
        case Neg():
            inner = fold(node.of, scope)
            return None if inner is None else -inner
        case Bin() if node.op in "+-*/%":
            left = fold(node.left, scope)
            right = None if left is None else fold(node.right, scope)
            if left is None or right is None:
                return None
            return _exact(node.op, left, right)
        case Name() if node.name in scope.params:
            found = scope.params[node.name]
            return fold(found.expr, found.scope) if isinstance(found, Thunk) else None
    return None


def _exact(op: str, a: Fraction, b: Fraction) -> Fraction | None:
    if op in "/%" and b == 0:
        return Fraction(0)
    out = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a, "%": a % b if b else a}[op]
    # Numbers are bounded too: 9**9**9 written out with * must not grow without end.
    return out if out.numerator.bit_length() < 256 and out.denominator.bit_length() < 256 else None


def _plain(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


# --- expressions -----------------------------------------------------------------------------


def compile_expr(node: Expr, scope: Scope) -> Pattern:
    """The pattern of an expression. Raises ScoreError."""
    number = fold(node, scope)
    if number is not None:
        return pure(_plain(number))
    scope = scope.deeper(node)
    try:
        return _compile(node, scope)
    except PatternError as error:
        raise scope.fail(str(error), node, _remedy(str(error))) from error


def _remedy(message: str) -> str | None:
    return "use fewer or slower steps" if "more than" in message else None


def _compile(node: Expr, scope: Scope) -> Pattern:
    match node:
        case Mini():
            return _mini(node, scope)
        case Text():
            return pure(node.value)
        case Hole():
            if scope.hole is None:
                raise scope.fail('"_" stands for the pattern inside a function', node, "write it in an argument: off(1/8, _ * .5)")
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
            return pure(_plain(node.value))


def _mini(node: Mini, scope: Scope) -> Pattern:
    try:
        return build(parse_mini(node.text), node.text, scope.chances)
    except ScoreError as error:
        assert error.span is not None
        place = Span.of(scope.source, node.start + 1 + error.span.start, node.start + 1 + error.span.end)
        raise ScoreError(error.message, span=scope.outer or place, hint=error.hint) from error


def _numeric(node: Expr, scope: Scope) -> Pattern:
    """An operand of arithmetic: words are an error at their place."""
    pattern = compile_expr(node, scope)
    if pattern.text:
        found = places_of(node, lambda v: isinstance(v, str))
        raise _word_for_number(found[0] if found else None, node, scope)
    return pattern


def _word_for_number(found: tuple[str, int, int] | None, node: Expr, scope: Scope) -> ScoreError:
    if found is None:
        return scope.fail("this is text, and arithmetic takes numbers", node)
    word, start, end = found
    span = scope.outer or Span.of(scope.source, start, end)
    return ScoreError(f'"{word}" is a word, and arithmetic takes numbers', span=span,
                      hint="note names become numbers with .note" if word[:1].lower() in "abcdefg" else None)


def places_of(node: Expr, wanted: Callable[[Any], bool]) -> list[tuple[str, int, int]]:
    """The written values of an expression for which `wanted` holds: (value, start, end)."""
    out: list[tuple[str, int, int]] = []
    match node:
        case Mini():
            stack: list[MiniNode] = [parse_mini(node.text)]
            while stack:
                m = stack.pop()
                if m.kind == "atom" and wanted(m.value):
                    out.append((str(m.value), node.start + 1 + m.start, node.start + 1 + m.end))
                # Arguments of operators are numbers of their own.
                stack.extend(reversed(m.children[:1] if m.kind in ("fast", "div", "maybe", "euclid") else m.children))
        case Text() if wanted(node.value):
            out.append((node.value, node.start, node.end))
        case ListNode():
            for item in node.items:
                out += places_of(item, wanted)
        case Call():
            for arg in node.args:
                out += places_of(arg, wanted)
        case Method():
            out += places_of(node.of, wanted)
        case Bin():
            out += places_of(node.left, wanted) + places_of(node.right, wanted)
        case Neg():
            out += places_of(node.of, wanted)
    return sorted(out, key=lambda p: p[1])


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
    return bind(_numeric(node.left, scope), lambda v: late(pattern, sign * as_time(v)), text=pattern.text)


# --- names -----------------------------------------------------------------------------------


def _name(node: Name, scope: Scope) -> Pattern:
    name = node.name
    if name in scope.params:
        found = scope.params[name]
        return compile_expr(found.expr, replace(found.scope, depth=scope.depth)) if isinstance(found, Thunk) else found
    if name in scope.lets:
        return _let(node, name, (), scope)
    if name in _SIGNALS:
        return _SIGNALS[name][0]
    if name in _LOTS:
        return _LOTS[name](scope.chances.next())
    if name in _OTHER:
        return _OTHER[name]
    word = WORDS.get(name)
    if word is not None:
        if word.of:
            raise scope.fail(f'"{name}" is a function and needs a pattern', node, f"write {word.example.split('= ')[1]}")
        return _apply(word, None, (), node, scope)
    raise unknown(name, node, scope)


def unknown(name: str, node: Any, scope: Scope, *, method: bool = False) -> ScoreError:
    """An error for a name that means nothing, with the nearest that does."""
    if name in CONTROLS or name in STAGE:
        return scope.fail(
            f'"{name}" is a control, not a value', node,
            f"a control is only bound: {name} = ...; for a shape that two controls share write let shape = ...")
    functions = [w for w in WORDS if WORDS[w].of or not method]
    known = functions if method else [*functions, *_SIGNALS, *_LOTS, *scope.lets, *scope.params]
    near = nearest(name, known)
    hint = f"did you mean {near[0]}?" if near else _aliases(name)
    what = "no function" if method else "nothing"
    return scope.fail(f'there is {what} "{name}"' if method else f'there is nothing called "{name}"', node, hint)


def _aliases(name: str) -> str | None:
    """Words of the other languages that mean something else here."""
    known = {
        "s": "there are no samples: the model makes the sound; give it words with prompt = '...'",
        "sound": "there are no samples: the model makes the sound; give it words with prompt = '...'",
        "n": "numbers stand alone in a pattern: \"0 1 2\"",
        "jux": "decks are placed with pan",
        "x": "_ stands for the pattern inside a function",
    }
    return known.get(name, "? lists all words" if len(name) > 1 else None)


def _let(node: Name | Call, name: str, args: Sequence[Expr], scope: Scope, receiver: Pattern | None = None) -> Pattern:
    definition, source = scope.lets[name]
    given = len(args) + (receiver is not None)
    if given != len(definition.params):
        shown = f"{name}({', '.join(definition.params)})" if definition.params else name
        raise scope.fail(
            f"{name} takes {len(definition.params)} argument{'s' * (len(definition.params) != 1)}, not {given}", node, f"it is {shown}")
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
    word = WORDS.get(name)
    if word is None:
        if name in _SIGNALS or name in _LOTS or name in _OTHER:
            if node.args:
                raise scope.fail(f"{name} takes no arguments", node, f"write {name}.range(0, 1)")
            return _name(Name(node.start, node.end, name), scope)
        raise unknown_call(name, node, scope)
    if not word.of:
        return _apply(word, None, node.args, node, scope)
    if not node.args or len(node.args) <= sum(not p.optional and not p.many for p in word.params):
        raise scope.fail(f"{name} needs a pattern", node, f"write {word.example.split('= ')[1]}")
    # fast(2, "0 1"): the pattern comes last, as in Strudel.
    return _apply(word, node.args[-1], node.args[:-1], node, scope)


def unknown_call(name: str, node: Call, scope: Scope) -> ScoreError:
    span = Name(node.start, node.start + len(name), name)
    if name in CONTROLS or name in STAGE:
        inner = scope.source[node.start + len(name) + 1 : node.end - 1] if scope.outer is None else "..."
        return scope.fail(f'"{name}" is a control, not a function', span, f"bind it: {name} = {inner}")
    return unknown(name, span, scope)


def _method(node: Method, scope: Scope) -> Pattern:
    name = Name(node.at, node.at + len(node.name), node.name)
    if node.name in scope.lets:
        receiver = compile_expr(node.of, scope)
        return _let(Call(node.at, node.end, node.name, node.args or ()), node.name, node.args or (), scope, receiver)
    word = WORDS.get(node.name)
    if word is None:
        if node.name in CONTROLS:
            raise scope.fail(
                f'"{node.name}" is a control of its own, not a method', name, f"write it on its own line: {node.name} = ...")
        raise unknown(node.name, name, scope, method=True)
    if node.args is None and any(not p.optional and not p.many for p in word.params):
        raise scope.fail(f"{node.name} needs {_count(word)}", name, f"write {word.example.split('= ')[1]}")
    if not word.of:
        if not (word.params and word.params[0].many):
            raise scope.fail(f"{node.name} stands alone, not behind a pattern", name, f"write {word.example.split('= ')[1]}")
        return _apply(word, None, (node.of, *(node.args or ())), node, scope)
    return _apply(word, node.of, node.args or (), node, scope)


def _count(word: Word) -> str:
    least = sum(not p.optional and not p.many for p in word.params)
    most = len(word.params)
    if any(p.many for p in word.params):
        return "at least one argument"
    shown = str(most) if least == most else f"{least} to {most}"
    return f"{shown} argument{'s' * (most != 1)}: {word.signature}"


def _apply(word: Word, of: Expr | Pattern | None, args: Sequence[Expr], node: Any, scope: Scope) -> Pattern:
    """The word with its arguments converted; patterned times and numbers are bound."""
    receiver: Pattern | None = None
    if word.of:
        assert of is not None
        receiver = of if isinstance(of, Pattern) else compile_expr(of, scope)
        if word.group == "values" and receiver.text and word.name not in ("note", "pick", "invert"):
            raise _word_for_number(
                next(iter(places_of(of, lambda v: isinstance(v, str)) if not isinstance(of, Pattern) else []), None), node, scope)
    many = bool(word.params) and word.params[-1].many
    least = sum(not p.optional and not p.many for p in word.params)
    if len(args) < least or (not many and len(args) > len(word.params)):
        raise scope.fail(f"{word.name} takes {_count(word)}", node, f"write {word.example.split('= ')[1]}")
    values: list[Any] = []
    for i, arg in enumerate(args):
        param = word.params[min(i, len(word.params) - 1)]
        values.append(_argument(param, arg, word, scope))
    values += [p.default for p in word.params[len(args):] if not p.many]
    more = {"key": scope.chances.next()} if word.lots else {}
    front = [receiver] if receiver is not None else []
    return _bound(lambda *vs: word.make(*front, *vs, **more), values, word, receiver)


@dataclass(frozen=True, slots=True)
class Varying:
    """An argument whose value is a pattern where a plain number is taken."""

    pattern: Pattern
    convert: Callable[[Any], Any]


def _bound(make: Callable[..., Pattern], values: list[Any], word: Word, receiver: Pattern | None) -> Pattern:
    for i, value in enumerate(values):
        if isinstance(value, Varying):
            rest = values[i + 1 :]
            text = receiver.text if receiver is not None else False

            def at(v: Any, i: int = i, rest: list[Any] = rest, convert: Callable[[Any], Any] = value.convert) -> Pattern:
                return _bound(make, [*values[:i], convert(v), *rest], word, receiver)

            return bind(value.pattern, at, text=text)
    return make(*values)


def _argument(param: Param, arg: Expr, word: Word, scope: Scope) -> Any:
    match param.kind:
        case "F":
            return _function(arg, scope, word)
        case "P" | "G":
            return compile_expr(arg, scope)
        case "L":
            return _list(arg, scope)
        case "S":
            return _section(arg, word, scope)
    return _scalar(param, arg, word, scope)


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "T": as_time,
    "I": lambda v: _whole(v),
    "R": lambda v: _real(v),
}


def _whole(value: Any) -> int:
    return int(round(_real(value)))


def _real(value: Any) -> float:
    if isinstance(value, str):
        raise PatternError(f"{value!r} is a word where a number is needed")
    return float(value)


def _scalar(param: Param, arg: Expr, word: Word, scope: Scope) -> Any:
    exact = fold(arg, scope)
    if exact is not None:
        if param.kind == "I" and exact.denominator != 1:
            raise scope.fail(f"{word.name} needs a whole number for {param.name}", arg, f"write {word.example.split('= ')[1]}")
        if abs(exact) > 10**9:
            raise scope.fail(f"{param.name} of {word.name} is too large", arg)
        return exact if param.kind == "T" else exact.numerator if param.kind == "I" else float(exact)
    pattern = compile_expr(arg, scope)
    convert = _CONVERT[param.kind]
    if pattern.text:
        raise scope.fail(f"{word.name} needs a number for {param.name}", arg, f"write {word.example.split('= ')[1]}")
    if pattern.const is not None:
        return convert(pattern.const[0])
    return Varying(pattern, convert)


def _list(arg: Expr, scope: Scope) -> Any:
    items = arg.items if isinstance(arg, ListNode) else (arg,)
    out: list[Any] = []
    for item in items:
        exact = fold(item, scope)
        if exact is not None:
            out.append(_plain(exact) if exact.denominator != 1 else exact.numerator)
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
        raise scope.fail(f"{word.name} takes pairs: [cycles, pattern]", arg, f"write {word.example.split('= ')[1]}")
    length = fold(arg.items[0], scope)
    if length is None or length <= 0:
        raise scope.fail("the length of a section is a number above 0", arg.items[0])
    return length, compile_expr(arg.items[1], scope)


# --- functions in argument place -------------------------------------------------------------


def _function(arg: Expr, scope: Scope, word: Word) -> Callable[[Pattern], Pattern]:
    """rev · fast(2) · _ * .5 · a let with one argument missing · a chain of these."""
    maker = _partial(arg, scope)
    if maker is None:
        raise scope.fail(
            f"{word.name} takes a function here", arg, "a function is a word such as rev, fast(2), or an expression with _: _ * .5")
    return maker


def _partial(arg: Expr, scope: Scope) -> Callable[[Pattern], Pattern] | None:
    if _has_hole(arg):
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
        first = _partial(arg.of, scope)
        word = WORDS.get(arg.name)
        if first is not None and word is not None and word.of:
            return lambda p: _apply(word, first(p), arg.args or (), arg, scope)
    return None


def _has_hole(node: Expr) -> bool:
    match node:
        case Hole():
            return True
        case Method():
            return _has_hole(node.of) or any(_has_hole(a) for a in node.args or ())
        case Call() | ListNode():
            return any(_has_hole(a) for a in (node.args if isinstance(node, Call) else node.items))
        case Bin():
            return _has_hole(node.left) or _has_hole(node.right)
        case Neg():
            return _has_hole(node.of)
    return False
