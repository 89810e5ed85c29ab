"""Engines: how a model runs here. `open_engine` chooses a backend, and notes each step down once.

Importing this module is quick; torch loads when an engine opens.

Threads: `velocity` belongs to the ring's thread, `decode` may run in another one beside it,
`condition` and `check_prompt` in any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from demon_live.core import Floats, Request
from demon_live.errors import EngineError, nearest
from demon_live.models.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    import torch

S = TypeVar("S")


class Row(Protocol):
    """One row of the ring's batch, as an engine reads it.

    condition: of `Engine.condition` or `Engine.unconditioned`; None = unconditioned.
    shared: lanes read at each step, float32 [T] or a number: `hint`, `prompt_mix`; absent means 0.
    """

    @property
    def request(self) -> Request: ...
    @property
    def condition(self) -> Any: ...
    @property
    def shared(self) -> Mapping[str, Any]: ...


class Engine(Protocol):
    """A model on a device. T frames, C channels; a frame is 40 ms, 1920 samples at 48 kHz.

    Attributes:
        notes: lines for the performer, such as why a better backend was not chosen.
        margin: context frames on each side that make a decoded window exact.
        window: frames of a window by default.
        controls: those that the engine obeys.
    """

    name: str
    manifest: Manifest
    notes: list[str]
    channels: int
    steps: int
    shift: float
    depth: int
    margin: int
    window: int
    controls: frozenset[str]
    device: torch.device

    def describe(self) -> str:
        """One line: `imp (cpu, onnxruntime fp32, 2 threads)`."""
        ...

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """v [B, T, C] of x [B, T, C] at times t [B]; one row each. float32, on `device`."""
        ...

    def encode(self, audio: Floats) -> Floats:
        """A loop float32 [n, 2] -> latent [F, C]: F = n/1920 up to even, context wraps round."""
        ...

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]; exact `margin` frames away from either end."""
        ...

    def condition(
        self,
        prompt: str,
        *,
        prompt2: str = "",
        key: str = "",
        bpm: float,
        cycles: int,
        beats: int,
        frames: int,
    ) -> Any:
        """The model's input for texts and a place in time; equal arguments give the same object."""
        ...

    def unconditioned(self, condition: Any) -> Any:
        """The same place in time without words: for the negative pass of guidance."""
        ...

    def check_prompt(self, prompt: str) -> list[str]:
        """How a prompt is understood, then one line for each word that is not."""
        ...

    def warm_up(self, frames: int, depth: int) -> None:
        """Run each shape once, so that the first tick is not the slow one."""
        ...

    def close(self) -> None:
        """Free memory and threads. The engine cannot be used afterwards."""
        ...


class LastStack(Generic[S]):
    """The stacked inputs of the last tick; between admissions its rows come again unchanged."""

    def __init__(self) -> None:
        self._frames = 0
        self._key: list[Any] = []
        self._stacked: S | None = None

    def get(self, frames: int, key: list[Any], stack: Callable[[], S]) -> S:
        """`stack()`, or its last result if frames and the objects of the key are the same.

        The key holds the objects themselves: an id could come back for another object.
        """
        same = frames == self._frames and len(key) == len(self._key)
        if not same or any(a is not b for a, b in zip(key, self._key, strict=True)):
            self._stacked = stack()
            self._frames, self._key = frames, key
        assert self._stacked is not None
        return self._stacked


def default_threads() -> int:
    """Threads for the model: two where there are two cores, as the sound has its own process."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(2, len(os.sched_getaffinity(0))))
    return max(1, min(2, os.cpu_count() or 1))


def open_engine(
    name_or_path: str | Path = "imp",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    random_weights: bool = False,
) -> Engine:
    """Open a shipped engine by name, or another by the path of its TOML.

    Args:
        name_or_path: a name such as `imp`, or the path of a manifest.
        backend: auto, or one that the manifest lists.
        device: auto, cpu or cuda.
        threads: of the model on a CPU.
        random_weights: the true shapes with random weights, to measure speed.

    Raises:
        EngineError: no such engine or backend, files missing or damaged, no such device.
    """
    manifest = load_manifest(name_or_path)
    if manifest.family not in ("imp", "acestep"):
        raise EngineError(
            f"engine {manifest.name} is of family {manifest.family!r}, which is not played",
            hint="families that play: imp, acestep",
        )
    if backend not in ("auto", *manifest.backends):
        near = nearest(backend, manifest.backends)
        has = f"it has: auto, {', '.join(manifest.backends)}"
        raise EngineError(
            f"engine {manifest.name} has no backend {backend!r}",
            hint=f"did you mean {near[0]}?" if near else has,
        )
    if threads is not None and threads < 1:
        raise EngineError(f"threads must be at least 1, this is {threads}")
    # OpenMP threads that spin at barriers stall for whole time slices once another process (the
    # sound, the prompt) wants a core: a tick of 110 ms took seconds. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if manifest.family == "acestep":
        from demon_live.models.acestep.open import open_ace as opened
    else:
        from demon_live.models.imp.engine import open_imp as opened

    return opened(manifest, backend, device, threads or default_threads(), random_weights)
