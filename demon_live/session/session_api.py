"""The session as its front ends see it, in whatever process it runs.

The prompt, the stage view, the plain lines, the tour and the control server use nothing else.
`Session` fits the Protocol; `RemoteSession` does so over the control socket. Hush, mute, undo,
record and all other performance words are statements: `apply("hush")`.

Threads: the methods may be called from any thread, and none of them waits for the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from demon_live.session.agenda import Handle
from demon_live.session.status import Outcome, Status, Words


class SessionApi(Protocol):
    """`apply`, `load` and `save` raise DemonError, with the place in the text, for a text that is
    refused; everything plays on as before."""

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

    def words(self) -> Words:
        """The names that a score may use now, for completion."""
