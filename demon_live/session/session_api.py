"""What a front end needs of a session, wherever that session runs.

The prompt, the stage view and the lines without a terminal know nothing else. `perform.Session`
fits it as it is; a session in another process is spoken to by an object with the same methods.
Hush, mute, undo, record and all other performance words are statements: `apply("hush")`. What
`apply`, `load` and `save` refuse they raise as DemonError, with the place in the text that was
given; everything plays on as before.

Threads: the methods may be called from any thread, and none of them waits for the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from demon_live.session.status import Outcome, Status, Words

__all__ = ["Port"]


class Port(Protocol):
    """A session as its front ends see it."""

    def apply(self, text: str, name: str = ..., origin: str = ...) -> Outcome:
        """Evaluate. origin "repl": `text` adds to what plays; "file": it is all that the score
        file `name` says. name: where errors say they are; "<...>" is no file. Raises DemonError."""

    def load(self, path: Path | str) -> Outcome:
        """Read a score file and play it as that file. Raises DemonError."""

    def save(self, path: Path | str, text: str) -> Outcome:
        """Write a score file, whatever is wrong with it, and play it as `load` does."""

    def remove(self, name: str) -> Outcome:
        """Unload the score file `name`; its controls revert."""

    def status(self) -> Status:
        """All that a view shows, now: frozen. Cheap enough for 30 calls a second."""

    def events(self, since: int) -> tuple[int, tuple[str, ...]]:
        """(number of the newest event, those that came after number `since`)."""

    def scores(self) -> Mapping[str, str]:
        """The score files that play, name -> text of the version that plays, in load order."""

    def words(self) -> Words:
        """The names that a score may use now, for completion."""
