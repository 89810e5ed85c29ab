"""Score files: read with a bound, written from what plays; where their sources are."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from demon_live import faults
from demon_live.controls import IN, NOTES
from demon_live.errors import DemonError, FileError, nearest
from demon_live.lang import Bind, Lane, Scene, Setting, When, unparse
from demon_live.lang.dsl_score import Score, python_score
from demon_live.lang.syntax import meter, number
from demon_live.paths import open_file, remove_file, shipped
from demon_live.session.assets import SoundLane, renamed
from demon_live.session.state import GLOBALS, DeckState, State, label_of
from demon_live.session.status import explain

#: Longest score, in bytes (the language's bound).
SCORE_LIMIT = 64 * 1024


def folder_of(score: str) -> str:
    """The folder that file names in a score are relative to."""
    return str(Path(score).parent)


def read_score(path: Path, data: bytes | None = None) -> str:
    """The text of a score file. data: its content, if it was read. Raises FileError."""
    try:
        data = read_start(path) if data is None else data
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path} is not text (byte {error.start})", hint="save it as UTF-8"
        ) from None
    except IsADirectoryError:
        raise FileError(
            f"{path} is a folder", hint=f"name a score in it, such as {path}/x.demon"
        ) from None
    except OSError as error:
        there = os.path.lexists(path)
        hint = "a score is a text file that you may read" if there else near_scores(path)
        raise FileError(f"{path}: {error.strerror or error}", hint=hint) from None
    if len(data) > SCORE_LIMIT:
        raise FileError(
            f"{path} is too long: a score has at most {SCORE_LIMIT} bytes",
            hint="split it into several files or decks",
        )
    if "\r" in text.replace("\r\n", ""):
        raise FileError(
            f"{path} ends lines with a carriage return alone",
            hint="save it with line ends of Unix (LF) or Windows (CRLF)",
        )
    if faults.ON and faults.hit("score.half") is not None:
        text = text[: len(text) // 2]
    return text


def read_start(path: Path) -> bytes:
    """The content of a score file; of one that is too long one byte more than a score may have.
    Raises OSError."""
    with open_file(path) as file:
        return file.read(SCORE_LIMIT + 1)


def near_scores(path: Path) -> str:
    """A hint: the scores with a name like that of `path`, or else those beside it."""
    folder = path.parent
    there: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        there = sorted(p.name for p in folder.glob("*.demon"))
    if near := nearest(path.name, there, 3):
        return f"did you mean {' or '.join(str(folder / n) for n in near)}?"
    if there:
        return f"scores there: {', '.join(there[:6])}"
    return "give the path of a .demon file; demon new NAME makes a folder with a score"


def write_score(path: Path, text: str) -> None:
    """Replace a score file by `text`, or leave it as it is. Raises FileError."""
    if path.suffix != ".demon":
        raise FileError(f"{path} is no score", hint=f"save it as {path.stem or 'set'}.demon")
    beside = path
    try:
        path = path.resolve()
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except (OSError, ValueError) as error:
        if beside != path:
            remove_file(beside)
        hint = "save it somewhere else: its folder must be writable"
        raise FileError(f"{path}: {getattr(error, 'strerror', None) or error}", hint=hint) from None


def score_name(path: Path | str) -> str:
    """What a score file is called: relative to the working folder or, if it is a shipped one, to
    where it ships; else its path. A set that names it so replays on another machine, too."""
    full = Path(os.path.abspath(path))
    for root in (Path.cwd(), shipped("patterns").parent):
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
    return full.as_posix()


class KnownScores:
    """The score files of a session: where they lie, when they were saved, what is wrong with them.

    Attributes:
        errors: of those that are broken now, by name.
    """

    def __init__(self) -> None:
        self.errors: dict[str, DemonError] = {}
        self._saved_at: dict[str, str] = {}
        self._paths: dict[str, Path] = {}

    def read(self, path: Path, name: str, data: bytes | None, python: bool) -> str | Score:
        """The text of a score file, or the Score that a file of Python says. Raises DemonError.

        data: its content, if it was read. python: files of Python may run.
        """
        self._paths[name] = path.absolute()
        text = read_score(path, data)
        if path.suffix != ".py":
            return text
        if not python:
            raise FileError(
                f"{name} is Python and would run as code",
                hint="allow it: demon live --python, or python=True in Python",
            )
        said = python_score(text, name)
        said.program()
        return said

    def write(self, path: Path | str, text: str) -> tuple[str, Path, tuple[str, ...]]:
        """Write a score: its name, where it lies, and lines for the performer. Raises FileError.

        path: also the name of a score that is known.
        """
        name = str(path) if str(path) in self._paths else score_name(path)
        where = self._paths.setdefault(name, Path(path).absolute())
        copy = where.is_relative_to(shipped("patterns"))
        if copy:
            # What came with the program stays as it came.
            where = Path.cwd() / where.name
        write_score(where, text)
        return name, where, (f"saved as a copy: {where}",) if copy else ()

    def accepted(self, name: str) -> None:
        """A score, or another text, plays from now on."""
        self.errors.pop(name, None)
        self._saved_at[name] = _clock()

    def refused(self, error: DemonError, text: str, name: str, playing: bool) -> None:
        """A score, or at the prompt ("") a text, is wrong: the error says what plays on."""
        explain(error, text, name, self._saved_at.get(name) if name else None, playing)
        if name:
            self.errors[name] = error

    def rename(self, old: str, new: str, path: Path) -> None:
        """Call a score by another name."""
        for known in (self.errors, self._saved_at, self._paths):
            known.pop(old, None)
        self._saved_at[new], self._paths[new] = _clock(), path


def _clock() -> str:
    return datetime.now().strftime("%H:%M:%S")


def as_score(state: State, folder: Path | None = None) -> str:
    """What plays now, as one score. folder: where it will lie, for the sources that it names."""
    rows = [f"tempo {float(state.bpm):g}", f"beats {meter(state.beats)}"]
    rows += [f"quant {float(state.quant):g}"] if state.quant != 1 else []
    rows += [f"{w} {v}" for w in ("depth", "steps") if (v := getattr(state, w)) is not None]
    rows += ["ring always"] if state.always else []
    lets = {n: let for program in state.files.values() for n, let in program.lets.items()}
    ways = _ways(state, folder)
    rows += [renamed(unparse(let.node), ways) for let in {**lets, **state.lets}.values()]
    for scene in state.scenes.values():
        rows += ["", *scene_rows(scene, folder)]
    for deck in state.decks.values():
        rows += ["", f"deck {deck.name}"]
        if deck.to is None:
            rows += [f"loop {deck.cycles}", *_source(deck, folder)]
            rows += [f"out {deck.out}"] if deck.out != 1 else []
        else:
            rows.append(f"to {deck.to.written}")
        rows += [f"{n} = {_text(x, folder)}" for n, x in deck.bound.items() if not _chained(x)]
    every = [x for d in (*state.decks.values(), state.globals) for x in d.bound.values()]
    rows += [""] if state.decks else []
    rows += dict.fromkeys(x.text for x in every if _chained(x))
    if len(state.sides) == 2:
        rows.append("crossfade " + " ".join(sorted(state.sides, key=lambda d: state.sides[d])))
    shared = [(n, x) for n, x in state.globals.bound.items() if not _chained(x)]
    rows += [f"{label_of(GLOBALS, n)} = {x.text}" for n, x in shared]
    rows += [f"mute {deck}" for deck in sorted(state.muted & state.decks.keys())]
    soloed = sorted(state.soloed & state.decks.keys())
    rows += ["solo " + " ".join(soloed)] if soloed else []
    return "\n".join(rows) + "\n"


def _chained(lane: Lane) -> bool:
    # The text of a chain is a statement of its own; a pattern never begins with the word.
    return lane.text.startswith("chain ")


def _source(deck: DeckState, folder: Path | None) -> list[str]:
    said, reading = deck.source_said
    if said in ("none", NOTES):
        return [f"source {said}"]
    if said != IN:
        return [f'source "{_way(said, deck.base, folder)}" {reading}'.rstrip()]
    rows = [f"source {IN} {reading}".rstrip()]
    if folder is None and deck.take is not None and deck.file == deck.take.name:
        # Beside a set lie its takes.
        rows.insert(0, f'source "{deck.file}" beats {number(Fraction(deck.take.beats))}')
    wanted = deck.capture
    assert wanted is not None
    return [*rows, *["overdub on"] * wanted.overdub, *["hold"] * (not deck.listens)]


def _way(name: str, base: str, folder: Path | None) -> str:
    """The name of a file for a score in `folder`."""
    if not base or (folder is not None and folder.resolve() == Path(base).resolve()):
        return name
    # From elsewhere it is found by its way from the working folder, which is a library folder; what
    # does not lie there was found in a library folder, and is found there again.
    way = Path(base) / name
    return str(way) if way.exists() else name


def _ways(state: State, folder: Path | None) -> dict[str, str]:
    """The new names of all files that patterns name: a `let` may hold some of them."""
    binds = [row.lane for s in state.scenes.values() for row in s.body if isinstance(row, Bind)]
    lanes = [*binds, *(lane for d in state.decks.values() for lane in d.bound.values())]
    found: dict[str, str] = {}
    for lane in lanes:
        if isinstance(lane, SoundLane):
            found |= {name: _way(name, lane.base, folder) for name in lane.files}
    return {name: way for name, way in found.items() if name != way}


def _text(lane: Lane, folder: Path | None) -> str:
    """An expression for a score in `folder`."""
    if not isinstance(lane, SoundLane):
        return lane.text
    ways = {name: _way(name, lane.base, folder) for name in lane.files}
    return renamed(lane.text, {n: way for n, way in ways.items() if n != way})


def scene_rows(scene: Scene, folder: Path | None = None) -> list[str]:
    """A scene as lines of score. folder: where it will lie, for the files that it names."""
    base, restart = f" from {scene.base}" * bool(scene.base), " restart" * scene.restart
    rows, deck = [f"scene {scene.name}{base}{restart} {{"], "main"
    for row in scene.body:
        if row.deck not in (deck, ""):
            rows += ["  }"] if deck != "main" else []
            rows += [f"  deck {row.deck} {{"] if row.deck != "main" else []
            deck = row.deck
        rows.append(f"  {statement_text(row, folder)}")
    return [*rows, *(["  }"] if deck != "main" else []), "}"]


def statement_text(row: Bind | Setting, folder: Path | None = None) -> str:
    """A binding or a stage word as a line of score, with its when."""
    if isinstance(row, Setting):
        value = (
            row.value if isinstance(row.value, str) else f"{row.value:g}" if row.value else "none"
        )
        plain = row.word != "source" or row.value in (None, NOTES, IN)
        value = value if plain else f'"{value}"'
        reading = f" {row.reading}" if row.reading else ""
        return f"{row.word.replace('_', ' ')} {value}{reading}{_when(row.when)}"
    said = _text(row.lane, folder) if row.lane else "default"
    control = label_of(row.deck, row.control) if row.deck == GLOBALS else row.control
    return f"{control} = {said}{_when(row.when)}"


def _when(when: When) -> str:
    if when.kind == "quant":
        return ""
    here = " now" if when.kind == "now" else f" {when.kind} {number(when.cycles)}"
    return here + (_when(when.then) if when.then else "")
