"""Statements in Python: the current score, decks, scenes and performance words.

demon_live.dsl shows these to players. Statements are added to the current Score: that of the
innermost `with Score():`, else one for the thread.

Threads: each thread (and each context) has its own current Score.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from fractions import Fraction
from typing import Any

from demon_live.controls import CONTROLS, SETTINGS, find
from demon_live.errors import DemonError, ScoreError, Span, nearest
from demon_live.lang.compile import compile_source
from demon_live.lang.dsl_pattern import Pat, Value, exact, to_expr
from demon_live.lang.keywords import PERFORMANCE
from demon_live.lang.parse import format_source
from demon_live.lang.program import Program
from demon_live.lang.syntax import (
    BindNode,
    ChainNode,
    GoNode,
    Mini,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
    unparse_statement,
)

#: Signs that tell mini-notation from plain text.
_MINI_SIGNS = frozenset("<[{|*'~")


class Score:
    """Statements in their order; `with Score() as s:` makes it the current one."""

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

    def add(self, node: StatementNode, deck_name: str = "main") -> None:
        """Add a statement to a deck, or to the open scene."""
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
            lines.append(unparse_statement(node))
        move("", "main")
        return format_source("\n".join(lines))

    def program(self, seed: int = 0) -> Program:
        """Compile the score. Raises DemonError."""
        return compile_source(self.text, self.name, seed=seed)


_current: ContextVar[Score | None] = ContextVar("score", default=None)


def score() -> Score:
    """The current Score."""
    found = _current.get()
    if found is None:
        found = Score()
        _current.set(found)
    return found


def program(name: str = "<python>") -> Program:
    """Compile the statements so far. Raises DemonError."""
    current = score()
    current.name = name
    return current.program()


# --- time ------------------------------------------------------------------------------------


class Timed:
    """A value with its `when`, as in over(4, x) and at(8, over(4, x))."""

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


class Deck:
    """deck.blend = ... binds a control, None resets it; deck["drums"] is another deck."""

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
        score().add(BindNode(0, 0, spec.name, expr, timed.whens), self._name)

    # Any: type checkers see the methods of Pat in dsl.pyi only.
    def __getattr__(self, name: str) -> Any:
        found = score().find(self._name, name)
        if found is None or found.expr is None:
            raise AttributeError(f"{name} is not bound on deck {self._name}")
        return Pat(found.expr)

    def __dir__(self) -> list[str]:
        return [*CONTROLS, "loop", "source"]

    def loop(self, cycles: int) -> None:
        """The length of the deck's loop, in cycles."""
        _set("loop", cycles, self._name)

    def source(self, path: str | None) -> None:
        """The audio that the deck transforms; None starts from noise."""
        _set("source", path, self._name)


deck = Deck()


@contextmanager
def scene(name: str) -> Iterator[None]:
    """`with scene("drop"):` collects the bindings that go("drop") plays."""
    current = score()
    before, current._scene = current._scene, name
    try:
        yield
    finally:
        current._scene = before


def go(name: str, when: Timed | None = None) -> None:
    """Play a scene: go("drop", at(8, None))."""
    score().add(GoNode(0, 0, name, when.whens if when else ()))


def chain(*scenes: tuple[str, float]) -> None:
    """Scenes one after the other: chain(("drop", 8), ("calm", 4))."""
    score().add(ChainNode(0, 0, tuple((n, exact(k)) for n, k in scenes)))


# --- settings and performance ----------------------------------------------------------------


def _set(word: str, value: float | str | None, deck_name: str = "main") -> None:
    plain = value if value is None or isinstance(value, str) else exact(value)
    score().add(SettingNode(0, 0, word, plain), deck_name)


def setting(word: str) -> Callable[[float | str | bool | None], None]:
    """The Python function for a setting: tempo(128), link(True)."""

    def set_value(value: float | str | bool | None) -> None:
        _set(word, ("on" if value else "off") if isinstance(value, bool) else value)

    set_value.__name__, set_value.__doc__ = word, SETTINGS[word].help
    return set_value


def performance(word: str) -> Callable[..., None]:
    """The Python function for a performance word: hush(), mute("drums")."""

    def perform(*names: str) -> None:
        score().add(WordNode(0, 0, word, names))

    perform.__name__, perform.__doc__ = word, PERFORMANCE[word].help
    return perform


def fader(value: Value | Timed | None) -> None:
    """Move the crossfader: fader(over(8, 1))."""
    timed = value if isinstance(value, Timed) else Timed(value, ())
    expr = None if timed.value is None else to_expr(timed.value)
    score().add(BindNode(0, 0, "fader", expr, timed.whens))


# --- files of Python -------------------------------------------------------------------------


def run_python(source_text: str, name: str = "<python>", seed: int = 0) -> Program:
    """Run a file of Python that fills a Score, and compile it. It is code: only behind --python.

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
