"""Qwen3 as a text encoder: token numbers -> states, causal, one text at a time.

Names of weights and settings are those of its checkpoints. Formulas: Qwen3's technical report
(2025); transformers' `Qwen3Model` computes the same.

Threads: read-only once loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demon_live.errors import EngineError


def rope(length: int, dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [length, dim], halves repeated, in the type of `like` (Su et al. 2021)."""
    powers = torch.arange(0, dim, 2, dtype=torch.float32, device=like.device) / dim
    angles = torch.outer(
        torch.arange(length, dtype=torch.float32, device=like.device), 1.0 / theta**powers
    )
    both = torch.cat([angles, angles], dim=-1)
    return both.cos().to(like.dtype), both.sin().to(like.dtype)


class _Norm(nn.Module):
    """RMS norm over the last axis, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self._eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * wide.to(x.dtype)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Heads rotated by their places."""
    low, high = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-high, low], dim=-1) * turn[1]


class _Attention(nn.Module):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        width, self._dim = int(values["hidden_size"]), _head_dim(values)
        heads, narrow = int(values["num_attention_heads"]), int(values["num_key_value_heads"])
        bias = bool(values.get("attention_bias", False))
        self.q_proj = nn.Linear(width, heads * self._dim, bias=bias)
        self.k_proj = nn.Linear(width, narrow * self._dim, bias=bias)
        self.v_proj = nn.Linear(width, narrow * self._dim, bias=bias)
        self.o_proj = nn.Linear(heads * self._dim, width, bias=bias)
        self.q_norm, self.k_norm = (_Norm(self._dim, _eps(values)) for _ in range(2))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (
            projected(x).unflatten(-1, (-1, self._dim))
            for projected in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (
            _turned(norm(y).transpose(1, 2), turn)
            for norm, y in ((self.q_norm, q), (self.k_norm, k))
        )
        made = F.scaled_dot_product_attention(
            q, k, v.transpose(1, 2), is_causal=x.shape[1] > 1, enable_gqa=True
        )
        out: Tensor = self.o_proj(made.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = int(values["hidden_size"]), int(values["intermediate_size"])
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = int(values["hidden_size"]), _eps(values)
        self.self_attn, self.mlp = _Attention(values), _Mlp(values)
        self.input_layernorm, self.post_attention_layernorm = _Norm(width, eps), _Norm(width, eps)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Qwen3(nn.Module):
    """The encoder. values: of its config.json. Raises EngineError: of a form that is not read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        rotation = values.get("rope_parameters") or values
        kind = (values.get("rope_scaling") or rotation).get("rope_type", "default")
        if kind != "default" or values.get("use_sliding_window"):
            raise EngineError("Qwen3 with scaled positions or a sliding window is not played")
        width = int(values["hidden_size"])
        self._dim, self._theta = _head_dim(values), float(rotation["rope_theta"])
        self.embed_tokens = nn.Embedding(int(values["vocab_size"]), width)
        layers = int(values["num_hidden_layers"])
        self.layers = nn.ModuleList(_Layer(values) for _ in range(layers))
        self.norm = _Norm(width, _eps(values))

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, L] of texts of one length -> states [B, L, D]."""
        x = self.embed_tokens(ids)
        turn = rope(ids.shape[1], self._dim, self._theta, x)
        for layer in self.layers:
            x = layer(x, turn)
        out: Tensor = self.norm(x)
        return out


def _head_dim(values: Mapping[str, Any]) -> int:
    return int(values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"])


def _eps(values: Mapping[str, Any]) -> float:
    return float(values.get("rms_norm_eps", 1e-6))
