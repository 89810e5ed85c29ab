"""The syntax of mini-notation: text -> a tree of nodes, or a ScoreError with the caret on the spot.

Written by hand rather than with lark: with one character of look-ahead it is five times faster, and
it can say at each point what a player most likely meant. The grammar:

    pattern  = sequence ("," sequence)*  |  sequence ("|" sequence)*
    sequence = feet: steps between single dots (a b . c d)
    step     = term ops* | "_" | "@" number? | "!" number? | "~" | "-"
    term     = word | number | 'text' | chord
             | "[" pattern "]" | "<" pattern ">" | "{" pattern "}" ("%" term)?
    ops      = "*" term | "/" term | "!" number? | "@" number? | "?" number?
             | "(" k "," n ("," r)? ")" | ".." term
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from demon_live.errors import ScoreError, Span

MAX_NESTING = 64
MAX_STEPS = 4096
CHANCE = "a chance goes from 0 to 1"

_ONE = Fraction(1)
_HEAVIEST = 1000000
_WEIGHTED = "a@3 b gives a three quarters"

Kind = Literal[
    "atom",
    "rest",
    "seq",
    "stack",
    "choice",
    "slow",
    "poly",
    "fast",
    "div",
    "maybe",
    "euclid",
    "range",
]
#: A word or number, with the `-`, `.` and `:` that belong to it.
_WORD = re.compile(r"-?(?:\.(?=\d))?\w(?:\w|[#:](?=[\w.-])|[#']|-(?=\w)|\.(?=\w))*")
#: A chord with signs that mean something else elsewhere: C^7, G/B.
_CHORD = re.compile(r"[A-G][#b]?(?:[\w#]*\^\w*(?:/[A-G][#b]?)?|[\w#-]*/[A-G][#b]?)(?![\w^/#])")
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_BLANK = re.compile(r"\s+")
_TEXT = re.compile(r"'((?:[^'\\\n]|\\.)*)'")
_CLOSE = {"[": "]", "<": ">", "{": "}", "(": ")"}


class MiniNode(NamedTuple):
    """A node. children: by kind: the steps, the layers, [term, factor], [term, k, n, r]...

    value: of an atom; the chance of `maybe`. weight: share of the sequence. start, end: offsets.
    """

    kind: Kind
    start: int
    end: int
    children: tuple[MiniNode, ...] = ()
    value: float | int | str | None = None
    weight: Fraction = _ONE
    repeat: int = 1


@lru_cache(maxsize=1024)
def parse_mini(text: str) -> MiniNode:
    """The tree of a mini-notation string. Raises ScoreError; its span points into `text`."""
    parser = _MiniParser(text)
    node = parser.whole()
    # Operators nest as well: bd*2?*2 ... must not go deeper than queries can follow.
    todo = [(node, 1)]
    while todo:
        inner, depth = todo.pop()
        if depth > 2 * MAX_NESTING:
            raise parser.fail(f"nested deeper than {MAX_NESTING}", inner.start, inner.end)
        todo += [(child, depth + 1) for child in inner.children]
    return node


class _MiniParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.depth = 0

    # --- errors ---
    def fail(
        self, message: str, start: int, end: int | None = None, hint: str | None = None
    ) -> ScoreError:
        end = start + 1 if end is None else end
        return ScoreError(message, span=Span.of(self.text, start, end), hint=hint, source=self.text)

    # --- characters ---
    def blank(self) -> None:
        found = _BLANK.match(self.text, self.pos)
        if found is not None:
            self.pos = found.end()

    def peek(self) -> str:
        return self.text[self.pos] if self.pos < len(self.text) else ""

    # --- levels ---
    def whole(self) -> MiniNode:
        node = self.pattern("")
        if self.pos < len(self.text):
            c = self.peek()
            if c in "]>})":
                opener = {v: k for k, v in _CLOSE.items()}[c]
                raise self.fail(
                    f'"{c}" closes nothing', self.pos, hint=f'remove it, or open it with "{opener}"'
                )
            raise self.unexpected()
        return node

    def unexpected(self) -> ScoreError:
        c, at = self.peek(), self.pos
        if c in "*/@!?%:(":
            name = {
                "(": "(k,n)",
                "*": "*n",
                "/": "/n",
                "@": "@n",
                "!": "!n",
                "?": "?p",
                "%": "%n",
                ":": ":n",
            }[c]
            if c == "%":
                return self.fail(
                    '"%" belongs behind "}"',
                    at,
                    hint="{a b c}%4 plays 4 steps of the group a cycle",
                )
            return self.fail(
                f'"{c}" has no step in front of it', at, hint=f"write it against a step: bd{name}"
            )
        if c == "'":
            return self.fail(
                "this text has no closing '", at, len(self.text), hint="write 'like this'"
            )
        if c == "^":
            return self.fail(
                '"^" means nothing here',
                at,
                hint="Strudel's step marks and Tidal's variables have no use",
            )
        hint = (
            "words, numbers, 'text', ~ and the signs [ ] < > { } ( ) * / ! @ _ ? | , . .. are known"
        )
        return self.fail(f'"{c}" means nothing in mini-notation', at, hint=hint)

    def pattern(self, closer: str) -> MiniNode:
        start = self.pos
        layers = [self.sequence(closer)]
        mark = ""
        while self.peek() and self.peek() in ",|":
            c = self.peek()
            if mark and c != mark:
                raise self.fail(
                    '"," and "|" cannot stand side by side',
                    self.pos,
                    hint="group one of them: [a | b], c",
                )
            if not layers[-1].children:
                raise self.fail(f'nothing in front of "{c}"', self.pos, hint="a rest is ~")
            mark = c
            self.pos += 1
            layers.append(self.sequence(closer))
        if mark and not layers[-1].children:
            at = max(start, self.text.rfind(mark, start, max(self.pos, start + 1)))
            raise self.fail(f'nothing behind "{mark}"', at, hint="a rest is ~")
        if not mark:
            return layers[0]
        kind: Kind = "stack" if mark == "," else "choice"
        return MiniNode(kind, start, self.pos, tuple(layers))

    def sequence(self, closer: str) -> MiniNode:
        self.blank()
        start = self.pos
        feet: list[list[MiniNode]] = [[]]
        count = 0
        while True:
            self.blank()
            c = self.peek()
            if c == "" or c in "]>}),|":
                break
            if c == "." and self.foot():
                feet.append([])
                continue
            before = len(feet[-1])
            self.step(feet[-1])
            count += feet[-1][-1].repeat if len(feet[-1]) > before else 0
            if count > MAX_STEPS:
                raise self.fail(f"more than {MAX_STEPS} steps", feet[-1][-1].start, self.pos)
        if len(feet) > 1:
            steps = [MiniNode("seq", f[0].start, f[-1].end, tuple(f)) for f in feet if f]
        else:
            steps = feet[0]
        return MiniNode("seq", start, self.pos, tuple(steps))

    def foot(self) -> bool:
        before, after = self.text[self.pos - 1 : self.pos], self.text[self.pos + 1 : self.pos + 2]
        if (before and not before.isspace()) or (after and not after.isspace()):
            return False
        self.pos += 1
        return True

    # --- steps ---
    def step(self, steps: list[MiniNode]) -> None:
        c, at = self.peek(), self.pos
        after = self.text[at + 1 : at + 2]
        if c == "_" and after.isdigit():
            found = _NUMBER.match(self.text, at + 1)
            end = at + 2 if found is None else found.end()
            hint = f"write @{self.text[at + 1 : end]} against the step before it, or blanks: _ _"
            raise self.fail('"_" takes no number', at, end, hint)
        if c == "_" and not after.isalpha():
            self.pos += 1
            if not steps:
                raise self.fail('"_" lengthens the step before it, and there is none', at)
            self.lengthen(steps, at, _ONE)
        elif c == "@" and steps:
            self.pos += 1
            n = self.number()
            if n is None and not self.bare():
                raise self.fail('"@" needs a number behind it', at, at + 2, hint=_WEIGHTED)
            self.lengthen(steps, at, _ONE if n is None else Fraction(str(n)) - 1)
        elif c == "!" and steps:
            # `a ! b` and `a !2 b`: further copies of the step in front, with its weight.
            copies = self.copies()
            if copies:
                steps.append(steps[-1]._replace(repeat=copies))
        elif self.text.startswith("..", at):
            self.range(steps)
        else:
            steps.append(self.ops(self.term()))

    def lengthen(self, steps: list[MiniNode], at: int, more: Fraction) -> None:
        """Add to the weight of the last step; of copies, the last one."""
        last = steps.pop()
        if not 0 <= last.weight + more <= _HEAVIEST:
            raise self.fail(f"a weight goes from 0 to {_HEAVIEST}", at, self.pos)
        if last.repeat > 1:
            steps.append(last._replace(repeat=last.repeat - 1))
        steps.append(last._replace(repeat=1, weight=last.weight + more, end=self.pos))

    def bare(self) -> bool:
        """True if no number follows a sign, but the end of a step or another sign."""
        return not self.peek() or self.peek().isspace() or self.peek() in "]>}),|*/!@?(_"

    def range(self, steps: list[MiniNode]) -> None:
        at = self.pos
        if not steps:
            raise self.fail('".." has no beginning', at, at + 2, hint="write 0 .. 3")
        self.pos += 2
        self.blank()
        if self.peek() in ("", "]", ">", "}", ")", ",", "|"):
            raise self.fail('".." has no end', at, at + 2, hint="write 0 .. 3")
        first = steps.pop()
        last = self.term()
        steps.append(self.ops(MiniNode("range", first.start, self.pos, (first, last))))

    def term(self) -> MiniNode:
        c, at = self.peek(), self.pos
        if c in _CLOSE and c != "(":
            return self.group(c)
        if c == "'":
            found = _TEXT.match(self.text, at)
            if found is None:
                raise self.unexpected()
            self.pos = found.end()
            return MiniNode("atom", at, self.pos, value=re.sub(r"\\(.)", r"\1", found.group(1)))
        found = _CHORD.match(self.text, at) or _WORD.match(self.text, at)
        if found is not None and found.group() != "_":
            self.pos = found.end()
            return MiniNode("atom", at, self.pos, value=_value(found.group()))
        if c in "~-":
            self.pos += 1
            return MiniNode("rest", at, self.pos)
        raise self.unexpected()

    def group(self, opener: str) -> MiniNode:
        at = self.pos
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.fail(f"nested deeper than {MAX_NESTING}", at)
        self.pos += 1
        inner = self.pattern(_CLOSE[opener])
        self.close(opener, at)
        self.depth -= 1
        if opener == "[":
            return inner._replace(start=at, end=self.pos)
        layers = inner.children if inner.kind == "stack" else (inner,)
        if opener == "<":
            if inner.kind == "choice":
                layers = (MiniNode("seq", inner.start, inner.end, (inner,)),)
            return MiniNode("slow", at, self.pos, layers)
        if inner.kind == "choice":
            raise self.fail('"|" has no meaning in { }', at, self.pos, hint="use [a | b]")
        if self.peek() != "%":
            return MiniNode("poly", at, self.pos, layers)
        mark = self.pos
        self.pos += 1
        return MiniNode("poly", at, self.pos, (*layers, self.factor("%", mark)), value="%")

    def close(self, opener: str, at: int) -> None:
        want = _CLOSE[opener]
        if self.peek() == want:
            self.pos += 1
            return
        if not self.peek():
            raise self.fail(f'missing "{want}" opened here', at, hint=f"write {opener}a b{want}")
        if self.peek() in "]>})":
            raise self.fail(
                f'"{self.peek()}" where "{want}" must close the "{opener}"',
                self.pos,
                hint="brackets close in order",
            )
        raise self.unexpected()

    def factor(self, sign: str, at: int) -> MiniNode:
        c = self.peek()
        if not c or c.isspace() or c in "]>}),|*/!@?:%":
            examples = {"*": "bd*2", "/": "bd/2", "%": "{a b c}%4"}
            raise self.fail(f'"{sign}" needs a number behind it', at, hint=examples.get(sign))
        node = self.term()
        if node.kind == "rest":
            raise self.fail(f'"{sign}" needs a number behind it', at, self.pos)
        return node

    def number(self) -> float | None:
        found = _NUMBER.match(self.text, self.pos)
        if found is None:
            return None
        self.pos = found.end()
        return float(found.group())

    def ops(self, node: MiniNode) -> MiniNode:
        for _ in range(MAX_NESTING):
            c, at = self.peek(), self.pos
            if c in ("*", "/") and c:
                self.pos += 1
                kind: Kind = "fast" if c == "*" else "div"
                node = self.wrap(kind, node, (self.factor(c, at),))
            elif c == "!":
                node = self.repeat(node)
            elif c == "@":
                node = self.weight(node)
            elif c == "?":
                self.pos += 1
                chance = self.number()
                if chance is not None and not 0 <= chance <= 1:
                    raise self.fail(CHANCE, at, self.pos)
                node = self.wrap("maybe", node, (), 0.5 if chance is None else chance)
            elif c == "(":
                node = self.euclid(node)
            elif self.text.startswith("..", at) and not self.text.startswith("...", at):
                holder = [node]
                self.range(holder)
                return holder[0]
            else:
                return node
        raise self.fail(f"more than {MAX_NESTING} operators on a step", node.start, self.pos)

    def wrap(
        self, kind: Kind, node: MiniNode, more: tuple[MiniNode, ...], value: float | None = None
    ) -> MiniNode:
        """An operator around a node; weight and repetition stay outside."""
        bare = node.repeat == 1 and node.weight == 1
        inner = node if bare else node._replace(weight=_ONE, repeat=1)
        return MiniNode(kind, node.start, self.pos, (inner, *more), value, node.weight, node.repeat)

    def copies(self) -> int:
        """How many more copies a "!" asks for. Raises ScoreError."""
        at = self.pos
        self.pos += 1
        n = self.number()
        if n is None:
            if self.bare():
                return 1
            raise self.fail(
                '"!" needs a whole number behind it', at, self.pos + 1, hint="a!3 is a a a"
            )
        if n != int(n) or n < 1:
            raise self.fail('"!" needs a whole number from 1', at, self.pos, hint="a!3 is a a a")
        if n > MAX_STEPS:
            raise self.fail(f"more than {MAX_STEPS} steps", at, self.pos)
        return int(n) - 1

    def repeat(self, node: MiniNode) -> MiniNode:
        repeat = node.repeat + self.copies()
        return node._replace(repeat=repeat, end=self.pos)

    def weight(self, node: MiniNode) -> MiniNode:
        at = self.pos
        self.pos += 1
        n = self.number()
        if n is None:
            if self.bare():
                return node._replace(weight=node.weight + 1, end=self.pos)
            raise self.fail('"@" needs a number behind it', at, self.pos + 1, hint=_WEIGHTED)
        if not 0 <= n <= _HEAVIEST:
            raise self.fail(f"a weight goes from 0 to {_HEAVIEST}", at, self.pos)
        return node._replace(weight=Fraction(str(n)), end=self.pos)

    def euclid(self, node: MiniNode) -> MiniNode:
        at = self.pos
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.fail(f"nested deeper than {MAX_NESTING}", at)
        self.pos += 1
        hint = "bd(3,8) spreads 3 over 8 steps; bd(3,8,2) turns them by 2"
        args: list[MiniNode] = []
        while True:
            part = self.sequence(")")
            if not part.children:
                raise self.fail(
                    "a number is missing here" if self.peek() else 'missing ")" opened here',
                    min(self.pos, len(self.text) - 1) if self.peek() else at,
                    hint=hint,
                )
            args.append(part)
            if self.peek() == "," and len(args) < 3:
                self.pos += 1
                continue
            break
        self.close("(", at)
        if len(args) < 2:
            raise self.fail("(k,n) needs two numbers", at, self.pos, hint=hint)
        self.depth -= 1
        return self.wrap("euclid", node, tuple(args))


def _value(word: str) -> float | int | str:
    if _NUMBER.fullmatch(word):
        number = float(word)
        if abs(number) > 1e15:
            return word if number in (float("inf"), float("-inf")) else number
        return int(number) if number.is_integer() else number
    return word
