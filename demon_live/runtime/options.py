"""How an engine is opened, and where; and what its process reports.

An engine is on this machine, or on another one (`ray://HOST/ENGINE`). What it should do is a
`core.EngineState`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace

from demon_live.core import EngineStatus, Generation
from demon_live.errors import EngineError, UsageError
from demon_live.models.cuda import require_gpu, require_system
from demon_live.models.listing import require_files
from demon_live.models.manifest import Manifest, load_manifest
from demon_live.paths import install
from demon_live.runtime.pace import TurnStats

#: How the name of an engine on another machine begins.
REMOTE = "ray://"
#: Where `ray start --head` listens for clients.
PORT = 10001


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """An engine on another machine. address: of its Ray, as Ray's client wants it."""

    host: str
    port: int
    engine: str

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{REMOTE}{host}:{self.port}"


def parse_remote(name: str) -> RemoteEngine | None:
    """`ray://HOST[:PORT]/ENGINE`, or None for an engine of this machine. Raises UsageError."""
    if not name.startswith(REMOTE):
        return None
    place, _, engine = name[len(REMOTE) :].partition("/")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host, port = place, str(PORT)
    host = host.strip("[]")
    if not (host and engine and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(
            f"{name[:80]!r} is no engine on another machine",
            hint=f"ray://HOST/ENGINE, or ray://HOST:PORT/ENGINE (PORT of Ray's client: {PORT})",
        )
    return RemoteEngine(host, int(port), engine)


def has_ray() -> bool:
    """Whether Ray is there; does not load it."""
    return importlib.util.find_spec("ray") is not None


def require_ray() -> None:
    """Raises EngineError unless Ray is installed."""
    if not has_ray():
        raise EngineError("Ray is not installed here", hint=f"{install('ray')} (Linux, macOS)")


def playable(engine: str, device: str, random_weights: bool, gpus: int = 1) -> Manifest:
    """The manifest of an engine that can be opened. Raises DemonError."""
    require_system()
    elsewhere = parse_remote(engine)
    manifest = load_manifest(engine if elsewhere is None else elsewhere.engine)
    if elsewhere is not None:
        if gpus > 1:
            hint = "leave it out: an engine on another machine plays on one GPU there"
            raise UsageError("--gpus counts the GPUs of this machine", hint=hint)
        require_ray()
    else:
        if device != "cpu":
            require_gpu(manifest)
        if not random_weights:
            require_files(manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine is opened; None and "auto" leave the choice to its manifest. gpus: that play
    as one; with device "cpu", processes."""

    engine: str = "imp"
    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    depth: int | None = None
    steps: int | None = None
    seed: int = 0
    random_weights: bool = False
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Opening:
    """The first object that an engine process gets.

    folder: where the bus and the PCM lie. spare: open the model, then wait until it is needed.
    """

    folder: str
    options: EngineOptions
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine is open. notes: each step down from the best backend, with why. device: cpu, .."""

    description: str
    notes: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Numbers of the engine, ten times a second."""

    status: EngineStatus = field(default_factory=EngineStatus)
    turns: TurnStats = field(default_factory=TurnStats)


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the performer."""

    text: str


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """A generation, to a session that waits for them."""

    generation: Generation

    @classmethod
    def of(cls, generation: Generation) -> GenerationReport:
        """Conditions and sources of its request stay with the engine."""
        bare = replace(generation.request, condition=None, conditions=(), negative=None)
        asked = replace(bare, source=None, target=None, identity=None)
        return cls(replace(generation, request=asked))


@dataclass(frozen=True, slots=True)
class Progress:
    """What the process is doing while it opens the model: shown where the engine's name stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The process is alive; sent by a thread of its own, whatever the model is doing."""


Report = Ready | Telemetry | Note | Progress | GenerationReport | Beat
