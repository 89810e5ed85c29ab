"""imp in torch, float32, on the CPU or a CUDA device: the oracle of other backends.

Threads: torch's own pool; `threads` sets it for the whole process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.models.imp.weights import ImpWeights

Prepared = tuple[Tensor, ...]


class EagerKernels:
    """models.imp.engine.Kernels on torch modules."""

    def __init__(self, weights: ImpWeights, device: torch.device, threads: int) -> None:
        self.device = device
        self.label = "torch fp32"
        if device.type == "cpu":
            torch.set_num_threads(threads)
            self.label += f", {threads} thread{'s' if threads > 1 else ''}"
        # The encoder stays on the CPU: its half of the codec must not move with the decoder.
        self._flow = copy.deepcopy(weights.flow).to(device)
        self.timbre = self._flow.timbre is not None
        self.lanes = self._flow.lanes is not None
        self._decoder = copy.deepcopy(weights.decoder).to(device)

    def prepare(
        self, hint: Floats, phase: Floats, cond: Floats, lanes: Floats | None = None
    ) -> Prepared:
        """Tensors on the device."""
        arrays = (hint, phase, cond) if lanes is None else (hint, phase, cond, lanes)
        return tuple(torch.from_numpy(array).to(self.device) for array in arrays)

    def flow(self, x: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """v [B, T, C]."""
        v: Tensor = self._flow(x, t, *prepared)
        return v

    @torch.no_grad()
    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        return self._run(latent, self._decoder.synthesis)

    @torch.no_grad()
    def decode_parts(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> tones and noise [B, F*1920, 4], which add up to `decode`."""
        return self._run(latent, self._decoder.synthesis.parts)

    def _run(self, latent: Floats, synthesis: Callable[..., Tensor]) -> Floats:
        audio = synthesis(*self._decoder.trunk(torch.from_numpy(latent).to(self.device)))
        pcm: Floats = audio.transpose(1, 2).contiguous().cpu().numpy()
        return pcm

    def close(self) -> None:
        """Drop the modules."""
        del self._flow, self._decoder
