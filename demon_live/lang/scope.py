"""Scopes: the meaning of names in an expression, exact numbers, arguments, errors about names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS, SETTINGS
from demon_live.errors import ScoreError, Span
from demon_live.lang.controllers import (
    CONTROLLERS,
    INPUT_SIGNALS,
    ControllerHistory,
    Key,
    guess,
    track_pattern,
)
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import meant
from demon_live.lang.mini import Chances, whole_number
from demon_live.lang.mini_syntax import CHANCE, MAX_NESTING, MiniNode, parse_mini
from demon_live.lang.pattern import Pattern, PatternError, as_time
from demon_live.lang.registry import Function
from demon_live.lang.rhythm import bind
from demon_live.lang.signals import RANDOM, SIGNALS
from demon_live.lang.syntax import (
    Bin,
    Call,
    Expr,
    LetNode,
    ListNode,
    Method,
    Mini,
    Name,
    Neg,
    Num,
    Text,
)
from demon_live.notes.harmony import NOTE

#: Numbers of a score stay below this.
_MOST = 10**15


#: The highest number of a stream of chance.
_STREAMS = 1_000_000


#: Expansions of `let` words in one score.
_MAX_WORK = 2048


@dataclass(frozen=True, slots=True)
class Thunk:
    """An argument of a `let`, with its scope."""

    expr: Expr
    scope: Scope


@dataclass(slots=True)
class Work:
    """The budget of one score, and its controllers.

    left: expansions of `let` words. history: the moves of the controllers, None while the score is
    checked. keys: the controllers that the expression names.
    """

    left: int = _MAX_WORK
    history: ControllerHistory | None = None
    keys: set[Key] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Scope:
    """The meaning of names in an expression.

    source: the text that the places of nodes refer to. lets: name -> (definition, its source).
    params: arguments of the `let` that is expanded. hole: the pattern that `_` stands for.
    """

    source: str
    lets: Mapping[str, tuple[LetNode, str]]
    chances: Chances
    work: Work
    params: Mapping[str, Thunk | Pattern]
    hole: Pattern | None = None
    depth: int = 0
    #: The place of the call, for errors in a `let` of another statement.
    outer: Span | None = None
    #: The `let` words that are being expanded.
    calls: frozenset[str] = frozenset()
    #: (tree of mini-notation, source, offset) -> tree, for highlighting.py.
    mark: Callable[[MiniNode, str, int], MiniNode] | None = None

    def fail(self, message: str, node: Any, hint: str | None = None) -> ScoreError:
        if self.outer is not None:
            return ScoreError(message, span=self.outer, hint=hint)
        return ScoreError(message, span=Span.of(self.source, node.start, node.end), hint=hint)

    def knows(self, name: str) -> bool:
        """True if a name means anything here."""
        tables = (self.params, self.lets, SIGNALS, RANDOM, FUNCTIONS, CONTROLLERS)
        return name == "silence" or any(name in names for names in tables)

    def deeper(self, node: Any) -> Scope:
        if self.depth >= MAX_NESTING:
            raise self.fail(
                f"nested deeper than {MAX_NESTING}", node, "give a part a name with let"
            )
        # dataclasses.replace takes three times as long, and this runs at each node.
        return Scope(
            self.source,
            self.lets,
            self.chances,
            self.work,
            self.params,
            self.hole,
            self.depth + 1,
            self.outer,
            self.calls,
            self.mark,
        )


def fold(node: Expr, scope: Scope) -> Fraction | None:
    """The exact value of an expression made of numbers alone, else None."""
    value = _folded(node, scope)
    if value is not None and abs(value) > _MOST:
        raise scope.fail("a number beyond 10^15", node)
    return value


def _folded(node: Expr, scope: Scope) -> Fraction | None:
    match node:
        case Num():
            return node.value
        case Neg() if node.op == "-":
            inner = fold(node.of, scope)
            return None if inner is None else -inner
        case Bin() if node.op in ("+", "-", "*", "/", "%", "**"):
            left = fold(node.left, scope)
            right = None if left is None else fold(node.right, scope)
            if left is None or right is None:
                return None
            if right == 0 and node.op in "/%":
                raise scope.fail("division by 0", node, None)
            return _exact(node.op, left, right)
        case Name() if node.name in scope.params:
            found = scope.params[node.name]
            return fold(found.expr, found.scope) if isinstance(found, Thunk) else None
    return None


def _exact(op: str, a: Fraction, b: Fraction) -> Fraction | None:
    if op == "**":
        digits = max(a.numerator.bit_length(), a.denominator.bit_length())
        if b.denominator != 1 or digits * abs(b) > 256 or (not a and b <= 0):
            return None
        return Fraction(a**b.numerator)
    out = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a, "%": a % b if b else a}[op]
    # Bounded: 9**9**9 written out with * must not grow without end.
    return out if out.numerator.bit_length() < 256 and out.denominator.bit_length() < 256 else None


def places_of(node: Expr, wanted: Callable[[Any], bool]) -> list[tuple[str, int, int]]:
    """The literal values of an expression for which `wanted` holds: (value, start, end)."""
    out: list[tuple[str, int, int]] = []
    match node:
        case Mini():
            stack: list[MiniNode] = [parse_mini(node.text)]
            while stack:
                m = stack.pop()
                if m.kind == "atom" and wanted(m.value):
                    out.append((str(m.value), node.start + 1 + m.start, node.start + 1 + m.end))
                # Arguments of operators are numbers of their own.
                stack.extend(
                    reversed(
                        m.children[:1]
                        if m.kind in ("fast", "div", "maybe", "euclid")
                        else m.children
                    )
                )
        case Text() if wanted(node.value):
            out.append((node.value, node.start, node.end))
        case ListNode():
            for item in node.items:
                out += places_of(item, wanted)
        case Call():
            for arg in node.args:
                out += places_of(arg, wanted)
        case Method():
            # The receiver of pick is numbers; its arguments are the values.
            inside: tuple[Expr, ...] = () if node.name == "pick" else (node.of,)
            function = FUNCTIONS.get(node.name)
            if function is not None and function.many:
                inside += node.args or ()
            for part in inside:
                out += places_of(part, wanted)
        case Bin():
            out += places_of(node.left, wanted) + places_of(node.right, wanted)
        case Neg():
            out += places_of(node.of, wanted)
    return sorted(out, key=lambda p: p[1])


# --- arguments -------------------------------------------------------------------------------


def salted(arg: Expr, scope: Scope) -> Scope:
    """The scope in which random operators draw from the stream that `arg` numbers."""
    n = fold(arg, scope)
    if n is None or n.denominator != 1 or abs(n) > _STREAMS:
        hint = FUNCTIONS["salt"].advice
        raise scope.fail(f"a stream is a whole number up to {_STREAMS}", arg, hint)
    return replace(scope, chances=scope.chances.salted(n.numerator))


def joined(node: Method) -> Method:
    """p.add.out(x) as p.addOut(x)."""
    of = node.of
    if not isinstance(of, Method) or of.args is not None:
        return node
    name = two_words(of.name, node.name)
    return node if name is None else Method(node.start, node.end, of.of, name, node.args, of.at)


def two_words(first: str, second: str) -> str | None:
    """The function that Strudel writes as two words: add.out, add.squeeze."""
    name = "squeeze" if (first, second) == ("add", "squeeze") else f"{first}{second.title()}"
    return name if name in FUNCTIONS else None


def spread(function: Function, args: Sequence[Expr]) -> Sequence[Expr]:
    """The arguments; one list where any number of patterns may stand is the list of these."""
    last = args[-1] if len(args) == len(function.params) else None
    if function.params[-1].kind == "Pattern" and isinstance(last, ListNode):
        return (*args[:-1], *last.items)
    return args


@dataclass(frozen=True, slots=True)
class Varying:
    """An argument whose value is a pattern where a plain number is taken."""

    pattern: Pattern
    convert: Callable[[Any], Any]


def bound(make: Callable[..., Pattern], values: list[Any], text: bool) -> Pattern:
    """The function of these values; arguments that vary are bound, the first outermost."""
    i = next((i for i, value in enumerate(values) if isinstance(value, Varying)), None)
    if i is None:
        return make(*values)
    before, varying, after = values[:i], values[i], values[i + 1 :]

    def at(value: Any) -> Pattern:
        return bound(make, [*before, varying.convert(value), *after], text)

    return bind(varying.pattern, at, text=text)


def _real(value: Any) -> float:
    if isinstance(value, str):
        raise PatternError(f"{value!r} is a word where a number is needed")
    return float(value)


def _chance(value: Any) -> float:
    if not 0 <= _real(value) <= 1:
        raise PatternError(CHANCE)
    return float(value)


#: Kind of a parameter -> the value that it takes of a pattern.
CONVERT: dict[str, Callable[[Any], Any]] = {
    "Time": as_time,
    "Count": whole_number,
    "Number": _real,
    "Chance": _chance,
}


def controller(name: str, args: Sequence[Expr], node: Any, scope: Scope) -> Pattern:
    """The pattern of a controller: cc(21), cc(21, 1), note, gate(10), bend. Raises ScoreError."""
    takes: tuple[str, ...] = ("number", "channel") if name == "cc" else ("channel",)
    example = "cc(21) or cc(21, 1)" if name == "cc" else f"{name} or {name}(1)"
    if name in INPUT_SIGNALS:
        takes, example = (), name
    if len(args) > len(takes) or (name == "cc" and not args):
        wanted = " and ".join(takes) or "nothing"
        raise scope.fail(f"{name} takes {wanted}", node, f"write {example}")
    values: list[int] = []
    for what, arg in zip(takes, args, strict=False):
        exact = fold(arg, scope)
        most = 127 if what == "number" else 16
        least = 0 if what == "number" else 1
        if exact is None or exact.denominator != 1 or not least <= exact <= most:
            message = f"the {what} of {name} is a whole number from {least} to {most}"
            raise scope.fail(message, arg, f"write {example}")
        values.append(exact.numerator)
    number, channel = (*values, 0)[:2] if name == "cc" else (0, *values, 0)[:2]
    key = Key(name, number, channel)
    scope.work.keys.add(key)
    history = scope.work.history
    track = None if history is None else history.tracks.get(key)
    return guess(key) if track is None else track_pattern(key, track)


def unknown(name: str, node: Any, scope: Scope, *, method: bool = False) -> ScoreError:
    """The error for an unknown name, with the nearest known one."""
    if name in SETTINGS:
        hint = f"it stands on a line of its own: {SETTINGS[name].example}"
        return scope.fail(f'"{name}" is a setting, and no part of a pattern', node, hint)
    if name in CONTROLS:
        return scope.fail(
            f'"{name}" is a control, not a value',
            node,
            f"a control is only bound: {name} = ...; a shape for two controls is let shape = ...",
        )
    functions = [name for name, f in FUNCTIONS.items() if f.method or not method]
    more = [*SIGNALS, *RANDOM, *CONTROLLERS, *scope.lets, *scope.params]
    words = functions if method else [*functions, *more]
    near = None if name in _FOREIGN else meant(name, words)
    hint = f"did you mean {near}?" if near else _FOREIGN.get(name, "? lists all words")
    if scope.outer is None and scope.source[: node.start].rstrip().endswith("--"):
        hint = "comments begin with #"
    what = "no function" if method else "nothing"
    return scope.fail(
        f'there is {what} "{name}"' if method else f'there is nothing called "{name}"', node, hint
    )


def unknown_call(name: str, node: Call, scope: Scope) -> ScoreError:
    """The error for a call of something that is not a function."""
    span = Name(node.start, node.start + len(name), name)
    if name in CONTROLS or name in SETTINGS:
        inside = slice(node.start + len(name) + 1, node.end - 1)
        inner = scope.source[inside] if scope.outer is None else "..."
        message = f'"{name}" is a control, not a function'
        return scope.fail(message, span, f"bind it: {name} = {inner}")
    return unknown(name, span, scope)


def misplaced_word(written: Expr | None, node: Any, scope: Scope) -> ScoreError:
    """The error for text where numbers belong, at the first word of the expression `written`."""
    found = places_of(written, lambda v: isinstance(v, str)) if written is not None else []
    if not found:
        return scope.fail("this is text, and arithmetic takes numbers", node)
    word, start, end = found[0]
    hint = "note names become numbers with .note" if NOTE.fullmatch(word) else None
    return ScoreError(
        f'"{word}" is a word, and arithmetic takes numbers',
        span=scope.outer or Span.of(scope.source, start, end),
        hint="texts cannot be added: write one, 'a b'" if isinstance(written, Text) else hint,
    )


#: Words of other languages that have no counterpart here -> hint.
_FOREIGN = {
    "s": "there are no samples; tell the model in words: prompt = '...'",
    "sound": "there are no samples; tell the model in words: prompt = '...'",
    "n": 'numbers stand alone in a pattern: "0 1 2"',
    "jux": "a deck is placed with pan",
    **dict.fromkeys(("over", "xfade", "at", "now"), "it stands at the end of the line: ... over 4"),
    "x": "_ stands for the pattern inside a function",
    "None": "a control is given back with default: blend = default",
    "True": "write 1",
    "False": "write 0",
    **dict.fromkeys(("math", "np", "random"), "sine, rand and perlin are patterns: sine.slow(4)"),
    "spread": 'an argument may be a pattern: fast("<1 2>"); a rhythm is "1(3,8)"',
    "apply": "a chain of functions has a name by let: let f(p) = p.fast(2).rev",
    "polymeter": 'write "{0 1, 0 .5 1}%4"',
    "ur": "scenes one after the other: chain 'drop' 8, 'calm' 4",
    **dict.fromkeys(("fadeIn", "fadeOut"), "a move ends the line: gain = 1 over 4"),
}
