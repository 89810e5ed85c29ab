"""Compile mini-notation: a node of mini_syntax to a Pattern.

Where Strudel 1.2 and Tidal 1.10 agree, so do we. Where they differ: euclid turns left modulo n
(Tidal), 0..3 is a range, .25 a number, empty text silence, x(9,8) eight hits, [a b](3,8) structure,
a!2 _ lengthens the last copy.

Each random operator of a string has a number, in text order, and so has each copy that `!` makes.
Its draws depend on this number, the seed and the exact time of the event, and on nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from demon_live.errors import ScoreError, Span
from demon_live.lang.combinators import by_cycle
from demon_live.lang.mini_syntax import MiniNode, parse_mini
from demon_live.lang.pattern import LIMIT, Pattern, PatternError, as_time, less_work, plain
from demon_live.lang.rhythm import bind, euclid, thin
from demon_live.lang.signals import chance
from demon_live.lang.transform import cat, fast, pure, silence, stack, timecat

_ONE = Fraction(1)
#: Ranges that may follow each other, as in 0 .. 3 .. 7.
_CHAIN = 3


#: Any constant serves; this one gives frequencies near their chances over the first 1000 cycles.
_SALT = 10
#: Keeps the keys of streams apart.
_APART = 1 << 40


#: Versions of the rule of chance; a set names that of its performance.
CHANCE_BY_PLACE, CHANCE_RULE = 1, 2


class Chances:
    """The keys of random operators, by which their draws differ.

    All operators have one key, so that two controls can share a chance; those of a string of
    mini-notation are numbered, and so have keys of their own. by_place: the first rule, where each
    operator has its own draws, by its control and its number in the expression.
    """

    def __init__(self, seed: int = 0, stream: int = 0, *, by_place: bool = False) -> None:
        self._seed, self._stream, self.by_place = seed, stream, by_place
        self._count = 0 if by_place else 1

    @staticmethod
    def ruled(rule: int, seed: int, place: str) -> Chances:
        """The keys for the expression at a place, a deck with its control."""
        if rule != CHANCE_BY_PLACE:
            return Chances(seed)
        return Chances(seed * 1_000_003 + zlib.crc32(place.encode()), by_place=True)

    def next(self) -> int:
        self._count += self.by_place
        return (self._seed + _SALT) * 1_000_003 + self._count + self._stream * _APART

    def numbered(self) -> Chances:
        """The keys for a string of mini-notation; its first operator has the key of all others."""
        return self if self.by_place else Chances(self._seed, self._stream, by_place=True)

    def salted(self, n: int) -> Chances:
        """The keys of another stream; 0 is this one."""
        if self.by_place:
            return self
        return Chances(self._seed, self._stream * 1_000_003 + n)


def mini(text: str, *, seed: int = 0) -> Pattern:
    """The pattern of a mini-notation string: mini("bd(3,8) <a b>").query(begin, end) -> events.

    Raises DemonError with the place in `text`.
    """
    return build(parse_mini(text), text, Chances(seed).numbered())


def build(node: MiniNode, text: str, chances: Chances) -> Pattern:
    """The pattern of a node. Raises ScoreError (span in `text`) if it would cost too much."""
    try:
        return _BUILD[node.kind](node, text, chances)
    except PatternError as error:
        # The place is that of the innermost node with too much work.
        span = Span.of(text, node.start, node.end)
        raise ScoreError(str(error), span=span, source=text, hint=less_work(error)) from error


def _numbers(node: MiniNode, text: str, chances: Chances) -> Pattern:
    """The pattern of a node that holds numbers. Raises ScoreError at the first word in it."""
    pattern = build(node, text, chances)
    if pattern.text:
        todo = [node]
        while todo:
            inner = todo.pop()
            if isinstance(inner.value, str) and inner.kind == "atom":
                span = Span.of(text, inner.start, inner.end)
                message = f"{inner.value!r} is a word where a number is needed"
                raise ScoreError(message, span=span, source=text)
            todo += reversed(inner.children)
    return pattern


def _atom(node: MiniNode, text: str, chances: Chances) -> Pattern:
    return pure(node.value)


def _rest(node: MiniNode, text: str, chances: Chances) -> Pattern:
    return silence


def _steps(node: MiniNode, text: str, chances: Chances) -> list[tuple[Fraction, Pattern]]:
    steps: list[tuple[Fraction, Pattern]] = []
    for child in node.children:
        shared = build(child, text, chances)
        for i in range(child.repeat):
            # Copies of a random step have draws of their own.
            pattern = build(child, text, chances) if i and _random(child) else shared
            steps.append((child.weight, pattern))
        if len(steps) > LIMIT:
            raise PatternError(f"more than {LIMIT} steps")
    return steps


@lru_cache(maxsize=1024)
def _random(node: MiniNode) -> bool:
    return node.kind in ("maybe", "choice") or any(_random(c) for c in node.children)


def _sequence(node: MiniNode, text: str, chances: Chances) -> Pattern:
    return timecat(_steps(node, text, chances))


def _stack(node: MiniNode, text: str, chances: Chances) -> Pattern:
    return stack(*(build(c, text, chances) for c in node.children))


def _choice(node: MiniNode, text: str, chances: Chances) -> Pattern:
    parts = [build(c, text, chances) for c in node.children]
    key, n = chances.next(), len(parts)
    return by_cycle(lambda c: parts[int(chance(key, c) * n)], parts, None)


def _lengths(node: MiniNode, text: str, chances: Chances) -> list[tuple[Fraction, Pattern]]:
    """Each layer of a polymeter: its number of steps, and its sequence in one cycle."""
    out = []
    for layer in node.children:
        steps = _layer(layer, text, chances)
        total = sum((w for w, _ in steps), Fraction(0))
        if total:
            out.append((total, timecat(steps)))
    return out


def _layer(layer: MiniNode, text: str, chances: Chances) -> list[tuple[Fraction, Pattern]]:
    """The steps of a layer with their weights."""
    if layer.kind == "seq":
        return _steps(layer, text, chances)
    return [(_ONE, build(layer, text, chances))]


def _slow(node: MiniNode, text: str, chances: Chances) -> Pattern:
    layers = []
    for layer in node.children:
        steps = _layer(layer, text, chances)
        if all(w == 1 for w, _ in steps):
            layers.append(cat(*(p for _, p in steps)))
        else:
            total = sum((w for w, _ in steps), Fraction(0))
            layers.append(fast(timecat(steps), 1 / total) if total else silence)
    return stack(*layers) if layers else silence


def _poly(node: MiniNode, text: str, chances: Chances) -> Pattern:
    if node.value != "%":
        layers = _lengths(node, text, chances)
        base = layers[0][0] if layers else _ONE
        return stack(*(fast(p, base / n) for n, p in layers)) if layers else silence
    layers = _lengths(MiniNode("poly", node.start, node.end, node.children[:-1]), text, chances)
    if not layers:
        return silence
    rate = _numbers(node.children[-1], text, chances)
    text_inside = any(p.text for _, p in layers)
    return bind(
        rate, lambda v: stack(*(fast(p, as_time(v) / n) for n, p in layers)), text=text_inside
    )


def _speed(divide: bool) -> Callable[[MiniNode, str, Chances], Pattern]:
    def made(node: MiniNode, text: str, chances: Chances) -> Pattern:
        inner = build(node.children[0], text, chances)
        factor = _numbers(node.children[1], text, chances)

        def at(value: Any) -> Pattern:
            time = as_time(value)
            if time == 0:
                return silence
            return fast(inner, 1 / time if divide else time)

        return bind(factor, at, text=inner.text)

    return made


def _maybe(node: MiniNode, text: str, chances: Chances) -> Pattern:
    inner = build(node.children[0], text, chances)
    return thin(inner, float(node.value or 0), chances.next())


def _euclid(node: MiniNode, text: str, chances: Chances) -> Pattern:
    inner = build(node.children[0], text, chances)
    args = [_numbers(c, text, chances) for c in node.children[1:]]
    if len(args) == 2:
        args.append(pure(0))
    if all(a.const is not None for a in args):
        k, n, r = (whole_number(a.const[0]) for a in args)
        return euclid(inner, k, n, r)
    ks, ns, rs = args

    def turned(k: Any, n: Any) -> Pattern:
        return bind(
            rs,
            lambda r: euclid(inner, whole_number(k), whole_number(n), whole_number(r)),
            text=inner.text,
        )

    return bind(ks, lambda k: bind(ns, lambda n: turned(k, n), text=inner.text), text=inner.text)


def whole_number(value: Any) -> int:
    if isinstance(value, str):
        raise PatternError(f"{value!r} is a word where a number is needed")
    return int(round(value))  # noqa: RUF046 - a numpy float rounds to itself


def _range(node: MiniNode, text: str, chances: Chances) -> Pattern:
    # Each event of a range begins the next: in a chain their number grows by powers.
    chain, inner = 1, node.children[0]
    while inner.kind == "range":
        chain, inner = chain + 1, inner.children[0]
    if chain > _CHAIN:
        raise PatternError(f"more than {_CHAIN} ranges in a chain")
    first, last = (_numbers(c, text, chances) for c in node.children)

    def run(a: Any, b: Any) -> Pattern:
        low, high = as_time(a), as_time(b)
        if abs(high - low) >= LIMIT:
            raise PatternError(f"more than {LIMIT} steps")
        step = 1 if high >= low else -1
        values = (low + i * step for i in range(int(abs(high - low)) + 1))
        return timecat([(_ONE, pure(plain(value))) for value in values])

    return bind(first, lambda a: bind(last, lambda b: run(a, b)))


_BUILD: dict[str, Callable[[MiniNode, str, Chances], Pattern]] = {
    "atom": _atom,
    "rest": _rest,
    "seq": _sequence,
    "stack": _stack,
    "choice": _choice,
    "slow": _slow,
    "poly": _poly,
    "fast": _speed(False),
    "div": _speed(True),
    "maybe": _maybe,
    "euclid": _euclid,
    "range": _range,
}
