"""What scripts put on the timeline, and messages for the performer that answer no statement.

    at(cycle, text | Score | function)     once
    every(cycles, function)                at each cycle that `cycles` divides
    on(what, function)                     when something happens
    watch(kinds, function)                 the same, at once, for other programs

Times are cycles, and become samples by the tempo of the moment. A text is applied `AHEAD` of its
cycle and heard on it; so are the statements of a function of (session, cycle). Functions run in a
thread of their own, one after the other, so that none holds up the sound; where all is one thread
(renders) they run there, and what they raise is raised.

Threads: any.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import linecache
import logging
import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from demon_live.core import RATES
from demon_live.errors import DemonError, ScoreError, Span, UsageError
from demon_live.lang import Word, compile_source
from demon_live.lang.dsl_pattern import exact
from demon_live.lang.dsl_score import Score
from demon_live.session.tempo import TempoMap

log = logging.getLogger(__name__)

#: Samples by which texts and functions come before their cycle: new loops need a second and a half.
AHEAD = 2 * RATES.sample_rate
#: Words that may wait for a cycle; all others act at once.
TIMED = frozenset({"mute", "unmute", "solo", "unsolo", "recall"})
#: What a function may be called for, and how many calls of one listener may wait.
What = Literal["bar", "event", "error", "generation"]
_KINDS: tuple[str, ...] = get_args(What)
_WAITING = 64

#: The session and the cycle that a function speaks for.
_speaks: ContextVar[tuple[object, Fraction] | None] = ContextVar("speaks", default=None)


def due(session: object) -> Fraction | None:
    """The cycle that statements of the function that runs here are meant for."""
    here = _speaks.get()
    return here[1] if here is not None and here[0] is session else None


def text_of(what: str | Score) -> str:
    """The text of a score. Raises UsageError if it is neither text nor Score."""
    if isinstance(what, (str, Score)):
        return what if isinstance(what, str) else what.text
    raise UsageError(
        f"a score is a text or a Score, this is {type(what).__name__}",
        hint="with Score() as s: ... collects one",
    )


@dataclass(eq=False)
class Handle:
    """Something that a script asked for. cancelled: it does not happen any more."""

    cancelled: bool = False

    def cancel(self) -> None:
        """Let it not happen any more."""
        self.cancelled = True


@dataclass(eq=False)
class _Entry(Handle):
    """See `Scripts`. ahead: samples by which it comes before its cycle."""

    cycle: Fraction = Fraction(0)
    number: int = 0
    call: Callable[[Fraction], None] = lambda cycle: None
    every: Fraction | None = None
    ahead: int = AHEAD


@dataclass(eq=False)
class _Listener(Handle):
    """See `Scripts.on`; at_once: see `Scripts.watch`."""

    kinds: frozenset[str] = frozenset()
    call: Callable[..., object] = lambda session, value: None
    at_once: bool = False
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_WAITING))


class Scripted(Protocol):
    """What scripts need of a session."""

    def apply(self, text: str | Score, name: str = ..., *, at: Fraction | None = ...) -> Any: ...


class Scripts:
    """The timeline of a session.

    Args:
        session: is given to the functions.
        tell: gets what went wrong.
        alone: everything runs in one thread, and errors are raised.
    """

    def __init__(
        self,
        session: Scripted,
        tell: Callable[[str], None],
        *,
        alone: bool = False,
    ) -> None:
        self._session, self._tell, self._alone = session, tell, alone
        self._entries: list[_Entry] = []
        self._listeners: list[_Listener] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._worker: _ScriptThread | None = None
        self._emitting = threading.local()

    # --- asking -------------------------------------------------------------------------------

    def at(self, cycle: float | Fraction, what: str | Score | Callable[..., object]) -> Handle:
        """See `Session.at`."""
        when = exact(cycle)
        if callable(what):
            return self._add(self._called(what, when))
        text = text_of(what)
        return self._add(_Entry(cycle=when, call=lambda c: self._say(text, c), ahead=_ahead(text)))

    def every(self, cycles: float | Fraction, call: Callable[..., object], now: Fraction) -> Handle:
        """See `Session.every`. now: the cycle that is decided next."""
        step = exact(cycles)
        if step <= 0:
            raise UsageError(f"every takes a number of cycles above 0, not {cycles}")
        return self._add(self._called(call, -(-now // step) * step, step))

    def on(self, what: What, call: Callable[..., object], now: Fraction) -> Handle:
        """See `Session.on`."""
        if what not in _KINDS:
            raise UsageError(f"there is no {what!r} to wait for", hint=", ".join(_KINDS))
        if what == "bar":
            bar = self._called(call, Fraction(-(-now // 1)), Fraction(1))
            bar.ahead = 0
            return self._add(bar)
        return self._listen(_Listener(kinds=frozenset({what}), call=_taking(call)[0]))

    def watch(self, kinds: Iterable[str], call: Callable[[str, Any], object]) -> Handle:
        """See `SessionApi.watch`."""
        return self._listen(_Listener(kinds=frozenset(kinds), call=call, at_once=True))

    def wants(self, what: str) -> bool:
        """Whether anything waits for it."""
        return any(what in x.kinds and not x.cancelled for x in self._listeners)

    def _listen(self, listener: _Listener) -> Handle:
        with self._lock:
            self._listeners = [x for x in self._listeners if not x.cancelled] + [listener]
        return listener

    def _add(self, entry: _Entry) -> Handle:
        with self._lock:
            entry.number = next(self._numbers)
            self._entries.append(entry)
        return entry

    # --- happening ----------------------------------------------------------------------------

    def run(self, now: int, tempo: TempoMap) -> None:
        """Do what is due at output sample `now`, in the order of the cycles."""
        if self.wants("clock"):
            segment = tempo.segment_of(now)
            self.emit("clock", (tempo.cycle_at(now), segment.bpm, segment.beats))
        while (entry := self._next(now, tempo)) is not None:
            entry.call(entry.cycle)

    def _next(self, now: int, tempo: TempoMap) -> _Entry | None:
        """The first entry that is due; one that comes again is put back."""
        with self._lock:
            self._entries = [e for e in self._entries if not e.cancelled]
            ready = [e for e in self._entries if tempo.sample_at(e.cycle) - e.ahead <= now]
            if not ready:
                return None
            first = min(ready, key=lambda e: (e.cycle, e.number))
            if first.every is None:
                self._entries.remove(first)
                return first
            found = _Entry(cycle=first.cycle, call=first.call)
            # What could not be in time is left out.
            here = tempo.cycle_at(now)
            steps = max(1, -((first.cycle - here) // first.every))
            first.cycle += steps * first.every
            return found

    def emit(self, what: str, value: object) -> None:
        """Something happened: call who waits for it."""
        caused = getattr(self._emitting, "on", False)
        for listener in self._listeners:
            if what not in listener.kinds or listener.cancelled:
                continue
            if listener.at_once:
                listener.call(what, value)
            elif not caused and listener.waiting.acquire(blocking=False):
                done = listener.waiting.release
                self._do(listener.call, value, None, quiet=True, done=done)

    def _say(self, text: str, cycle: Fraction) -> None:
        try:
            self._session.apply(text, "<script>", at=cycle)
        except DemonError as error:
            self._fail(error, error)

    def _called(
        self, call: Callable[..., object], cycle: Fraction, every: Fraction | None = None
    ) -> _Entry:
        """A function on the timeline; one without parameters comes when its cycle does."""
        function, takes = _taking(call)
        # One turn runs, one may wait.
        waiting = threading.Semaphore(2)

        def due(cycle: Fraction) -> None:
            if not waiting.acquire(blocking=False):
                self._tell(
                    f"{_name(call)} still runs: its turn at bar {float(cycle):g} is left out"
                )
                return
            self._do(function, cycle, cycle, done=waiting.release)

        return _Entry(cycle=cycle, call=due, every=every, ahead=AHEAD if takes else 0)

    def _do(
        self,
        call: Callable[..., object],
        value: object,
        cycle: Fraction | None,
        *,
        quiet: bool = False,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Call a function, here or in the worker. quiet: what it causes calls no listener."""

        def run() -> None:
            token = _speaks.set((self._session, cycle)) if cycle is not None else None
            self._emitting.on = quiet
            try:
                call(self._session, value)
            # The wall around code of the performer.
            except Exception as error:
                if self._alone and isinstance(error, DemonError):
                    raise
                self._fail(placed(error, call, cycle), error)
            finally:
                self._emitting.on = False
                if token is not None:
                    _speaks.reset(token)
                done()

        if self._alone:
            run()
            return
        with self._lock:
            self._worker = self._worker or _ScriptThread()
        self._worker.add(run)

    def _fail(self, error: DemonError, cause: Exception) -> None:
        if self._alone:
            raise error
        self._tell(str(error))
        # What the session refuses it has called an error already.
        if not _comes_from(cause, type(self._session).apply):
            self.emit("error", error)

    def close(self) -> None:
        """Nothing happens any more."""
        with self._lock:
            self._entries, self._listeners = [], []
            if self._worker is not None:
                self._worker.close()


class _ScriptThread:
    """A thread that calls functions in their order."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="script", daemon=True)
        self._thread.start()

    def add(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def close(self) -> None:
        self._calls.put(None)


def _ahead(text: str) -> int:
    """By how much a text may come before its cycle: not at all with a word that acts at once."""
    try:
        words = [s for s in compile_source(text, "<script>").statements if isinstance(s, Word)]
    except DemonError:
        # What is wrong, or missing here, shows when it is applied.
        return AHEAD
    return AHEAD if all(word.name in TIMED for word in words) else 0


def _comes_from(error: Exception, function: Callable[..., object]) -> bool:
    """Whether a function let this error through."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is function.__code__ for frame, _ in frames)


def _name(call: Callable[..., object]) -> str:
    return getattr(call, "__qualname__", None) or repr(call)


def _taking(call: Callable[..., object]) -> tuple[Callable[..., object], bool]:
    """(a function of session and value, whether the given one takes these or nothing)."""
    if not callable(call):
        raise UsageError(f"a function is needed, not {call!r}")
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return call, True
    with contextlib.suppress(TypeError):
        signature.bind(None, None)
        return call, True
    with contextlib.suppress(TypeError):
        signature.bind()

        def plain(session: object, value: object) -> object:
            return call()

        plain.__qualname__ = _name(call)
        return plain, False
    raise UsageError(
        f"{_name(call)}{signature} cannot be called", hint="it takes (session, cycle), or nothing"
    )


def placed(
    error: Exception, call: Callable[..., object], cycle: Fraction | None = None
) -> ScoreError:
    """What a function of the performer raised, with the line of the function."""
    when = f" at bar {float(cycle):g}" if cycle is not None else ""
    what = error.message if isinstance(error, DemonError) else f"{type(error).__name__}: {error}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = Path(__file__).parents[1]
    mine = [f for f in frames if own not in Path(f.filename).parents] or frames
    place = mine[-1] if mine else None
    made = ScoreError(f"{_name(call)}{when}: {what}", hint=getattr(error, "hint", None))
    if place is not None and place.lineno:
        made.name, text = place.filename, "".join(linecache.getlines(place.filename))
        start = sum(len(row) for row in text.splitlines(keepends=True)[: place.lineno - 1])
        row = linecache.getline(place.filename, place.lineno).rstrip()
        made.span = Span(
            start + len(row) - len(row.lstrip()),
            start + len(row),
            place.lineno,
            1 + len(row) - len(row.lstrip()),
        )
        made.source = text or None
    made.__cause__ = error
    return made


class Messages:
    """The newest lines, numbered, so that each reader gets each line once."""

    def __init__(self) -> None:
        self._rows: deque[tuple[int, str]] = deque(maxlen=256)
        self._numbers = itertools.count(1)

    def add(self, text: str) -> None:
        self._rows.append((next(self._numbers), text))

    def since(self, number: int) -> tuple[int, tuple[str, ...]]:
        """(number of the newest, the lines after line `number`)."""
        rows = [(n, text) for n, text in self._rows if n > number]
        return (rows[-1][0] if rows else number), tuple(text for _, text in rows)
