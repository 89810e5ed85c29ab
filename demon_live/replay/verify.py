"""`demon set show|to-score|verify|mend SET`: is a set whole, and would it sound as it did?

A line of a set carries its checksum; its first line names the engine, its weights by hash and the
program. Sound that a crash cut off is mended here: a FLAC stream needs no end to be played, but
most readers want its length in the header.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from demon_live._version import __version__
from demon_live.audio.files import reason
from demon_live.core import RATES
from demon_live.errors import DemonError, FileError
from demon_live.lang import compile_source
from demon_live.models.manifest import load_manifest, verify
from demon_live.paths import remove_file, sets_dir, shipped
from demon_live.runtime.seek import dry_run
from demon_live.session.assets import named_files
from demon_live.session.scores import read_score, score_name
from demon_live.sets.journal import RULES, SUFFIX, Recording, SetEvent, find_set, load
from demon_live.sets.recorder import is_sound_of
from demon_live.sets.set_files import KIND, SetFiles, folder_of


@dataclass(frozen=True, slots=True)
class Finding:
    """verdict: ok; warn = it plays, but may sound other; fail = it cannot be replayed here."""

    what: str
    verdict: Literal["ok", "warn", "fail"]
    text: str

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[self.verdict]
        return f"{mark}  {self.what:<8} {self.text}"


def examine(recording: Recording) -> list[Finding]:
    """All findings, in the order in which they matter."""
    found = (_lines, _engine, _files, _scores, _sound)
    return [finding for look in found for finding in look(recording)]


def _lines(recording: Recording) -> Iterator[Finding]:
    n = len(recording.events) + recording.unknown
    if recording.torn:
        yield Finding("lines", "fail", f"{recording.torn} of {n + recording.torn} are damaged")
    else:
        yield Finding("lines", "ok", f"{n}, every checksum is right")
    if recording.unknown:
        text = f"{recording.unknown} of kinds that this version does not know: they are left out"
        yield Finding("lines", "fail", text)
    if not any(e.kind == "end" for e in recording.events):
        yield Finding("end", "warn", "no end mark: the recording was cut off; all before it plays")
    app = recording.start.get("app")
    if app != __version__:
        text = f"recorded by demon {app or 'of unknown version'}, this is {__version__}"
        yield Finding("program", "warn", f"{text}: the same bits are not promised")
    else:
        yield Finding("program", "ok", f"demon {app}")


def _engine(recording: Recording) -> Iterator[Finding]:
    name = str(recording.start.get("engine", "?"))
    try:
        manifest = load_manifest(name)
    except DemonError as error:
        yield Finding("engine", "fail", f"{name}: {error.message}")
        return
    digest = recording.start.get("engine_digest")
    if digest is None:
        yield Finding("engine", "warn", f"{name}; the set does not say which version of it")
    elif digest != manifest.digest:
        yield Finding("engine", "warn", f"{name} is another version than the one that played")
    else:
        yield Finding("engine", "ok", f"{name}, digest {manifest.digest[:12]}")
    yield from _weights(recording, {w.file: w.sha256 for w in manifest.weights})
    bad = [f for f in verify(manifest) if f.state != "ok"]
    for found in bad:
        yield Finding("weights", "fail", f"{found.weight.file}: {found.state} ({found.path})")


def _weights(recording: Recording, here: dict[str, str]) -> Iterator[Finding]:
    said = recording.start.get("weights")
    if not isinstance(said, dict) or not said:
        return
    other = sorted(f for f in {*said, *here} if said.get(f) != here.get(f))
    if other:
        yield Finding("weights", "warn", f"other weights than those that played: {other[0]}")
    else:
        yield Finding("weights", "ok", f"{len(said)} files, the hashes are those that played")


def _files(recording: Recording) -> Iterator[Finding]:
    """The sound files that the set names: kept beside it, or somewhere."""
    events = [e for e in recording.events if e.kind == KIND]
    if recording.path is None or not events:
        return
    kept, missing = SetFiles(), []
    kept.folder = folder_of(recording.path)
    for event in events:
        kept.learn(event)
        if kept.find(event.name, event.origin) is None:
            missing.append(event.name)
    if missing:
        text = f"{', '.join(missing[:4])}: not kept beside it, so it must lie where it lay"
        yield Finding("files", "warn", text)
    else:
        yield Finding("files", "ok", f"{len(events)} sound files, kept beside it")


def _scores(recording: Recording) -> Iterator[Finding]:
    moments = list(dry_run(recording))
    wrong = [m for m in moments if m.error is not None]
    for m in wrong[:8]:
        where = f"at sample {m.sample}, {m.event.name or m.event.kind}"
        yield Finding("scores", "fail", f"{where}: {m.error.message if m.error else ''}")
    if not wrong:
        yield Finding("scores", "ok", f"{len(moments)} causes, all can be done again")


def _sound(recording: Recording) -> Iterator[Finding]:
    if recording.path is None:
        return
    sound, parts = sound_of(recording.path), parts_of(recording.path)
    name = recording.path.name.removesuffix(SUFFIX)
    for part in parts:
        text = f"{part.name} was cut off by a crash or a full disk; it plays to its end"
        yield Finding("sound", "warn", f"{text}: demon set mend {name}")
    if sound.exists():
        yield Finding("sound", "ok", sound.name)
    elif not parts:
        yield Finding("sound", "warn", f"no {sound.name} beside it; demon render makes one")


def sound_of(path: Path) -> Path:
    """The sound that was recorded beside a set."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".flac")


def parts_of(path: Path) -> list[Path]:
    """The sound files of a set that a crash, or a full disk, cut off: NAME.flac.part, and those in
    which it went on."""
    stem = path.with_name(path.name.removesuffix(SUFFIX)).absolute()
    found = sorted(stem.parent.glob("*.flac.part"), key=lambda p: (len(p.name), p.name))
    own = [part for part in found if is_sound_of(stem, part.with_suffix(""))]
    # NAME-2 may be another set.
    return [p for p in own if p.stem == sound_of(path).name or not _has_set(p)]


def _has_set(part: Path) -> bool:
    return part.with_name(part.name.removesuffix(".flac.part") + SUFFIX).exists()


def mend(path: Path) -> list[tuple[Path, float]]:
    """Closes the sound of a set that a crash cut off. Gives the files and their seconds.

    What can be read of `NAME.flac.part` is written again, bit for bit, as `NAME.flac`. Raises
    FileError: nothing to mend, or nothing readable.
    """
    parts = parts_of(path)
    if not parts:
        raise FileError(f"there is no {sound_of(path)}.part to mend", hint="see: demon set verify")
    made, problem = [], None
    for part in parts:
        try:
            made.append(_mend(part, part.with_suffix("")))
        except FileError as error:
            problem = problem or error
    if problem is not None and not made:
        raise problem
    return made


def _mend(part: Path, sound: Path) -> tuple[Path, float]:
    import soundfile

    if sound.exists():
        raise FileError(f"{sound} exists already", hint=f"move it, or {part.name}, elsewhere")
    made = sound.with_name(f".{sound.name}.mending")
    done = 0
    try:
        if part.stat().st_size:
            with soundfile.SoundFile(part) as old:
                kind = {"subtype": "PCM_24", "format": "FLAC"}
                with soundfile.SoundFile(made, "w", old.samplerate, old.channels, **kind) as new:
                    for block in _readable(old):
                        new.write(block)
                        done += len(block)
        if done:
            os.replace(made, sound)
    except (OSError, RuntimeError) as error:
        remove_file(made)
        raise FileError(
            f"{part} cannot be mended: {reason(error, sound)}",
            hint="is it a FLAC stream, and is there room on the disk?",
        ) from None
    remove_file(made)
    remove_file(part)
    if not done:
        raise FileError(
            f"{part} held no sound, and was removed", hint="demon render makes the sound of the set"
        )
    return sound, done / RATES.sample_rate


def _readable(file: Any) -> Iterator[Any]:
    """Blocks until the torn end, where the reader gives up."""
    try:
        # Small ones: the reader gives a torn block up as a whole.
        while len(block := file.read(480, dtype="int32", always_2d=True)):
            yield block
    except RuntimeError:
        return


Say = Callable[[str], None]


def run(args: argparse.Namespace, say: Say) -> int:
    """Do what the command line asks; the exit code. Raises DemonError."""
    if args.action == "show" and args.set.endswith(".demon"):
        return _show(args, recording_of(Path(args.set)), say)
    path = find_set(args.set, [sets_dir()])
    recording = load(path)
    if args.action == "show":
        return _show(args, recording, say)
    if args.action == "to-score":
        return _to_score(args, recording, say)
    if args.action == "verify":
        findings = examine(recording)
        say("\n".join(map(str, findings)) + "\n")
        return 1 if any(f.verdict == "fail" for f in findings) else 0

    for sound, seconds in mend(path):
        say(f"{sound}: {seconds:.1f} s\n")
    return 0


def recording_of(path: Path) -> Recording:
    """A score as the set that it makes when it plays once: its longest chain, or eight cycles."""
    text, name = read_score(path), score_name(path)
    chains = compile_source(text, name=name).chains
    cycles = max((sum(n for _, n in chain.scenes) for chain in chains), default=0) or 8
    start = {"engine": "imp", "rules": RULES, "app": __version__}
    score = SetEvent("apply", 0, text, name, "file")
    (moment,) = dry_run(Recording(path, start, (score,)))
    if moment.error is not None:
        raise moment.error
    end = SetEvent("end", moment.state.tempo.sample_at(Fraction(cycles)))
    return Recording(path, start, (score, end))


def _show(args: argparse.Namespace, recording: Recording, say: Say) -> int:
    from demon_live.replay.show import as_svg, as_text

    moments = list(dry_run(recording))
    if args.svg is None:
        # In a file or a pipe nothing is cut.
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        say(as_text(recording, moments, columns))
        return 0
    _write(Path(args.svg), as_svg(recording, moments))
    say(f"{args.svg}\n")
    return 0


def _to_score(args: argparse.Namespace, recording: Recording, say: Say) -> int:
    from demon_live.replay.to_score import to_score

    text = to_score(recording, list(dry_run(recording)), args.start, args.cycles)
    if args.out is None:
        say(text)
        return 0
    out = Path(args.out)
    if os.path.exists(out):
        raise FileError(f"{out} exists already", hint="choose another name")
    _write(out, text)
    say(f"{out}\n")
    for name in _bring_files(recording, text, out.parent):
        say(f"{name}\n")
    return 0


def _bring_files(recording: Recording, text: str, folder: Path) -> Iterator[str]:
    """Copy the sound files of a score to where it lies, if it would not find them there; what is
    copied, or missing, by name."""
    roots = (folder, Path.cwd(), shipped("patterns"))
    names = dict.fromkeys(name for name, _, _ in named_files(compile_source(text)))
    for name in (n for n in names if not any(os.path.isfile(root / n) for root in roots)):
        place = folder / name
        inside = place.resolve().is_relative_to(folder.resolve())
        found = _copy_of(recording, name)
        if found is None or not inside:
            yield f"{name} is missing: put it beside the score"
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, place)
        yield f"{place}"


def _copy_of(recording: Recording, name: str) -> Path | None:
    """The file that a set means by a name: its own copy, or the one that it was made of."""
    for event in (e for e in recording.events if e.kind == KIND and e.name == name):
        files = SetFiles(folder_of(recording.path) if recording.path is not None else None)
        files.learn(event)
        here = Path(event.origin) / name
        for path in (files.find(name, event.origin), here):
            if path is not None and path.is_file():
                return path
    return None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror}", hint="choose another folder"
        ) from None
