"""engines/*.toml: what an engine is, where its files lie, whether they are whole.

    load_manifest("imp") -> Manifest      find_manifests() -> all of them
    verify(manifest)     -> [FileCheck]     one for each file, by size and SHA-256; see listing.py
    seal(path)           -> writes sizes and hashes into the TOML, after training one's own:
                            python -m demon_live.models.manifest engines/imp.toml

A manifest may come from a stranger: it is data, it is checked word by word, and the files it names
must lie in its own folder (or, when they are fetched, in the cache). Errors point into the TOML.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NoReturn, TypeVar

from demon_live import paths as places
from demon_live.controls import CONTROLS
from demon_live.errors import EngineError, Span, nearest

T = TypeVar("T")
Number = TypeVar("Number", int, float)
State = Literal["ok", "missing", "size", "hash"]
#: Bytes of a manifest.
_LONGEST = 256 * 1024
#: Bytes of a file that are read at once.
_PIECE = 1 << 26
#: No number of a manifest is larger.
_MOST = 1e15
#: No manifest opens so many brackets at once; the TOML parser would go that deep.
_NESTED = "[" * 32
#: The family of engines that are classes of Python (`models.base`), and how packages offer them.
FAMILY, GROUP = "python", "demon_live.engines"
BACKENDS = ("onnx", "eager", "graphs", "tensorrt")


@dataclass(frozen=True, slots=True)
class Weight:
    """One file of an engine. repo and revision are empty for files that ship with the manifest.

    sha256: may be empty for a fetched file that its author publishes no hash of: then the one that
    the hub states at the download is checked, kept beside the file, and holds from then on.
    """

    file: str
    sha256: str
    bytes: int
    repo: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One engines/*.toml, checked.

    folder: where shipped files lie. frames_low, frames_high, frames_multiple: lengths T that the
    model takes. margin, window: latent frames. tick_ms: nominal length of a tick, by which the
    offline clock counts, so that a render does not depend on the machine. plan: min/opt/max shapes
    for TensorRT. digest: SHA-256 of the TOML. model: sizes that the family's own code reads.
    draft_steps: after so many steps of a generation a prediction may be heard; 0: half of them.
    first_window: frames of a window that must be heard soon; 0: as `window`.
    """

    name: str
    family: str
    summary: str
    licence: str
    path: Path
    folder: Path
    weights: tuple[Weight, ...]
    frame_hz: int
    sample_rate: int
    hop: int
    channels: int
    frames_low: int
    frames_high: int
    frames_multiple: int
    controls: frozenset[str]
    steps: int
    shift: float
    depth: int
    margin: int
    window: int
    backends: tuple[str, ...]
    tick_ms: float
    plan: Mapping[str, Any] | None
    digest: str
    model: Mapping[str, Any] = field(default_factory=dict)
    draft_steps: int = 0
    first_window: int = 0

    def place(self, weight: Weight) -> Path:
        """Where `weight` lies, or would lie once fetched."""
        if weight.repo:
            # By repository, not by engine: engines share a text encoder and a VAE.
            repo = weight.repo.replace("/", "--")
            return places.cache_dir() / "weights" / repo / weight.revision / weight.file
        return self.folder / weight.file

    def file(self, name: str) -> Path:
        """The path of the file called `name`. Raises EngineError if it is not listed or there."""
        listed = {weight.file: weight for weight in self.weights}
        if name not in listed:
            raise EngineError(f"engine {self.name} lists no file {name!r}", name=str(self.path))
        path = self.place(listed[name])
        if not listed[name].repo and not path.resolve().is_relative_to(self.folder.resolve()):
            raise EngineError(
                f"{path} leads out of the engine's folder", hint="copy the file there instead"
            )
        if not path.is_file():
            raise EngineError(
                f"engine {self.name} lacks {path}",
                hint=f"see what is missing with: demon engines verify {self.name}",
            )
        return path


@dataclass(frozen=True, slots=True)
class FileCheck:
    """How one file stands: ok, missing, or of another size or hash than the manifest says."""

    weight: Weight
    path: Path
    state: State


# ------------------------------------------------------------------------------------------ reading


def _headings(text: str) -> Iterator[tuple[str, int, str]]:
    """(table, offset, line) of each line; the n-th [[weights]] is called weights.n."""
    table, counts, offset = "", dict[str, int](), 0
    for line in text.splitlines(keepends=True):
        if found := re.match(r"\s*(\[\[?)\s*([^\]\s]+)\s*\]", line):
            table = found[2]
            if found[1] == "[[":
                number = counts[table] = counts.get(table, -1) + 1
                table = f"{table}.{number}"
        yield table, offset, line
        offset += len(line)


class _Table:
    """One table of the TOML: typed access, and errors that point at the line."""

    def __init__(self, values: dict[str, Any], table: str, text: str, path: Path) -> None:
        self.values, self.table, self.text, self.path = values, table, text, path
        self.known: set[str] = set()

    def fail(self, key: str, message: str, hint: str | None = None) -> NoReturn:
        span = None
        for table, offset, line in _headings(self.text):
            if table == self.table and (
                span is None or re.match(rf"\s*{re.escape(key)}\s*=", line)
            ):
                start = offset + len(line) - len(line.lstrip())
                span = Span.of(self.text, start, offset + len(line.rstrip()))
        raise EngineError(message, span=span, hint=hint, source=self.text, name=str(self.path))

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of `key`, of type `kind`; `default` None means that it must be there."""
        self.known.add(key)
        value = self.values.get(key, default)
        where = f"{self.table}.{key}" if self.table else key
        if value is None:
            self.fail(key, f"the manifest lacks {where}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, f"{where} must be of type {kind.__name__}, this is {value!r}")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        return self.least(key, 1, self.get(key, int, default))

    def least(self, key: str, low: Number, value: Number) -> Number:
        """`value`, which must not be under `low`."""
        if not low <= value <= _MOST:
            bound = f"at least {low}" if value < low else f"at most {_MOST:g}"
            self.fail(key, f"{key} must be {bound}, this is {str(value)[:40]}")
        return value

    def words(self, key: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
        """A list of known words."""
        values = self.get(key, list)
        for word in values:
            if word not in known:
                near = nearest(str(word), known)
                self.fail(
                    key,
                    f"there is no {what} {word!r}",
                    f"did you mean {near[0]}?" if near else None,
                )
        return tuple(values)

    def inside(self, key: str, default: str | None = None) -> str:
        """A relative path that stays in its folder, whatever system reads it."""
        text = self.get(key, str, default)
        parts = PurePosixPath(text).parts
        windows = PureWindowsPath(text)
        if (
            not parts
            or len(text.encode()) > 512
            or max(len(part.encode()) for part in parts) > 200
            or not text.isprintable()
            or ".." in (*parts, *windows.parts)
            or parts[0] == "/"
            or windows.drive
            or "\\" in text
        ):
            self.fail(key, f"{key} must stay inside the engine's folder, this is {text!r}")
        return text

    def table_of(self, key: str) -> _Table:
        return _Table(self.get(key, dict), f"{self.table}.{key}".lstrip("."), self.text, self.path)

    def done(self) -> None:
        for key in self.values:
            if key not in self.known:
                near = nearest(key, self.known)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"known: {', '.join(sorted(self.known))}"
                )
                self.fail(key, f"{key!r} means nothing here", hint)


def _weight(table: _Table) -> Weight:
    repo = table.get("repo", str, "")
    sha = table.get("sha256", str, "" if repo else None)
    if not re.fullmatch(r"[0-9a-f]{64}", sha) and (sha or not repo):
        table.fail("sha256", "sha256 must be 64 hexadecimal digits")
    revision = table.get("revision", str, "")
    if repo and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        table.fail("repo", f"repo must be written owner/name, this is {repo!r}")
    if len(repo.encode()) > 200:
        # It becomes the name of a folder, and systems bear 255 bytes.
        table.fail("repo", "repo is longer than 200 bytes")
    if repo and not re.fullmatch(r"[0-9a-f]{40}", revision):
        table.fail(
            "revision",
            "revision must be a commit of 40 hexadecimal digits, so that it cannot change",
        )
    weight = Weight(table.inside("file"), sha, table.positive("bytes"), repo, revision)
    table.done()
    return weight


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = places.read_file(path, _LONGEST).decode().replace("\r\n", "\n")
        if _NESTED in "".join(text.split()):
            raise EngineError(f"the manifest {path} is nested too deep")
        return text, tomllib.loads(text)
    except OSError as error:
        raise EngineError(f"the manifest {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise EngineError(f"the manifest {path} is not text (byte {error.start})") from None
    except RecursionError:
        raise EngineError(f"the manifest {path} is nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        reason, line, col = (
            (found[1], int(found[2]), int(found[3])) if found else (str(error), 1, 1)
        )
        start = sum(len(row) for row in text.splitlines(keepends=True)[: line - 1]) + col - 1
        raise EngineError(
            reason[0].lower() + reason[1:], span=Span.of(text, start), source=text, name=str(path)
        ) from None
    except ValueError as error:
        # A number of thousands of digits, which Python refuses to read.
        raise EngineError(f"the manifest {path} cannot be read: {error}") from None


def _parse(path: Path) -> Manifest:
    text, values = _read(path)
    top = _Table(values, "", text, path)
    shapes, schedule, decode = (
        top.table_of("shapes"),
        top.table_of("schedule"),
        top.table_of("decode"),
    )
    name = top.get("name", str)
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
        top.fail("name", f"name must be a short word of a-z, 0-9, - and _, this is {name!r}")
    root = path.resolve().parent
    folder = root / top.inside("folder", name)
    if not folder.resolve().is_relative_to(root):
        top.fail("folder", "folder must stay beside the manifest")
    rows = top.get("weights", list, [])
    if not all(isinstance(row, dict) for row in rows):
        top.fail("weights", "weights must be written as [[weights]] tables")
    manifest = Manifest(
        name=name,
        family=top.get("family", str),
        summary=top.get("summary", str, ""),
        licence=top.get("licence", str),
        path=path,
        folder=folder,
        weights=tuple(
            _weight(_Table(row, f"weights.{i}", text, path)) for i, row in enumerate(rows)
        ),
        frame_hz=shapes.positive("frame_hz", 25),
        sample_rate=shapes.positive("sample_rate", 48000),
        hop=shapes.positive("hop", 1920),
        channels=shapes.positive("channels"),
        frames_low=shapes.positive("frames_low", 2),
        frames_high=shapes.positive("frames_high"),
        frames_multiple=shapes.positive("frames_multiple", 2),
        controls=frozenset(top.words("controls", tuple(CONTROLS), "control")),
        steps=schedule.positive("steps"),
        shift=schedule.least("shift", 0.01, schedule.get("shift", float)),
        depth=schedule.positive("depth"),
        margin=decode.least("margin", 0, decode.get("margin", int)),
        window=decode.positive("window"),
        backends=top.words("backends", BACKENDS, "backend"),
        tick_ms=top.least("tick_ms", 0.1, top.get("tick_ms", float)),
        plan=top.get("plan", dict, {}) or None,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        model=top.get("model", dict, {}),
        draft_steps=schedule.least("draft_steps", 0, schedule.get("draft_steps", int, 0)),
        first_window=decode.least("first_window", 0, decode.get("first_window", int, 0)),
    )
    for table in (shapes, schedule, decode, top):
        table.done()
    return manifest


def _folder() -> Path:
    return places.shipped("engines")


def find_manifests() -> list[Manifest]:
    """All shipped manifests by name. Raises EngineError at the first that is wrong."""
    return [_parse(path) for path in sorted(_folder().glob("*.toml"))]


def load_manifest(name_or_path: str | Path) -> Manifest:
    """The manifest of a shipped engine by name, or any other by the path of its TOML, by its entry
    point, or as MODULE:CLASS.

    Raises EngineError, with the place in the TOML where it has one.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return _parse(Path(text))
    names = [path.stem for path in sorted(_folder().glob("*.toml"))]
    own = own_engine(text) if text not in names else None
    if own is not None:
        described: Manifest = own.describe_class()
        return described
    if text not in names:
        names += sorted(entry_points(group=GROUP).names)
        near = nearest(text, names)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        raise EngineError(f"there is no engine {text!r}", hint=hint)
    return _parse(_folder() / f"{text}.toml")


def own_engine(name: str) -> Any:
    """The class of an engine that a package offers, or of MODULE:CLASS; None if there is none.

    Raises EngineError: it cannot be imported.
    """
    module, colon, attribute = name.partition(":")
    if colon and re.fullmatch(r"[\w.]+", module) and attribute.isidentifier():
        points = [EntryPoint(name, name, GROUP)]
        # `python -m` looks where it is run, and so does every way to start demon.
        sys.path += {str(Path.cwd())}.difference(sys.path)
    else:
        points = list(entry_points(group=GROUP, name=name))
    if not points:
        return None
    try:
        found = points[0].load()
    # A wall: the module of a stranger may fail in any way.
    except Exception as error:
        raise EngineError(
            f"engine {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint="python must find its module: run demon where it lies, or install it",
        ) from error
    if not hasattr(found, "describe_class"):
        raise EngineError(
            f"{name!r} is no engine", hint="an engine is a class: class Mine(demon_live.EngineBase)"
        )
    return found


# ----------------------------------------------------------------------------------------- checking


def digest_of(path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """SHA-256 of a file. progress: bytes read, some times a second."""
    digest, done = hashlib.sha256(), 0
    with places.open_file(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            done += len(piece)
            progress(done)
    return digest.hexdigest()


def sealed(path: Path) -> str:
    """The hash that was kept beside a fetched file; empty when there is none."""
    beside = path.with_name(path.name + ".sha256")
    return beside.read_text("ascii").strip() if beside.is_file() else ""


def verify(manifest: Manifest, *, deep: bool = True) -> list[FileCheck]:
    """One finding for each file; `deep` False looks at sizes only, which is instant."""
    findings = []
    for weight in manifest.weights:
        path = manifest.place(weight)
        state: State = "ok"
        if not path.is_file():
            state = "missing"
        elif path.stat().st_size != weight.bytes:
            state = "size"
        elif deep and (wanted := weight.sha256 or sealed(path)) and digest_of(path) != wanted:
            state = "hash"
        findings.append(FileCheck(weight, path, state))
    return findings


#: Smaller files are hashed at each check.
_LARGE = 50_000_000


def _stamp(path: Path, digest: str) -> str:
    facts = path.stat()
    return f"{digest} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"


def checked(path: Path, digest: str) -> bool:
    """Whether a large file was found to have this SHA-256, and has not changed since."""
    beside = path.with_name(path.name + ".checked")
    try:
        return beside.read_text("ascii") == _stamp(path, digest)
    except (OSError, ValueError):
        return False


def note_checked(path: Path, digest: str) -> None:
    """Remember that a large file has this SHA-256."""
    if path.stat().st_size < _LARGE:
        return
    with contextlib.suppress(OSError):
        path.with_name(path.name + ".checked").write_text(_stamp(path, digest), "ascii")


def missing_bytes(manifest: Manifest) -> int:
    """What fetching would cost: bytes of the files that are not there."""
    return sum(f.weight.bytes for f in verify(manifest, deep=False) if f.state == "missing")


def seal(path: Path) -> str:
    """Write the size and hash of each listed file into the TOML at `path`; returns what it did.

    Raises EngineError if a file is not there.
    """
    manifest = _parse(path)
    text, facts = "", dict[str, str]()
    for _, _, line in _headings(path.read_text("utf-8")):
        if found := re.match(r'file = "([^"]+)"', line):
            file = manifest.file(found[1])
            facts = {"sha256": f'"{digest_of(file)}"', "bytes": str(file.stat().st_size)}
        key = line.partition("=")[0].strip()
        text += f"{key} = {facts.pop(key)}\n" if key in facts else line
    path.write_text(text, "utf-8")
    return f"{path}: {len(manifest.weights)} files sealed"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(seal(Path(argument)) + "\n")
