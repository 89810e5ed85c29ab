"""`fused.Ops` on a CUDA device: one Triton kernel for all that lies between two matrix products.

    residual + gate + RMSNorm + modulation (+ quantisation)     RMSNorm of heads + rotation
    SwiGLU (+ quantisation)                                     Oobleck's snake
    attention, whole, windowed, or to a condition of some length

These steps are bound by memory. In fp8 (e4m3) every row of an activation and every output channel
of a weight has its own scale, amax / 448.

Attention is a kernel of our own, which norms and rotates the queries as it reads them. Against
PyTorch's FlashAttention a tick on an H200 takes 13 % less in bf16 and 17 in fp8 at one row, 1 to 4
at four and eight, where power sets the pace (engines/ace-step/README.md); with the smaller blocks
of other cards it was not timed. Where it fails its probe, FlashAttention is called below
`scaled_dot_product_attention`, which has neither windows nor per-row lengths of keys.

Only CUDA devices have Triton; importing this module without it is an ImportError.

Threads: the ring's, and the thread that encodes texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from demon_live.errors import one_line
from demon_live.models.acestep import triton_kernels as kernels
from demon_live.models.acestep.fused import Plain, turn_of
from demon_live.models.acestep.layout import AceConfig

_FP8_MOST = 448.0

#: (queries, keys, warps, stages) of a block: whole, windowed, to a condition. None of five others
#: was faster beyond noise in a captured tick on an H200. They need the 227 kB of shared memory of
#: compute capability 9 and 10; a block of the others is small enough for all cards (99 kB).
_BLOCKS = {"whole": (128, 128, 8, 2), "window": (64, 64, 4, 3), "cross": (128, 128, 8, 2)}
_SMALL, _ROOMY = (64, 32, 4, 2), (9, 10)
#: Compute capability from which there is bf16, of which the probe is made; below, it is fp32.
_BF16_FROM = 8


@dataclass(slots=True)
class _Queries:
    """q [B, S, heads, D] that attention norms by w and, with turn, rotates as it reads."""

    q: Tensor
    w: Tensor
    turn: tuple[Tensor, Tensor] | None


def attention(
    queries: _Queries,
    k: Tensor,
    v: Tensor,
    window: int | None,
    lengths: Tensor | None,
    blocks: tuple[int, int, int, int],
    eps: float,
) -> Tensor:
    """[B, S, heads D] of queries, k and v [B, L, kv, D], of which row b counts lengths[b] keys, or
    all. Rows of a tensor may lie further apart than they are long."""
    q, turn = queries.q, queries.turn
    batch, count, heads, dim = q.shape
    keys, narrow = k.shape[1], k.shape[2]
    out = torch.empty((batch, count, heads * dim), dtype=q.dtype, device=q.device)
    block_m, block_n, warps, stages = blocks
    kernels.attention_kernel[(triton.cdiv(count, block_m), heads, batch)](
        q,
        k,
        v,
        out,
        q if lengths is None else lengths,
        queries.w,
        *((q, q) if turn is None else turn),
        count,
        keys,
        q.stride(1),
        k.stride(1),
        out.stride(1),
        dim**-0.5 / math.log(2.0),
        eps,
        WINDOW=-1 if window is None else window,
        HAS_LENGTHS=lengths is not None,
        TURN=turn is not None,
        GROUP=heads // narrow,
        D=dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=warps,
        num_stages=stages,
    )
    return out


def _warps(block: int, quant: bool = False) -> int:
    if quant and block <= 8192:
        return 8
    return 4 if block <= 2048 else 8 if block <= 4096 else 16


def fused_snake(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x + b sin(a x)^2 of x [.., C]."""
    x = x.contiguous()
    out, count = torch.empty_like(x), x.numel()
    grid = (triton.cdiv(count, 2048),)
    kernels.snake_kernel[grid](x, a, b, out, count, x.shape[-1], BLOCK=2048)
    return out


class TritonOps:
    """`fused.Ops` on a CUDA device, matrices in the weights' own type.

    own_attention: the kernel of this module is used. flash: else PyTorch's FlashAttention is there
    and right; why_not if it is not, and attention is torch's.
    """

    own_attention = True
    #: Least warps of a norm's program.
    norm_warps = 4

    def __init__(self, config: AceConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._edges: dict[tuple[int, int, torch.device], Tensor] = {}
        self._plain = Plain(config)
        self._blocks = dict(_BLOCKS)
        self.flash = False
        self.why_not = ""
        device = torch.device(device)
        if device.type == "cuda":
            major = torch.cuda.get_device_capability(device)[0]
            if major not in _ROOMY:
                self._blocks = dict.fromkeys(_BLOCKS, _SMALL)
            self.own_attention = False
            if major < _BF16_FROM:
                self.why_not = f"it is for capability {_BF16_FROM} and later"
                return
            self.flash = True
            self.flash, self.why_not = self._probe(device)
            self.own_attention = True
            self.own_attention, _ = self._probe(device)

    def _probe(self, device: torch.device) -> tuple[bool, str]:
        """Whether this device and this PyTorch have the attention that is set, and it is right; if
        not, why."""
        c, count = self.config, 3 * self.config.sliding_window
        g = torch.Generator(device).manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device, generator=g).to(torch.bfloat16)

        qkv = noise(2, count, (c.heads + 2 * c.kv_heads) * c.head_dim)
        one, two = (1.0 + 0.1 * noise(c.head_dim) for _ in range(2))
        turn = turn_of(c, count, qkv)
        kept = noise(2, 2, 32, c.kv_heads * c.head_dim)
        lengths = torch.tensor([7, 32], dtype=torch.int32, device=device)
        pair: tuple[Any, Any] = (self, self._plain)
        try:
            for wide in (None, c.sliding_window):
                ours, wanted = (
                    ops.attend(*ops.rotate(qkv.clone(), one, two, turn), wide) for ops in pair
                )
                self._same(ours, wanted)
            q = qkv[..., : c.heads * c.head_dim].contiguous()
            ours, wanted = (ops.cross(ops.head_norm(q.clone(), one), kept, lengths) for ops in pair)
            self._same(ours, wanted)
        # What compiles a kernel may fail in any way: no compiler, no headers, a driver.
        except Exception as error:  # noqa: BLE001
            return False, one_line(error)
        return True, ""

    @staticmethod
    def _same(a: Tensor, b: Tensor) -> None:
        if not torch.allclose(a.float(), b.float(), atol=0.03):
            raise RuntimeError("it gives another result")

    # -- matrix products -------------------------------------------------------------------------

    quant = False

    def weight(self, w: Tensor) -> Any:
        return w

    def linear(self, x: Any, w: Any) -> Tensor:
        return F.linear(x, w)

    def ready(self, x: Tensor) -> Any:
        return x

    def _outputs(self, like: Tensor, width: int, quant: bool) -> tuple[Tensor, Tensor]:
        """(result, scales) of a kernel; without quantisation the scales are never written."""
        shape = (*like.shape[:-1], width)
        if not quant:
            return torch.empty(shape, dtype=like.dtype, device=like.device), like
        scales = torch.empty((*like.shape[:-1], 1), dtype=torch.float32, device=like.device)
        return torch.empty(shape, dtype=torch.float8_e4m3fn, device=like.device), scales

    def _result(self, out: Tensor, scales: Tensor) -> Any:
        return (out, scales) if self.quant else out

    # -- what lies between -----------------------------------------------------------------------

    def norm(self, h: Tensor, w: Tensor, scale: Tensor | None, shift: Tensor | None) -> Any:
        return self._result(*self._normed(h, None, None, w, scale, shift, self.quant))

    def add_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Any:
        return self._result(*self._normed(h, y, gate, w, scale, shift, self.quant))

    def end_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Tensor:
        return self._normed(h, y, gate, w, scale, shift, False)[0]

    def _normed(
        self,
        h: Tensor,
        y: Tensor | None,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        quant: bool,
    ) -> tuple[Tensor, Tensor]:
        """scale and shift are parts of one tensor: their rows lie equally far apart."""
        batch, count, width = h.shape
        out, scales = self._outputs(h, width, quant)
        block = triton.next_power_of_2(width)
        kernels.norm_kernel[(count, batch)](
            h,
            h if y is None else y,
            h if gate is None else gate,
            w,
            h if scale is None else scale,
            h if shift is None else shift,
            out,
            scales,
            count,
            width,
            0 if scale is None else scale.stride(0),
            0 if gate is None else gate.stride(0),
            self.config.eps,
            HAS_Y=y is not None,
            HAS_GATE=gate is not None,
            HAS_MOD=scale is not None,
            QUANT=quant,
            BLOCK=block,
            num_warps=max(self.norm_warps, _warps(block, quant)),
        )
        return out, scales

    def _heads(self, x: Tensor, first: int, heads: int, w: Tensor, rest: Tensor, turn: Any) -> None:
        """Of x [B, S, heads D] or more: the first `first` heads by w, the others by rest. Rows may
        lie further apart than they are long."""
        dim, rows = self.config.head_dim, x.shape[0] * x.shape[1]
        cos, sin = turn if turn is not None else (w, w)
        most = triton.next_power_of_2(heads)
        each = max(1, 32 // most)
        kernels.heads_kernel[(triton.cdiv(rows, each),)](
            x,
            w,
            rest,
            cos,
            sin,
            x.shape[1],
            rows,
            x.stride(1),
            first,
            heads,
            self.config.eps,
            TURN=turn is not None,
            ROWS=each,
            HEADS=most,
            HALF=dim // 2,
            num_warps=4,
        )

    def rotate(
        self, qkv: Tensor, q_norm: Tensor, k_norm: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Any, Tensor, Tensor]:
        c = self.config
        both = qkv.unflatten(-1, (-1, c.head_dim))
        q, k, v = both.split([c.heads, c.kv_heads, c.kv_heads], dim=2)
        if self.own_attention:
            keys = qkv[..., c.heads * c.head_dim :]
            self._heads(keys, c.kv_heads, c.kv_heads, k_norm, k_norm, turn)
            return _Queries(q, q_norm, turn), k, v
        self._heads(qkv, c.heads, c.heads + c.kv_heads, q_norm, k_norm, turn)
        return q, k, v

    def head_norm(self, q: Tensor, w: Tensor) -> Any:
        heads = q.unflatten(-1, (-1, self.config.head_dim))
        if self.own_attention:
            return _Queries(heads, w, None)
        self._heads(q, self.config.heads, self.config.heads, w, w, None)
        return heads

    def swiglu(self, both: Tensor) -> Any:
        width = both.shape[-1] // 2
        out, scales = self._outputs(both, width, self.quant)
        rows = both.shape[0] * both.shape[1]
        whole, block = triton.next_power_of_2(width), min(2048, triton.next_power_of_2(width))
        grid = (rows,) if self.quant else (rows, triton.cdiv(width, block))
        kernels.swiglu_kernel[grid](
            both,
            out,
            scales,
            width,
            QUANT=self.quant,
            BLOCK=block,
            WHOLE=whole,
            num_warps=_warps(whole, True) if self.quant else 4,
        )
        return self._result(out, scales)

    # -- attention -------------------------------------------------------------------------------

    def attend(self, q: Any, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        count, scale = k.shape[1], self.config.head_dim**-0.5
        if window is not None and count <= window + 1:
            window = None
        if self.own_attention:
            blocks = self._blocks["whole" if window is None else "window"]
            return attention(q, k, v, window, None, blocks, self.config.eps)
        if not self.flash:
            return self._plain.attend(q, k, v, window)
        window = -1 if window is None else window
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, count, count, 0.0, False, False,
            scale=scale, window_size_left=window, window_size_right=window,
        )  # fmt: skip
        attended: Tensor = out[0]
        return attended.flatten(2)

    def cross(self, q: Any, kept: Tensor, lengths: Tensor) -> Tensor:
        c = self.config
        if self.own_attention:
            keys, values = kept.unflatten(-1, (c.kv_heads, c.head_dim)).unbind(0)
            blocks = self._blocks["cross"]
            return attention(q, keys, values, None, lengths, blocks, c.eps)
        batch, count, most = q.shape[0], q.shape[1], kept.shape[2]
        if not self.flash:
            return self._plain.cross(q, kept, lengths)
        k, v = kept.view(2, batch * most, c.kv_heads, c.head_dim)
        out = torch.ops.aten._flash_attention_forward(
            q.flatten(0, 1), k, v,
            self._starts(batch, count, q.device), self._starts(batch, most, q.device),
            count, most, 0.0, False, False,
            scale=c.head_dim**-0.5, seqused_k=lengths,
        )  # fmt: skip
        attended: Tensor = out[0]
        return attended.view(batch, count, -1)

    def _starts(self, batch: int, count: int, device: torch.device) -> Tensor:
        """0, count, 2 count, ...: where each row begins, int32 on the device."""
        key = (batch, count, device)
        if key not in self._edges:
            at = torch.arange(batch + 1, dtype=torch.int32, device=device)
            self._edges[key] = at * count
        return self._edges[key]


class Fp8Ops(TritonOps):
    """The same with the large matrix products in fp8 (e4m3), a scale for every row and channel."""

    quant = True
    norm_warps = 8

    def weight(self, w: Tensor) -> Any:
        scale = (w.float().abs().amax(1, keepdim=True) / _FP8_MOST).clamp_min(1e-8)
        return (w.float() / scale).to(torch.float8_e4m3fn), scale.t().contiguous()

    def linear(self, x: Any, w: Any) -> Tensor:
        (a, row), (b, channel) = x, w
        out = torch._scaled_mm(
            a.flatten(0, 1),
            b.t(),
            scale_a=row.flatten(0, 1),
            scale_b=channel,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        product: Tensor = out.unflatten(0, a.shape[:2])
        return product

    def ready(self, x: Tensor) -> Any:
        out, scales = self._outputs(x, x.shape[-1], True)
        block = triton.next_power_of_2(x.shape[-1])
        kernels.quant_kernel[(x.shape[0] * x.shape[1],)](
            x.contiguous(),
            out,
            scales,
            x.shape[-1],
            BLOCK=block,
            num_warps=_warps(block),
        )
        return out, scales
