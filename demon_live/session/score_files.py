"""Hot reload: a saved score plays at its quantum, a broken one changes nothing.

Editors save in many ways (in place, in two writes, to a temporary name and a rename, with a
backup). So events only say WHERE to look; what counts is the content: after the folder has been
quiet for a moment each touched file is read and, if its text differs from the last, applied.

Threads: watchdog's thread only puts names into a set; one thread of ours does the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from demon_live import faults
from demon_live.errors import DemonError
from demon_live.lang.dsl_score import EndlessError
from demon_live.session.scores import read_score, read_start, score_name
from demon_live.session.session import Session
from demon_live.session.status import Outcome

log = logging.getLogger(__name__)

#: A folder must be quiet this long before a file is read, in seconds.
SETTLE = 0.03
#: Seconds after which a quiet folder is looked at without being asked to.
RESCAN = 2.0
#: A file that is gone, empty or broken is looked at again after these pauses, in seconds: it may
#: be half written, or about to be renamed.
AGAIN = (0.12, 0.4)
_SUFFIXES = (".demon", ".py")
_QUIET = {"opened", "closed_no_write"}


def is_score(path: Path) -> bool:
    """A score that plays: `*.demon` (or Python, where that is allowed), not hidden, not muted by a
    leading `_`."""
    return path.suffix in _SUFFIXES and not path.name.startswith(("_", "."))


class Reloader:
    """Applies the content of touched files to a session. No thread, no clock: easy to test."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seen: dict[Path, str] = {}
        #: When each was written: the same text written again is a text evaluated again.
        self._saved: dict[Path, int] = {}

    def written(self, path: Path, text: str) -> None:
        """The session wrote a file itself: its content is known."""
        key = _key(path)
        self._saved[key], self._seen[key] = _saved_at(path), _digest(text.encode())

    def resume(self, path: Path) -> None:
        """Go on with a score that played: its file is read only if it was saved since."""
        data, digest = _read(path)
        played = self.session.scores().get(score_name(path))
        with contextlib.suppress(DemonError):
            if data is not None and read_score(path, data) == played:
                self._saved[_key(path)], self._seen[_key(path)] = _saved_at(path), digest
        self.touch(path)

    def load(self, path: Path) -> Outcome:
        """Load a score; its content is then known. Raises DemonError."""
        saved = _saved_at(path)
        data, digest = _read(path)
        outcome = self.session.load(path, data)
        self._saved[_key(path)], self._seen[_key(path)] = saved, digest
        return outcome

    def touch(self, path: Path, last: bool = True) -> bool:
        """Look at a file again. False (unless `last`): gone, empty or broken, so look once more."""
        key, saved = _key(path), _saved_at(path)
        data, digest = _read(path)
        if path.suffix == ".py" and not self.session.python:
            return True
        if not digest or not is_score(path):
            if not last and key in self._seen:
                return False
            if self._seen.pop(key, None) is not None:
                played = score_name(path) in self.session.scores()
                outcome = self.session.remove(str(path))
                if played:
                    self.session.tell(f"{score_name(path)} is gone: its controls revert")
                for line in outcome.messages:
                    self.session.tell(line)
            return True
        if self._seen.get(key) == digest:
            before, self._saved[key] = self._saved.get(key, saved), saved
            if before == saved or not self.session.differs(score_name(path)):
                return True
        if key not in self._seen and self._renamed(key, path, digest):
            return True
        try:
            outcome = self.session.load(path, data)
        except DemonError as error:
            if not last and not isinstance(error, EndlessError):
                return False
            self._seen[key] = digest
            self.session.tell(str(error))
            return True
        self._saved[key], self._seen[key] = saved, digest
        lines = [*outcome.messages, *outcome.warnings] or ["nothing changes"]
        self.session.tell(f"{score_name(path)}: " + lines[0])
        for line in lines[1:]:
            self.session.tell(f"  {line}")
        return True

    def _renamed(self, key: Path, path: Path, digest: str) -> bool:
        """A new file that says what one that is gone said is that score under another name."""
        gone = [old for old, text in self._seen.items() if text == digest and not old.exists()]
        for old in gone:
            if self.session.rename(str(old), str(path)):
                del self._seen[old]
                self._seen[key] = digest
                self.session.tell(f"{score_name(old)} is {score_name(path)} now")
                return True
        return False


def _key(path: Path) -> Path:
    """One name for one file. Links stay links: what they lead to may change, or be gone."""
    return Path(os.path.abspath(path))


def _saved_at(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _read(path: Path) -> tuple[bytes | None, str]:
    """(content, its digest). A file that is gone or empty has no digest; one that cannot be read
    has the reason instead."""
    try:
        data = read_start(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        return None, str(error)
    return data, _digest(data) if data else ""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stamps(folders: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """Number, time of change and size of each file that could be a score."""
    found: dict[Path, tuple[int, int, int]] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIXES):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        found[Path(entry.path)] = (
                            status.st_ino,
                            status.st_mtime_ns,
                            status.st_size,
                        )
    return found


class Watcher(FileSystemEventHandler):
    """Watches folders for scores. `close` ends its threads."""

    def __init__(self, reloader: Reloader, folders: Iterable[Path]) -> None:
        self._reloader = reloader
        self._touched: set[Path] = set()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._closing = False
        self._looked = threading.Condition()
        self._observer = Observer()
        self._folders = sorted({_key(f) for f in folders})
        self._named = {f.resolve(): f for f in self._folders}
        self._stamps = _stamps(self._folders)
        for folder in self._folders:
            self._observer.schedule(self, str(folder), recursive=False)
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        self._observer.start()
        self._thread.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _QUIET or event.is_directory:
            return
        if faults.ON and faults.hit("watch.overflow") is not None:
            return
        # A save by rename tells the final name only in dest_path.
        paths = [Path(os.fsdecode(p)) for p in (event.src_path, event.dest_path) if p]
        # Some systems name the folder that a link leads to; scores have the name that was given.
        paths = [self._named.get(p.parent, p.parent) / p.name for p in paths]
        with self._lock:
            self._touched.update(p for p in paths if p.suffix in _SUFFIXES)
        self._wake.set()

    def _run(self) -> None:
        while not self._closing:
            if not self._wake.wait(RESCAN):
                self._note_unheard()
            while not self._closing:
                self._wake.clear()
                # Wait until nothing has been written for a moment.
                if not self._wake.wait(SETTLE):
                    break
            with self._lock:
                touched, self._touched = self._touched, set()
            # What is there comes first: it may be what is gone, under another name.
            for path in sorted(touched, key=lambda p: (not p.exists(), p)):
                self._look(path)
            with self._looked:
                self._looked.notify_all()

    def _note_unheard(self) -> None:
        """Queues of the system run over, and some file systems tell nothing: look, now and then."""
        there = _stamps(self._folders)
        before, self._stamps = self._stamps, there
        changed = {p for p in there.keys() | before.keys() if there.get(p) != before.get(p)}
        with self._lock:
            self._touched.update(changed)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until reloads have made something true; False if they did not in time."""
        with self._looked:
            return self._looked.wait_for(condition, seconds)

    def _look(self, path: Path) -> None:
        try:
            for pause in AGAIN:
                if self._reloader.touch(path, last=False):
                    return
                threading.Event().wait(pause)
            self._reloader.touch(path)
        # The watcher wall: one strange file must not end hot reload for all others.
        except Exception as error:
            log.warning("reload of %s", path, exc_info=True)
            self._reloader.session.tell(f"{path}: {error}")

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._observer.stop()
        self._observer.join(2)
        self._thread.join(2)
