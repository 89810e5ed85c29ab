"""Compile a score to a Program, or raise a DemonError with all its errors.

Statements are parsed, checked and compiled one by one, so that one error does not hide the next.
The first cycles of each lane are sampled: nothing reaches the session that cannot play.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from types import MappingProxyType

from demon_live.controls import CONTROLS, EVERY, FADER, IN, NOTES, PLUS_NOTES, SETTINGS, find, names
from demon_live.errors import ScoreError, Span, UsageError
from demon_live.lang.check import (
    Diagnostics,
    Site,
    advise,
    check_args,
    check_kind,
    check_paths,
    check_quotes,
    files_of,
    lets_text,
    shallow,
    tidal_remark,
    too_deep,
    try_lane,
)
from demon_live.lang.controllers import ControllerHistory
from demon_live.lang.destinations import (
    MIDI_NAMES,
    Destination,
    cc_of,
    outgoing,
    read_destination,
)
from demon_live.lang.expressions import compile_expr
from demon_live.lang.functions import FUNCTIONS
from demon_live.lang.keywords import KEYWORDS, meant
from demon_live.lang.lane import ControllerLane, Lane, PatternLane
from demon_live.lang.mini import CHANCE_RULE, Chances
from demon_live.lang.mini_syntax import MAX_NESTING
from demon_live.lang.parse import parse_statement
from demon_live.lang.pattern import Pattern
from demon_live.lang.program import (
    Bind,
    Chain,
    Go,
    Let,
    Program,
    Scene,
    Setting,
    SettingValue,
    Statement,
    When,
    Word,
)
from demon_live.lang.prompts import WEIGHT, PromptLane, is_sum, terms
from demon_live.lang.samples import beside
from demon_live.lang.scope import Scope, Work
from demon_live.lang.signals import RANDOM, SIGNALS
from demon_live.lang.split import Chunk, split, whole
from demon_live.lang.syntax import (
    BindNode,
    ChainNode,
    Expr,
    GoNode,
    LetNode,
    Name,
    OpenNode,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
    unparse_expr,
)

MAX_TEXT = 64 * 1024
MAX_STATEMENTS = 1000
MAX_ERRORS = 20
#: Bars from one take of the input to the next.
MAX_EVERY = 1024
#: Of a `when`.
MAX_CYCLES = 100_000


def compile_source(
    text: str,
    name: str = "<score>",
    *,
    lets: Mapping[str, Let] | None = None,
    deck: str = "main",
    seed: int = 0,
    chance: int = CHANCE_RULE,
    outs: Mapping[str, Destination] = MappingProxyType({}),
) -> Program:
    """Compile a score.

    Args:
        text: at most MAX_TEXT characters.
        name: of the file or prompt, for errors.
        lets: words defined before (at the prompt).
        deck: the deck of statements outside of any `deck`.
        seed: of all random draws.
        chance: the version of their rule; sets name theirs.
        outs: decks that are known to make no sound, and where they go.

    Raises:
        ScoreError: its `.errors` are all errors, in text order.
    """
    compiler = _Compiler(text, name, deck, seed)
    compiler.chance = chance
    compiler.lets.update(lets or {})
    compiler.outs.update(outs)
    with beside(name):
        return compiler.run()


#: (binding, its statement, its place in the score, deck, scope of its expression)
Visit = Callable[[BindNode, Chunk, Span, str, Scope], None]


def deck_at(text: str, at: int) -> tuple[str, dict[str, Destination]]:
    """The deck of a statement that begins at an offset, and the decks of a score that make no
    sound. Statements with errors are left out."""
    compiler = _Compiler(text, "<score>", "main", 0)
    nodes: list[tuple[Chunk, StatementNode | None]] = []
    for chunk in split(text, KEYWORDS):
        node = None if chunk.kind == "close" else parse_statement(chunk.text)
        if not isinstance(node, ScoreError):
            nodes.append((chunk, node))
    deck = compiler.find_outs([row for row in nodes if row[0].start < at])
    compiler.find_outs(nodes)
    return deck, compiler.outs


def visit_bindings(text: str, visit: Visit) -> None:
    """Call `visit` for each binding of a score; statements with errors are left out.

    For views of a score that is being edited. A ScoreError from `visit` leaves the binding out too.
    """
    compiler = _Compiler(text, "<score>", "main", 0, visit)
    compiler.compile(split(text, KEYWORDS))


@dataclass(slots=True)
class _OpenBlock:
    """An open `deck NAME {` or `scene NAME {`. deck: the current deck outside of it."""

    kind: str
    name: str
    place: Span
    deck: str
    base: str = ""
    restart: bool = False
    body: list[Bind | Setting] = field(default_factory=list)


class _Compiler:
    def __init__(
        self, text: str, name: str, deck: str, seed: int, visit: Visit | None = None
    ) -> None:
        self.text, self.name, self.deck, self.seed, self.visit = text, name, deck, seed, visit
        self.report = Diagnostics(text, name)
        self.work = Work()
        self.statements: list[Statement] = []
        self.blocks: list[_OpenBlock] = []
        self.lets: dict[str, Let] = {}
        self.chance = CHANCE_RULE
        self.outs: dict[str, Destination] = {}

    def span(self, chunk: Chunk, start: int, end: int) -> Span:
        return self.report.span(chunk.start + start, chunk.start + end)

    def error(self, message: str, span: Span, hint: str | None = None) -> None:
        self.report.error(message, span, hint)

    def take(self, chunk: Chunk, error: ScoreError) -> None:
        """Add an error whose place is in the statement."""
        start, end = (error.span.start, error.span.end) if error.span else (0, len(chunk.text))
        self.error(error.message, self.span(chunk, start, end), error.hint)

    # --- the whole ---
    def run(self) -> Program:
        if len(self.text) > MAX_TEXT:
            self.error(
                f"a score has at most {MAX_TEXT // 1024} KiB",
                Span.of(self.text, MAX_TEXT, MAX_TEXT + 1),
                "several files may play together",
            )
            raise self.report.failure()
        chunks = split(self.text, KEYWORDS)
        if len(chunks) > MAX_STATEMENTS:
            extra = chunks[MAX_STATEMENTS]
            place = self.span(extra, 0, len(extra.text))
            self.error(f"a score has at most {MAX_STATEMENTS} statements", place)
            raise self.report.failure()
        self.compile(chunks)
        for block in (b for b in self.blocks if b.kind != "broken"):
            message = f'missing "}}" of {block.kind} {block.name}'
            self.error(message, block.place, 'close the block with "}"')
        if self.report.errors:
            raise self.report.failure()
        self.check_scenes()
        warnings = tuple(self.report.warnings)
        return Program.of(self.name, self.text, tuple(self.statements), warnings, self.deck)

    def compile(self, chunks: Sequence[Chunk]) -> None:
        """Compile the statements in their order; errors are gathered."""
        nodes: list[tuple[Chunk, StatementNode | None]] = []
        for chunk in chunks:
            self.check_count()
            if chunk.kind == "close":
                nodes.append((chunk, None))
                continue
            found = parse_statement(chunk.text) if shallow(chunk.text) else too_deep(chunk.text)
            if isinstance(found, ScoreError):
                self.take(chunk, found)
                if chunk.text.endswith("{"):
                    # So that its "}" has something to close.
                    nodes.append((chunk, OpenNode(0, len(chunk.text), "broken", "", True)))
            else:
                nodes.append((chunk, found))
        self.define(nodes)
        self.find_outs(nodes)
        for chunk, node in nodes:
            self.check_count()
            self.statement(chunk, node)

    def check_count(self) -> None:
        """Stop at MAX_ERRORS: nobody reads more, and each costs a search for similar words."""
        if self.visit is None and len(self.report.errors) >= MAX_ERRORS:
            raise self.report.failure()

    def check_scenes(self) -> None:
        """Warn of a misspelt scene. Others may be in another score."""
        known = [s.name for s in self.statements if isinstance(s, Scene)]
        for s in self.statements:
            asked = [s.scene] if isinstance(s, Go) else []
            asked += [name for name, _ in s.scenes] if isinstance(s, Chain) else []
            asked += [s.base] if isinstance(s, Scene) and s.base else []
            for name in asked:
                near = None if name in known else meant(name, known)
                if near is not None:
                    self.report.warn(f'no scene "{name}" here', s.span, f"did you mean {near}?")

    def define(self, nodes: list[tuple[Chunk, StatementNode | None]]) -> None:
        """Define the `let` words of the score: they hold in all of it, also above their line."""
        for chunk, node in nodes:
            if not isinstance(node, LetNode):
                continue
            span = self.span(chunk, node.start, node.end)
            if find(node.name) is not None or node.name in KEYWORDS:
                self.error(
                    f'"{node.name}" is a control or a word of the language',
                    span,
                    "choose another name",
                )
                continue
            if len(set(node.params)) < len(node.params):
                twice = next(p for p in node.params if node.params.count(p) > 1)
                self.error(f'two arguments are called "{twice}"', span, "give each its own name")
            if node.name in FUNCTIONS or node.name in SIGNALS or node.name in RANDOM:
                message = f'"{node.name}" is a word of the language; here it means this'
                self.report.warn(message, span, "another name keeps both")
            self.lets[node.name] = Let(node.name, node, chunk.text, span)

    def find_outs(self, nodes: list[tuple[Chunk, StatementNode | None]]) -> str:
        """Find the decks that make no sound: in all of the score, as with `let`. Returns the deck
        of what follows."""
        deck, outer = self.deck, list[str]()
        for _, node in nodes:
            if node is None:
                deck = outer.pop() if outer else deck
            elif isinstance(node, OpenNode):
                outer += [deck] * node.block
                deck = node.name if node.kind == "deck" else deck
            elif isinstance(node, SettingNode) and node.word == "to":
                self.outs.pop(deck, None)
                if node.value is not None:
                    # What is wrong with it is told at its own place.
                    with suppress(UsageError):
                        self.outs[deck] = read_destination(str(node.value), node.reading)
        return deck

    # --- statements ---
    def statement(self, chunk: Chunk, node: StatementNode | None) -> None:
        whole = self.span(chunk, 0, len(chunk.text))
        if node is None:
            self.close(whole)
            return
        remark = tidal_remark(chunk.text)
        if remark is not None:
            place = self.span(chunk, *remark)
            message = "everything behind # is a comment"
            self.report.warn(message, place, "a control is bound on a line of its own")
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
            case SettingNode():
                self.add(self.setting(chunk, node, span))
            case _ if in_scene:
                self.error("a scene holds bindings and settings only", span)
            case WordNode():
                if node.name != "deck":
                    check_args(node, chunk.text)
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
        if scene is not None and isinstance(statement, (Bind, Setting)):
            scene.body.append(statement)
        else:
            self.statements.append(statement)

    def open(self, node: OpenNode, span: Span) -> None:
        if node.kind == "scene" and not node.block:
            self.error("a scene needs a block", span, f"write scene {node.name} {{ ... }}")
            return
        if node.kind == "scene" and any(b.kind == "scene" for b in self.blocks):
            self.error("a scene inside a scene", span)
        if node.kind != "scene" and any(b.kind != "scene" for b in self.blocks):
            message = f"a {node.kind} inside a {self.blocks[-1].kind}"
            self.error(message, span, 'close the other one with "}" first')
        if node.kind == "deck" and (node.base or node.restart):
            self.error("only a scene takes from and restart", span)
        if node.kind != "master" and node.name == "master":
            self.error("master is the sum of all decks", span, "write master { ... }")
        if len(self.blocks) >= MAX_NESTING:
            self.error(f"nested deeper than {MAX_NESTING}", span)
            return
        if node.block:
            self.blocks.append(
                _OpenBlock(node.kind, node.name, span, self.deck, node.base, node.restart)
            )
        if node.kind != "scene":
            self.deck = node.name if node.kind == "deck" else ""

    def close(self, place: Span) -> None:
        if not self.blocks:
            self.error('"}" closes nothing', place, "remove it")
            return
        block = self.blocks.pop()
        self.deck = block.deck
        if block.kind == "scene":
            span = Span.of(self.text, block.place.start, place.end)
            body = tuple(block.body)
            scene = Scene(block.name, body, span, base=block.base, restart=block.restart)
            self.statements.append(scene)

    # --- when ---
    def when(self, chunk: Chunk, nodes: tuple[WhenNode, ...]) -> When:
        start: When | None = None
        move: When | None = None
        for n in nodes:
            place = Span.of(chunk.text, n.start, n.end)
            positive = n.cycles > 0 or (n.kind in ("now", "in") and n.cycles == 0)
            if not positive or n.cycles > MAX_CYCLES:
                message = f"{n.kind} needs a number of cycles above 0"
                raise ScoreError(message, span=place, hint=f"write now, or {n.kind} 4")
            made = When(n.kind, n.cycles)  # type: ignore[arg-type]
            if n.kind in ("over", "xfade"):
                if move is not None:
                    raise ScoreError("one over or xfade is enough", span=place)
                move = made
            else:
                if start is not None:
                    raise ScoreError("one of now, at and in is enough", span=place)
                start = made
        if start is None:
            return move or When()
        return When(start.kind, start.cycles, move)

    # --- one kind each ---
    def chain(self, chunk: Chunk, node: ChainNode, span: Span) -> Chain:
        if any(n <= 0 for _, n in node.scenes):
            raise ScoreError(
                "the length of a scene is above 0 cycles",
                span=Span.of(chunk.text, node.start, node.end),
            )
        for move in (m for m in node.moves if m is not None):
            if move.kind not in ("over", "xfade"):
                place = Span.of(chunk.text, move.start, move.end)
                raise ScoreError(
                    f"{move.kind} is no transition", span=place, hint="over 2, or xfade 2"
                )
        moves = tuple(None if m is None else self.when(chunk, (m,)) for m in node.moves)
        when = self.when(chunk, node.whens)
        return Chain(node.scenes, when, span, moves, node.once)

    def setting(self, chunk: Chunk, node: SettingNode, span: Span) -> Setting | None:
        spec = SETTINGS[node.word]
        if any(b.kind == "master" for b in self.blocks):
            raise ScoreError(
                f"{node.word} does not belong to the master",
                span=Span.of(chunk.text, node.start, node.end),
                hint=f"it takes {', '.join(names('mix'))}",
            )
        place = self.span(chunk, node.value_start, node.whens[0].start if node.whens else node.end)
        if node.word == "to":
            return self.to(chunk, node, span, place)
        # A scene may be played when the deck sounds again.
        in_scene = any(b.kind == "scene" for b in self.blocks)
        if self.deck in self.outs and node.word in ("loop", "source") and not in_scene:
            hint = "to none lets it sound again"
            self.error(f"{self.deck} makes no sound and has no {node.word}", span, hint)
            return None
        value: SettingValue
        if spec.numeric and node.value not in spec.choices:
            if not isinstance(node.value, Fraction):
                self.error(f"{node.word} takes a number", place, f"write {spec.example}")
                return None
            value = float(node.value)
            if not spec.low <= value <= spec.high:
                self.error(
                    f"{node.word} goes from {spec.low:g} to {spec.high:g}, not {value:g}", place
                )
                return None
            if spec.shape == "integer" and node.value.denominator != 1:
                if node.word == "beats" and node.value.denominator in (2, 4):
                    return Setting(self.deck, "beats", value, self.when(chunk, node.whens), span)
                more = ", or a meter: beats 7/8" if node.word == "beats" else ""
                hint = f"write {spec.example}{more}"
                self.error(f"{node.word} takes a whole number", place, hint)
                return None
        elif isinstance(node.value, Fraction):
            self.error(f"{node.word} takes text", place, f"write {spec.example}")
            return None
        else:
            value = node.value
            if spec.choices and value not in spec.choices:
                self.error(
                    f"{node.word} is one of {', '.join(spec.choices)}",
                    place,
                    f"write {spec.example}",
                )
                return None
        if node.reading and not self.check_reading(node, value, place):
            return None
        when = self.when(chunk, node.whens)
        return Setting(self.deck, node.word, value, when, span, node.reading)

    def to(self, chunk: Chunk, node: SettingNode, span: Span, place: Span) -> Setting | None:
        if any(b.kind == "scene" for b in self.blocks):
            self.error("a scene does not move a deck", span, "to stands in the deck itself")
            return None
        kind = None if node.value is None else str(node.value)
        try:
            if kind is not None:
                read_destination(kind, node.reading)
        except UsageError as error:
            self.error(error.message, place, error.hint)
            return None
        when = self.when(chunk, node.whens)
        return Setting(self.deck, "to", kind, when, span, node.reading)

    def check_reading(self, node: SettingNode, value: SettingValue, place: Span) -> bool:
        """Report what cannot stand behind a source: whether it is right."""
        read = node.reading.removesuffix(PLUS_NOTES).rstrip()
        often, _, number = read.partition(" ")
        if node.word == "source" and value == IN:
            if often == EVERY and number.isdigit() and 1 <= int(number) <= MAX_EVERY:
                return True
            if read:
                message = f"behind source in stands a number of bars, 1 to {MAX_EVERY}"
                self.error(message, place, "source in every 4")
            return not read
        if often == EVERY:
            self.error("only what is played in comes again", place, "source in every 4")
        elif node.word != "source" or value in (None, "none", NOTES):
            self.error(f"{node.reading} belongs to a source", place, 'source "x.wav" bars 2')
        else:
            return True
        return False

    def check_let(self, chunk: Chunk, node: LetNode) -> None:
        """Compile a definition without arguments, so that its errors show at its own place."""
        if not node.params and self.visit is None:
            compile_expr(node.expr, self.scope(chunk, node.name))

    def scope(self, chunk: Chunk, key: str) -> Scope:
        lets = {n: (let.node, let.source) for n, let in self.lets.items()}
        chances = Chances.ruled(self.chance, self.seed, f"{self.deck}.{key}")
        return Scope(chunk.text, lets, chances, self.work, {})

    def lane(self, site: Site, chunk: Chunk, control: str) -> Lane:
        """The lane of an expression, checked."""
        expr, spec = site.expr, site.spec
        self.work.keys.clear()
        pattern = compile_expr(expr, self.scope(chunk, control))
        if spec.cls == "out" and pattern.text and spec.numeric:
            spec = outgoing(spec.name, "osc", text=True)
            site = replace(site, spec=spec)
        check_kind(spec, expr, pattern, chunk.text)
        try_lane(site, pattern)
        advise(site)
        text = whole(chunk.text, expr.start, expr.end)
        keys = frozenset(self.work.keys)
        if not keys:
            return PatternLane(spec, pattern, text)
        scope = self.scope(chunk, control)
        ruled = partial(Chances.ruled, self.chance, self.seed, f"{self.deck}.{control}")

        def build(history: ControllerHistory) -> Pattern:
            fresh = replace(scope, chances=ruled(), work=Work(history=history))
            return compile_expr(expr, fresh)

        return ControllerLane(spec, text, keys, build)

    def prompt_sum(self, site: Site, chunk: Chunk) -> Lane:
        """The lane of a weighted sum of texts."""

        def is_text(node: Expr) -> bool:
            return compile_expr(node, self.scope(chunk, "prompt")).text

        rows = terms(site.expr, is_text, chunk.text)
        texts = tuple(self.lane(replace(site, expr=text), chunk, "prompt") for text, _ in rows)
        weighed = [replace(site, expr=weight, spec=WEIGHT) for _, weight in rows]
        weights = tuple(self.lane(row, chunk, "prompt") for row in weighed)
        shown = whole(chunk.text, site.expr.start, site.expr.end)
        return PromptLane(site.spec, shown, texts, weights)

    def bind(self, chunk: Chunk, node: BindNode, span: Span) -> Bind | None:
        name = self.span(chunk, node.start, node.name_end)
        setting = node.control == FADER.name
        spec = CONTROLS.get(node.control) or (
            find(node.control) if setting or node.control.startswith("lora.") else None
        )
        # The fader belongs to the session, on whatever deck it is written.
        deck = "" if setting or node.deck == "master" else node.deck or self.deck
        if deck in self.outs and node.control not in KEYWORDS:
            spec = outgoing(node.control, self.outs[deck].kind)
        if spec is None:
            self.unknown_control(node, name)
            return None
        self.check_midi(deck, node.control, name)
        broken = any(block.kind == "broken" for block in self.blocks)
        if not deck and not setting and spec.cls != "mix" and not broken:
            self.error(
                f"the master has no {node.control}", name, f"it has {', '.join(names('mix'))}"
            )
            return None
        if self.visit is not None:
            self.visit(node, chunk, span, node.deck or self.deck, self.scope(chunk, node.control))
            return None
        when = self.when(chunk, node.whens)
        if node.expr is None:
            return Bind(deck, node.control, None, when, span, "default")
        if spec.shape == "file" and isinstance(node.expr, Name) and node.expr.name == IN:
            node = replace(node, expr=Text(node.expr.start, node.expr.end, IN))
        assert node.expr is not None
        check_quotes(spec, node.expr, chunk.text, self.lets)
        if spec.shape == "file":
            check_paths(node.expr, chunk.text)
        place = self.span(chunk, node.expr.start, node.expr.end)
        site = Site(self.report, node.expr, spec, place, chunk.start)
        if spec.name == "prompt" and spec.cls == "slot" and is_sum(node.expr):
            lane = self.prompt_sum(site, chunk)
        else:
            lane = self.lane(site, chunk, node.control)
        key = unparse_expr(node.expr) + lets_text(node.expr, self.lets)
        sound = spec.shape == "file" and not self.report.errors
        files = files_of(site, lane, self.lets) if sound else ()
        return Bind(deck, node.control, lane, when, span, key, files)

    def check_midi(self, deck: str, control: str, span: Span) -> None:
        """Warn of a name that MIDI has no message for."""
        to = self.outs.get(deck)
        known = control in MIDI_NAMES or cc_of(control) is not None
        if to is not None and to.kind == "midi" and not known:
            near = meant(control, MIDI_NAMES)
            listed = f"it has {', '.join(MIDI_NAMES)}, and cc0 to cc127"
            hint = f"did you mean {near}?" if near else listed
            self.report.warn(f"MIDI has no {control}: it goes nowhere", span, hint)

    def unknown_control(self, node: BindNode, span: Span) -> None:
        if node.control in SETTINGS:
            self.error(
                f'{node.control} is a setting and takes no "="',
                span,
                f"write {SETTINGS[node.control].example}",
            )
            return
        if node.control in KEYWORDS:
            self.error(f'"{node.control}" is a word of the language, not a control', span)
            return
        near = meant(node.control, [*CONTROLS, *SETTINGS])
        hint = (
            "a shape of your own is: let name = ...; ? lists the controls; a deck that goes "
            "elsewhere (? to) takes any name"
        )
        if near is not None:
            hint = (
                f"write {SETTINGS[near].example}" if near in SETTINGS else f"did you mean {near}?"
            )
        self.error(f'there is no control "{node.control}"', span, hint)
