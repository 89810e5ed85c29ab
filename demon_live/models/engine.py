"""Backends: how an engine runs here. `open_engine` chooses, and says each step down once.

    eager.py    torch, CPU or CUDA: the oracle
    onnx.py     onnxruntime on the CPU, float32: half of eager's time, rows are bit-independent
    imp.py      what both share: conditions, stacking of rows, encoding
    ace.py      the same for ACE-Step; ace_open.py opens it, ace_eager.py is its oracle
    graphs.py   ACE-Step fused and captured into CUDA graphs
    measure.py  tick and decode times, as `demon bench` reports them

Importing this module is quick; torch loads when an engine opens.
Threads: `velocity` belongs to the ring's thread, `decode` may run in another one beside it,
`condition` and `check_prompt` in any.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from demon_live.core import Floats, Request
from demon_live.errors import EngineError, nearest
from demon_live.models.manifest import Manifest, load_manifest

if TYPE_CHECKING:
    import torch

__all__ = ["Engine", "Row", "default_threads", "open_engine"]


class Row(Protocol):
    """What a backend reads of one row of the ring's batch.

    condition: of `Engine.condition` or `Engine.unconditioned`, or None to say nothing.
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

    margin: context frames on each side that make a decoded window exact. window: frames of a window
    by default. controls: those that the engine obeys. notes: why something better was not chosen.
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
        """What the model is asked for, prepared once: the same arguments give the same object."""
        ...

    def unconditioned(self, condition: Any) -> Any:
        """The same place in time without words: for the negative pass of guidance."""
        ...

    def check_prompt(self, prompt: str) -> list[str]:
        """What was heard of a prompt, then one line for each word that was not."""
        ...

    def warm_up(self, frames: int, depth: int) -> None:
        """Run each shape once, so that the first tick is not the slow one."""
        ...

    def close(self) -> None:
        """Give memory and threads back. The engine is of no use afterwards."""
        ...


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

    backend: auto or one that the manifest lists. device: auto, cpu or cuda. threads: of the model
    on a CPU. random_weights: the true shapes without the weights, to measure speed.
    Raises EngineError: no such engine or backend, files missing or damaged, no such device.
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
