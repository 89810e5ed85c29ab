"""Many renders: one job for each set and seed, here one after the other or on the workers of a Ray.

    jobs      what is to be rendered: the set, the files of its sources, engine, seed, length
    key       SHA-256 of all that, of the engine's files and of this program: what decides the bytes
    ledger    OUT/demon-render.json: file -> key, and SHA-256 of what was written
    resume    a file whose key and hash are as they would be is not made again

A worker gets everything in the job: it opens no file of the machine that asked, and a job that is
done again gives the same bytes. So a worker that is lost costs time alone: its job is given to
another, a few times. Workers use one thread each; the bytes do not depend on that.

Threads: everything runs in the caller's; `render_job` in a worker's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demon_live._version import __version__
from demon_live.core import RATES
from demon_live.errors import DemonError, FileError, UsageError
from demon_live.paths import read_file, remove_file
from demon_live.remote.ray import Gone, Ray
from demon_live.sets import journal
from demon_live.sets.recorder import engine_for
from demon_live.sets.set_files import LARGEST

if TYPE_CHECKING:
    from demon_live.models.engine import Engine

LEDGER = "demon-render.json"
#: A job is given out so often; after that its worker's death is its own doing.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class How:
    """What all jobs share; see `render.render`. engine: in a job it is never None."""

    engine: str | None = None
    backend: str | None = None
    cycles: float | None = None
    seconds: float | None = None
    start: float | None = 0
    stems: bool = False
    random_weights: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One render. name: of the file it makes. text: the set or score, as bytes; file: its name.

    sources: (name, base) as the set says them -> (file name, SHA-256), the last that was meant;
    copies: all (file name, SHA-256) that it needs; blobs: SHA-256 -> bytes.
    """

    name: str
    file: str
    text: bytes
    seed: int | None
    how: How
    sources: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """What the bytes of the result depend on."""
        said: list[Any] = [
            __version__, _program(), _engine_key(self.how.engine), repr(self.how), self.seed,
            self.file, hashlib.sha256(self.text).hexdigest(),
            sorted([*place, *what] for place, what in self.sources.items()), self.copies,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Made:
    """What a job gave: files by name (the whole, and stems), length and time in seconds."""

    files: Mapping[str, bytes]
    length: float
    took: float
    warnings: tuple[str, ...] = ()


@functools.cache
def _program() -> str:
    """SHA-256 of this program's own files: another version may give other bytes."""
    total = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


@functools.cache
def _engine_key(name: str | None) -> str:
    from demon_live.models.manifest import load_manifest

    manifest = load_manifest(name or "imp")
    files = sorted((weight.file, weight.sha256) for weight in manifest.weights)
    return json.dumps([manifest.digest, files])


# ------------------------------------------------------------------ jobs


class _Finder:
    """Remembers each file that was found."""

    def __init__(self) -> None:
        self.sources: dict[tuple[str, str], tuple[str, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.copies: set[tuple[str, str]] = set()

    def __call__(self, name: str, base: str, path: Path) -> None:
        if path.is_file():
            blob = _bytes(path)
            digest = hashlib.sha256(blob).hexdigest()
            self.blobs[digest] = blob
            self.sources[name, base] = (path.name, digest)
            self.copies.add((path.name, digest))


def jobs(
    paths: Sequence[Path], how: How, seeds: Sequence[int | None] = (None,), trust: bool = False
) -> list[Job]:
    """A job for each set or score and each seed. Raises DemonError for what cannot be rendered."""
    out: list[Job] = []
    for path in paths:
        found = _gathered(path, trust)
        is_set = path.name.endswith(journal.SUFFIX)
        chosen = engine_for(journal.load(path) if is_set else None, how.engine, how.backend)
        own = replace(how, engine=chosen[0], backend=chosen[1])
        text = _bytes(path)
        stem = path.name.removesuffix(journal.SUFFIX).removesuffix(".demon")
        for seed in seeds:
            name = f"{stem}.wav" if seed is None or len(seeds) == 1 else f"{stem}-seed{seed}.wav"
            copies = tuple(sorted(found.copies))
            out.append(Job(name, path.name, text, seed, own, found.sources, found.blobs, copies))
    names = [job.name for job in out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"two of these would be written as {twice[0]}", hint="render them into two folders"
        )
    return out


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, LARGEST)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def _gathered(path: Path, trust: bool) -> _Finder:
    """The sources of a set or score: it is played without sound, which asks for each."""
    from demon_live.paths import shipped
    from demon_live.session.assets import Assets
    from demon_live.session.output import NullOutput
    from demon_live.session.session import Session
    from demon_live.sets.set_files import bounds, folder_of

    finder = _Finder()
    folders, is_set = (Path.cwd(), shipped("patterns")), path.name.endswith(journal.SUFFIX)
    assets = Assets(
        folders,
        within=bounds(path, trust) if is_set else None,
        copies=folder_of(path) if is_set else None,
        found=finder,
    )
    session = Session(NullOutput(), assets=assets, dry=True)
    if not is_set:
        session.load(path)
        # The score's own folder is another one at the worker.
        base = {key[1] for key in finder.sources}
        finder.sources = {(n, ""): v for (n, b), v in finder.sources.items() if b in base}
        return finder
    for event in journal.load(path).events:
        try:
            session.repeat(event, now=event.sample)
        except DemonError as error:
            raise FileError(
                f"{path} cannot be replayed at sample {event.sample}: {error}",
                hint="are the files that it names still there?",
            ) from error
    return finder


# ------------------------------------------------------------------ at the worker

_engines: dict[How, Engine] = {}


def _engine(how: How) -> Engine:
    """Opened once in a process; jobs that follow find it open."""
    key = How(how.engine, how.backend, random_weights=how.random_weights)
    if key not in _engines:
        from demon_live.models.engine import open_engine

        _engines[key] = open_engine(
            how.engine or "imp",
            backend=how.backend or "auto",
            threads=1,
            random_weights=how.random_weights,
        )
    return _engines[key]


def render_job(job: Job, engine: Engine | None = None) -> Made:
    """Do a job. Raises DemonError."""
    from demon_live.replay.render import render
    from demon_live.sets.set_files import folder_of

    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="demon-job-") as name:
        folder = Path(name)
        # Where a set keeps its files, so that it finds each by its content.
        kept = folder_of(folder / job.file)
        for file, digest in job.copies:
            place = kept / digest / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(job.blobs[digest])

        def find(
            source: str, base: str, folders: Iterable[Path], within: Sequence[Path] | None, /
        ) -> Path:
            known = job.sources.get((source, base)) or job.sources.get((source, ""))
            if known is None:
                raise FileError(f"the source {source!r} was not sent with the job")
            return kept / known[1] / known[0]

        path = folder / job.file
        path.write_bytes(job.text)
        done = render(
            path,
            folder / job.name,
            cycles=job.how.cycles,
            seconds=job.how.seconds,
            start=job.how.start,
            engine=engine or _engine(job.how),
            seed=job.seed,
            stems=job.how.stems,
            find=find,
        )
        stem = job.name.removesuffix(".wav")
        names = [job.name, *(f"{stem}-{deck}.wav" for deck in done.stems)]
        files = {file: (folder / file).read_bytes() for file in names}
    length = len(done.audio) / RATES.sample_rate
    return Made(files, length, time.monotonic() - begun, done.warnings)


# ------------------------------------------------------------------ the farm


class Farm:
    """Renders jobs into a folder. tell: lines for the one who waits."""

    def __init__(self, out: Path, tell: Callable[[str], None] = lambda text: None) -> None:
        self._out, self._tell = out, tell
        self._total = self._done = 0
        self.failed: dict[str, DemonError] = {}
        self.lost = 0
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{out} cannot be a folder: {error.strerror}") from None
        self._ledger = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            rows = json.loads(read_file(self._out / LEDGER, 1 << 26))
        except (OSError, ValueError, RecursionError):
            return {}
        return rows if isinstance(rows, dict) else {}

    def missing(self, every: Sequence[Job]) -> list[Job]:
        """Those whose files are not there as they would be made."""
        return [job for job in every if not self._is_made(job)]

    def _is_made(self, job: Job) -> bool:
        row = self._ledger.get(job.name)
        if not isinstance(row, dict) or row.get("key") != job.key:
            return False
        files = row.get("files")
        if not isinstance(files, dict) or job.name not in files:
            return False
        return all(_hash(self._out / Path(name).name) == said for name, said in files.items())

    def run(self, every: Sequence[Job], ray: Ray | None = None) -> None:
        """Render what is missing; without a Ray here, one after the other. What fails is kept in
        `failed`; the others are rendered all the same."""
        todo = self.missing(every)
        self._total, self._done = len(every), len(every) - len(todo)
        if self._done:
            self._tell(f"{self._done} of {self._total} are there already")
        if ray is not None:
            self._spread(todo, ray)
            return
        for job in todo:
            self._settle(job, functools.partial(render_job, job))

    def _spread(self, todo: Sequence[Job], ray: Ray) -> None:
        # imp plays on the CPU, where a set replays exactly.
        gpu = bool(ray.gpus) and any(job.how.engine != "imp" for job in todo)
        blobs = {d: b for job in todo for d, b in job.blobs.items()}
        sent = {digest: ray.put(blob) for digest, blob in blobs.items()}

        def begin(job: Job) -> Any:
            mine = [sent[digest] for digest in job.blobs]
            return ray.task(_worked, replace(job, blobs={}), list(job.blobs), *mine, gpu=gpu)

        flying = {begin(job): (job, 1) for job in todo}
        while flying:
            for reference in ray.wait(list(flying), 1.0):
                job, tries = flying.pop(reference)
                try:
                    self._settle(job, functools.partial(ray.get, reference))
                except Gone as error:
                    self.lost += 1
                    if tries >= _TRIES:
                        self._fail(job, error)
                        continue
                    self._tell(f"{job.name}: its worker is lost; another one begins it again")
                    flying[begin(job)] = (job, tries + 1)

    def _settle(self, job: Job, get: Callable[[], Made]) -> None:
        try:
            made = get()
        except Gone:
            raise
        except DemonError as error:
            self._fail(job, error)
            return
        for name, data in made.files.items():
            _write(self._out / name, data)
        files = {name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()}
        self._ledger[job.name] = {"key": job.key, "files": files}
        text = json.dumps(self._ledger, indent=1, sort_keys=True)
        _write(self._out / LEDGER, text.encode())
        self._done += 1
        for warning in made.warnings:
            self._tell(f"{job.name}: {warning}")
        rate = f"{made.length:.1f} s, rendered in {made.took:.1f} s"
        self._tell(f"{self._done} of {self._total} · {job.name}: {rate}")

    def _fail(self, job: Job, error: DemonError) -> None:
        self.failed[job.name] = error
        self._tell(f"{job.name} failed: {error}")


def _worked(job: Job, digests: Sequence[str], *blobs: bytes) -> Made:
    """The task at a Ray worker."""
    return render_job(replace(job, blobs=dict(zip(digests, blobs, strict=True))))


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing. Raises FileError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        remove_file(part)
        raise FileError(f"{path} cannot be written: {error.strerror}") from None
