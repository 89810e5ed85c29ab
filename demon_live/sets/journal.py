"""Sets: a performance as a log of causes (`*.set.jsonl`), append-only, one JSON object a line.

The first line is the start (engine, seed, geometry, rules), then every accepted text with
the output sample at which it was accepted, written BEFORE it takes effect, then an end. Each line
carries a checksum, so a torn tail (power cut, full disk) is recognised and loses only itself.

    Journal    writes the lines of a session
    AppendLog  the file: lines are with the operating system when `append` returns, so that kill -9
               loses none, and on the disk within a second or two (`sync`). When the disk is full
               the bytes that did not fit wait in memory: the file is always a prefix of what was
               appended
    load       reads a set

Threads: a `Journal` belongs to the session; its lock is the session's. `sync` may be called beside
`append`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from demon_live import faults
from demon_live.errors import FileError
from demon_live.paths import open_file, read_file

SUFFIX = ".set.jsonl"
_FORMAT = 1
#: What a text means depends on the rules that its set was made with. 2: a score that is gone gives
#: a control back to what other texts say of it (before: to its default); chance is one function of
#: time (before: of the place in the text, too); the ring rests (before: `ring always`); sounds lie
#: beside the scores that play, too; a source has one tempo; a score that is evaluated
#: again plays what it says. 3: what is kept of a source has its `detail`. 4: steps of chains and
#: ramps bring no sound back after `hush`.
RULES = 4
#: The text of the mark at which a recording began.
BEGUN = "record"
_KINDS = frozenset({"apply", "remove", "rename", "align", "hands", "take", "file", "mark", "end"})
#: What the first line may say, beside what is shown only.
_HEAD: Mapping[str, type[Any]] = {
    "seed": int,
    "engine": str,
    "engine_digest": str,
    "backend": str,
    "app": str,
    "weights": dict,
}
#: The texts of a line.
_TEXTS = ("text", "name", "origin", "at", "by")
_CYCLE = re.compile(r"\d{1,18}(/[1-9]\d{0,11})?", re.ASCII)
_LIMIT = 64 * 1024 * 1024
#: No set lasts longer: a century of samples.
_LATEST = 48_000 * 3_155_760_000


@dataclass(frozen=True, slots=True)
class SetEvent:
    """One cause, at an output sample.

    kind: apply | remove | rename | align | hands | take | file | mark | end. text, name, origin: as
    applied; of a rename, text is the new name; of a take (a loop of the input), text is its deck
    and beats, name its file. at: the cycle that a script meant it for, or "". by: who did it, or
    "".
    """

    kind: str
    sample: int
    text: str = ""
    name: str = ""
    origin: str = ""
    at: str = ""
    by: str = ""

    @property
    def due(self) -> Fraction | None:
        """The cycle that a script meant it for."""
        return Fraction(self.at) if _CYCLE.fullmatch(self.at) else None

    @property
    def replay_origin(self) -> str:
        """The origin that a replay uses. Old sets tell it by the name alone."""
        if not self.name.startswith("<"):
            return "file"
        return "osc" if self.name == "<osc>" else "repl"


@dataclass(frozen=True)
class Recording:
    """A set as a value: read it, cut it, change it, write it, render it.

    Attributes:
        path: where it was read; beside it lie its sound files.
        start: what the first line says: seed, engine, rules.
        events: what was done, in order.
        torn: lines that could not be read (a crash).
        unknown: lines of kinds that this version does not know.
    """

    path: Path | None
    start: Mapping[str, Any]
    events: tuple[SetEvent, ...] = ()
    torn: int = 0
    unknown: int = 0

    #: `replay.surgery.cut`: a part of the set, from one cycle to another.
    cut: ClassVar[Callable[..., Any]]

    @staticmethod
    def load(path: Path | str) -> Recording:
        """Read a set. A torn tail is dropped and counted. Raises FileError."""
        return load(path)

    def map(self, change: Callable[[SetEvent], SetEvent | Iterable[SetEvent] | None]) -> Recording:
        """The set with each event changed.

        Args:
            change: gives the event that takes the place of another, several, or None.
        """
        made: list[SetEvent] = []
        for event in self.events:
            new = change(event)
            made += [new] if isinstance(new, SetEvent) else [*(new or ())]
        # Events of one sample keep their order.
        return replace(self, events=tuple(sorted(made, key=lambda e: e.sample)))

    def write(self, path: Path | str) -> Recording:
        """Write it as a new set, its sound files too; the set as it lies there.

        Raises FileError: there is one already, it cannot be written, or a file is gone.
        """
        path = Path(path)
        if not path.name.endswith(SUFFIX):
            path = path.with_name(path.name + SUFFIX)
        log = AppendLog(path)
        try:
            log.append(_line({**self.start, "kind": "start", "format": _FORMAT}))
            for event in self.events:
                log.append(_event_line(event))
            if not self.events or self.events[-1].kind != "end":
                log.append(_line({"kind": "end", "sample": self.length}))
        finally:
            log.close()
        if self.path is not None:
            _copy_files(self, folder_of(self.path), folder_of(path))
        return replace(self, path=path)

    @property
    def rules(self) -> int:
        """What its texts mean (`RULES`); sets of before do not say."""
        return int(self.start.get("rules", 1))

    @property
    def begun(self) -> int:
        """The output sample at which `record` was said: its sound begins there."""
        marks = (e.sample for e in self.events if e.kind == "mark" and e.text == BEGUN)
        return next(marks, 0)

    @property
    def length(self) -> int:
        """Output samples from the beginning to the end mark, or to the last event."""
        return max((e.sample for e in self.events), default=0)


def _line(row: Mapping[str, Any]) -> str:
    body = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if not body.isascii() and any("\ud800" <= c <= "\udfff" for c in body):
        # Half a character (a broken paste) has no UTF-8; as an escape it has a place in JSON.
        body = json.dumps(row, sort_keys=True, separators=(",", ":"))
    return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'


def _event_line(event: SetEvent) -> str:
    row = {"kind": event.kind, "sample": event.sample}
    return _line(row | {k: v for k in _TEXTS if (v := getattr(event, k))})


def folder_of(path: Path) -> Path:
    """Where the files of the set at `path` are kept."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".files")


def _copy_files(recording: Recording, source: Path, target: Path) -> None:
    """Copy the sound files that a set names. Raises FileError."""
    for event in recording.events:
        digest, _, name = event.text.partition(" ")
        place = source / digest / name
        if event.kind != "file" or Path(name).name != name or not place.is_file():
            continue
        try:
            (target / digest).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, target / digest / name)
        except OSError as error:
            raise FileError(f"the set cannot keep {place}: {error.strerror}") from None


def _parse(line: str) -> dict[str, Any] | None:
    """The object of one line, or None if it is torn or was changed."""
    body, mark, tail = line.rstrip("\r\n").rpartition(',"crc":"')
    if not mark or len(tail) != 10 or not tail.endswith('"}'):
        return None
    body += "}"
    if f"{zlib.crc32(body.encode()):08x}" != tail[:8]:
        return None
    try:
        row = json.loads(body)
    # A right checksum over something that is no line of ours: a file from a stranger.
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and _sane(row) else None


def _sane(row: Mapping[str, Any]) -> bool:
    """Whether the fields have the types and bounds that `Journal` writes."""
    kind, sample = row.get("kind"), row.get("sample", 0 if row.get("kind") == "start" else None)
    return (
        isinstance(kind, str)
        and type(sample) is int
        and 0 <= sample <= _LATEST
        and all(isinstance(row.get(k, ""), str) for k in _TEXTS)
    )


class _Past:
    """Lines that only grow in number, kept small: a save differs little from the one before.

    An hour of saves every five seconds is a megabyte of text, and 40 kB here.
    """

    #: Characters after which lines are packed together.
    BLOCK = 1 << 16

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._fresh: list[str] = []
        self._size = 0

    def append(self, line: str) -> None:
        self._fresh.append(line)
        self._size += len(line)
        if self._size >= self.BLOCK:
            self._packed.append(zlib.compress("".join(self._fresh).encode()))
            self._fresh, self._size = [], 0

    def text(self) -> str:
        """All lines, in order."""
        packed = (zlib.decompress(block).decode() for block in self._packed)
        return "".join((*packed, *self._fresh))


@dataclass
class Journal:
    """Writes a set. Nothing is written until `open`; lines so far are then written at once.

    Recording may begin late in a performance: the causes since its beginning are kept, so that
    the set replays from the very first one.
    """

    start: Mapping[str, Any]
    _past: _Past = field(default_factory=_Past)
    _file: AppendLog | None = None
    path: Path | None = None
    _log: AppendLog | None = None
    #: Gets a line for the performer when a file cannot be written, and when it can again.
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        head = {"kind": "start", "format": _FORMAT, "rules": RULES, **self.start}
        self._past.append(_line(head))

    def write(self, event: SetEvent) -> None:
        """Append one cause; it is with the operating system before this returns.

        A full disk stops nothing: see `AppendLog`.
        """
        line = _event_line(event)
        self._past.append(line)
        for ledger in (self._log, self._file):
            if ledger is not None:
                ledger.append(line)

    def open(self, path: Path, sample: int = 0) -> None:
        """Begin to record into `path`, at an output sample; what was before is in it, too.

        Raises FileError if it exists or cannot be written.
        """
        self._file = AppendLog(path, lambda text: self.tell(text))
        self.path = path
        self._file.append(self._past.text())
        if sample:
            self._file.append(_line({"kind": "mark", "sample": sample, "text": BEGUN}))

    def keep(self, log: AppendLog) -> None:
        """From now on every line goes into this file, too, with all lines so far (`resume`)."""
        self._log = log
        log.append(self._past.text())

    def mark(self, sample: int, text: str = "") -> None:
        """How far the music is, for the log alone."""
        if self._log is not None:
            row = {"kind": "mark", "sample": sample} | ({"text": text} if text else {})
            self._log.append(_line(row))
        if self._file is not None:
            self._file.retry()

    def end_log(self, sample: int) -> None:
        """The session ends as it should."""
        if self._log is not None:
            self._log.append(_line({"kind": "end", "sample": sample}))
            self._log.close()
            self._log = None

    def close(self, sample: int) -> None:
        """Write the end mark and close the file; what follows is kept for a next recording."""
        if self._file is None:
            return
        self._file.append(_line({"kind": "end", "sample": sample}))
        self._file.close()
        self._file, self.path = None, None

    def recording(self) -> Recording:
        """What has been written so far, as it would be read."""
        return _read(io.StringIO(self._past.text(), newline="\n"), None)


def _read(lines: Iterable[str], path: Path | None) -> Recording:
    start: dict[str, Any] | None = None
    events: list[SetEvent] = []
    torn = unknown = 0
    for line in lines:
        row = _parse(line)
        if row is None:
            torn += 1
        elif row.get("kind") == "start":
            start = start or row
        elif row["kind"] not in _KINDS:
            unknown += 1
        else:
            known = {k: str(row.get(k, "")) for k in _TEXTS}
            events.append(SetEvent(str(row["kind"]), int(row["sample"]), **known))
    if start is None:
        raise FileError(
            f"{path or 'this'} is not a set: its first line is missing or damaged",
            hint=f"a set is a file {SUFFIX} written by `record NAME`",
        )
    if start.get("format") != _FORMAT:
        raise FileError(
            f"{path or 'this set'} has format {start.get('format')!r}, not {_FORMAT}",
            hint="use the version of demon-live that recorded it",
        )
    rules = start.setdefault("rules", 1)
    if type(rules) is not int or not 1 <= rules <= RULES:
        raise FileError(
            f"{path or 'this set'} follows rules {rules!r}; this version knows 1 to {RULES}",
            hint="use the version of demon-live that recorded it",
        )
    for key, kind in _HEAD.items():
        value: Any = start.get(key, kind())
        if not isinstance(value, kind) or (kind is int and not abs(value) < 1 << 63):
            raise FileError(
                f"{path or 'this set'} begins with a {key} that no set has: {str(value)[:40]}",
                hint=f"a set is a file {SUFFIX} written by `record NAME`",
            )
    return Recording(path, start, tuple(events), torn, unknown)


def load(path: Path | str) -> Recording:
    """Read a set. A torn tail is dropped and counted. Raises FileError."""
    path = Path(path)
    try:
        data = read_file(path, _LIMIT)
    except OSError as error:
        large = error.errno == errno.EFBIG
        raise FileError(
            f"{path} cannot be read: {error.strerror}",
            hint="sets hold text, not audio" if large else "demon replay lists the sets you have",
        ) from None
    return _read(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace"), path)


def find_set(name: str, folders: list[Path]) -> Path:
    """The set called `name` (a path, or a name in one of `folders`). Raises FileError."""
    names = (name, name + SUFFIX)
    for base in (Path(), *folders):
        for candidate in names:
            path = base / candidate
            if os.path.isfile(path) and path.name.endswith(SUFFIX):
                return path
    known = sorted({p.name.removesuffix(SUFFIX) for f in folders for p in f.glob("*" + SUFFIX)})
    hint = "recorded sets: " + ", ".join(known[:12]) if known else "record one with `record NAME`"
    raise FileError(f"there is no set {name!r}", hint=hint)


def _write(fd: int, data: bytes) -> int:
    if faults.ON and faults.hit("disk.full") is not None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return os.write(fd, data)


class AppendLog:
    """Appends lines to a new file at `path`. Raises FileError if it exists or cannot be made.

    tell: gets one line when the file cannot be written, and one when it can again. alone: lock the
    file, so that others see that its writer lives (`locked`).
    """

    def __init__(
        self, path: Path, tell: Callable[[str], None] = lambda text: None, *, alone: bool = False
    ) -> None:
        self.path = path
        self._tell = tell
        self._waiting = b""
        self._failing = False
        self._dirty = False
        self._syncing = threading.Lock()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            raise FileError(
                f"{path} exists already", hint="choose another name: sets are never overwritten"
            ) from None
        except OSError as error:
            raise FileError(
                f"{path} cannot be written: {error.strerror}", hint="choose another name or folder"
            ) from None
        if alone:
            _lock(self._fd)

    def append(self, lines: str) -> bool:
        """Add whole lines. Never raises; False while something waits for room."""
        self._waiting += lines.encode("utf-8", "surrogatepass")
        return self._push()

    def _push(self) -> bool:
        try:
            while self._waiting:
                written = _write(self._fd, self._waiting)
                # From here on the file has these bytes, whatever happens next.
                self._waiting = self._waiting[written:]
                self._dirty = True
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._tell(
                    f"{self.path.name} cannot be written ({error.strerror}): it waits in memory; "
                    f"make room on {self.path.parent}"
                )
            return False
        if self._failing:
            self._failing = False
            self._tell(f"{self.path.name} is written again: nothing was lost")
        return True

    def sync(self) -> None:
        """Try again what waits, and put on the disk what is written. Never raises."""
        if self._fd < 0 or not (self._dirty or self._waiting):
            return
        with self._syncing:
            self._dirty = False
            with contextlib.suppress(OSError):
                (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._fd)

    def retry(self) -> bool:
        """Write what waits, if there is room now."""
        return self._push() if self._waiting else True

    @property
    def waiting(self) -> int:
        """Bytes that could not be written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Put everything on the disk and close. Twice is fine."""
        if self._fd < 0:
            return
        self._push()
        self._dirty = True
        self.sync()
        with self._syncing:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def locked(path: Path) -> bool:
    """Whether the process that writes `path` with `alone` is alive."""
    try:
        import fcntl

        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
