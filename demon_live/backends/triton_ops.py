"""One Triton kernel for all that lies between two matrix products; bf16 and fp8.

    residual + gate + RMSNorm + modulation (+ quantisation)     RMSNorm of heads + rotation
    SwiGLU (+ quantisation)                                     Oobleck's snake
    attention, whole, windowed, or to a condition of some length

Each reads its inputs once and writes its result once: these steps are bound by memory. Sums are in
float32, rounded once at the end. In fp8 (e4m3) every row of an activation and every output channel
of a weight has its own scale, amax / 448.

Attention is PyTorch's FlashAttention, called below `scaled_dot_product_attention`, which has
neither windows nor per-row lengths of keys; or a kernel of our own, of the same arithmetic, faster
at a window's few keys. On an H200 fp8 gained by it (and by the warps below) 22 % at one row, 2 to
5 at four and eight, where power sets the pace; bf16 gained nothing at four and keeps the former.

Only CUDA devices have Triton; importing this module without it is an ImportError.

Threads: the ring's, and the thread that encodes texts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import TritonError

from demon_live.models.acestep.fused import Plain
from demon_live.models.acestep.layout import AceConfig

__all__ = ["Fp8Ops", "TritonOps", "fused_snake"]

_FP8_MOST = 448.0


# Lengths change from loop to loop: a kernel is not compiled anew for each kind of number.
@triton.jit(do_not_specialize=["tokens"])
def _norm_kernel(
    h, y, gate, w, scale, shift, out, out_scale,
    tokens, width, mod_stride, gate_stride, eps,
    HAS_Y: tl.constexpr, HAS_GATE: tl.constexpr, HAS_MOD: tl.constexpr,
    QUANT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    cols = tl.arange(0, BLOCK)
    mask = cols < width
    x = tl.load(h + row * width + cols, mask=mask, other=0.0).to(tl.float32)
    if HAS_Y:
        add = tl.load(y + row * width + cols, mask=mask, other=0.0).to(tl.float32)
        if HAS_GATE:
            add *= tl.load(gate + b * gate_stride + cols, mask=mask, other=0.0)
        rounded = (x + add).to(h.dtype.element_ty)
        tl.store(h + row * width + cols, rounded, mask=mask)
        x = rounded.to(tl.float32)
    x *= tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    x *= tl.load(w + cols, mask=mask, other=0.0).to(tl.float32)
    if HAS_MOD:
        x *= tl.load(scale + b * mod_stride + cols, mask=mask, other=0.0)
        x += tl.load(shift + b * mod_stride + cols, mask=mask, other=0.0)
    if QUANT:
        s = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-6) / 448.0
        tl.store(out_scale + row, s)
        x = x / s
    tl.store(out + row * width + cols, x.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tokens"])
def _heads_kernel(
    x, w_first, w_rest, cos, sin, tokens, row_stride, heads_first, heads, eps,
    TURN: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    col = tl.arange(0, HALF)[None, :]
    mask = (head < heads) & (col < HALF)
    at = x + row * row_stride + head * (2 * HALF) + col
    a = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    r = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / (2 * HALF) + eps)[:, None]
    first = head < heads_first
    wa = tl.where(first, tl.load(w_first + col), tl.load(w_rest + col)).to(tl.float32)
    wb = tl.where(first, tl.load(w_first + HALF + col), tl.load(w_rest + HALF + col)).to(tl.float32)
    a = a * r * wa
    b = b * r * wb
    if TURN:
        place = (row % tokens) * (2 * HALF)
        c = tl.load(cos + place + col).to(tl.float32)
        s = tl.load(sin + place + col).to(tl.float32)
        turned = a * c - b * s
        b = b * c + a * s
        a = turned
    tl.store(at, a.to(x.dtype.element_ty), mask=mask)
    tl.store(at + HALF, b.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _swiglu_kernel(
    both, out, out_scale, width, QUANT: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    if QUANT:
        # The whole row is one block: its largest value is needed before any is written.
        cols = tl.arange(0, WHOLE)
        mask = cols < width
        g = tl.load(both + row * 2 * width + cols, mask=mask, other=0.0).to(tl.float32)
        u = tl.load(both + row * 2 * width + width + cols, mask=mask, other=0.0).to(tl.float32)
        x = g * tl.sigmoid(g) * u
        s = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-6) / 448.0
        tl.store(out_scale + row, s)
        tl.store(out + row * width + cols, (x / s).to(out.dtype.element_ty), mask=mask)
    else:
        cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        mask = cols < width
        g = tl.load(both + row * 2 * width + cols, mask=mask, other=0.0).to(tl.float32)
        u = tl.load(both + row * 2 * width + width + cols, mask=mask, other=0.0).to(tl.float32)
        x = g * tl.sigmoid(g) * u
        tl.store(out + row * width + cols, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _quant_kernel(x, out, out_scale, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < width
    v = tl.load(x + row * width + cols, mask=mask, other=0.0).to(tl.float32)
    s = tl.maximum(tl.max(tl.abs(v), axis=0), 1e-6) / 448.0
    tl.store(out_scale + row, s)
    tl.store(out + row * width + cols, (v / s).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count"])
def _snake_kernel(x, a, b, out, count, channels, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    c = at % channels
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sin(tl.load(a + c, mask=mask, other=0.0) * v)
    v += tl.load(b + c, mask=mask, other=0.0) * s * s
    tl.store(out + at, v.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count", "keys"])
def _attention_kernel(
    q, k, v, out, lengths, count, keys, q_row, k_row, out_row, scale,
    WINDOW: tl.constexpr, HAS_LENGTHS: tl.constexpr, GROUP: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: softmax(q k') v, worked out along the keys as they come
    (Dao 2023, arXiv 2307.08691). scale: for powers of 2."""
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    rows, col = first + tl.arange(0, BLOCK_M), tl.arange(0, D)
    there = (rows < count)[:, None]
    at_q = q + (b * count + rows[:, None]) * q_row + head * D + col[None, :]
    x = tl.load(at_q, mask=there, other=0.0)
    n = keys
    if HAS_LENGTHS:
        n = tl.load(lengths + b)
    low, high = 0, n
    if WINDOW >= 0:
        low = tl.maximum(first - WINDOW, 0) // BLOCK_N * BLOCK_N
        high = tl.minimum(n, first + BLOCK_M + WINDOW)
    k += b * keys * k_row + (head // GROUP) * D
    v += b * keys * k_row + (head // GROUP) * D
    most = tl.full((BLOCK_M,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    for start in range(low, high, BLOCK_N):
        at = start + tl.arange(0, BLOCK_N)
        live = at < n
        keep = live[None, :]
        if WINDOW >= 0:
            far = rows[:, None] - at[None, :]
            keep = keep & (far <= WINDOW) & (far >= -WINDOW)
        k_block = tl.load(k + at[None, :] * k_row + col[:, None], mask=live[None, :], other=0.0)
        score = tl.where(keep, tl.dot(x, k_block) * scale, -1e30)
        new = tl.maximum(most, tl.max(score, axis=1))
        # Of a row that has seen no key yet, `new` is as low as what is masked.
        p = tl.where(keep, tl.exp2(score - new[:, None]), 0.0)
        fade = tl.exp2(most - new)
        total = total * fade + tl.sum(p, axis=1)
        v_block = tl.load(v + at[:, None] * k_row + col[None, :], mask=live[:, None], other=0.0)
        acc = acc * fade[:, None] + tl.dot(p.to(v_block.dtype), v_block)
        most = new
    at_out = out + (b * count + rows[:, None]) * out_row + head * D + col[None, :]
    # Rows below the last, which are not stored, may see no key.
    total = tl.where(total > 0.0, total, 1.0)
    tl.store(at_out, (acc / total[:, None]).to(out.dtype.element_ty), mask=there)


#: (queries, keys, warps, stages) of a block: whole, windowed, to a condition. Best of five in a
#: captured fp8 tick on an H200. They need the 227 kB of shared memory of compute capability 9 and
#: 10; a block of the others is small enough for all cards (99 kB).
_BLOCKS = {"whole": (128, 128, 8, 2), "window": (64, 64, 4, 3), "cross": (128, 128, 8, 2)}
_SMALL, _ROOMY = (64, 32, 4, 2), (9, 10)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    lengths: Tensor | None,
    blocks: tuple[int, int, int, int],
) -> Tensor:
    """[B, S, heads D] of q [B, S, heads, D], k and v [B, L, kv, D], of which row b counts
    lengths[b] keys, or all. Rows of a tensor may lie further apart than they are long."""
    batch, count, heads, dim = q.shape
    keys, narrow = k.shape[1], k.shape[2]
    out = torch.empty((batch, count, heads * dim), dtype=q.dtype, device=q.device)
    block_m, block_n, warps, stages = blocks
    _attention_kernel[(triton.cdiv(count, block_m), heads, batch)](
        q,
        k,
        v,
        out,
        q if lengths is None else lengths,
        count,
        keys,
        q.stride(1),
        k.stride(1),
        out.stride(1),
        dim**-0.5 / math.log(2.0),
        WINDOW=-1 if window is None else window,
        HAS_LENGTHS=lengths is not None,
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
    _snake_kernel[(triton.cdiv(count, 2048),)](x, a, b, out, count, x.shape[-1], BLOCK=2048)
    return out


class TritonOps:
    """`fused.Ops` on a CUDA device, matrices in the weights' own type.

    flash: PyTorch's FlashAttention is there and right; why_not if it is not. own_attention: the
    kernel of this module is used instead.
    """

    own_attention = False

    def __init__(self, config: AceConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._edges: dict[tuple[int, int, torch.device], Tensor] = {}
        self._plain = Plain(config)
        self._blocks = _BLOCKS
        self.flash = False
        self.why_not = ""
        if torch.device(device).type == "cuda":
            if torch.cuda.get_device_capability(device)[0] not in _ROOMY:
                self._blocks = dict.fromkeys(_BLOCKS, _SMALL)
            wanted, self.own_attention = self.own_attention, False
            self.flash, self.why_not = self._probe(torch.device(device))
            if wanted:
                self.own_attention = True
                self.own_attention, _ = self._probe(torch.device(device))

    def _probe(self, device: torch.device) -> tuple[bool, str]:
        """Whether this device and this PyTorch have the attention that we call, and it is right;
        if not, why."""
        c, count = self.config, 3 * self.config.sliding_window
        g = torch.Generator(device).manual_seed(0)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device, generator=g).to(torch.bfloat16)

        q = noise(2, count, c.heads, c.head_dim)
        k, v = (noise(2, count, c.kv_heads, c.head_dim) for _ in range(2))
        kept = noise(2, 2, 32, c.kv_heads * c.head_dim)
        lengths = torch.tensor([7, 32], dtype=torch.int32, device=device)
        self.flash = True
        try:
            for window in (None, c.sliding_window):
                wanted = self._plain.attend(q, k, v, window)
                self._same(self.attend(q, k, v, window), wanted)
            self._same(self.cross(q, kept, lengths), self._plain.cross(q, kept, lengths))
        except (RuntimeError, TypeError, TritonError) as error:
            return False, str(error).splitlines()[0]
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

    def _outputs(self, like: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(result, scales) of a kernel; without quantisation the scales are never written."""
        shape = (*like.shape[:-1], width)
        if not self.quant:
            return torch.empty(shape, dtype=like.dtype, device=like.device), like
        scales = torch.empty((*like.shape[:-1], 1), dtype=torch.float32, device=like.device)
        return torch.empty(shape, dtype=torch.float8_e4m3fn, device=like.device), scales

    def _result(self, out: Tensor, scales: Tensor) -> Any:
        return (out, scales) if self.quant else out

    # -- what lies between -----------------------------------------------------------------------

    def norm(self, h: Tensor, w: Tensor, scale: Tensor | None, shift: Tensor | None) -> Any:
        return self._normed(h, None, None, w, scale, shift)

    def add_norm(
        self,
        h: Tensor,
        y: Tensor,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Any:
        return self._normed(h, y, gate, w, scale, shift)

    def _normed(
        self,
        h: Tensor,
        y: Tensor | None,
        gate: Tensor | None,
        w: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
    ) -> Any:
        rows, width = h.shape[0] * h.shape[1], h.shape[2]
        out, scales = self._outputs(h, width)
        block = triton.next_power_of_2(width)
        _norm_kernel[(rows,)](
            h,
            h if y is None else y,
            h if gate is None else gate,
            w,
            h if scale is None else scale,
            h if shift is None else shift,
            out,
            scales,
            h.shape[1],
            width,
            0 if scale is None else scale.stride(0),
            0 if gate is None else gate.stride(0),
            self.config.eps,
            HAS_Y=y is not None,
            HAS_GATE=gate is not None,
            HAS_MOD=scale is not None,
            QUANT=self.quant,
            BLOCK=block,
            num_warps=_warps(block, self.quant),
        )
        return self._result(out, scales)

    def _heads(self, x: Tensor, first: int, heads: int, w: Tensor, rest: Tensor, turn: Any) -> None:
        dim = self.config.head_dim
        cos, sin = turn if turn is not None else (w, w)
        _heads_kernel[(x.shape[0] * x.shape[1],)](
            x,
            w,
            rest,
            cos,
            sin,
            x.shape[1],
            x.shape[2],
            first,
            heads,
            self.config.eps,
            TURN=turn is not None,
            HEADS=triton.next_power_of_2(heads),
            HALF=dim // 2,
            num_warps=4,
        )

    def rotate(
        self, qkv: Tensor, q_norm: Tensor, k_norm: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        self._heads(qkv, c.heads, c.heads + c.kv_heads, q_norm, k_norm, turn)
        both = qkv.unflatten(-1, (-1, c.head_dim))
        q, k, v = both.split([c.heads, c.kv_heads, c.kv_heads], dim=2)
        return q, k, v

    def head_norm(self, q: Tensor, w: Tensor) -> Tensor:
        self._heads(q, self.config.heads, self.config.heads, w, w, None)
        heads: Tensor = q.unflatten(-1, (-1, self.config.head_dim))
        return heads

    def swiglu(self, both: Tensor) -> Any:
        width = both.shape[-1] // 2
        rows = both.shape[0] * both.shape[1]
        out, scales = self._outputs(both, width)
        whole, block = triton.next_power_of_2(width), min(2048, triton.next_power_of_2(width))
        grid = (rows,) if self.quant else (rows, triton.cdiv(width, block))
        _swiglu_kernel[grid](
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

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        count, scale = q.shape[1], self.config.head_dim**-0.5
        if window is not None and count <= window + 1:
            window = None
        if self.own_attention:
            blocks = self._blocks["whole" if window is None else "window"]
            return attention(q, k, v, window, None, blocks)
        if not self.flash:
            return self._plain.attend(q, k, v, window)
        window = -1 if window is None else window
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, count, count, 0.0, False, False,
            scale=scale, window_size_left=window, window_size_right=window,
        )  # fmt: skip
        attended: Tensor = out[0]
        return attended.flatten(2)

    def cross(self, q: Tensor, kept: Tensor, lengths: Tensor) -> Tensor:
        c = self.config
        batch, count, most = q.shape[0], q.shape[1], kept.shape[2]
        if self.own_attention:
            keys, values = kept.unflatten(-1, (c.kv_heads, c.head_dim)).unbind(0)
            return attention(q, keys, values, None, lengths, self._blocks["cross"])
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

    quant = own_attention = True

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
        out, scales = self._outputs(x, x.shape[-1])
        block = triton.next_power_of_2(x.shape[-1])
        rows = x.shape[0] * x.shape[1]
        _quant_kernel[(rows,)](
            x.contiguous(), out, scales, x.shape[-1], BLOCK=block, num_warps=_warps(block)
        )
        return out, scales
