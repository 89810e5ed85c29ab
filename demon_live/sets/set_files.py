"""The sound files that a set names, kept beside it: it replays when they have changed or are gone.

    NAME.set.jsonl            before a text that reads a file, a line of kind "file": its name as
                              it is written, the folder that is relative to, SHA-256, the file's own
    NAME.files/SHA-256/x.wav  the file as it was then

A copy is used only if its content has that SHA-256 and it lies in the folder of the set. Larger
files than `LARGEST` are neither hashed nor kept.

Threads: under the session's lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from demon_live.errors import FileError
from demon_live.sets.journal import SUFFIX, Event

KIND = "file"
#: Bytes; ten minutes, the longest source, have 921 MB at 192 kHz in float32.
LARGEST = 1 << 30
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read. digest: SHA-256 of its bytes. name: its own, without a folder."""

    digest: str
    name: str


def folder_of(path: Path) -> Path:
    """Where the files of the set at `path` are kept."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".files")


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError, also if it is too large to be kept."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_into(folder: Path, file: File, path: Path) -> None:
    """Keep the file at `path` as `file`. Raises FileError, also if it is no longer what it was."""
    place = folder / file.digest / file.name
    if place.exists():
        return
    part = place.with_name(f"{file.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.digest:
            raise FileError(f"{path} has changed since it was played, so the set cannot keep it")
        part.write_bytes(data)
        part.replace(place)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileError(f"the set cannot keep {path}: {error.strerror}") from None


class SetFiles:
    """Which file a name meant: of a set that is replayed, or in a session that may be recorded.

    folder: the copies of the set that is replayed, None if there is none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._meant: dict[tuple[str, str], File] = {}

    def event(self, name: str, base: str, file: File, now: int) -> Event | None:
        """What the set must say of it; None if that is what it said last."""
        if self._meant.get((name, base)) == file:
            return None
        self._meant[name, base] = file
        return Event(KIND, now, f"{file.digest} {file.name}", name, base)

    def learn(self, event: Event) -> None:
        """A line of a set. What `event` would not have written is passed over."""
        digest, _, name = event.text.partition(" ")
        if _DIGEST.fullmatch(digest) and name == Path(name).name and name not in ("", ".", ".."):
            self._meant[event.name, event.origin] = File(digest, name)

    def find(self, name: str, base: str) -> Path | None:
        """The copy of what a name meant; None: there is none, or it is not what it was."""
        file = self._meant.get((name, base))
        if file is None or self.folder is None:
            return None
        path = self.folder / file.digest / file.name
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve().parent)
            # A link may lead anywhere; the folder of the set is where it may lead to.
            own = self.folder.parent.resolve() == self.folder.resolve().parent
            if inside and own and path.is_file() and digest_of(path) == file.digest:
                return path
        except (OSError, ValueError):  # also a name that no file can have
            pass
        return None
