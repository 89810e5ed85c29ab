"""The fused DiT and the decoder as ONNX, with any number of rows, frames and condition tokens.

    export_dit(packed, path)       x, t, context, kept, lengths -> v
    export_decoder(vae, path)      z -> audio

What TensorRT builds plans from, and what onnxruntime runs on a CPU to show that the graph is the
model. Windowed layers carry a band mask here: a plan's attention is fused with it.

Threads: one thread; takes the memory of the model once more.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demon_live.models.acestep.encode import rope
from demon_live.models.acestep.fused import Heard, Packed, Plain, forward

__all__ = ["DECODER_NAMES", "DIT_NAMES", "export_decoder", "export_dit"]

DIT_NAMES = ("x", "t", "context", "kept", "lengths")
DECODER_NAMES = ("z",)


class _Dense(Plain):
    """Plain operations whose windows are band masks, made of sizes that are known when it runs."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        c = self.config
        times = c.heads // c.kv_heads
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        k, v = (z.repeat_interleave(times, dim=1) for z in (k, v))
        keep = None
        if window is not None:
            place = torch.arange(q.shape[2], device=q.device)
            keep = (place[:, None] - place[None]).abs() <= window
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return out.transpose(1, 2).flatten(2)


class _Dit(nn.Module):
    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.packed, self.ops = packed, _Dense(packed.config)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, kept: Tensor, lengths: Tensor
    ) -> Tensor:
        c = self.packed.config
        turn = rope(x.shape[1] // c.patch, c.head_dim, c.rope_theta, kept)
        return forward(self.packed, self.ops, x, t, context, Heard(kept, lengths), turn)


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = vae.decoder

    def forward(self, z: Tensor) -> Tensor:
        audio: Tensor = self.decoder(z)
        return audio


def _export(module: nn.Module, given: tuple[Tensor, ...], path: Path, **more: Any) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(), given, str(path), dynamo=True, verbose=False, optimize=True, **more
            )
    finally:
        log.setLevel(level)


def export_dit(packed: Packed, path: Path) -> None:
    """The DiT: x float32 [B, T, C], t float32 [B], context [B, T, 2C] and kept [layers, 2, B, L,
    kv D] in the weights' type, lengths int32 [B] -> v float32 [B, T, C]. B, T/2 and L are free."""
    c, like = packed.config, packed.keys_values
    rows, tokens, told = 2, 2 * c.sliding_window + 6, 16
    given = (
        torch.zeros(rows, tokens * c.patch, c.channels, device=like.device),
        torch.full((rows,), 0.5, device=like.device),
        torch.zeros(rows, tokens * c.patch, 2 * c.channels, device=like.device, dtype=like.dtype),
        torch.zeros(
            c.layers, 2, rows, told, c.kv_heads * c.head_dim, device=like.device, dtype=like.dtype
        ),
        torch.full((rows,), told, dtype=torch.int32, device=like.device),
    )
    b, s, most = (torch.export.Dim(name) for name in ("rows", "tokens", "told"))
    frames = c.patch * s
    shapes = ({0: b, 1: frames}, {0: b}, {0: b, 1: frames}, {2: b, 3: most}, {0: b})
    names = list(DIT_NAMES)
    _export(
        _Dit(packed),
        given,
        path,
        input_names=names,
        output_names=["v"],
        dynamic_shapes=shapes,
    )


def export_decoder(vae: Any, path: Path) -> None:
    """The Oobleck decoder: z [B, C, F] -> audio [B, 2, F * hop], in the weights' type."""
    weight = vae.decoder.conv1.weight
    z = torch.zeros(2, weight.shape[1], 20, device=weight.device, dtype=weight.dtype)
    shapes = ({0: torch.export.Dim("rows"), 2: torch.export.Dim("frames")},)
    _export(
        _Decoder(vae),
        (z,),
        path,
        input_names=list(DECODER_NAMES),
        output_names=["audio"],
        dynamic_shapes=shapes,
    )
