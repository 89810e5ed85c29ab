"""The sound files of a set, and which sets are trusted.

    NAME.set.jsonl            before a text that reads a file, a line of kind "file": its name as
                              written, the folder that it is relative to, SHA-256, the file's own
                              name
    NAME.files/SHA-256/x.wav  the file as it was then

A set replays when its files have changed or are gone. A copy is used only if its content has that
SHA-256 and it lies in the folder of the set. Files larger than `LARGEST` are neither hashed nor
copied.

A set is a text that anyone can write, and the names of its scores are part of it. So a set that
this machine did not record reads only the folders it is played from. What was recorded here is
known by its content, wherever it lies: by the SHA-256 of the whole once it has ended, till then
(or if a crash cut it off) by its first line and its path. A file of the state folder holds these.

Threads: under the session's lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from demon_live.audio.files import write_audio
from demon_live.core import Floats
from demon_live.errors import FileError
from demon_live.paths import open_file, read_file, remove_file, shipped, state_dir
from demon_live.sets.journal import Recording, SetEvent
from demon_live.sets.journal import folder_of as folder_of

KIND = "file"
#: Bytes; ten minutes, the longest source, have 921 MB at 192 kHz in float32.
LARGEST = 1 << 30
#: Causes in a set that was not recorded here: a knob that moves for an hour gives as many.
MOST_CAUSES = 100_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: The name of a take.
_TAKE = re.compile(r"in-[0-9a-f]{32}\.wav")


def is_take(name: str) -> bool:
    """Whether that is the name of a take of the input."""
    return _TAKE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read. digest: SHA-256 of its bytes. name: its own, without a folder."""

    digest: str
    name: str


def digest_of(path: Path) -> str:
    """SHA-256 of a file. Raises OSError, also if it is too large to be kept."""
    with open_file(path) as file:
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
        data = read_file(path, LARGEST)
        if hashlib.sha256(data).hexdigest() != file.digest:
            raise FileError(f"{path} has changed since it was played, so the set cannot keep it")
        part.write_bytes(data)
        part.replace(place)
    except OSError as error:
        remove_file(part)
        raise FileError(f"the set cannot keep {path}: {error.strerror}") from None


class SetFiles:
    """Which file a name meant: of a set that is replayed, or in a session that may be recorded.

    folder: the copies of the set that is replayed, None if there is none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._meant: dict[tuple[str, str], File] = {}

    def event(self, name: str, base: str, file: File, now: int) -> SetEvent | None:
        """What the set must say of it; None if that is what it said last."""
        if self._meant.get((name, base)) == file:
            return None
        self._meant[name, base] = file
        return SetEvent(KIND, now, f"{file.digest} {file.name}", name, base)

    def learn(self, event: SetEvent) -> None:
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


class Takes:
    """Loops of the input, kept as the files of a set are, under the names of their content.

    folder: where; None: a new one, which ends with the program.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._taken: dict[str, Path] = {}

    def keep(self, audio: Floats) -> str:
        """The name of a loop, float32 [n, 2], from now on. Raises FileError."""
        if self.folder is None:
            self.folder = Path(mkdtemp(prefix="demon-takes-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        part = self.folder / "take.wav"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_audio(part, audio)
            file = File(digest := digest_of(part), f"in-{digest[:32]}.wav")
            place = self.folder / file.digest / file.name
            place.parent.mkdir(exist_ok=True)
            part.replace(place)
        except OSError as error:
            raise FileError(
                f"what was played in cannot be kept: {error.strerror}",
                hint=f"make room on {self.folder}",
            ) from None
        self._taken[file.name] = place
        return file.name

    def find(self, name: str, files: SetFiles) -> Path | None:
        """The file of a take, of this session or of the set whose files these are."""
        if not is_take(name):
            return None
        path = self._taken.get(name) or files.find(name, "")
        if path is not None and self.folder is not None and name not in self._taken:
            # A session that goes on with another may have to be gone on with, too.
            copy_into(self.folder, File(digest_of(path), name), path)
        return path


#: Sets that are remembered: the newest.
_MOST = 2000
_LONGEST_REGISTER = 1 << 22


def _register() -> Path:
    return state_dir() / "own-sets.jsonl"


def _begun(path: Path) -> str:
    """A set that has no end yet: its first line, which holds a random number, and where it lies."""
    with open_file(path) as file:
        line = file.readline(_LONGEST_REGISTER)
    return json.dumps(["begun", hashlib.sha256(line).hexdigest(), str(path.resolve())])


def _ended(path: Path) -> str:
    return json.dumps(["ended", digest_of(path)])


def _known() -> list[str]:
    try:
        return read_file(_register(), _LONGEST_REGISTER).decode().splitlines()[-_MOST:]
    except (OSError, ValueError):
        return []


def remember(path: Path, *, ended: bool) -> None:
    """The set at `path` was begun, or ended, here. A register that cannot be written costs
    `--trust`."""
    with contextlib.suppress(OSError):
        begun = _begun(path)
        lines = [line for line in _known() if line != begun]
        lines = [*lines, _ended(path) if ended else begun][-_MOST:]
        part = _register().with_suffix(f".{os.getpid()}.part")
        part.write_text("\n".join(lines) + "\n", "utf-8")
        part.replace(_register())


def is_own(path: Path | None) -> bool:
    """Whether the set at `path` was recorded here; what has no file is of this session."""
    if path is None:
        return True
    try:
        return not {_begun(path), _ended(path)}.isdisjoint(_known())
    except OSError:
        return False


def bounds(path: Path | None, trust: bool) -> tuple[Path, ...] | None:
    """The folders that a replay of the set at `path` may read from; None: anywhere."""
    if trust or path is None or is_own(path):
        return None
    return (Path.cwd(), path.resolve().parent, shipped("patterns"))


def causes(recording: Recording, trust: bool = False) -> tuple[SetEvent, ...]:
    """What a replay of a set does, in order. Raises FileError if a stranger's set has too much."""
    done = tuple(e for e in recording.events if e.kind != "mark")
    if len(done) > MOST_CAUSES and not trust and not is_own(recording.path):
        raise FileError(
            f"{recording.path} was not recorded here and has {len(done)} causes; "
            f"at most {MOST_CAUSES} are played",
            hint="if you trust who made it: demon replay --trust, demon render --trust",
        )
    return done
