"""A score's text -> a Program, or a DemonError with all that is wrong.

Parse, check, compile, and sample two cycles of each lane for trial: nothing reaches the session that
was not played once. One error does not hide the next, since statements are compiled one by one.

Threads: pure functions (the parser's cache apart).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from demon_live.controls import CONTROLS, STAGE, Control, find
from demon_live.errors import ScoreError, ScoreWarning, Span, nearest
from demon_live.lang.expressions import Scope, Work, compile_expr, places_of
from demon_live.lang.lane import Lane, trial
from demon_live.lang.mini import Chances
from demon_live.lang.mini_syntax import MAX_NESTING
from demon_live.lang.parse import KEYWORDS, parse_statement
from demon_live.lang.pattern import Curve, Pattern, PatternError
from demon_live.lang.program import (
    Bind,
    Chain,
    Go,
    Let,
    Program,
    Scene,
    SetStage,
    StageValue,
    Statement,
    When,
    Word,
)
from demon_live.lang.split import Chunk, split
from demon_live.lang.syntax import (
    BindNode,
    Call,
    ChainNode,
    Expr,
    GoNode,
    LetNode,
    Method,
    Mini,
    Name,
    Num,
    OpenNode,
    StageNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
)
from demon_live.lang.unparse import unparse_expr

__all__ = ["MAX_TEXT", "compile_source"]

MAX_TEXT = 64 * 1024
_MAX_ERRORS = 50
#: Cycles of a lane that are sampled before it is accepted; more of a pattern with few events.
_TRIAL = 2
_TRIAL_MOST = 16
#: Where in its span a curve is tried.
_TRIED = np.linspace(0, 1, 32, endpoint=False)


def compile_source(
    text: str, name: str = "<score>", *, lets: Mapping[str, Let] | None = None, deck: str = "main", seed: int = 0
) -> Program:
    """The Program of a score. Raises ScoreError; its `.errors` are all errors, in the order of the text.

    lets: words defined before (at the prompt). deck: the deck of statements outside of any
    `deck`. seed: of all lots that the score draws.
    """
    compiler = _Compiler(text, name, deck, seed)
    compiler.lets.update(lets or {})
    return compiler.run()


@dataclass(slots=True)
class _Block:
    """An open `deck NAME {` or `scene NAME {`."""

    kind: str
    name: str
    place: Span
    deck: str
    body: list[Bind | SetStage] = field(default_factory=list)


class _Compiler:
    def __init__(self, text: str, name: str, deck: str, seed: int) -> None:
        self.text, self.name, self.deck, self.seed = text, name, deck, seed
        self.errors: list[ScoreError] = []
        self.warnings: list[ScoreWarning] = []
        self.statements: list[Statement] = []
        self.blocks: list[_Block] = []
        self.lets: dict[str, Let] = {}

    # --- errors ---
    def span(self, chunk: Chunk, start: int, end: int) -> Span:
        return Span.of(self.text, chunk.start + start, chunk.start + end)

    def error(self, message: str, span: Span, hint: str | None = None) -> None:
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(ScoreError(message, span=span, hint=hint, source=self.text, name=self.name))

    def warn(self, message: str, span: Span, hint: str | None = None) -> None:
        if len(self.warnings) < _MAX_ERRORS:
            self.warnings.append(ScoreWarning(message, span=span, hint=hint, source=self.text, name=self.name))

    def take(self, chunk: Chunk, error: ScoreError) -> None:
        """An error with a place in the statement, moved to the score."""
        start, end = (error.span.start, error.span.end) if error.span else (0, len(chunk.text))
        self.error(error.message, self.span(chunk, start, end), error.hint)

    # --- the whole ---
    def run(self) -> Program:
        if len(self.text) > MAX_TEXT:
            self.error(f"a score has at most {MAX_TEXT // 1024} KiB", Span.of(self.text, MAX_TEXT, MAX_TEXT + 1),
                       "several files may play together")
            raise self.failure()
        nodes: list[tuple[Chunk, StatementNode | None]] = []
        for chunk in split(self.text, KEYWORDS):
            node = None
            if chunk.kind == "statement":
                found = parse_statement(chunk.text) if _shallow(chunk.text) else _too_deep(chunk.text)
                if isinstance(found, ScoreError):
                    self.take(chunk, found)
                    continue
                node = found
            nodes.append((chunk, node))
        self.define(nodes)
        for chunk, node in nodes:
            self.statement(chunk, node)
        for block in self.blocks:
            self.error(f'missing "}}" of {block.kind} {block.name}', block.place, 'close the block with "}"')
        if self.errors:
            raise self.failure()
        return self.program()

    def failure(self) -> ScoreError:
        ordered = sorted(self.errors, key=lambda e: e.span.start if e.span else 0)
        first, others = ordered[0], ordered[1:]
        return ScoreError(first.message, span=first.span, hint=first.hint, source=self.text, name=self.name, others=others)

    def define(self, nodes: list[tuple[Chunk, StatementNode | None]]) -> None:
        """Words of the score itself: known in all of it, also above their line."""
        for chunk, node in nodes:
            if not isinstance(node, LetNode):
                continue
            span = self.span(chunk, node.start, node.end)
            if find(node.name) is not None or node.name in KEYWORDS:
                self.error(f'"{node.name}" is a control or a word of the language', span, "choose another name")
                continue
            self.lets[node.name] = Let(node.name, node, chunk.text, span)

    def program(self) -> Program:
        decks: dict[str, dict[str, Lane]] = {"main": {}}
        stage: dict[str, StageValue] = {}
        for s in self.statements:
            if isinstance(s, Bind):
                lanes = decks.setdefault(s.deck, {})
                if s.lane is None:
                    lanes.pop(s.control, None)
                else:
                    lanes[s.control] = s.lane
            elif isinstance(s, SetStage) and (s.deck == self.deck or s.word not in ("loop", "source")):
                stage[s.word] = s.value
        return Program(
            self.name, self.text, tuple(self.statements), tuple(self.warnings), decks, stage,
            {s.name: s for s in self.statements if isinstance(s, Scene)},
            tuple(s for s in self.statements if isinstance(s, Chain)),
            {s.name: s for s in self.statements if isinstance(s, Let)},
        )

    # --- statements ---
    def statement(self, chunk: Chunk, node: StatementNode | None) -> None:
        whole = self.span(chunk, 0, len(chunk.text))
        if node is None:
            self.close(whole)
            return
        try:
            self.one(chunk, node, self.span(chunk, node.start, node.end))
        except ScoreError as error:
            self.take(chunk, error)

    def one(self, chunk: Chunk, node: StatementNode, span: Span) -> None:
        in_scene = any(b.kind == "scene" for b in self.blocks)
        match node:
            case OpenNode():
                self.open(node, span)
            case BindNode():
                self.add(self.bind(chunk, node, span))
            case StageNode():
                self.add(self.stage(chunk, node, span))
            case _ if in_scene:
                self.error("a scene holds bindings and stage words only", span)
            case WordNode():
                self.add(Word(node.name, node.args, self.when(chunk, node.whens), span))
            case GoNode():
                self.add(Go(node.scene, self.when(chunk, node.whens), span))
            case ChainNode():
                self.add(self.chain(chunk, node, span))
            case LetNode():
                if node.name in self.lets:
                    self.check_let(chunk, node)
                    self.add(self.lets[node.name])

    def add(self, statement: Statement | None) -> None:
        if statement is None:
            return
        scene = next((b for b in self.blocks if b.kind == "scene"), None)
        if scene is not None and isinstance(statement, (Bind, SetStage)):
            scene.body.append(statement)
        else:
            self.statements.append(statement)

    def open(self, node: OpenNode, span: Span) -> None:
        if node.kind == "scene" and not node.block:
            self.error("a scene needs a block", span, f"write scene {node.name} {{ ... }}")
            return
        if node.kind == "scene" and any(b.kind == "scene" for b in self.blocks):
            self.error("a scene inside a scene", span)
        if node.kind == "deck" and any(b.kind == "deck" for b in self.blocks):
            self.error("a deck inside a deck", span, 'close the other one with "}" first')
        if len(self.blocks) >= MAX_NESTING:
            self.error(f"nested deeper than {MAX_NESTING}", span)
            return
        if node.block:
            self.blocks.append(_Block(node.kind, node.name, span, self.deck))
        if node.kind == "deck":
            self.deck = node.name

    def close(self, place: Span) -> None:
        if not self.blocks:
            self.error('"}" closes nothing', place, "remove it")
            return
        block = self.blocks.pop()
        self.deck = block.deck
        if block.kind == "scene":
            # The place of a scene is its whole block.
            span = Span.of(self.text, block.place.start, place.end)
            self.statements.append(Scene(block.name, tuple(block.body), span))

    # --- when ---
    def when(self, chunk: Chunk, nodes: tuple[WhenNode, ...]) -> When:
        start: When | None = None
        move: When | None = None
        for n in nodes:
            if n.kind in ("at", "over", "xfade") and n.cycles <= 0 or n.cycles < 0 or n.cycles > 100_000:
                raise ScoreError(f"{n.kind} needs a number of cycles above 0", span=Span.of(chunk.text, n.start, n.end))
            made = When(n.kind, n.cycles)  # type: ignore[arg-type]
            if n.kind in ("over", "xfade"):
                if move is not None:
                    raise ScoreError("one over or xfade is enough", span=Span.of(chunk.text, n.start, n.end))
                move = made
            else:
                if start is not None:
                    raise ScoreError("one of now, at and in is enough", span=Span.of(chunk.text, n.start, n.end))
                start = made
        if start is None:
            return move or When()
        return When(start.kind, start.cycles, move)

    # --- one kind each ---
    def chain(self, chunk: Chunk, node: ChainNode, span: Span) -> Chain:
        if any(n <= 0 for _, n in node.scenes):
            raise ScoreError("the length of a scene is above 0 cycles", span=Span.of(chunk.text, node.start, node.end))
        return Chain(node.scenes, self.when(chunk, node.whens), span)

    def stage(self, chunk: Chunk, node: StageNode, span: Span) -> SetStage | None:
        spec = STAGE[node.word]
        place = self.span(chunk, node.value_start, node.whens[0].start if node.whens else node.end)
        value: StageValue
        if spec.numeric:
            if not isinstance(node.value, Fraction):
                self.error(f"{node.word} takes a number", place, f"write {spec.example}")
                return None
            value = float(node.value)
            if not spec.low <= value <= spec.high:
                self.error(f"{node.word} goes from {spec.low:g} to {spec.high:g}, not {value:g}", place)
                return None
            if spec.shape == "integer" and node.value.denominator != 1:
                self.error(f"{node.word} takes a whole number", place, f"write {spec.example}")
                return None
        elif isinstance(node.value, Fraction):
            self.error(f"{node.word} takes text", place, f"write {spec.example}")
            return None
        else:
            value = node.value
            if spec.choices and value not in spec.choices:
                self.error(f"{node.word} is one of {', '.join(spec.choices)}", place, f"write {spec.example}")
                return None
        return SetStage(self.deck, node.word, value, self.when(chunk, node.whens), span)

    def check_let(self, chunk: Chunk, node: LetNode) -> None:
        """A definition without arguments is compiled once, so that its errors show at its own place."""
        if not node.params:
            compile_expr(node.expr, self.scope(chunk, node.name))

    def scope(self, chunk: Chunk, key: str) -> Scope:
        # Lots depend on the deck and the control, never on the line: edits elsewhere change nothing.
        seed = self.seed * 1_000_003 + zlib.crc32(f"{self.deck}.{key}".encode())
        lets = {n: (let.node, let.source) for n, let in self.lets.items()}
        return Scope(chunk.text, lets, Chances(seed), Work(), {})

    def bind(self, chunk: Chunk, node: BindNode, span: Span) -> Bind | None:
        name = self.span(chunk, node.start, node.name_end)
        spec = CONTROLS.get(node.control) or (find(node.control) if node.control.startswith("lora.") else None)
        if spec is None:
            self.unknown_control(node, name)
            return None
        deck = node.deck or self.deck
        when = self.when(chunk, node.whens)
        if node.expr is None:
            return Bind(deck, node.control, None, when, span, "default")
        pattern = compile_expr(node.expr, self.scope(chunk, node.control))
        check_kind(spec, node.expr, pattern, chunk.text)
        place = self.span(chunk, node.expr.start, node.expr.end)
        lane = Lane.of(spec, pattern, chunk.text[node.expr.start : node.expr.end])
        self.try_lane(chunk, node.expr, spec, pattern, place)
        self.advise(chunk, node.expr, spec, place)
        key = unparse_expr(node.expr) + self.meaning(node.expr)
        return Bind(deck, node.control, lane, when, span, key)

    def unknown_control(self, node: BindNode, span: Span) -> None:
        if node.control in STAGE:
            self.error(f'{node.control} is a stage word and takes no "="', span, f"write {STAGE[node.control].example}")
            return
        if node.control in KEYWORDS:
            self.error(f'"{node.control}" is a word of the language, not a control', span)
            return
        near = nearest(node.control, CONTROLS)
        hint = f"did you mean {near[0]}?" if near else "a shape of your own is: let name = ...; ? lists the controls"
        self.error(f'there is no control "{node.control}"', span, hint)

    def meaning(self, expr: Expr) -> str:
        """The definitions that an expression rests on, as text."""
        out, seen, todo = "", set(), [expr]
        while todo:
            for used in _names(todo.pop()):
                if used in self.lets and used not in seen:
                    seen.add(used)
                    let = self.lets[used].node
                    out += f"; {used}({','.join(let.params)}) = {unparse_expr(let.expr)}"
                    todo.append(let.expr)
        return out

    # --- trial ---
    def try_lane(self, chunk: Chunk, expr: Expr, spec: Control, pattern: Pattern, place: Span) -> None:
        # What repeats sooner needs no second look; what changes slowly and costs little gets a longer one.
        period = pattern.period or _TRIAL_MOST + 1
        cheap = pattern.cost * period <= _TRIAL_MOST
        cycles = period if cheap else min(period, _TRIAL)
        try:
            events = trial(pattern, cycles)
        except PatternError as error:
            self.error(str(error), place, "use fewer or slower steps")
            return
        low, high = spec.low, spec.high
        for e in events:
            if isinstance(e.value, Curve):
                if not spec.numeric:
                    self.error(f"{spec.name} takes text, and this is a curve", place, f"write {spec.example}")
                    return
                begin = float(e.begin)
                values = e.value.f(begin + _TRIED * (float(e.end) - begin))
                low, high = min(low, float(np.min(values))), max(high, float(np.max(values)))
            elif isinstance(e.value, str) != (not spec.numeric):
                # A kind that only shows when it plays.
                what = "numbers" if spec.numeric else "text"
                self.error(f"{spec.name} takes {what}, and this gives {e.value!r}", place, f"write {spec.example}")
                return
            elif spec.numeric:
                low, high = min(low, float(e.value)), max(high, float(e.value))
            elif spec.choices and e.value not in spec.choices and e.value != spec.default:
                self.bad_choice(chunk, expr, spec, str(e.value), place)
                return
        if low < spec.low or high > spec.high:
            self.excess(spec, low, high, place)

    def excess(self, spec: Control, low: float, high: float, place: Span) -> None:
        unit = f" {spec.unit}" if spec.unit else ""
        reached = high if high > spec.high else low
        side = f"the top is clipped to {spec.high:g}" if high > spec.high else f"the bottom is clipped to {spec.low:g}"
        self.warn(
            f"{spec.name} goes from {spec.low:g} to {spec.high:g}{unit}, this reaches {reached:.4g}", place,
            f"{side}; write .range({max(low, spec.low):.4g}, {min(high, spec.high):.4g})" if spec.shape == "curve" else side)

    def bad_choice(self, chunk: Chunk, expr: Expr, spec: Control, value: str, place: Span) -> None:
        found = places_of(expr, lambda v: v == value)
        span = self.span(chunk, found[0][1], found[0][2]) if found else place
        near = nearest(value, spec.choices)
        few = ", ".join(spec.choices[:4]) + (" ..." if len(spec.choices) > 4 else "")
        self.error(f"{spec.name} knows no {value!r}", span, f"did you mean {near[0]!r}?" if near else f"it is one of {few}")

    def advise(self, chunk: Chunk, expr: Expr, spec: Control, place: Span) -> None:
        """Text in double quotes is mini-notation: several bare words there are seldom meant."""
        if spec.numeric or not isinstance(expr, Mini):
            return
        words = expr.text.split()
        if len(words) > 1 and all(w.strip(",").replace("-", "a").isalnum() for w in words) and not expr.text[0].isdigit():
            self.warn(f"in double quotes this is {len(words)} texts in turn", place, f"one text goes in single quotes: '{expr.text}'")


def check_kind(spec: Control, expr: Expr, pattern: Pattern, source: str) -> None:
    """A number where text belongs, or text where a number belongs: ScoreError at its place."""
    if spec.numeric and pattern.text:
        found = places_of(expr, lambda v: isinstance(v, str))
        word, start, end = found[0] if found else ("this", expr.start, expr.end)
        note = word[:1].lower() in "abcdefg" and word[1:].strip("#b0123456789") == ""
        hint = "note names become numbers with .note" if note else f"it goes from {spec.range_text}: {spec.example}"
        raise ScoreError(f'{spec.name} takes numbers, and "{word}" is text', span=Span.of(source, start, end), hint=hint)
    if not spec.numeric:
        found = places_of(expr, lambda v: not isinstance(v, str))
        if isinstance(expr, Num):
            found = [(str(expr.value), expr.start, expr.end)]
        if found:
            word, start, end = found[0]
            raise ScoreError(
                f"{spec.name} takes text, and {source[start:end]} is a number", span=Span.of(source, start, end),
                hint=f"write {spec.example}")


def _names(expr: Expr) -> set[str]:
    """All names that an expression mentions."""
    out: set[str] = set()
    todo: list[object] = [expr]
    while todo:
        node = todo.pop()
        if isinstance(node, (Name, Call, Method)):
            out.add(node.name)
        if isinstance(node, (Mini, Text, Num)) or node is None:
            continue
        for slot in getattr(node, "__slots__", ()):
            value = getattr(node, slot)
            todo.extend(value if isinstance(value, tuple) else [value] if hasattr(value, "start") else [])
    return out


def _shallow(text: str) -> bool:
    """False if brackets nest too deep for any parser."""
    depth = most = 0
    for c in text:
        if c in "([{<":
            depth += 1
            most = max(most, depth)
        elif c in ")]}>":
            depth = max(0, depth - 1)
    return most <= 4 * MAX_NESTING


def _too_deep(text: str) -> ScoreError:
    at = max(text.find("("), 0)
    return ScoreError(f"nested deeper than {MAX_NESTING}", span=Span.of(text, at, at + 1), hint="give a part a name with let")
