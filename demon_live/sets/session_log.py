"""What a session that died was playing: found, restored, gone on with.

Every live session writes its causes to a log of its own (`sessions/` in the state folder), whether
a set is recorded or not: the same lines as a set, and a position mark every two seconds.
`demon live --resume` reads the newest log that has no end and whose writer is
dead, repeats its causes at the samples at which they were accepted, without a sound, and begins to
play at the next bar: program, decks, tempo, mutes, scenes, undo and all.

Threads: `SessionLog.turn` belongs to the pump; the rest is called before the instrument plays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from demon_live.core import RATES
from demon_live.errors import DemonError, FileError
from demon_live.paths import state_dir
from demon_live.sets.journal import SUFFIX, AppendLog, Journal, Recording, SetEvent, load, locked
from demon_live.sets.set_files import KIND, folder_of

#: Seconds between two marks of the position.
_MARK_EVERY = 2.0
#: Logs that are kept; each is as long as what was typed.
_KEPT = 30


def sessions_dir() -> Path:
    """The logs of all sessions."""
    path = state_dir() / "sessions"
    path.mkdir(parents=True, exist_ok=True)
    return path


class SessionLog:
    """The log of a session that plays. `turn` marks how far it is; `close` ends it."""

    def __init__(
        self,
        journal: Journal,
        tell: Callable[[str], None],
        folder: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        folder = folder or sessions_dir()
        _prune(folder)
        name = datetime.now().strftime("%Y%m%d-%H%M%S")
        self._now, self._next = now, 0.0
        self._journal = journal
        self._ledger = AppendLog(_free(folder, f"{name}-{os.getpid()}"), tell, alone=True)
        journal.keep(self._ledger)
        # Names of scores are relative to here.
        journal.mark(0, str(Path.cwd()))

    @property
    def path(self) -> Path:
        return self._ledger.path

    @property
    def files(self) -> Path:
        """Where the loops of the input are kept until the session ends."""
        return folder_of(self.path)

    def turn(self, sample: int) -> None:
        """Live, a dozen times a second: a mark now and then, what waits for room, the disk."""
        now = self._now()
        if now < self._next:
            return
        self._next = now + _MARK_EVERY
        self._journal.mark(sample)
        self._ledger.sync()

    def close(self, sample: int) -> None:
        """The session ended as it should: there is nothing to go on with."""
        self._journal.end_log(sample)
        shutil.rmtree(self.files, ignore_errors=True)


def _free(folder: Path, name: str) -> Path:
    path, number = folder / f"{name}{SUFFIX}", 2
    while path.exists():
        path, number = folder / f"{name}-{number}{SUFFIX}", number + 1
    return path


def _logs(folder: Path) -> list[Path]:
    """Newest first."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _prune(folder: Path) -> None:
    for path in _logs(folder)[_KEPT:]:
        if not locked(path):
            shutil.rmtree(folder_of(path), ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink()


def _of_file(event: SetEvent) -> bool:
    return event.origin == "file" or event.kind == "rename"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A session to go on with. folder: where it was started. sample: how far it surely was."""

    recording: Recording
    folder: Path
    sample: int

    @property
    def causes(self) -> tuple[SetEvent, ...]:
        """What was done, in order."""
        return tuple(e for e in self.recording.events if e.kind not in ("mark", "end"))

    @property
    def scores(self) -> tuple[Path, ...]:
        """The score files that played, as they were named."""
        rows = (e.text if e.kind == "rename" else e.name for e in self.causes if _of_file(e))
        names = dict.fromkeys(rows)
        return tuple(Path(name) for name in names if name)

    def describe(self) -> str:
        """One line."""
        played = self.sample / RATES.sample_rate
        changes = sum(e.kind != KIND for e in self.causes)
        return f"{changes} changes, {int(played // 60)}:{int(played % 60):02d} played"


def interrupted(path: Path) -> Interrupted | None:
    """The session of a log, or None if it ended, still plays, or never did anything."""
    if locked(path):
        return None
    with contextlib.suppress(DemonError):
        recording = load(path)
        if any(e.kind == "end" for e in recording.events):
            return None
        where = next((e.text for e in recording.events if e.kind == "mark" and e.text), "")
        found = Interrupted(recording, Path(where or "."), recording.length)
        return found if found.causes else None
    return None


def find_interrupted(name: str = "", folder: Path | None = None) -> Interrupted:
    """The newest session that died, or the one whose log is called `name`. Raises FileError."""
    logs = _logs(folder or sessions_dir())
    if name:
        logs = [p for p in logs if name in (p.name, p.name.removesuffix(SUFFIX))] or [Path(name)]
    for path in logs:
        found = interrupted(path)
        if found is not None:
            return found
    raise FileError(
        f"{name} is no session that can be resumed" if name else "there is no session to resume",
        hint="a session can be resumed when it died; one that plays: demon attach",
    )


def recently(folder: Path | None = None, within: float = 3600.0) -> str:
    """One line about a session that died within the last `within` seconds, or ""."""
    for path in _logs(folder or sessions_dir())[:2]:
        with contextlib.suppress(OSError):
            ago = time.time() - path.stat().st_mtime
            found = interrupted(path) if ago < within else None
            if found is not None:
                when = f"{ago / 60:.0f} minutes" if ago > 90 else f"{ago:.0f} seconds"
                return (
                    f"a session died {when} ago ({found.describe()}): "
                    "demon live --resume goes on with it"
                )
    return ""
