"""`record NAME` and `stop`: the journal's file, the sound beside it, and the files that it names.

Threads: under the session's lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from demon_live._version import __version__
from demon_live.audio.sinks import checked_target
from demon_live.errors import EngineError, FileError, ScoreError
from demon_live.lang import Word
from demon_live.models.manifest import Manifest, load_manifest
from demon_live.sets.journal import SUFFIX, Journal, Recording
from demon_live.sets.set_files import File, copy_into, folder_of, remember

#: Letters of a set's name: file systems take 255 bytes, with an ending.
_LONGEST_NAME = 60


def about_engine(manifest: Manifest, backend: str = "auto") -> dict[str, object]:
    """What a set says of the engine that played: it, its weights by hash, this program. backend:
    as it was asked for."""
    weights = {w.file: w.sha256 for w in getattr(manifest, "weights", ())}
    chosen: dict[str, object] = {} if backend == "auto" else {"backend": backend}
    return chosen | {
        "engine": manifest.name,
        "engine_digest": manifest.digest,
        "weights": weights,
        "app": __version__,
    }


def engine_for(
    recording: Recording | None, engine: str | None, backend: str | None
) -> tuple[str, str]:
    """The engine and backend to play a set or a score (None) with: as asked for, else the set's
    own, else DEMON_ENGINE and DEMON_BACKEND, else imp.

    Raises EngineError if the set's own is not here.
    """
    own = recording.start if recording is not None and engine is None else {}
    played = str(own.get("engine", ""))
    name = engine or played or os.environ.get("DEMON_ENGINE") or "imp"
    chosen = backend or str(own.get("backend", "")) or os.environ.get("DEMON_BACKEND") or "auto"
    if played:
        # A set may come from a stranger: it names an engine of this machine, never a file or code.
        known = re.fullmatch(r"[a-z][a-z0-9_-]*", played) is not None
        try:
            manifest = load_manifest(played) if known else None
        except EngineError:
            manifest = None
        if manifest is None:
            raise EngineError(
                f"the set was played on the engine {played!r}, which is not here",
                hint="name the one to play it with: --engine NAME, or --engine PATH.toml",
            )
        if chosen not in ("auto", *manifest.backends):
            chosen = "auto"
    return name, chosen


def notices(recording: Recording, manifest: Manifest) -> list[str]:
    """What is to be said before a set is played with the engine of `manifest`, one line each."""
    out = []
    if recording.torn:
        out.append(f"{recording.torn} damaged lines of the set are left out")
    if recording.unknown:
        out.append(f"{recording.unknown} lines of the set are of unknown kinds, and are left out")
    labels = {
        "app": "another version of demon",
        "engine": "another engine",
        "engine_digest": "another version of the engine",
        "weights": "other weights",
    }
    here = about_engine(manifest)
    other = [k for k in labels if recording.start.get(k, here[k]) != here[k]]
    if "engine" in other:
        other = [k for k in other if k in ("app", "engine")]
    if other:
        what = " and ".join(labels[k] for k in other)
        out.append(f"the set was recorded with {what}: it may sound different (demon set verify)")
    return out


def is_sound_of(stem: Path, sound: Path) -> bool:
    """Whether `sound` is of the set at `stem`: NAME.flac, or NAME-2.flac, where it went on."""
    number = sound.stem.removeprefix(stem.name)
    return sound.parent == stem.absolute().parent and (not number or number[1:].isdecimal())


class Recorder:
    """Writes `NAME.set.jsonl`, `NAME.flac` and `NAME.files` into a folder, with `tracks` also
    `NAME-DECK.flac`.

    Args:
        journal: whose lines are recorded.
        folder: where.
        tell: called with a line for the performer about a file that cannot be kept.
    """

    def __init__(
        self, journal: Journal, folder: Path, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self._journal, self._folder, self.tell = journal, folder, tell
        self._files: dict[File, Path] = {}
        #: Name of the set that is being recorded, or None.
        self.name: str | None = None
        #: Whether each deck has a file of its own.
        self.tracks = False
        #: Whether its sound cannot be written now, and whether some of it is missing.
        self.lost = self._torn = False

    @property
    def sound(self) -> str | None:
        """Path of the sound file that is being recorded, or None."""
        return None if self.name is None else str((self._folder / f"{self.name}.flac").absolute())

    def note_sound(self, path: str, lost: bool) -> None:
        """A sound file cannot be written any more, or one was begun. path: "" if it is not known
        which."""
        if self.name is None or (path and not is_sound_of(self._folder / self.name, Path(path))):
            return
        self.lost = lost
        self._torn |= lost

    def check(self, word: Word) -> None:
        """Everything that can be wrong with `record NAME`. Raises ScoreError."""
        name = str(word.args[0]) if word.args else "x"
        if self.name:
            raise ScoreError(
                f"{self.name} is being recorded already", span=word.span, hint="first: stop"
            )
        if word.args[1:] not in ((), ("tracks",)):
            raise ScoreError(
                f"record takes a name, and {word.args[1]!r} is a second one",
                span=word.span,
                hint=f"each deck in a file of its own: record {name} tracks",
            )
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ScoreError(
                f"{name!r} cannot be the name of a set",
                span=word.span,
                hint="letters, digits, - and _",
            )
        if len(name) > _LONGEST_NAME:
            raise ScoreError(
                f"the name of a set has at most {_LONGEST_NAME} letters, this one has {len(name)}",
                span=word.span,
                hint="choose a shorter one",
            )
        if word.args and (self._folder / f"{name}{SUFFIX}").exists():
            raise ScoreError(
                f"there is a set {name} already",
                span=word.span,
                hint="choose another name: sets are never overwritten",
            )

    def begin(self, word: Word, now: int = 0) -> str:
        """Open the files at output sample `now`; what was played before is in the set, too."""
        name = str(word.args[0]) if word.args else datetime.now().strftime("set-%Y%m%d-%H%M%S")
        path = self._folder / f"{name}{SUFFIX}"
        checked_target(self._folder / f"{name}.flac")
        self._journal.open(path, now)
        remember(path, ended=False)
        self.name, self.lost, self._torn = name, False, False
        self.tracks = len(word.args) > 1
        for file, where in self._files.items():
            self._copy(file, where)
        before = " · the set knows all before it, too: --from 0" if now else ""
        tracks = f", {name}-DECK.flac" if self.tracks else ""
        return f"recording · {path} and {name}.flac{tracks}{before}"

    def keep(self, file: File, path: Path) -> None:
        """A file was read: it belongs to the set, also to one that is begun later."""
        self._files[file] = path
        if self.name is not None:
            self._copy(file, path)

    def _copy(self, file: File, path: Path) -> None:
        try:
            copy_into(folder_of(self._folder / f"{self.name}{SUFFIX}"), file, path)
        except FileError as error:
            self.tell(error.message)

    def end(self, now: int) -> str:
        """Close the files; fine when nothing is being recorded."""
        if self.name is None:
            return "nothing is being recorded"
        name, self.name = self.name, None
        path = self._journal.path
        self._journal.close(now)
        if path is not None:
            remember(path, ended=True)
        if not self._torn:
            return f"recorded · demon replay {name}"
        return (
            f"recorded, but some of the sound is missing · demon render {name} -o {name}.wav "
            "makes all of it"
        )
