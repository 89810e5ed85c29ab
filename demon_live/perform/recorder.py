"""`record NAME` and `stop`: the journal's file and the sound beside it.

Threads: under the session's lock.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from demon_live import __version__
from demon_live.errors import ScoreError
from demon_live.lang import Word
from demon_live.models.manifest import Manifest
from demon_live.perform.journal import SUFFIX, Journal
from demon_live.perform.own import remember
from demon_live.perform.rig import Rig

__all__ = ["Recorder", "about_engine"]


def about_engine(manifest: Manifest) -> dict[str, object]:
    """What a set says of the engine that played: it, its weights by hash, this program."""
    weights = {w.file: w.sha256 for w in getattr(manifest, "weights", ())}
    return {
        "engine": manifest.name,
        "engine_digest": manifest.digest,
        "weights": weights,
        "app": __version__,
    }


class Recorder:
    """Writes `NAME.set.jsonl` and `NAME.flac` into a folder. name: of the recording, or None."""

    def __init__(self, journal: Journal, rig: Rig, folder: Path) -> None:
        self._journal, self._rig, self._folder = journal, rig, folder
        self.name: str | None = None

    def check(self, word: Word) -> None:
        """Everything that can be wrong with `record NAME`. Raises ScoreError."""
        name = str(word.args[0]) if word.args else "x"
        if self.name:
            raise ScoreError(
                f"{self.name} is being recorded already", span=word.span, hint="first: stop"
            )
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ScoreError(
                f"{name!r} cannot be the name of a set",
                span=word.span,
                hint="letters, digits, - and _",
            )
        if word.args and (self._folder / f"{name}{SUFFIX}").exists():
            raise ScoreError(
                f"there is a set {name} already",
                span=word.span,
                hint="choose another name: sets are never overwritten",
            )

    def begin(self, word: Word) -> str:
        """Open the files; what has been played so far is in the set, too."""
        name = str(word.args[0]) if word.args else datetime.now().strftime("set-%Y%m%d-%H%M%S")
        path = self._folder / f"{name}{SUFFIX}"
        self._journal.open(path)
        remember(path)
        self._rig.record(str(self._folder / f"{name}.flac"))
        self.name = name
        return f"recording · {path} and {name}.flac"

    def end(self, now: int) -> str:
        """Close the files; fine when nothing is being recorded."""
        if self.name is None:
            return "nothing is being recorded"
        name, self.name = self.name, None
        self._journal.close(now)
        self._rig.stop_record()
        return f"recorded · demon replay {name}"
