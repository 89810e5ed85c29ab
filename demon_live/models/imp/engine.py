"""imp on any backend: conditions, the stacking of rows, encoding; kernels do the rest.

    rows -> (hint [B, T, C+1], phase [B, T, 2], cond [B, D])    stacked when rows have changed
    x, t, those -> kernels.flow -> v                           each tick

Threads: see models/protocol.py. The encoder is loaded at its first use, under a lock.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.errors import DemonError, EngineError, ScoreError
from demon_live.models import conditioning
from demon_live.models.conditioning import Condition
from demon_live.models.imp import labels as imp_labels
from demon_live.models.imp import timbre as imp_timbre
from demon_live.models.imp.weights import ImpWeights
from demon_live.models.manifest import Manifest
from demon_live.models.protocol import Engine, LastStack, Row
from demon_live.notes.lanes import LANES

#: The model learned hints of strengths from here to 1, the source beside them as it is; below, the
#: source fades out, so that a curve reaches "no hint" (all zeros) without a jump.
SHOWN = np.float32(0.2)
_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """The computations of a backend. label: for `describe`. timbre: its weights use a reference.
    lanes: they can be told notes."""

    label: str
    device: torch.device
    timbre: bool
    lanes: bool

    def prepare(
        self, hint: Floats, phase: Floats, cond: Floats, lanes: Floats | None = None
    ) -> Any:
        """The stacked inputs [B, T, C+1], [B, T, 2], [B, D] as `flow` takes them; lanes
        [B, T, LANES], None: nothing is told."""
        ...

    def flow(self, x: Tensor, t: Tensor, prepared: Any) -> Tensor:
        """v [B, T, C]."""
        ...

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        ...

    def decode_parts(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> tones and noise [B, F*1920, 4], which add up to `decode`."""
        ...

    def close(self) -> None: ...


def _lane(value: Any, frames: int) -> Floats | None:
    """A lane as float32 [T], None where it is 0 throughout."""
    if value is None:
        return None
    lane = np.broadcast_to(np.asarray(value, dtype=np.float32).reshape(-1), (frames,))
    return lane if lane.any() else None


def _default_phase(frames: int) -> Floats:
    """Place in time for rows without a condition: one loop of whole bars, near 120 bpm."""
    bars = max(1.0, round(frames / imp_labels.FRAME_HZ / 2.0))
    bpm = bars * 4 * 60.0 * imp_labels.FRAME_HZ / frames
    return imp_labels.loop_phase(bars, bpm, frames)


class _ImpStacker:
    """rows -> stacked arrays."""

    def __init__(self, kernels: Kernels, channels: int) -> None:
        self.kernels, self.channels = kernels, channels
        self._stacked: LastStack[Any] = LastStack()

    def of(self, rows: Sequence[Row], frames: int) -> Any:
        key: list[Any] = []
        for row in rows:
            shared = row.shared
            key += (row.condition, row.request, shared.get("hint"), shared.get("prompt_mix"))
        return self._stacked.get(
            frames, key, lambda: self.kernels.prepare(*self._stack(rows, frames))
        )

    def _stack(
        self, rows: Sequence[Row], frames: int
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        hint = np.zeros((len(rows), frames, self.channels + 1), np.float32)
        phase = np.empty((len(rows), frames, imp_labels.PHASE), np.float32)
        cond = np.empty((len(rows), imp_labels.COND), np.float32)
        lanes = np.zeros((len(rows), frames, LANES), np.float32) if self.kernels.lanes else None
        conditions = {
            id(r.request): r.condition for r in rows if isinstance(r.condition, Condition)
        }
        for i, row in enumerate(rows):
            lane, source = _lane(row.shared.get("hint"), frames), row.request.source
            if lane is not None and source is not None:
                hint[i, :, :-1] = source * np.minimum(lane / SHOWN, 1.0)[:, None]
                hint[i, :, -1] = lane
            # A row without words still has a place in time: that of its own request.
            beside = conditions.get(id(row.request))
            silent = row.condition is None
            condition = beside.silent() if silent and beside is not None else row.condition
            if condition is None:
                phase[i], cond[i] = _default_phase(frames), imp_labels.null_condition()
                continue
            if len(condition.phase) != frames:
                raise EngineError(
                    f"a condition for {len(condition.phase)} frames met a latent of {frames}",
                    hint="prepare the condition again when the loop changes",
                )
            phase[i] = condition.phase
            cond[i] = conditioning.mixed(condition, row.shared.get("prompt_mix"))
            # Guidance is between words: both of its passes are told the notes.
            if lanes is not None and row.request.lanes is not None and not silent:
                lanes[i] = row.request.lanes
        return hint, phase, cond, lanes


class ImpEngine:
    """imp, opened. See models.protocol.Engine."""

    def __init__(self, manifest: Manifest, weights: ImpWeights, kernels: Kernels) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.notes: list[str] = []
        self.channels, self.margin = manifest.channels, manifest.margin
        self.steps, self.shift, self.depth = manifest.steps, manifest.shift, manifest.depth
        self.window = manifest.window
        self.controls = manifest.controls
        if "timbre" in self.controls and not kernels.timbre:
            self.controls -= {"timbre"}
            self.notes.append(f"the weights of {self.name} know no timbre reference")
        #: Whether requests should bring their notes.
        self.told_notes = kernels.lanes
        self.device = kernels.device
        self.lexicon = conditioning.load_lexicon(manifest.file("tags.toml"))
        self._weights, self._kernels = weights, kernels
        self._stacker = _ImpStacker(kernels, self.channels)
        self._condition = functools.lru_cache(maxsize=256)(self._prepare)
        self._timbres: dict[str, bytes] = {}

    def describe(self) -> str:
        """One line: `imp (cpu, onnxruntime fp32, 2 threads)`."""
        random = ", random weights" if self._weights.random else ""
        return f"{self.name} ({self.device.type}, {self._kernels.label}{random})"

    @torch.no_grad()
    def velocity(self, x: Tensor, t: Tensor, rows: Sequence[Row]) -> Tensor:
        """v [B, T, C] of x [B, T, C] at times t [B]; one row each."""
        return self._kernels.flow(x, t, self._stacker.of(rows, x.shape[1]))

    @torch.no_grad()
    def encode(self, audio: Floats) -> Floats:
        """A loop float32 [n, 2] -> latent [F, C], F = n/1920 rounded up to even."""
        if audio.ndim != 2 or audio.shape[1] != 2 or not len(audio):
            raise EngineError(f"a source must be float32 [n, 2], this is {list(audio.shape)}")
        stereo = torch.from_numpy(np.ascontiguousarray(audio.T, dtype=np.float32))[None]
        latent: Floats = self._weights.encoder.encode_loop(stereo)[0].numpy()
        return latent

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]; exact `margin` frames away from either end."""
        return self._kernels.decode(np.ascontiguousarray(latent, dtype=np.float32))

    def decode_parts(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> tones and noise [B, F*1920, 4], which add up to `decode`."""
        return self._kernels.decode_parts(np.ascontiguousarray(latent, dtype=np.float32))

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
        lyrics: str = "",
        timbre: str = "",
    ) -> Condition:
        """See Engine.condition. Raises ScoreError for an unknown key.

        timbre: a name of `set_timbre`; an unknown one is left out. Lyrics are not sung.
        """
        if lyrics:
            self._add_note("imp does not sing: lyrics are left out")
        reference = self._timbres.get(timbre, b"")
        return self._condition(prompt, prompt2, key, float(bpm), cycles, beats, frames, reference)

    def _prepare(
        self,
        prompt: str,
        prompt2: str,
        key: str,
        bpm: float,
        cycles: int,
        beats: int,
        frames: int,
        reference: bytes,
    ) -> Condition:
        timbre = np.frombuffer(reference, np.float32) if reference else None
        try:
            return conditioning.prepare(
                prompt, prompt2, key, bpm, cycles, beats, frames, self.lexicon, timbre
            )
        except ValueError as error:
            raise ScoreError(str(error)) from None

    def set_timbre(self, name: str, audio: Floats) -> None:
        """Make the timbre of a sound float32 [n, 2] known by a name; up to 30 s of it count.

        Weights that were trained without a reference ignore it, with a note. Raises EngineError:
        not such an array, or silent.
        """
        if not self._kernels.timbre:
            self._add_note(f"the weights of {self.name} know no timbre reference: it is left out")
            return
        try:
            self._timbres[name] = imp_timbre.timbre_of(audio).tobytes()
        except ValueError as error:
            raise EngineError(str(error), hint="give a recording that can be heard") from None

    def _add_note(self, note: str) -> None:
        """Note once what it cannot do."""
        if note not in self.notes:
            self.notes.append(note)
            _log.warning("%s", note)

    def unconditioned(self, condition: Condition) -> Condition:
        """The same place in time without words: for the negative pass of guidance."""
        return condition.silent()

    def check_prompt(self, prompt: str) -> list[str]:
        """How a prompt is understood, then one line for each word that is not."""
        return conditioning.check_prompt(prompt, self.lexicon)

    @torch.no_grad()
    def warm_up(self, frames: int, depth: int) -> None:
        """Run each shape once: batches of 1 to `depth` rows, and one window."""
        for rows in range(1, depth + 1):
            shape = (rows, frames)
            prepared = self._kernels.prepare(
                np.zeros((*shape, self.channels + 1), np.float32),
                np.zeros((*shape, imp_labels.PHASE), np.float32),
                np.zeros((rows, imp_labels.COND), np.float32),
            )
            x = torch.zeros((*shape, self.channels), device=self.device)
            self._kernels.flow(x, torch.full((rows,), 0.5, device=self.device), prepared)
        self.decode(np.zeros((1, self.window + 2 * self.margin, self.channels), np.float32))

    def close(self) -> None:
        """Free memory and threads."""
        self._kernels.close()
        self._condition.cache_clear()


# ------------------------------------------------------------------------------------------ opening


def _device(wanted: str, notes: list[str]) -> torch.device:
    if wanted not in ("auto", "cpu", "cuda"):
        raise EngineError(f"there is no device {wanted!r}", hint="auto, cpu or cuda")
    cuda = torch.cuda.is_available()
    if wanted == "cuda" and not cuda:
        raise EngineError(
            "torch finds no CUDA device here", hint="without one use: --device cpu, or auto"
        )
    if wanted == "auto" and cuda:
        # On a GPU the bits of a row depend on its neighbours, so a set would not replay exactly.
        notes.append("imp plays on the CPU, where a set replays exactly; --device cuda is faster")
    return torch.device("cuda" if wanted == "cuda" else "cpu")


def _kernels(backend: str, weights: ImpWeights, device: torch.device, threads: int) -> Kernels:
    if backend == "onnx" and device.type == "cpu":
        from demon_live.models.imp.onnx import OnnxKernels

        return OnnxKernels(weights, threads)
    if backend == "eager":
        from demon_live.models.imp.eager import EagerKernels

        return EagerKernels(weights, device, threads)
    raise EngineError(
        f"imp has no backend {backend} on device {device.type}",
        hint="it has: onnx on the cpu, eager on cpu and cuda",
    )


def open_imp(
    manifest: Manifest, backend: str, device: str, threads: int, random_weights: bool
) -> Engine:
    """See models.engine.open_engine."""
    notes: list[str] = []
    target = _device(device, notes)
    weights = ImpWeights(manifest, random_weights)
    wanted = list(manifest.backends) if backend == "auto" else [backend]
    for choice in wanted:
        try:
            engine = ImpEngine(manifest, weights, _kernels(choice, weights, target, threads))
        except DemonError as error:
            if choice == wanted[-1]:
                raise
            notes.append(f"{manifest.name} runs without backend {choice}: {error.message}")
            continue
        engine.notes = notes + engine.notes
        return engine
    raise EngineError(f"engine {manifest.name} lists no backend", name=str(manifest.path))
