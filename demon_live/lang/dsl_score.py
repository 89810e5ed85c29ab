"""Statements in Python: the current score, decks, scenes and performance words.

demon_live.dsl shows these to players. Statements are added to the current Score: that of the
innermost `with Score():`, else one for the thread.

Threads: each thread (and each context) has its own current Score.
"""

from __future__ import annotations

import contextvars
import html
import linecache
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from demon_live.controls import CONTROLS, DECK_SETTINGS, EVERY, PLUS_NOTES, SETTINGS, find
from demon_live.core import Floats
from demon_live.errors import DemonError, FileError, ScoreError, Span, UsageError, nearest
from demon_live.lang.compile import compile_source
from demon_live.lang.destinations import outgoing, read_destination
from demon_live.lang.dsl_pattern import (
    Number,
    Pat,
    PlainString,
    Value,
    exact,
    number_of,
    shown,
    to_expr,
)
from demon_live.lang.keywords import KEYWORDS, PERFORMANCE
from demon_live.lang.parse import format_source, read_meter
from demon_live.lang.program import Program
from demon_live.lang.syntax import (
    BindNode,
    ChainNode,
    Expr,
    GoNode,
    SettingNode,
    StatementNode,
    Text,
    WhenNode,
    WordNode,
    quoted,
    unparse_statement,
)

#: Signs that tell mini-notation from plain text.
_MINI_SIGNS = frozenset("<[{|*'~")


class Score:
    """Statements in their order; `with Score() as s:` makes it the current one."""

    def __init__(self, name: str = "<python>") -> None:
        self.name = name
        self._rows: list[tuple[str, str, StatementNode, tuple[str, int]]] = []
        self._scene = ""
        self._token: Token[Score | None] | None = None
        #: The text of a file that Python does not find by its name.
        self._source = ""
        #: Lines of text that it begins with.
        self._before: list[str] = []

    @classmethod
    def from_text(cls, text: str, name: str = "<text>") -> Score:
        """The Score of a text, without its empty lines. More statements may follow."""
        made = cls(name)
        made._before = [line for line in text.splitlines() if line.strip()]
        return made

    @classmethod
    def from_py(cls, path: Path | str) -> Score:
        """The Score that a file of Python says, which runs. Raises DemonError."""
        try:
            code = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{path} cannot be read: {error}") from None
        return python_score(code, str(path))

    def __enter__(self) -> Score:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)

    def __getstate__(self) -> dict[str, Any]:
        # A token belongs to its thread.
        return {**self.__dict__, "_token": None}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Score {self.name}: {len(self._rows)} statements>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"

    def add(self, node: StatementNode, deck_name: str = "main") -> None:
        """Add a statement to a deck, or to the open scene."""
        self._rows.append((self._scene, deck_name, node, _caller()))

    def find(self, deck_name: str, control: str) -> BindNode | None:
        """The last binding of a control."""
        for _, name, node, _ in reversed(self._rows):
            if isinstance(node, BindNode) and (name, node.control) == (deck_name, control):
                return node
        return None

    def goes_elsewhere(self, deck_name: str) -> bool:
        """Whether the deck says `to`."""
        rows = [n for _, name, n, _ in self._rows if name == deck_name]
        said = [n for n in rows if isinstance(n, SettingNode) and n.word == "to"]
        return bool(said) and said[-1].value is not None

    def _lines(self) -> list[tuple[str, tuple[str, int]]]:
        """Each line of the score, with the line of Python that said it."""
        scene_name, deck_name = "", "main"
        nowhere = ("", 0)
        lines = [(line, nowhere) for line in self._before]

        def move(new_scene: str, new_deck: str, place: tuple[str, int]) -> None:
            nonlocal scene_name, deck_name
            if (deck_name != "main") and (new_deck != deck_name or new_scene != scene_name):
                lines.append(("}", nowhere))
                deck_name = "main"
            if scene_name and new_scene != scene_name:
                lines.append(("}", nowhere))
            if new_scene and new_scene != scene_name:
                lines.append((f"scene {new_scene} {{", place))
            scene_name = new_scene
            if new_deck != deck_name:
                lines.append((f"deck {new_deck} {{", place))
                deck_name = new_deck

        for in_scene, on_deck, node, place in self._rows:
            move(in_scene, on_deck, place)
            lines.append((unparse_statement(node), place))
        move("", "main", nowhere)
        return lines

    @property
    def text(self) -> str:
        """The score as text. Each statement stands on its own line."""
        return format_source("\n".join(line for line, _ in self._lines()))

    def program(self, seed: int = 0) -> Program:
        """Compile the score. Raises DemonError, at the line of Python that said it."""
        try:
            made = compile_source(self.text, self.name, seed=seed)
        except DemonError as error:
            for one in error.errors:
                self.place(one)
            raise
        for warning in made.warnings:
            self.place(warning)
        return made

    def sample(self, deck_name: str, control: str, cycles: ArrayLike) -> Floats:
        """The values of a control at times in cycles, float32 [n]."""
        lane = self.program().decks.get(deck_name, {}).get(control)
        if lane is None:
            raise ScoreError(f"{control} is not bound on deck {deck_name}")
        return lane.sample(np.asarray(cycles, np.float64))

    def play(self, session: Any) -> Any:
        """Let a session play it from its next bar on: its Outcome. Raises DemonError."""
        return session.apply(self)

    def place(self, error: DemonError) -> None:
        """Let an error of the text show the line of Python that said it."""
        if error.span is None:
            return
        rows = [row for row in self.text.split("\n") if row.strip()]
        said = self.text.split("\n")[error.span.line - 1].strip()
        number = sum(bool(r.strip()) for r in self.text.split("\n")[: error.span.line]) - 1
        lines = self._lines()
        file, line = lines[number][1] if len(rows) == len(lines) and number >= 0 else ("", 0)
        own = self._source if file == self.name else ""
        text = own or "".join(linecache.getlines(file))
        if not text or not 0 < line <= text.count("\n") + 1:
            return
        error.span, error.source, error.name = _line_span(text, line), text, file
        hint = f"{error.hint}; " if error.hint else ""
        error.hint = f"{hint}as a score: {said}"


#: Frames of these files say nothing themselves.
_OWN = (os.path.dirname(__file__), os.path.join(os.path.dirname(os.path.dirname(__file__)), "dsl."))


def _caller() -> tuple[str, int]:
    """The line that said a statement: (file, line)."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _line_span(text: str, line: int) -> Span:
    rows = text.split("\n")
    start = sum(len(row) + 1 for row in rows[: line - 1])
    row = rows[line - 1] if line <= len(rows) else ""
    return Span.of(text, start + len(row) - len(row.lstrip()), start + len(row))


_current: ContextVar[Score | None] = ContextVar("score", default=None)


def score() -> Score:
    """The current Score."""
    found = _current.get()
    if found is None:
        found = Score()
        _current.set(found)
    return found


def program(name: str | Score = "<python>") -> Program:
    """Compile the statements so far, or those of a Score. Raises DemonError."""
    if isinstance(name, Score):
        return name.program()
    current = score()
    current.name = name
    return current.program()


# --- time ------------------------------------------------------------------------------------


class Timed:
    """A value with its `when`, as in over(4, x) and at(8, over(4, x))."""

    def __init__(self, value: Value | None, whens: tuple[WhenNode, ...]) -> None:
        self.value = value
        self.whens = whens


def _timed(kind: str, cycles: object, value: Value | Timed | None) -> Timed:
    if number_of(cycles) is None:
        word = f"{kind}_" if kind == "in" else kind
        raise ScoreError(
            f"{word} takes a number of cycles first, then the value", hint=f"write {word}(4, ...)"
        )
    when = WhenNode(0, 0, kind, exact(cycles))
    if isinstance(value, Timed):
        return Timed(value.value, (when, *value.whens))
    return Timed(value, (when,))


def over(cycles: Number, value: Value | Timed | None) -> Timed:
    """Move there in a straight line over a number of cycles."""
    return _timed("over", cycles, value)


def xfade(cycles: Number, value: Value | Timed | None) -> Timed:
    """As over; gain moves at equal power."""
    return _timed("xfade", cycles, value)


def at(cycle: Number, value: Value | Timed | None = None) -> Timed:
    """At the next cycle divisible by `cycle`."""
    return _timed("at", cycle, value)


def in_(cycles: Number, value: Value | Timed | None = None) -> Timed:
    """After a number of cycles."""
    return _timed("in", cycles, value)


def now(value: Value | Timed | None = None) -> Timed:
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
        if not isinstance(name, str) or not name.isascii() or not name.isidentifier():
            raise ScoreError(f"{name!r} is no name of a deck", hint="a deck has one word: drums")
        return Deck(name)

    def __setattr__(self, name: str, value: Value | Timed | None) -> None:
        spec = find(name) if not name.startswith("lora_") else find(f"lora.{name[5:]}")
        if score().goes_elsewhere(self._name) and name not in KEYWORDS:
            # Texts are mini-notation there: s="bd*2 sn".
            spec = outgoing(name, "osc")
        if spec is None or spec.cls == "prepared":
            near = nearest(name, CONTROLS)
            hint = f"did you mean {near[0]}?" if near else None
            if name in SETTINGS:
                call = f"deck.{name}" if name in DECK_SETTINGS else name
                hint = f"{name} is a setting: {call}({shown(value)})"
            elif hint is None:
                hint = (
                    f'a deck that goes elsewhere takes any name, behind deck["{self._name}"].to()'
                )
            raise ScoreError(f'there is no control "{name}"', hint=hint)
        timed = value if isinstance(value, Timed) else Timed(value, ())
        plain = timed.value
        expr = None if plain is None else to_expr(plain)
        if expr is not None and not spec.numeric:
            expr = _texts(expr)
        score().add(BindNode(0, 0, spec.name, expr, timed.whens), self._name)

    # Any: type checkers see the methods of Pat in dsl.pyi only.
    def __getattr__(self, name: str) -> Any:
        found = score().find(self._name, name)
        if found is None or found.expr is None:
            what = f"{name} is not bound on deck {self._name}"
            raise AttributeError(what if find(name) else f'{what}; a deck is deck["{name}"]')
        return Pat(found.expr)

    def __dir__(self) -> list[str]:
        return [*CONTROLS, *DECK_SETTINGS]

    def loop(self, cycles: Number) -> None:
        """The length of the deck's loop, in cycles."""
        _set("loop", cycles, self._name)

    def source(
        self, path: str | os.PathLike[str] | None, *, notes: bool = False, every: int = 0
    ) -> None:
        """The audio that the deck transforms; None starts from noise, "notes" from what kick, bass,
        chord ... play, "in" from the next loop that is played in.

        notes: play them over the file. every: of "in", a new loop each so many cycles."""
        often = f"{EVERY} {every}" if every else ""
        _set("source", path, self._name, f"{often} {PLUS_NOTES if notes else ''}".strip())

    def hold(self, on: bool = True) -> None:
        """Keep the source that is there: nothing more is taken from the input."""
        _set("hold", "on" if on else "off", self._name)

    def overdub(self, on: bool = True) -> None:
        """Each loop that is played in is added to the source that is there."""
        _set("overdub", "on" if on else "off", self._name)

    def to(self, kind: str | None, place: str = "", channel: int = 1) -> None:
        """Let the deck play elsewhere, unheard: to("osc", "HOST:PORT"), to("midi", "nano", 1),
        to("superdirt"); to(None) lets it sound. Any name is a pattern behind it."""
        rest = quoted(place) if place else ""
        rest += f" {channel}" if kind == "midi" else ""
        if kind not in (None, "none"):
            try:
                read_destination(str(kind), rest)
            except UsageError as error:
                hint = f'write deck["{self._name}"].to("midi", "nano", 1)'
                raise ScoreError(error.message, hint=hint) from None
        value = None if kind == "none" else kind
        score().add(SettingNode(0, 0, "to", value, reading=rest), self._name)


deck = Deck()


def to(kind: str | None, place: str = "", channel: int = 1) -> None:
    deck.to(kind, place, channel)


to.__doc__ = SETTINGS["to"].help


def _texts(node: Any) -> Any:
    """An expression for a control that takes text: plain strings are text, unless they look like
    mini-notation."""
    if isinstance(node, PlainString):
        mini = _MINI_SIGNS.intersection(node.text)
        return node if mini else Text(0, 0, node.text)
    if isinstance(node, tuple):
        return tuple(map(_texts, node))
    if isinstance(node, Expr):
        inner = {f.name: _texts(getattr(node, f.name)) for f in fields(node)}
        return replace(node, **inner)
    return node


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
    """Play a scene: go("drop", at(8))."""
    if when is not None and not isinstance(when, Timed):
        raise ScoreError(f"go takes a time, not {when!r}", hint=f'write go("{name}", at({when!r}))')
    score().add(GoNode(0, 0, name, when.whens if when else ()))


def chain(*scenes: tuple[str, Number]) -> None:
    """Scenes one after the other: chain(("drop", 8), ("calm", 4))."""
    if not all(isinstance(row, tuple) and len(row) == 2 for row in scenes):
        raise ScoreError(
            "chain takes pairs of a scene and its length", hint='write chain(("drop", 8))'
        )
    score().add(ChainNode(0, 0, tuple((n, exact(k)) for n, k in scenes)))


# --- settings and performance ----------------------------------------------------------------


def _set(word: str, value: object, deck_name: str = "main", reading: str = "") -> None:
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    if word == "beats" and isinstance(plain, str):
        plain = read_meter(plain) or plain
    elif plain is not None and not isinstance(plain, str):
        plain = exact(plain)
    score().add(SettingNode(0, 0, word, plain, reading=reading), deck_name)


def setting(word: str) -> Callable[[float | str | bool | Path | None], None]:
    """The Python function for a setting: tempo(128), link(True)."""

    def set_value(value: float | str | bool | Path | None) -> None:
        _set(word, ("on" if value else "off") if isinstance(value, bool) else value)

    def switch(value: float | str | bool | Path | None = True) -> None:
        set_value(value)

    made = switch if word == "hold" else set_value
    made.__name__, made.__doc__ = word, SETTINGS[word].help
    return made


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

#: Seconds in which a file must have said its score.
PATIENCE = 2.0


class EndlessError(ScoreError):
    """A file of Python that does not end."""


def run_python(source_text: str, name: str = "<python>", seed: int = 0) -> Program:
    """Run a file of Python that fills a Score, and compile it. It is code: only behind --python.

    Raises DemonError, with the line of the file.
    """
    return python_score(source_text, name).program(seed)


def python_score(source_text: str, name: str = "<python>", seconds: float | None = None) -> Score:
    """Run a file of Python: the Score that it has filled. Raises DemonError, as `run_python`.

    seconds: after which it is taken for endless; None: PATIENCE.
    """
    seconds = PATIENCE if seconds is None else seconds
    filled = Score(name)
    filled._source = source_text
    failed: list[Exception] = []

    def run() -> None:
        with suppress(_Ended), filled:
            try:
                exec(
                    compile(source_text, name, "exec"),
                    {"__name__": "__demon__", "__file__": name},
                )
            except Exception as error:  # noqa: BLE001 - the caller's thread raises it
                failed.append(error)

    # A thread of its own, which can be left where it never ends.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="score", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        place = _line_of(thread, name)
        _end(thread)
        raise EndlessError(
            f"this file does not end within {seconds:g} s",
            span=_line_span(source_text, place) if place else None,
            hint="it says a score once; what repeats is a pattern",
            source=source_text,
            name=name,
        )
    if failed:
        raise _placed(failed[0], source_text, name) from failed[0]
    return filled


class _Ended(BaseException):
    """Raised inside a file that does not end."""


def _end(thread: threading.Thread) -> None:
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Ended))


def _line_of(thread: threading.Thread, name: str) -> int:
    """The line of the file that a thread runs; 0 if it is not known."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == name:
            return frame.f_lineno
        frame = frame.f_back
    return 0


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
    span = _line_span(source_text, line)
    message = error.message if isinstance(error, DemonError) else f"{type(error).__name__}: {error}"
    hint = error.hint if isinstance(error, DemonError) else None
    return ScoreError(message, span=span, hint=hint, source=source_text, name=name)
