"""The SessionApi over the control socket: a session in another process.

Two connections: a statement may take its time while a view polls over the other one; and one more
for each `watch`, over which the session pushes what happens. The names for completion are fetched
along with the status, so that `words` never waits.

Threads: every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from demon_live.control.client import Connection, SessionGone, author, choose, gone
from demon_live.control.registry import Info, ended, find, socket_path
from demon_live.control.wire import EVALUATIONS, unpack
from demon_live.errors import DemonError
from demon_live.lang.dsl_score import Score
from demon_live.session.agenda import Handle, Scripts, What, due, text_of
from demon_live.session.session_api import ScriptApi, SessionApi
from demon_live.session.status import Outcome, Status, Words
from demon_live.session.tempo import TempoMap

log = logging.getLogger(__name__)
T = TypeVar("T")
#: Seconds between two looks at the names for completion.
_WORDS_EVERY = 0.5
#: Seconds that a session may take to close its files and fade.
_ENDING = 15.0


class RemoteSession(ScriptApi, SessionApi):
    """The session called `name`; None: the default one, or the only one. Raises FileError.

    by: who evaluates, for the others and the set; None: the login name. recent: how many of the
    earlier events to show (None: all). ended: called once, in any thread, when the session is gone
    or after `detach`.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        by: str | None = None,
        recent: int | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.by = author(by)
        name = choose(name)
        self._commands = Connection(socket_path(name))
        try:
            self._views = Connection(socket_path(name))
        except DemonError:
            self._commands.close()
            raise
        self.info = find(name) or Info(name, 0)
        self._ended = ended
        #: The performer said `detach`: the session plays on.
        self.detached = False
        #: Why the session is gone, once it is.
        self.lost: SessionGone | None = None
        self._recent = recent
        self._gone = threading.Lock()
        self._words = Words()
        self._words_at = 0.0
        self._look_at_words()
        self._scripts: Scripts | None = None
        self._latents = Handle(cancelled=True)
        #: For pushed events, one each.
        self._pushing: list[Connection] = []

    # --- the SessionApi -----------------------------------------------------------------------

    def apply(
        self,
        text: str | Score,
        name: str = "<prompt>",
        origin: str = "repl",
        *,
        at: Fraction | None = None,
    ) -> Outcome:
        """Evaluate a text or a Score; `detach` leaves the session without a prompt."""
        text, at = text_of(text), due(self) if at is None else at
        if text.strip() == "detach" and origin != "file":
            self.detached = True
            self._ended()
            return Outcome(("detach · the session plays on · demon attach returns to it",))
        if at is None:
            return self._outcome(self._command("apply", text=text, name=name, origin=origin))
        cycle = str(max(Fraction(0), Fraction(at).limit_denominator(10**9)))
        return self._outcome(self._command("at", text=text, name=name, cycle=cycle))

    def load(self, path: Path | str) -> Outcome:
        """Play a score file as that file."""
        return self._outcome(self._command("load", path=str(Path(path).absolute())))

    def save(self, path: Path | str, text: str) -> Outcome:
        """Write a score file, even if its text is wrong, and play it."""
        # The name of a score that plays is relative to the folder the session was started in.
        known = str(path) in self.scores()
        where = str(path) if known else str(Path(path).absolute())
        return self._outcome(self._command("save", path=where, text=text))

    def remove(self, name: str) -> Outcome:
        """Unload the score file `name`; its controls revert."""
        return self._outcome(self._command("remove", name=name))

    def status(self) -> Status:
        """Everything that a view shows, now."""
        self._look_at_words()
        return _of(Status, self._view("status"))

    def events(self, since: int) -> tuple[int, tuple[str, ...]]:
        """(number of the newest, lines that came after number `since`).

        The session keeps a bounded number of events; a line says how many were lost.
        """
        row = self._view("events", since=since)
        newest, lines, lost = int(row["newest"]), tuple(map(str, row["lines"])), int(row["lost"])
        if since == 0 and self._recent is not None:
            lines = lines[-self._recent :] if self._recent else ()
        elif lost:
            lines = (f"{lost} messages came faster than they were read", *lines)
        return newest, lines

    def scores(self) -> Mapping[str, str]:
        """The score files that play, name -> text."""
        return {str(k): str(v) for k, v in self._view("scores").items()}

    def score(self, folder: Path | None = None) -> str:
        """What plays now, as one score. folder: where it will lie."""
        return str(self._view("score", folder=str(folder or "")))

    def words(self) -> Words:
        """The names for completion, at most half a second old."""
        return self._words

    def watch(self, kinds: Iterable[str], call: Callable[[str, Any], object]) -> Handle:
        """As `Session.watch`, in a thread of its own; values have crossed the socket."""
        connection, handle = Connection(socket_path(self.info.name)), Handle()
        self._pushing.append(connection)
        pushed = connection.follow(" ".join(kinds))

        def run() -> None:
            for kind, value in pushed:
                if handle.cancelled:
                    break
                # The session may go away between the event and what it calls.
                with contextlib.suppress(SessionGone):
                    call(kind, value)
            connection.close()

        threading.Thread(target=run, name="pushed", daemon=True).start()
        return handle

    # --- scripts ------------------------------------------------------------------------------

    @property
    def cycle(self) -> Fraction:
        """Where the next sample that is not decided lies."""
        return Fraction(self.status().cycle)

    def on(self, what: What, call: Callable[..., object]) -> Handle:
        """As `Session.on`."""
        handle = super().on(what, call)
        # Latents cross the socket only while someone waits for them.
        if what == "generation" and self._latents.cancelled:
            self._latents = self.watch((what,), self._latent)
        return handle

    def _latent(self, kind: str, generation: Any) -> None:
        self.scripts.emit(kind, generation)
        if not self.scripts.wants(kind):
            self._latents.cancel()

    @property
    def scripts(self) -> Scripts:
        """The timeline of this process, which lasts as long as it is attached; what the session
        pushes keeps it going."""
        with self._gone:
            if self._scripts is None:
                self._scripts = Scripts(self, log.warning)
                self.watch(("clock", "event", "error"), self._pushed)
            return self._scripts

    def _pushed(self, kind: str, value: Any) -> None:
        scripts = self.scripts
        if kind != "clock":
            scripts.emit(kind, value)
            return
        cycle, bpm, beats = value
        tempo = TempoMap.start(Fraction(bpm), Fraction(beats))
        scripts.run(tempo.sample_at(Fraction(cycle)), tempo)

    # --- beyond a front end -------------------------------------------------------------------

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def quit(self) -> bool:
        """End the session; True once it has ended, its files closed."""
        with contextlib.suppress(SessionGone):
            self._command("quit")
        self.close()
        return ended(self.info.name, _ENDING)

    def close(self) -> None:
        """Leave; the session plays on."""
        if self._scripts is not None:
            self._scripts.close()
        for connection in (self._commands, self._views, *self._pushing):
            connection.close()

    # --- the wire -----------------------------------------------------------------------------

    def _command(self, verb: str, **args: Any) -> Any:
        by = {"by": self.by} if verb in EVALUATIONS else {}
        return self._ask(self._commands, verb, args | by)

    def _view(self, verb: str, **args: Any) -> Any:
        return self._ask(self._views, verb, args)

    def _ask(self, connection: Connection, verb: str, args: Mapping[str, Any]) -> Any:
        try:
            return connection.ask(verb, **args)
        except SessionGone as error:
            with self._gone:
                first, self.lost = self.lost is None, self.lost or error
            if first:
                self._ended()
            raise

    def _look_at_words(self) -> None:
        now = time.monotonic()
        if now - self._words_at >= _WORDS_EVERY:
            self._words_at = now
            self._words = _of(Words, self._view("words"))

    @staticmethod
    def _outcome(row: Any) -> Outcome:
        return _of(Outcome, row)


def connect(name: str | None = None, by: str | None = None) -> RemoteSession:
    """The running session called `name`; None: the default one, or the only one.

    Args:
        name: of the session.
        by: who evaluates, for the others and the set; None: the login name.

    Raises:
        FileError: it does not run.
    """
    return RemoteSession(name, by=by)


class AsyncSession:
    """A RemoteSession whose methods are awaited: `await session.apply("gain = 1")`.

    The functions of `at`, `every` and `on` run in a thread.
    """

    def __init__(self, session: RemoteSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._session, name)
        if not callable(method):
            raise AttributeError(f"{name} waits for the session: await session.status()")
        return functools.partial(asyncio.to_thread, method)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._session.close()


async def aconnect(name: str | None = None, by: str | None = None) -> AsyncSession:
    """As `connect`, for code with asyncio. Raises FileError."""
    return AsyncSession(await asyncio.to_thread(connect, name, by))


def _of(kind: type[T], row: Any) -> T:
    value = unpack(row)
    if not isinstance(value, kind):
        raise gone("its answer is of the wrong kind")
    return value
