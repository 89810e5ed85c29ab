"""The session as its front ends see it, in whatever process it runs.

The prompt, the stage view, the plain lines, the tour and the control server use nothing else.
`Session` fits the Protocol; `RemoteSession` does so over the control socket. Hush, mute, undo,
record and all other performance words are statements: `apply("hush")`.

Threads: the methods may be called from any thread, and none of them waits for the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, overload

from demon_live.lang.dsl_score import Score
from demon_live.session.agenda import Handle, Scripts, What
from demon_live.session.status import Outcome, Status, Words


class SessionApi(Protocol):
    """`apply`, `load` and `save` raise DemonError, with the place in the text, for a text that is
    refused; everything plays on as before.

    by: who evaluates here, for others and the set; "" has no name.
    """

    by: str = ""

    def apply(
        self, text: str, name: str = ..., origin: str = ..., *, at: Fraction | None = ...
    ) -> Outcome:
        """Evaluate a text.

        Args:
            text: the statements.
            name: where errors are said to be; "<...>" is no file.
            origin: "repl": `text` adds to what plays; "osc": the same, with file names bounded as
                in a score; "file": it is the whole score file `name`.
            at: the cycle that takes the place of the next quantum, if it is still to come.
        """

    def load(self, path: Path | str) -> Outcome:
        """Read a score file and play it as that file."""

    def save(self, path: Path | str, text: str) -> Outcome:
        """Write a score file, even if its text is wrong, and play it as `load` does."""

    def remove(self, name: str) -> Outcome:
        """Unload the score file `name`; its controls revert."""

    def status(self) -> Status:
        """Everything that a view shows, now: frozen. Cheap enough for 30 calls a second."""

    def events(self, since: int) -> tuple[int, tuple[str, ...]]:
        """(number of the newest event, the events after number `since`)."""

    def watch(self, kinds: Iterable[str], call: Callable[[str, Any], object]) -> Handle:
        """Call `call(kind, value)` when something happens, at once and in the thread in which it
        does: it must not wait.

        Args:
            kinds: "event", "error" and "generation" as of `Session.on`; "clock": (cycle, bpm,
                beats) at each sampling of the score, a dozen times a second.
            call: what is called.
        """

    def scores(self) -> Mapping[str, str]:
        """The score files that play, name -> text of the version that plays, in load order."""

    def score(self, folder: Path | None = None) -> str:
        """What plays now, as one score. folder: where it will lie, for the files that it names."""

    def words(self) -> Words:
        """The names that a score may use now, for completion."""


class ScriptApi(ABC):
    """How scripts put things on the timeline of a session, in this process or another one."""

    @property
    @abstractmethod
    def scripts(self) -> Scripts:
        """The timeline."""

    @property
    @abstractmethod
    def cycle(self) -> Fraction:
        """Where the next sample that is not decided lies."""

    def at(self, cycle: Fraction | float, what: str | Score | Callable[..., object]) -> Handle:
        """Let a text, a Score or the statements of a function be heard at `cycle`.

        Args:
            cycle: by the tempo of then; one that is over counts as now.
            what: a function of (session, cycle) is called two seconds ahead, and what it applies is
                heard at the cycle; one without parameters is called when the cycle comes. A text
                is heard at the cycle, too; words that act at once, such as hush, a moment later.

        Returns:
            Its handle, to cancel it.
        """
        return self.scripts.at(cycle, what)

    @overload
    def every(self, cycles: Fraction | float, call: Callable[..., object]) -> Handle: ...
    @overload
    def every(self, cycles: Fraction | float) -> Callable[[Callable[..., object]], Handle]: ...
    def every(self, cycles: Fraction | float, call: Callable[..., object] | None = None) -> Any:
        """Call a function, as `at` does, for each cycle that `cycles` divides.

        Returns:
            Its handle, to cancel it; without a function a decorator that gives it.
        """
        if call is None:
            return lambda found: self.every(cycles, found)
        return self.scripts.every(cycles, call, self.cycle)

    def on(self, what: What, call: Callable[..., object]) -> Handle:
        """Call a function when something happens.

        Args:
            what: "bar": (session, cycle) as each bar begins; "event": (session, line) for each
                line to the performer; "error": (session, DemonError) for what is refused;
                "generation": (session, Generation) for each latent. Live, its request is without
                conditions and sources, which stay with the engine.
            call: takes these two, or nothing. While 64 calls of it wait, it misses some.

        Returns:
            Its handle, to cancel it.
        """
        return self.scripts.on(what, call, self.cycle)
