"""imp in onnxruntime on the CPU, float32.

flow.onnx and decoder.onnx hold the topology; their weights are given to the session by name, so the
float16 safetensors are the one copy. The decoder's graph ends in magnitude and phase; the inverse
STFT follows here, in float32 by pocketfft, each window on its own.

A batch of rows gives the very bits of the rows one by one (a test holds it): MatMul sums along K in
one order, whatever the number of rows. Dynamic int8 would let rows leak into each other, so there
is none.

Worker threads sleep between ticks instead of spinning: the sound and the prompt need those cores.

Threads: sessions may run in several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.errors import EngineError
from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import LABELS
from demon_live.models.imp.synthesis import Synthesis
from demon_live.models.imp.weights import BROKEN, ImpWeights, damaged


class OnnxKernels:
    """models.imp.engine.Kernels on two onnxruntime sessions. Raises EngineError."""

    def __init__(self, weights: ImpWeights, threads: int, *, spin: bool = False) -> None:
        self.device = torch.device("cpu")
        self.label = f"onnxruntime fp32, {threads} thread{'s' if threads > 1 else ''}"
        # torch's pool would spin beside ours; what is left for torch (the solver) is small.
        torch.set_num_threads(1)
        self._spin, self._threads = spin, threads
        self._flow = self._session(weights, "flow.onnx", "flow.safetensors", "flow.")
        # A graph exported before there was a timbre reference takes the labels only; one before
        # there were lanes takes none, and the labels of a row rather than of every two frames.
        inputs = {i.name: i for i in self._flow.get_inputs()}
        self._width = int(inputs["cond"].shape[-1])
        self._rows = len(inputs["cond"].shape) == 2
        self.lanes = "lanes" in inputs
        self.timbre = self._width > LABELS
        self._synthesis = Synthesis()
        self._decoder = self._session(weights, "decoder.onnx", "codec.safetensors", "decoder.")

    def _session(self, weights: ImpWeights, graph: str, file: str, prefix: str) -> Any:
        try:
            import onnxruntime as ort
            from onnxruntime.capi.onnxruntime_pybind11_state import (
                Fail,
                InvalidArgument,
                InvalidGraph,
                InvalidProtobuf,
                NoSuchFile,
                RuntimeException,
            )
        except ImportError as error:
            raise EngineError(
                f"onnxruntime cannot be loaded: {error}", hint="pip install onnxruntime"
            ) from None
        path = weights.manifest.file(graph)
        tensors = _tensors(weights, path, file, prefix)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # The arena never gives a block back, and each new (rows, frames) takes a larger one.
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._spin)))
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
        options.add_external_initializers(list(tensors), values)
        refusals = (
            Fail,
            InvalidArgument,
            InvalidGraph,
            InvalidProtobuf,
            NoSuchFile,
            RuntimeException,
        )
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (*refusals, *BROKEN) as error:
            raise damaged(path, error) from None

    def prepare(
        self, hint: Floats, phase: Floats, cond: Floats, lanes: Floats | None = None
    ) -> dict[str, Floats]:
        """Arrays go in without a copy, `cond` as far as the graph reads it."""
        rows, frames = hint.shape[:2]
        said = cond[:, : self._width]
        if not self._rows:
            said = np.repeat(said[:, None], frames // imp.PATCH, axis=1)
        prepared = {"hint": hint, "phase": phase, "cond": np.ascontiguousarray(said)}
        if self.lanes:
            untold = np.zeros((rows, frames, imp.LANES), np.float32)
            prepared["lanes"] = untold if lanes is None else lanes
        return prepared

    def flow(self, x: Tensor, t: Tensor, prepared: dict[str, Floats]) -> Tensor:
        """v [B, T, C]."""
        inputs = {"x": x.contiguous().numpy(), "t": t.contiguous().numpy(), **prepared}
        return torch.from_numpy(self._flow.run(None, inputs)[0])

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        return self._run(latent, self._synthesis)

    def decode_parts(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> tones and noise [B, F*1920, 4], which add up to `decode`."""
        return self._run(latent, self._synthesis.parts)

    def _run(self, latent: Floats, synthesis: Callable[..., Tensor]) -> Floats:
        spectra = self._decoder.run(None, {"latent": latent})
        audio = synthesis(*(torch.from_numpy(x) for x in spectra))
        pcm: Floats = audio.transpose(1, 2).contiguous().numpy()
        return pcm

    def close(self) -> None:
        """Drop the sessions."""
        del self._flow, self._decoder


def _tensors(weights: ImpWeights, graph: Path, file: str, prefix: str) -> dict[str, Any]:
    """Name in the graph -> float16 array, for one half of the weights."""
    if weights.random:
        module = weights.flow if prefix == "flow." else weights.decoder
        named = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
        # Made-up weights have every branch; the session takes those that the graph names.
        wanted = graph.read_bytes()
        return {n: value.half().numpy() for n, value in named.items() if n.encode() in wanted}
    from safetensors import SafetensorError, safe_open

    path: Path = weights.manifest.file(file)
    try:
        with safe_open(path, "np") as stored:
            return {n: stored.get_tensor(n) for n in stored.keys() if n.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, *BROKEN) as error:
        raise damaged(path, error) from None
