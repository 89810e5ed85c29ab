"""Programs: the compiled statements of a score, and the difference of two programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from demon_live.controls import DECK_SETTINGS
from demon_live.errors import ScoreWarning, Span
from demon_live.lang.lane import Lane
from demon_live.lang.syntax import LetNode

#: The value of a setting: a number, a text, or None (`source none`).
SettingValue = float | str | None


@dataclass(frozen=True, slots=True)
class When:
    """When a statement takes effect, and how.

    quant: at the next quantum of the session. now. at: the next cycle divisible by `cycles`.
    in: after `cycles`. over, xfade: begins at the quantum and moves for `cycles`. `then` is the
    over or xfade that follows a now, at or in.
    """

    kind: Literal["quant", "now", "at", "in", "over", "xfade"] = "quant"
    cycles: Fraction = Fraction(0)
    then: When | None = None


@dataclass(frozen=True, slots=True)
class Bind:
    """Binds a control of a deck to a lane; None resets it to its default."""

    deck: str
    control: str
    lane: Lane | None
    when: When
    span: Span
    #: The expression as text, with the definitions that it uses: equal keys sound equal.
    key: str = ""
    #: The sound files that it may ask for, and where each is written.
    files: tuple[tuple[str, Span], ...] = ()
    #: Its pattern begins where it begins to play.
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """Sets tempo, loop, source ... `deck` matters for those in DECK_SETTINGS; the rest are global.

    reading: how the tempo of a source is read (`audio.files.beats_in`); of `to`, what stands behind
    its kind (`lang.destinations`).
    """

    deck: str
    word: str
    value: SettingValue
    when: When
    span: Span
    reading: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """hush, mute, undo, recall ...: a word of keywords.PERFORMANCE with its arguments; and
    `deck NAME off`, with the word "deck"."""

    name: str
    args: tuple[str, ...]
    when: When
    span: Span


@dataclass(frozen=True, slots=True)
class Go:
    scene: str
    when: When
    span: Span


@dataclass(frozen=True, slots=True)
class Chain:
    """Scenes with their lengths in cycles, one after the other, from the start again at the end.

    No scenes: the chain that plays is over. moves: the transition into each scene; () = none.
    once: at the end the last scene goes on.
    """

    scenes: tuple[tuple[str, Fraction], ...]
    when: When
    span: Span
    moves: tuple[When | None, ...] = ()
    once: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal keys play equally."""
        return self.scenes, self.moves, self.once


@dataclass(frozen=True, slots=True)
class Let:
    name: str
    node: LetNode
    #: The statement's own text, which the node's places refer to.
    source: str
    span: Span
    when: When = When()


@dataclass(frozen=True, slots=True)
class Scene:
    """A named group of bindings and settings. base: the scene that it takes all others from.
    restart: its patterns begin with it."""

    name: str
    body: tuple[Bind | Setting, ...]
    span: Span
    when: When = When()
    base: str = ""
    restart: bool = False


Statement = Bind | Setting | Word | Go | Chain | Let | Scene


@dataclass(frozen=True, slots=True)
class Program:
    """A score without errors. decks: deck -> control -> lane."""

    name: str
    text: str
    statements: tuple[Statement, ...]
    warnings: tuple[ScoreWarning, ...] = ()
    decks: Mapping[str, Mapping[str, Lane]] = field(default_factory=dict)
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    scenes: Mapping[str, Scene] = field(default_factory=dict)
    chains: tuple[Chain, ...] = ()
    lets: Mapping[str, Let] = field(default_factory=dict)

    @staticmethod
    def of(
        name: str,
        text: str,
        statements: tuple[Statement, ...],
        warnings: tuple[ScoreWarning, ...],
        deck: str,
    ) -> Program:
        """The program of these statements. deck: whose `loop` and `source` are its settings."""
        decks: dict[str, dict[str, Lane]] = {"main": {}}
        settings: dict[str, SettingValue] = {}
        for s in statements:
            if isinstance(s, Bind) and s.deck:
                lanes = decks.setdefault(s.deck, {})
                if s.lane is None:
                    lanes.pop(s.control, None)
                else:
                    lanes[s.control] = s.lane
            elif isinstance(s, Setting) and (s.deck == deck or s.word not in DECK_SETTINGS):
                settings[s.word] = s.value
        return Program(
            name,
            text,
            statements,
            warnings,
            decks,
            settings,
            {s.name: s for s in statements if isinstance(s, Scene)},
            tuple(s for s in statements if isinstance(s, Chain)),
            {s.name: s for s in statements if isinstance(s, Let)},
        )


def _last(program: Program | None) -> dict[tuple[str, ...], Statement]:
    """The last statement of each binding, setting, scene and let."""
    out: dict[tuple[str, ...], Statement] = {}
    for s in program.statements if program is not None else ():
        if isinstance(s, Bind):
            out["bind", s.deck, s.control] = s
        elif isinstance(s, Setting):
            out["setting", s.deck, s.word] = s
        elif isinstance(s, Scene):
            out["scene", s.name] = s
        elif isinstance(s, Let):
            out["let", s.name] = s
    return out


def same(a: Statement | None, b: Statement) -> bool:
    """Whether two statements mean the same, wherever they stand."""
    if isinstance(a, Bind) and isinstance(b, Bind):
        return a.key == b.key and (a.lane is None) == (b.lane is None)
    if isinstance(a, Setting) and isinstance(b, Setting):
        return (a.value, a.reading) == (b.value, b.reading)
    if isinstance(a, Let) and isinstance(b, Let):
        return a.node == b.node
    if isinstance(a, Scene) and isinstance(b, Scene):
        head = (a.base, a.restart, len(a.body)) == (b.base, b.restart, len(b.body))
        return head and all(same(x, y) for x, y in zip(a.body, b.body, strict=True))
    return a == b


def diff(old: Program | None, new: Program) -> tuple[Statement, ...]:
    """The statements of `new` that are not in `old`, or say something else there.

    Bindings are compared by meaning, lets included. Performance words, `go` and `chain` count if
    they are not in the old text.
    """
    before, after = _last(old), _last(new)
    keys = {id(s): key for key, s in after.items()}
    out: list[Statement] = []
    for s in new.statements:
        key = keys.get(id(s))
        if (key is not None and not same(before.get(key), s)) or (
            isinstance(s, (Word, Go, Chain)) and not _contains(old, s)
        ):
            out.append(s)
    return tuple(out)


def removed(old: Program | None, new: Program | None) -> tuple[Bind | Setting, ...]:
    """The bindings and settings of `old` about which `new` says nothing."""
    after = _last(new)
    return tuple(
        gone
        for key, gone in _last(old).items()
        if key not in after
        and (isinstance(gone, Setting) or (isinstance(gone, Bind) and gone.lane is not None))
    )


def _contains(program: Program | None, s: Word | Go | Chain) -> bool:
    """True if a performance word, `go` or `chain` is in a program."""
    for t in program.statements if program is not None else ():
        if type(t) is not type(s):
            continue
        if isinstance(s, Word) and isinstance(t, Word) and (s.name, s.args) == (t.name, t.args):
            return True
        if isinstance(s, Go) and isinstance(t, Go) and s.scene == t.scene:
            return True
        if isinstance(s, Chain) and isinstance(t, Chain) and s.key == t.key:
            return True
    return False
