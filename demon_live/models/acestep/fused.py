"""The DiT in our own arrangement: the same function, in fewer and larger operations.

    packed = pack(dit)                       weights fused: q|k|v, gate|up, all keys|values at once
    kept = packed.keep(states)               keys and values of a condition, once, for all layers
    v = forward(packed, ops, x, t, context, cross, ...)

What is not computed again: a condition's keys and values (they do not depend on t), the branch of
t - r (r = t makes it a constant). What runs between two matrix products is one operation of `Ops`:
residual + gate + norm + modulation, norm + rotation of q and k, SwiGLU. `Plain` writes each in
torch; backends/triton_ops.py has one kernel for each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.models.acestep.forward import per_token
from demon_live.models.acestep.layout import AceConfig
from demon_live.models.acestep.qwen import rope


@dataclass(slots=True)
class Layer:
    """One layer's weights. table: scale_shift_table [6, H]. window: keys to either side, or None.

    qkv: [(heads + 2 kv) D, H]. out: [H, heads D]. query, out2: of the cross-attention. gate_up:
    [2 I, H]. down: [H, I]. The matrices are what `Ops.weight` made of them.
    """

    norm1: Tensor
    qkv: Any
    q_norm: Tensor
    k_norm: Tensor
    out: Any
    norm2: Tensor
    query: Any
    query_norm: Tensor
    key_norm: Tensor
    out2: Any
    norm3: Tensor
    gate_up: Any
    down: Any
    window: int | None


@dataclass(slots=True)
class KeysValues:
    """Keys and values of the conditions of a batch, for cross-attention.

    kept: [layers, 2, B, L, kv D], padded to L. lengths: int32 [B].
    """

    kept: Tensor
    lengths: Tensor


class Ops(Protocol):
    """What lies between, and in, the matrix products. h, x: [B, S, ...], contiguous."""

    def weight(self, w: Tensor) -> Any:
        """A matrix [out, in] as `linear` takes it; the tensor itself remains for LoRAs."""
        ...

    def linear(self, x: Any, w: Any) -> Tensor:
        """x of `norm`, `add_norm`, `swiglu` or `ready` times w."""
        ...

    def ready(self, x: Tensor) -> Any:
        """x [B, S, K] as `linear` takes it."""
        ...

    def norm(self, h: Tensor, w: Tensor, scale: Tensor | None, shift: Tensor | None) -> Any:
        """RMSNorm(h) w (1 + scale) + shift; scale (with its 1 added), shift: float32 [B, H]."""
        ...

    def add_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Any:
        """h += gate y in place, then `norm`."""
        ...

    def end_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Tensor:
        """`add_norm` before a matrix product that is torch's own: in h's type."""
        ...

    def rotate(
        self, qkv: Tensor, q_norm: Tensor, k_norm: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Any, Tensor, Tensor]:
        """qkv -> q as `attend` takes it, k, v [B, S, kv, D]: q and k normed per head and rotated,
        or q what `attend` norms and rotates."""
        ...

    def head_norm(self, q: Tensor, w: Tensor) -> Any:
        """q [B, S, heads D] normed per head, as `cross` takes it, or what `cross` norms."""
        ...

    def swiglu(self, both: Tensor) -> Any:
        """silu(gate) up of gate | up, as `linear` takes it."""
        ...

    def attend(self, q: Any, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """[B, S, heads D]; window: only keys up to so far away count."""
        ...

    def cross(self, q: Any, kept: Tensor, lengths: Tensor) -> Tensor:
        """[B, S, heads D]; kept [2, B, L, kv D], of which each row counts its length."""
        ...


@dataclass(slots=True)
class Packed:
    """The DiT's weights, fused. base: matrices that a LoRA may change, by name, before `weight`."""

    config: AceConfig
    layers: list[Layer]
    tables: Tensor
    last_table: Tensor
    first: tuple[Tensor, Tensor]
    last: tuple[Tensor, Tensor]
    last_norm: Tensor
    embed: tuple[Tensor, Tensor]
    keys_values: Tensor
    key_norms: Tensor
    time: Any
    time_r: tuple[Tensor, Tensor]
    base: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def keep(self, states: Tensor) -> Tensor:
        """Condition states [L, D] -> keys and values of all layers, [layers, 2, L, kv D]."""
        c = self.config
        states = F.linear(states.to(self.keys_values.dtype), *self.embed)
        both = F.linear(states, self.keys_values).unflatten(
            -1, (c.layers, 2, c.kv_heads, c.head_dim)
        )
        both = both.permute(1, 2, 0, 3, 4).contiguous()
        norms = self.key_norms[:, None, None].float()
        both[:, 0] = (_rms(both[:, 0], c.eps) * norms).to(both.dtype)
        kept: Tensor = both.flatten(3)
        return kept

    def targets(self) -> Mapping[str, Tensor]:
        """`layers.3.cross_attn.q_proj` -> its weight, a view of the fused one."""
        c = self.config
        wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
        found: dict[str, Tensor] = {}
        kv = self.keys_values.unflatten(0, (c.layers, 2, narrow))
        for i in range(c.layers):
            q, k, v = self.base[f"{i}.qkv"].split([wide, narrow, narrow])
            gate, up = self.base[f"{i}.gate_up"].chunk(2)
            found |= {
                f"layers.{i}.self_attn.q_proj": q,
                f"layers.{i}.self_attn.k_proj": k,
                f"layers.{i}.self_attn.v_proj": v,
                f"layers.{i}.self_attn.o_proj": self.base[f"{i}.out"],
                f"layers.{i}.cross_attn.q_proj": self.base[f"{i}.query"],
                f"layers.{i}.cross_attn.k_proj": kv[i, 0],
                f"layers.{i}.cross_attn.v_proj": kv[i, 1],
                f"layers.{i}.cross_attn.o_proj": self.base[f"{i}.out2"],
                f"layers.{i}.mlp.gate_proj": gate,
                f"layers.{i}.mlp.up_proj": up,
                f"layers.{i}.mlp.down_proj": self.base[f"{i}.down"],
            }
        return found

    def reload(self, ops: Ops) -> None:
        """Make the matrices again from `base`, in place, after a LoRA changed it."""
        for i, layer in enumerate(self.layers):
            for name in ("qkv", "out", "query", "out2", "gate_up", "down"):
                made, new = getattr(layer, name), ops.weight(self.base[f"{i}.{name}"])
                if isinstance(made, tuple):
                    for old, fresh in zip(made, new, strict=True):
                        old.copy_(fresh)


def _joined(*weights: Tensor) -> Tensor:
    return torch.cat([w.detach() for w in weights]).contiguous()


def _matrices(layer: Any) -> dict[str, Tensor]:
    """The matrices of a layer, those that share an input joined."""
    a, x, mlp = layer.self_attn, layer.cross_attn, layer.mlp
    return {
        "qkv": _joined(a.to_q.weight, a.to_k.weight, a.to_v.weight),
        "out": a.to_out[0].weight.detach(),
        "query": x.to_q.weight.detach(),
        "out2": x.to_out[0].weight.detach(),
        "gate_up": _joined(mlp.gate_proj.weight, mlp.up_proj.weight),
        "down": mlp.down_proj.weight.detach(),
    }


@torch.no_grad()
def pack(dit: Any, config: AceConfig, ops: Ops, *, release: bool = False) -> Packed:
    """Fuse a DiT's weights. release: take each layer's own weights away once they are copied, so
    that the model is never in memory twice."""
    layers, tables, kv, key_norms = [], [], [], []
    base: dict[str, Tensor] = {}
    for i, module in enumerate(dit.layers):
        x = module.cross_attn
        made = _matrices(module)
        base |= {f"{i}.{name}": weight for name, weight in made.items()}
        sliding = dit.layer_types[i] == "sliding_attention"
        layers.append(
            Layer(
                norm1=module.self_attn_norm.weight.detach(),
                q_norm=module.self_attn.norm_q.weight.detach(),
                k_norm=module.self_attn.norm_k.weight.detach(),
                norm2=module.cross_attn_norm.weight.detach(),
                query_norm=x.norm_q.weight.detach(),
                key_norm=x.norm_k.weight.detach(),
                norm3=module.mlp_norm.weight.detach(),
                window=config.sliding_window if sliding else None,
                **{name: ops.weight(weight) for name, weight in made.items()},
            )
        )
        tables.append(module.scale_shift_table.detach()[0])
        kv.append(_joined(x.to_k.weight, x.to_v.weight))
        key_norms.append(x.norm_k.weight.detach())
        if release:
            a, mlp = module.self_attn, module.mlp
            for old in (a.to_q, a.to_k, a.to_v, x.to_k, x.to_v, mlp.gate_proj, mlp.up_proj):
                old.weight = None
    zero = torch.zeros(1, device=tables[0].device, dtype=tables[0].dtype)
    table = torch.stack(tables).float()
    table[:, 1::3] += 1.0
    last_table = dit.scale_shift_table.detach()[0].float().clone()
    last_table[1] += 1.0
    temb_r, modulation_r = dit.time_embed_r(zero)
    conv_in, conv_out = dit.proj_in_conv, dit.proj_out_conv
    return Packed(
        config=config,
        layers=layers,
        tables=table,
        last_table=last_table,
        # A convolution of stride 2 over pairs of frames is a matrix product of those pairs.
        first=(
            conv_in.weight.detach().permute(0, 2, 1).flatten(1).contiguous(),
            conv_in.bias.detach(),
        ),
        last=(
            conv_out.weight.detach().permute(2, 1, 0).flatten(0, 1).contiguous(),
            conv_out.bias.detach().repeat(config.patch),
        ),
        last_norm=dit.norm_out.weight.detach(),
        embed=(dit.condition_embedder.weight.detach(), dit.condition_embedder.bias.detach()),
        keys_values=torch.cat(kv).contiguous(),
        key_norms=torch.stack(key_norms),
        time=copy.deepcopy(dit.time_embed),
        time_r=(temb_r.float(), modulation_r.float()),
        base=base,
    )


@torch.no_grad()
def forward(
    p: Packed,
    ops: Ops,
    x: Tensor,
    t: Tensor,
    context: Tensor,
    cross: KeysValues,
    turn: tuple[Tensor, Tensor],
    mixed: tuple[KeysValues, Tensor] | None = None,
) -> Tensor:
    """v [B, T, C] float32 of x [B, T, C] float32 at times t [B], T a multiple of the patch.

    context: [B, T, 2C]. turn: `turn_of`. mixed: a second condition and its share [B, T] per frame.
    """
    c = p.config
    batch, frames = x.shape[:2]
    like = p.first[0].dtype
    temb, modulation = p.time(t.to(like))
    # [B, layers, 6, H] in float32: shift, 1 + scale, gate of attention, and of the MLP.
    m = p.tables + (modulation.float() + p.time_r[1])[:, None]
    last = p.last_table + (temb.float() + p.time_r[0])[:, None]
    both = torch.cat([context, x.to(like)], dim=-1)
    h = F.linear(both.view(batch, frames // c.patch, -1), *p.first)
    share = None if mixed is None else per_token(mixed[1], c.patch).to(like)
    y = ops.norm(h, p.layers[0].norm1, m[:, 0, 1], m[:, 0, 0])
    for i, layer in enumerate(p.layers):
        q, k, v = ops.rotate(ops.linear(y, layer.qkv), layer.q_norm, layer.k_norm, turn)
        out = ops.linear(ops.ready(ops.attend(q, k, v, layer.window)), layer.out)
        y = ops.add_norm(h, out, m[:, i, 2], layer.norm2, None, None)
        q = ops.head_norm(ops.linear(y, layer.query), layer.query_norm)
        a = ops.cross(q, cross.kept[i], cross.lengths)
        if mixed is not None and share is not None:
            a = torch.lerp(a, ops.cross(q, mixed[0].kept[i], mixed[0].lengths), share)
        out = ops.linear(ops.ready(a), layer.out2)
        y = ops.add_norm(h, out, None, layer.norm3, m[:, i, 4], m[:, i, 3])
        out = ops.linear(ops.swiglu(ops.linear(y, layer.gate_up)), layer.down)
        if i + 1 < len(p.layers):
            y = ops.add_norm(
                h, out, m[:, i, 5], p.layers[i + 1].norm1, m[:, i + 1, 1], m[:, i + 1, 0]
            )
    y = ops.end_norm(h, out, m[:, -1, 5], p.last_norm, last[:, 1], last[:, 0])
    v_out = F.linear(y, *p.last)
    return v_out.view(batch, frames, c.channels).float()


def turn_of(config: AceConfig, tokens: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) for so many tokens."""
    return rope(tokens, config.head_dim, config.rope_theta, like)


def _rms(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)


# ----------------------------------------------------------------------------------- in torch


def windowed(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention to keys up to `window` away, [B, heads, S, D] each, without an S x S mask.

    Queries go in blocks of `window`; a block needs the three blocks of keys round it.
    """
    batch, heads, count, dim = q.shape
    if count <= window + 1:
        return F.scaled_dot_product_attention(q, k, v)
    blocks = -(-count // window)
    short = blocks * window - count
    q = F.pad(q, (0, 0, 0, short)).view(batch, heads, blocks, window, dim)
    keys, values = (F.pad(z, (0, 0, window, window + short)) for z in (k, v))
    keys, values = (z.unfold(2, 3 * window, window).transpose(-1, -2) for z in (keys, values))
    i = torch.arange(window, device=q.device)[:, None]
    j = torch.arange(3 * window, device=q.device)[None]
    at = torch.arange(blocks, device=q.device)[:, None, None] * window + j - window
    keep = ((j - window - i).abs() <= window) & (at >= 0) & (at < count)
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=keep)
    return out.reshape(batch, heads, blocks * window, dim)[:, :, :count]


class Plain:
    """`Ops` in torch: the oracle of the kernels, and the way without them."""

    def __init__(self, config: AceConfig) -> None:
        self.config = config

    def weight(self, w: Tensor) -> Any:
        return w

    def linear(self, x: Any, w: Any) -> Tensor:
        return F.linear(x, w)

    def ready(self, x: Tensor) -> Any:
        return x

    def norm(self, h: Tensor, w: Tensor, scale: Tensor | None, shift: Tensor | None) -> Any:
        x = _rms(h, self.config.eps) * w.float()
        if scale is not None and shift is not None:
            x = x * scale[:, None] + shift[:, None]
        return x.to(h.dtype)

    def add_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Any:
        self._add(h, y, gate)
        return self.norm(h, w, scale, shift)

    def end_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Tensor:
        self._add(h, y, gate)
        normed: Tensor = Plain.norm(self, h, w, scale, shift)
        return normed

    @staticmethod
    def _add(h: Tensor, y: Tensor, gate: Tensor | None) -> None:
        h += y if gate is None else (y.float() * gate[:, None]).to(h.dtype)

    def rotate(
        self, qkv: Tensor, q_norm: Tensor, k_norm: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        both = qkv.unflatten(-1, (-1, c.head_dim))
        q, k, v = both.split([c.heads, c.kv_heads, c.kv_heads], dim=2)
        return self._turned(q, q_norm, turn), self._turned(k, k_norm, turn), v

    def _turned(self, x: Tensor, w: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = turn[0][None, :, None].float(), turn[1][None, :, None].float()
        y = (_rms(x, self.config.eps) * w.float()).to(x.dtype).float()
        first, second = y.chunk(2, dim=-1)
        return (y * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)

    def head_norm(self, q: Tensor, w: Tensor) -> Tensor:
        heads = q.unflatten(-1, (-1, self.config.head_dim))
        return (_rms(heads, self.config.eps) * w.float()).to(q.dtype)

    def swiglu(self, both: Tensor) -> Any:
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        times = self.config.heads // self.config.kv_heads
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        k, v = (z.repeat_interleave(times, dim=1) for z in (k, v))
        if window is not None:
            return windowed(q, k, v, window).transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def cross(self, q: Tensor, kept: Tensor, lengths: Tensor) -> Tensor:
        c = self.config
        k, v = kept.unflatten(-1, (c.kv_heads, c.head_dim)).transpose(2, 3)
        times = c.heads // c.kv_heads
        k, v = (z.repeat_interleave(times, dim=1) for z in (k, v))
        place = torch.arange(k.shape[2], device=k.device)
        keep = (place[None] < lengths[:, None])[:, None, None]
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=keep)
        return out.transpose(1, 2).flatten(2)
