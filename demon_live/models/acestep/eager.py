"""ACE-Step through diffusers' modules, on the CPU or a CUDA device: the oracle of other backends.

Threads: torch's own pool; `threads` sets it for the whole process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from demon_live.models.acestep.encode import padded
from demon_live.models.acestep.engine import Batch
from demon_live.models.acestep.forward import forward
from demon_live.models.acestep.load import AceModules

_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v"}


def short(dtype: torch.dtype) -> str:
    """bf16, fp32."""
    return _SHORT.get(dtype, str(dtype))


class AceEager:
    """Kernels of `models.acestep.engine` on diffusers' modules, conditions padded and masked."""

    def __init__(self, modules: AceModules, threads: int) -> None:
        self.modules = modules
        self.device, self.dtype = modules.device, modules.dtype
        self.label = f"torch {short(self.dtype)}"
        if self.device.type == "cpu":
            torch.set_num_threads(threads)
            self.label += f", {threads} thread{'s' if threads > 1 else ''}"

    def keep(self, states: Tensor) -> Tensor:
        """The states themselves."""
        return states

    def flow(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """v [B, T, C] float32."""
        states, keep = padded([entry.kept for entry in batch.first])
        mixed = None
        if batch.mix is not None:
            mixed = (*padded([entry.kept for entry in batch.second]), batch.mix)
        return forward(self.modules.dit, x, t, batch.context, states, keep, mixed)

    def decode(self, latent: Tensor) -> Tensor:
        """latent [B, F, C] -> audio [B, 2, F * hop] float32."""
        audio: Tensor = self.modules.vae.decode(latent.transpose(1, 2).to(self.dtype)).sample
        return audio.float()

    def targets(self) -> Mapping[str, Tensor]:
        """`layers.3.cross_attn.q_proj` -> weight, of every attention and MLP."""
        found: dict[str, Tensor] = {}
        for i, layer in enumerate(self.modules.dit.layers):
            for name in ("self_attn", "cross_attn"):
                attention = getattr(layer, name)
                for upstream, ours in _PROJECTIONS.items():
                    found[f"layers.{i}.{name}.{upstream}"] = getattr(attention, ours).weight
                found[f"layers.{i}.{name}.o_proj"] = attention.to_out[0].weight
            for name in ("gate_proj", "up_proj", "down_proj"):
                found[f"layers.{i}.mlp.{name}"] = getattr(layer.mlp, name).weight
        return found

    def changed(self, names: Sequence[str]) -> None:
        """Nothing is kept of the weights."""

    def warm_up(self, frames: int, depth: int, window: int) -> None:
        """One tick of the full depth and one window."""
        from demon_live.models.acestep.engine import ConditionStates

        c = self.modules.config
        entry = ConditionStates()
        entry.kept = torch.zeros(64, c.encoder_hidden, device=self.device, dtype=self.dtype)
        context = torch.zeros(depth, frames, 2 * c.channels, device=self.device, dtype=self.dtype)
        x = torch.zeros(depth, frames, c.channels, device=self.device)
        t = torch.full((depth,), 0.5, device=self.device)
        self.flow(x, t, Batch(context, [entry] * depth, [entry] * depth, None, 0))
        self.decode(torch.zeros(1, window, c.channels, device=self.device))

    def close(self) -> None:
        """The modules belong to the engine."""
