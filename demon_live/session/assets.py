"""Sound files that scores name: found and read when they are evaluated, remembered for the set.

A lane of names becomes a `SoundLane`: its values are names with the key of the sound that the file
held when the binding was evaluated. So the same name with another content is another value, the
engine gets each sound once, and what waits in a scene or an undo still has its sound.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np

from demon_live.audio.files import beats_in, fit_loop, load_source
from demon_live.controls import IN, NOTES, Control, find
from demon_live.core import RATES, Beats, Floats, Loop, Sound
from demon_live.errors import DemonError, FileError, Span
from demon_live.lang import NONE, Bind, Lane, Program, Scene, Setting, Statement
from demon_live.lang.controllers import ControllerHistory, Key
from demon_live.lang.pattern import Times
from demon_live.lang.prompts import texts_of
from demon_live.session.state import State
from demon_live.sets.journal import SetEvent
from demon_live.sets.set_files import File, SetFiles, Takes, digest_of, is_take

#: Seconds of a timbre at most: models listen to half a minute.
LONGEST = 60
#: The base of names at the prompt and over OSC: the folder of the shell.
_SHELL = ("", ".")
#: Between the name and the key of a value.
_MARK = "\x1f"

_known: WeakValueDictionary[str, Sound] = WeakValueDictionary()


def key_of(value: str) -> str:
    """The key of the sound that a value asks for; empty for none."""
    return value.partition(_MARK)[2]


def name_of(value: str) -> str:
    """A value as it is shown: as it was written, the texts of a sum side by side."""
    return " + ".join(texts_of(value.partition(_MARK)[0]))


def read_sound(path: Path) -> Sound:
    """The sound in a file. Raises FileError with the remedy: as `load_source`, and for what is too
    long or silent."""
    audio, _ = load_source(path)
    if len(audio) > LONGEST * RATES.sample_rate:
        raise FileError(
            f"{path} lasts {len(audio) / RATES.sample_rate:.0f} s; a timbre has at most {LONGEST}",
            hint=f"cut the part you mean: sox {path.name} part.wav trim 0 30",
        )
    if not audio.any():
        raise FileError(
            f"{path} is silent, so it has no timbre", hint=f"choose another, or write '{NONE}'"
        )
    key = hashlib.sha256(audio.tobytes()).hexdigest()[:32]
    # What is evaluated again, or in several decks, is held once.
    sound = _known.get(key)
    if sound is None:
        sound = _known[key] = Sound(key, audio, path.name)
    return sound


def named_files(program: Program) -> Iterator[tuple[str, Span, str]]:
    """(name, place, purpose) of all files that a score and its scenes name."""
    scenes = [row for scene in program.scenes.values() for row in scene.body]
    for row in (*program.statements, *scenes):
        if isinstance(row, Setting) and row.word == "source" and isinstance(row.value, str):
            if row.value in (NOTES, IN):
                continue
            yield row.value, row.span, "sources"
        elif isinstance(row, Bind):
            yield from ((name, span, "sounds") for name, span in row.files if name != IN)


class Find(Protocol):
    """What finds sources: `find_source`, or one that knows where they were sent."""

    def __call__(
        self, name: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None, /
    ) -> Path: ...


def find_source(
    name: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None = None
) -> Path:
    """Where a source is: next to the score, else in a library folder.

    A score file is data from anywhere, so what it names stays inside those folders, symbolic links
    included. At the prompt (no base) the performer may name any path. within: of a set from a
    stranger, who chose the names of its scores, too, nothing outside these folders is looked at.
    Raises FileError.
    """
    given = Path(name).expanduser()
    if not base and given.is_absolute() and within is None:
        return given
    roots = [Path(base or "."), *folders]
    if within is not None:
        return _find_within(name, roots, within)
    outside = False
    for root in roots:
        try:
            path = (root / name).resolve()
            if path.is_relative_to(root.resolve()):
                if path.exists():
                    return path
            else:
                outside = True
        except (OSError, ValueError):  # a name that no file can have
            continue
    if outside:
        raise FileError(
            f"{name!r} is outside the folder of the score",
            hint="copy the file next to the score, or name it at the prompt",
        )
    return roots[0] / name


def _find_within(name: str, roots: Sequence[Path], within: Sequence[Path]) -> Path:
    """The first `root / name` that lies in one of `within`; outside them no file is looked at."""
    allowed = [folder.resolve() for folder in within]
    missing, outside = None, False
    for root in roots:
        try:
            path = (root / name).resolve()
            if not any(path.is_relative_to(folder) for folder in allowed):
                outside = True
            elif path.exists():
                return path
            else:
                missing = missing or path
        except (OSError, ValueError):  # a name that no file can have
            continue
    if missing is not None and not outside:
        return missing
    raise FileError(
        f"this set was not recorded here, and it names {name!r} outside "
        f"{', '.join(dict.fromkeys(map(str, within)))}",
        hint="put the file beside the set, or, if you trust who made it: --trust",
    )


def _stamp(path: Path) -> tuple[object, ...]:
    """What changes with the content of a file; () if there is none."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ()


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSource:
    """A source as it was read. name: of the file. audio: float32 [n, 2]. read: what was odd.
    stamp: of the file's content, as far as the file system tells."""

    name: str
    audio: Floats
    read: str
    stamp: tuple[object, ...]
    _loops: dict[tuple[object, ...], tuple[Floats, str]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of it, and of what was fitted."""
        fitted = [audio for audio, _ in self._loops.values() if audio is not self.audio]
        return self.audio.nbytes + sum(audio.nbytes for audio in fitted)

    def beats_in(self, loop: Loop, reading: str) -> tuple[Beats, float]:
        """Its beats and its tempo, as the first loop that is made of it decides."""
        return beats_in(len(self.audio), loop.beats, float(loop.bpm), self.name, reading)

    def fit(self, loop: Loop, known: tuple[Beats, float]) -> tuple[Floats, str]:
        """`fit_loop` for a loop; decks that share a source and its geometry share the result."""
        shape = (loop.samples, loop.cycles, loop.beats, loop.bpm)
        geometry = (*shape, known)
        if geometry not in self._loops:
            # Two: what plays and what comes. A ramp of the tempo has dozens.
            for old in list(self._loops)[:-1]:
                del self._loops[old]
            self._loops[geometry] = fit_loop(self.audio, *shape, name=self.name, known=known)
        return self._loops[geometry]


class DecodedSources:
    """The sources that were read last, in memory: a file that is gone blocks no change of tempo,
    and one that has not changed is read once."""

    #: Bytes of sound that are kept, and takes of the input: their files are ours and stay there.
    MOST, TAKES = 256 << 20, 4

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], DecodedSource] = {}

    def read(self, path: Path) -> DecodedSource:
        """The sound of a file. Raises FileError."""
        stamp = _stamp(path)
        for sound in self._known.values():
            if stamp and sound.stamp == stamp:
                return sound
        audio, read = load_source(path)
        return DecodedSource(path.name, audio, read, stamp)

    def add(self, name: str, base: str, sound: DecodedSource) -> None:
        """Keep what was read of a name, the newest first of all."""
        self._known.pop((name, base), None)
        self._known[name, base] = sound
        for key in [key for key in self._known if is_take(key[0])][: -self.TAKES]:
            del self._known[key]
        while len(self._known) > 1 and sum(s.nbytes for s in self._known.values()) > self.MOST:
            del self._known[next(iter(self._known))]

    def get(self, name: str, base: str) -> DecodedSource | None:
        """What was read of a name last."""
        return self._known.get((name, base))


class Assets:
    """Finds the files that names mean, and remembers for the set which they were.

    Args:
        folders: where names are looked for, besides the score's own folder.
        within: a replay may read only in these folders (a set from a stranger); None = anywhere.
        find: finds the file of a name.
        found: called with (name, base, path) of each file.
        copies: the folder with the copies of the set that is replayed.

    Attributes:
        takes: the loops of the input.
    """

    def __init__(
        self,
        folders: Iterable[Path] = (),
        *,
        within: tuple[Path, ...] | None = None,
        find: Find = find_source,
        found: Callable[[str, str, Path], None] = lambda name, base, path: None,
        copies: Path | None = None,
    ) -> None:
        self.folders = tuple(folders)
        self.within, self.set_files = within, SetFiles(copies)
        self._find, self._found = find, found
        self.decoded = DecodedSources()
        self._read: dict[tuple[str, str], Path] = {}
        self.takes = Takes()

    def look(
        self, name: str, base: str, *, fresh: bool, replaying: bool, beside: Sequence[str] = ()
    ) -> Path:
        """The file of a name: beside its score or those that play, in the folder of the shell, then
        in the library. Raises FileError.

        Args:
            name, base: as written, and the folder that it is relative to.
            fresh: what is evaluated now means what lies there now; otherwise what a set says, or
                what comes back by itself, means what it meant then.
            replaying: keep to `within`.
            beside: the folders of the scores that play.
        """
        path = self.takes.find(name, self.set_files)
        if path is not None:
            base = ""
        elif not fresh:
            path = self.set_files.find(name, base)
        if path is None:
            within = self.within if replaying else None
            roots = [*map(Path, beside), *self.folders, *(within or ())]
            # At the prompt, and over OSC, the folder of the shell comes second.
            if beside and base in _SHELL and not Path(name).expanduser().is_absolute():
                others = [*map(Path, beside[1:]), Path(), *roots[len(beside) :]]
                path = self._find(name, beside[0], others, within)
            else:
                path = self._find(name, base, roots, within)
        self._read[name, base] = path
        self._found(name, base, path)
        return path

    def forget(self) -> None:
        """What was looked at since the last `changes` is no part of the set."""
        self._read.clear()

    def changes(self, now: int) -> Iterator[tuple[SetEvent | None, File | None, Path, str]]:
        """What the set must say of the files that were looked at since the last call.

        Yields:
            (line of the set or None, file, path, why it cannot be kept or "").
        """
        read, self._read = self._read, {}
        for (name, base), path in read.items():
            # A file that is gone meanwhile is an error when it is needed.
            if not path.is_file():
                continue
            try:
                file = File(digest_of(path), path.name)
            except OSError as error:
                yield None, None, path, str(error.strerror)
                continue
            yield self.set_files.event(name, base, file, now), file, path, ""


def with_sounds(
    row: Statement, look: Callable[[str], Path], base: str = "", dry: bool = False
) -> Statement:
    """A statement whose lanes of file names are SoundLanes, scenes included.

    look: finds a file. base: the folder that names are relative to. dry: nothing will sound, so
    files are looked for, not read. Raises FileError with the place of the name.
    """
    if isinstance(row, Scene):
        body = tuple(with_sounds(x, look, base, dry) for x in row.body)
        return replace(row, body=body)  # type: ignore[arg-type]
    if not isinstance(row, Bind) or row.lane is None or row.lane.spec.shape != "file":
        return row
    sounds: dict[str, Sound] = {}
    for name, span in (file for file in row.files if file[0] != IN):
        try:
            sounds[name] = sound_at(look(name), name, dry)
        except DemonError as error:
            error.span = error.span or span
            raise
    listens = any(name == IN for name, _ in row.files)
    return replace(row, lane=SoundLane(row.lane, sounds, base, listens))


def sound_at(path: Path, name: str, dry: bool) -> Sound:
    """The sound in the file that a name means. dry: it is looked for, not read."""
    if not dry:
        return read_sound(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}", hint="is it where the set was played?")
    return Sound(name, np.zeros((0, 2), np.float32))


def heard_sounds(state: State) -> frozenset[Sound]:
    """All sounds that what plays, or a scene that waits, may ask for."""
    lanes: list[Lane] = []
    for deck in state.decks.values():
        lanes += [*deck.lanes.values(), *deck.bound.values()]
    for scene in state.scenes.values():
        lanes += [row.lane for row in scene.body if isinstance(row, Bind) and row.lane is not None]
    return frozenset[Sound]().union(*(lane.sounds for lane in lanes))


@dataclass(frozen=True, eq=False, repr=False)
class SoundLane(Lane):
    """A lane of file names whose values are the sounds that the files held.

    files: name -> sound. base: the folder that the names are relative to; "" at the prompt.
    listens: one of the names means what is played in.
    """

    names: Lane
    files: Mapping[str, Sound]
    base: str = ""
    listens: bool = False

    @property
    def spec(self) -> Control:  # type: ignore[override]
        return self.names.spec

    @property
    def text(self) -> str:  # type: ignore[override]
        return self.names.text

    @property
    def sounds(self) -> frozenset[Sound]:
        return frozenset(self.files.values())

    @property
    def continuous(self) -> bool:
        return False

    def sample(self, cycles: Times) -> Floats:
        return self.names.sample(cycles)

    def at(self, cycle: Fraction) -> float | str:
        name = str(self.names.at(cycle))
        sound = self.files.get(name)
        if sound is None:
            return "" if name in (NONE, IN) else name
        return f"{name}{_MARK}{sound.key}"

    def jumps(self, begin: Fraction, end: Fraction) -> list[Fraction]:
        return self.names.jumps(begin, end)

    @property
    def keys(self) -> frozenset[Key]:
        return self.names.keys

    def resolve(self, hands: ControllerHistory) -> Lane:
        names = self.names.resolve(hands)
        return self if names is self.names else replace(self, names=names)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """An expression in which file names are replaced: those in quotes, and bare ones in
    mini-notation, which get quotes."""
    if not names:
        return text
    every = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    # In single quotes, in double quotes alone, or a word among others.
    found = re.compile(rf"'({every})'|(?<![\w./'-])({every})(?![\w./'-])")
    said = {name: new.replace("\\", "\\\\").replace("'", "\\'") for name, new in names.items()}
    return found.sub(lambda m: f"'{said[m[1] or m[2]]}'", text)


def unknown_words(names: Iterable[str], controls: frozenset[str] | None) -> list[str]:
    """Of the controls that are bound, those that the engine does not obey. None: not known."""
    if controls is None:
        return []
    rows = [(name, find(name)) for name in names]
    return [n for n, c in rows if c is not None and c.cls in ("step", "slot") and n not in controls]
