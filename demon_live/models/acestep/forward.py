"""The DiT's velocity through diffusers' own layers: the oracle of faster forms.

Three things are ours: a row's condition may be padded (its padding is masked; the bare module
attends to it), a row may attend to two conditions, mixed frame by frame, and r = t throughout.

    v = forward(dit, x, t, context, states, keep, mixed=(states2, keep2, mix))
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.models.acestep.encode import band
from demon_live.models.acestep.qwen import rope


def key_mask(keep: Tensor, like: Tensor) -> Tensor | None:
    """keep [B, L] -> additive mask [B, 1, 1, L]; None where nothing is padded."""
    if bool(keep.all()):
        return None
    mask = torch.zeros(keep.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~keep, torch.finfo(like.dtype).min)[:, None, None]


def per_token(mix: Tensor, patch: int) -> Tensor:
    """A curve per frame [B, T] -> per token [B, S, 1]: the mean over the token's frames."""
    short = -mix.shape[1] % patch
    if short:
        mix = torch.cat([mix, mix[:, -1:].expand(-1, short)], dim=1)
    share: Tensor = mix.unflatten(1, (-1, patch)).mean(-1, keepdim=True)
    return share


@torch.no_grad()
def forward(
    dit: Any,
    x: Tensor,
    t: Tensor,
    context: Tensor,
    states: Tensor,
    keep: Tensor,
    mixed: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """v [B, T, C] of x [B, T, C] at times t [B].

    context: [B, T, 2C], source latents and chunk mask. states: [B, L, D], keep: [B, L] bool.
    mixed: a second condition and its share [B, T] of the cross-attention, per frame.
    """
    like = dit.proj_in_conv.weight
    x, context = x.to(like.dtype), context.to(like.dtype)
    t = t.to(like.dtype)
    frames, patch = x.shape[1], dit.patch_size
    temb, modulation = dit.time_embed(t)
    temb_r, modulation_r = dit.time_embed_r(torch.zeros_like(t))
    temb, modulation = temb + temb_r, modulation + modulation_r
    h = F.pad(torch.cat([context, x], dim=-1), (0, 0, 0, -frames % patch))
    h = dit.proj_in_conv(h.transpose(1, 2)).transpose(1, 2)
    turn = rope(h.shape[1], dit.head_dim, dit.rope_theta, h)
    window = band(h.shape[1], dit.config.sliding_window, h)
    conditions = [(dit.condition_embedder(states.to(like.dtype)), key_mask(keep, h))]
    share = None
    if mixed is not None:
        conditions.append((dit.condition_embedder(mixed[0].to(like.dtype)), key_mask(mixed[1], h)))
        share = per_token(mixed[2], patch).to(h.dtype)
    for kind, layer in zip(dit.layer_types, dit.layers, strict=True):
        mask = window if kind == "sliding_attention" else None
        h = _layer(layer, h, modulation, turn, mask, conditions, share)
    shift, scale = (dit.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
    h = (dit.norm_out(h) * (1 + scale) + shift).type_as(h)
    v: Tensor = dit.proj_out_conv(h.transpose(1, 2)).transpose(1, 2)[:, :frames]
    return v.float()


def _layer(
    layer: Any,
    h: Tensor,
    modulation: Tensor,
    turn: tuple[Tensor, Tensor],
    mask: Tensor | None,
    conditions: list[tuple[Tensor, Tensor | None]],
    share: Tensor | None,
) -> Tensor:
    """One layer: modulated self-attention, cross-attention to each condition, modulated MLP."""
    shift, scale, gate, shift2, scale2, gate2 = (layer.scale_shift_table + modulation).chunk(6, 1)
    x = (layer.self_attn_norm(h) * (1 + scale) + shift).type_as(h)
    attended = layer.self_attn(hidden_states=x, image_rotary_emb=turn, attention_mask=mask)
    h = (h + attended * gate).type_as(h)
    x = layer.cross_attn_norm(h).type_as(h)
    crossed = [
        layer.cross_attn(hidden_states=x, encoder_hidden_states=states, attention_mask=pad)
        for states, pad in conditions
    ]
    h = h + (crossed[0] if share is None else crossed[0] + share * (crossed[1] - crossed[0]))
    x = (layer.mlp_norm(h) * (1 + scale2) + shift2).type_as(h)
    result: Tensor = (h + layer.mlp(x) * gate2).type_as(h)
    return result
