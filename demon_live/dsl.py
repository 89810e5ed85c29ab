"""The words of the score language in Python: a line of score pastes into Python and back.

    from demon_live.dsl import deck, sine, saw, mini, scene, over, program

    deck.blend = sine.slow(4).range(.2, .9)
    deck["drums"].denoise = mini("<.4 .6 .8 1>/2")
    deck.velocity = over(4, sine.fast(3) * .2 + .9)
    program()                                    # the same Program as from the same score

What is said goes into the current Score: one for each `with Score():`, else one for the thread.
Strings are mini-notation; text() is plain text. Functions may be Python's:
every(4, lambda p: p.rev).

Threads: each thread (and each context) has its own current Score.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS, SETTINGS, find
from demon_live.errors import DemonError, ScoreError, Span, nearest
from demon_live.lang.compile import compile_source
from demon_live.lang.dsl_pattern import Pat, Value, exact, text, to_expr
from demon_live.lang.format import format_source
from demon_live.lang.program import Program
from demon_live.lang.signals import SIGNALS
from demon_live.lang.syntax import (
    BindNode,
    ChainNode,
    GoNode,
    Hole,
    Mini,
    Name,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
)
from demon_live.lang.unparse import unparse
from demon_live.lang.words import WORDS


class Score:
    """Statements in the order they were said; `with Score() as s:` makes it the current one."""

    def __init__(self, name: str = "<python>") -> None:
        self.name = name
        self._rows: list[tuple[str, str, StatementNode]] = []
        self._scene = ""
        self._token: Token[Score | None] | None = None

    def __enter__(self) -> Score:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)

    def say(self, node: StatementNode, deck_name: str = "main") -> None:
        """Adds a statement to a deck, or to the scene that is open."""
        self._rows.append((self._scene, deck_name, node))

    def find(self, deck_name: str, control: str) -> BindNode | None:
        """The last binding of a control."""
        for _, name, node in reversed(self._rows):
            if isinstance(node, BindNode) and (name, node.control) == (deck_name, control):
                return node
        return None

    @property
    def text(self) -> str:
        """The score as text. Each statement stands on its own line."""
        lines: list[str] = []
        scene_name, deck_name = "", "main"

        def move(new_scene: str, new_deck: str) -> None:
            nonlocal scene_name, deck_name
            if (deck_name != "main") and (new_deck != deck_name or new_scene != scene_name):
                lines.append("}")
                deck_name = "main"
            if scene_name and new_scene != scene_name:
                lines.append("}")
            if new_scene and new_scene != scene_name:
                lines.append(f"scene {new_scene} {{")
            scene_name = new_scene
            if new_deck != deck_name:
                lines.append(f"deck {new_deck} {{")
                deck_name = new_deck

        for in_scene, on_deck, node in self._rows:
            move(in_scene, on_deck)
            lines.append(unparse(node))
        move("", "main")
        return format_source("\n".join(lines))

    def program(self, seed: int = 0) -> Program:
        """The Program, through the checks of the language. Raises DemonError."""
        return compile_source(self.text, self.name, seed=seed)

    def clear(self) -> None:
        self._rows.clear()


_current: ContextVar[Score | None] = ContextVar("score", default=None)


def score() -> Score:
    """The current Score."""
    found = _current.get()
    if found is None:
        found = Score()
        _current.set(found)
    return found


def program(name: str = "<python>") -> Program:
    """The Program of all that was said so far. Raises DemonError."""
    now_playing = score()
    now_playing.name = name
    return now_playing.program()


# --- time ------------------------------------------------------------------------------------


class Timed:
    """A value with its `when`: over(4, x), at(8, over(4, x))."""

    def __init__(self, value: Value | None, whens: tuple[WhenNode, ...]) -> None:
        self.value = value
        self.whens = whens


def _timed(kind: str, cycles: float | Fraction, value: Value | Timed | None) -> Timed:
    when = WhenNode(0, 0, kind, exact(cycles))
    if isinstance(value, Timed):
        return Timed(value.value, (when, *value.whens))
    return Timed(value, (when,))


def over(cycles: float, value: Value | Timed | None) -> Timed:
    """Move there in a straight line over a number of cycles."""
    return _timed("over", cycles, value)


def xfade(cycles: float, value: Value | Timed | None) -> Timed:
    """As over; gain moves at equal power."""
    return _timed("xfade", cycles, value)


def at(cycle: float, value: Value | Timed | None) -> Timed:
    """At the next cycle divisible by `cycle`."""
    return _timed("at", cycle, value)


def in_(cycles: float, value: Value | Timed | None) -> Timed:
    """After a number of cycles."""
    return _timed("in", cycles, value)


def now(value: Value | Timed | None) -> Timed:
    """At once."""
    return _timed("now", 0, value)


# --- decks and scenes ------------------------------------------------------------------------

_MINI_SIGNS = builtins.frozenset("<[{|*'~")


class Deck:
    """deck.blend = ... binds a control; None gives it back; deck["drums"] is another deck."""

    __slots__ = ("_name",)
    _name: str

    def __init__(self, name: str = "main") -> None:
        object.__setattr__(self, "_name", name)

    def __getitem__(self, name: str) -> Deck:
        return Deck(name)

    def __setattr__(self, name: str, value: Value | Timed | None) -> None:
        spec = find(name) if not name.startswith("lora_") else find(f"lora.{name[5:]}")
        if spec is None or spec.cls == "prepared":
            near = nearest(name, CONTROLS)
            raise ScoreError(
                f'there is no control "{name}"', hint=f"did you mean {near[0]}?" if near else None
            )
        timed = value if isinstance(value, Timed) else Timed(value, ())
        plain = timed.value
        expr = None if plain is None else to_expr(plain)
        # A plain string is text for a control that takes text, unless it looks like mini-notation.
        if isinstance(expr, Mini) and not spec.numeric and not _MINI_SIGNS.intersection(expr.text):
            expr = Text(0, 0, expr.text)
        score().say(BindNode(0, 0, spec.name, expr, timed.whens), self._name)

    def __getattr__(self, name: str) -> Pat:
        found = score().find(self._name, name)
        if found is None or found.expr is None:
            raise AttributeError(f"{name} is not bound on deck {self._name}")
        return Pat(found.expr)

    def __dir__(self) -> list[str]:
        return [*CONTROLS, "loop", "source"]

    def loop(self, cycles: int) -> None:
        """The length of the deck's loop, in cycles."""
        _stage("loop", cycles, self._name)

    def source(self, path: str | None) -> None:
        """The audio that the deck transforms; None starts from noise."""
        _stage("source", path, self._name)


deck = Deck()


@contextmanager
def scene(name: str) -> Iterator[None]:
    """with scene("drop"): the bindings inside are played by go("drop")."""
    current = score()
    before, current._scene = current._scene, name
    try:
        yield
    finally:
        current._scene = before


def go(name: str, when: Timed | None = None) -> None:
    """Play a scene: go("drop", at(8, None))."""
    score().say(GoNode(0, 0, name, when.whens if when else ()))


def chain(*scenes: tuple[str, float]) -> None:
    """Scenes one after the other: chain(("drop", 8), ("calm", 4))."""
    score().say(ChainNode(0, 0, tuple((n, exact(k)) for n, k in scenes)))


# --- stage and performance -------------------------------------------------------------------


def _stage(word: str, value: float | str | None, deck_name: str = "main") -> None:
    plain = value if value is None or isinstance(value, str) else exact(value)
    score().say(SettingNode(0, 0, word, plain), deck_name)


def _stage_word(word: str) -> Callable[[Any], None]:
    def say(value: Any) -> None:
        _stage(word, ("on" if value else "off") if isinstance(value, bool) else value)

    say.__name__ = word
    say.__doc__ = SETTINGS[word].help
    return say


tempo, cps, beats, loop, source, engine, quant, link = (
    _stage_word(w) for w in ("tempo", "cps", "beats", "loop", "source", "engine", "quant", "link")
)


def _performance(word: str) -> Callable[..., None]:
    def say(*args: str) -> None:
        score().say(WordNode(0, 0, word, args))

    say.__name__ = word
    return say


hush, panic, mute, unmute, solo, unsolo, undo, redo, record, stop, save, load = map(
    _performance,
    (
        "hush",
        "panic",
        "mute",
        "unmute",
        "solo",
        "unsolo",
        "undo",
        "redo",
        "record",
        "stop",
        "save",
        "load",
    ),
)
snapshot, recall, crossfade, learn = map(_performance, ("snapshot", "recall", "crossfade", "learn"))


def fader(value: Value | Timed | None) -> None:
    """Move the crossfader: fader(over(8, 1))."""
    timed = value if isinstance(value, Timed) else Timed(value, ())
    expr = None if timed.value is None else to_expr(timed.value)
    score().say(BindNode(0, 0, "fader", expr, timed.whens))


# --- patterns --------------------------------------------------------------------------------

_ = Pat(Hole(0, 0))


def mini(notation: str) -> Pat:
    """A pattern in mini-notation."""
    return Pat(Mini(0, 0, notation))


def _named(name: str) -> Pat:
    return Pat(Name(0, 0, name))


sine, cosine, saw, isaw, tri, itri, square = map(
    _named, ("sine", "cosine", "saw", "isaw", "tri", "itri", "square")
)
sine2, cosine2, saw2, isaw2, tri2, itri2, square2 = map(
    _named, ("sine2", "cosine2", "saw2", "isaw2", "tri2", "itri2", "square2")
)
time, rand, perlin, silence = map(_named, ("time", "rand", "perlin", "silence"))
#: Controllers: cc(21), cc(21, 1), gate, bend; note is both the last key and the function.
cc, gate, bend = map(_named, ("cc", "gate", "bend"))

#: Functions: fast(2) for an argument, fast(2, p) or fast(2)(p) for a pattern, stack(p, q).
FUNCTIONS: dict[str, Pat] = {
    name: _named(name) for name in WORDS if name not in ("mini", "range", "abs", "round")
}
globals().update({name: pat for name, pat in FUNCTIONS.items() if name not in globals()})


def run_python(source_text: str, name: str = "<python>", seed: int = 0) -> Program:
    """The Program of a Python pattern file. It runs as code: only behind --python.

    Raises DemonError, with the line of the file where Python stopped.
    """
    with Score(name) as current:
        try:
            exec(compile(source_text, name, "exec"), {"__name__": "__demon__", "__file__": name})
        except Exception as error:
            raise _placed(error, source_text, name) from error
        try:
            made = current.program(seed)
        except DemonError as error:
            error.hint = f"{error.hint or ''} (shown as a score; the file is Python)".strip()
            raise
    return made


def _placed(error: Exception, source_text: str, name: str) -> ScoreError:
    """A Python exception as an error of the file."""
    if isinstance(error, SyntaxError):
        line = error.lineno or 1
    else:
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if f.filename == name and f.lineno
        ]
        line = lines[-1] if lines else 1
    start = sum(len(row) + 1 for row in source_text.split("\n")[: line - 1])
    row = source_text.split("\n")[line - 1] if line <= source_text.count("\n") + 1 else ""
    span = Span.of(source_text, start + len(row) - len(row.lstrip()), start + len(row))
    message = error.message if isinstance(error, DemonError) else f"{type(error).__name__}: {error}"
    hint = error.hint if isinstance(error, DemonError) else None
    return ScoreError(message, span=span, hint=hint, source=source_text, name=name)


__all__ = [
    "FUNCTIONS",
    "Deck",
    "Pat",
    "Score",
    "Timed",
    "at",
    "beats",
    "bend",
    "cc",
    "chain",
    "cps",
    "crossfade",
    "deck",
    "engine",
    "fader",
    "gate",
    "go",
    "hush",
    "in_",
    "learn",
    "link",
    "load",
    "loop",
    "mini",
    "mute",
    "now",
    "over",
    "panic",
    "program",
    "quant",
    "recall",
    "record",
    "redo",
    "run_python",
    "save",
    "scene",
    "score",
    "snapshot",
    "solo",
    "source",
    "stop",
    "tempo",
    "text",
    "undo",
    "unmute",
    "unsolo",
    "xfade",
    "_",
    *SIGNALS,
    "rand",
    "perlin",
    "silence",
    *FUNCTIONS,
]
