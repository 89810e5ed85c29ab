"""The Triton kernels that `triton_ops` launches: what each computes, without tensors' shapes.

Each reads its inputs once and writes its result once. Sums are in float32, rounded once at the end.
In fp8 (e4m3) every row has its own scale, amax / 448.

Only where Triton is installed; importing this module without it is an ImportError.
"""

from __future__ import annotations

import triton
import triton.language as tl


# Lengths change from loop to loop: a kernel is not compiled anew for each kind of number.
@triton.jit(do_not_specialize=["tokens"])
def norm_kernel(
    h, y, gate, w, scale, shift, out, out_scale,
    tokens, width, mod_stride, gate_stride, eps,
    HAS_Y: tl.constexpr, HAS_GATE: tl.constexpr, HAS_MOD: tl.constexpr, QUANT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One token of one row of the batch, which has a gate, scale and shift of its own."""
    b = tl.program_id(1).to(tl.int64)
    row = b * tokens + tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    mask = cols < width
    weight = tl.load(w + cols, mask=mask, other=0.0).to(tl.float32)
    at = row * width + cols
    x = tl.load(h + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_Y:
        add = tl.load(y + at, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
        if HAS_GATE:
            add *= tl.load(gate + b * gate_stride + cols, mask=mask, other=0.0)
        rounded = (x + add).to(h.dtype.element_ty)
        tl.store(h + at, rounded, mask=mask)
        x = rounded.to(tl.float32)
    x *= tl.rsqrt(tl.sum(x * x, axis=0) / width + eps)
    x *= weight
    if HAS_MOD:
        x *= tl.load(scale + b * mod_stride + cols, mask=mask, other=0.0)
        x += tl.load(shift + b * mod_stride + cols, mask=mask, other=0.0)
    if QUANT:
        most = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-6)
        tl.store(out_scale + row, most / 448.0)
        x *= 448.0 / most
    tl.store(out + at, x.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tokens", "rows"])
def heads_kernel(
    x, w_first, w_rest, cos, sin, tokens, rows, row_stride, heads_first, heads, eps,
    TURN: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """RMSNorm of each head and, with TURN, rotation, in place: ROWS rows of up to HEADS heads."""
    both = tl.arange(0, ROWS * HEADS)
    row = tl.program_id(0).to(tl.int64) * ROWS + (both // HEADS)[:, None]
    head = (both % HEADS)[:, None]
    col = tl.arange(0, HALF)[None, :]
    first = head < heads_first
    wa = tl.where(first, tl.load(w_first + col), tl.load(w_rest + col)).to(tl.float32)
    wb = tl.where(first, tl.load(w_first + HALF + col), tl.load(w_rest + HALF + col)).to(tl.float32)
    mask = (head < heads) & (row < rows) & (col < HALF)
    at = x + row * row_stride + head * (2 * HALF) + col
    a = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    r = tl.rsqrt((tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)) / (2 * HALF) + eps)[:, None]
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
def swiglu_kernel(
    both, out, out_scale, width,
    QUANT: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    # With QUANT the whole row is one block: its largest value is needed before any is written.
    cols = tl.arange(0, WHOLE) if QUANT else tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = cols < width
    at = both + row * 2 * width + cols
    g = tl.load(at, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
    u = tl.load(at + width, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
    x = g * tl.sigmoid(g) * u
    if QUANT:
        most = tl.maximum(tl.max(tl.abs(x), axis=0), 1e-6)
        tl.store(out_scale + row, most / 448.0)
        x *= 448.0 / most
    tl.store(out + row * width + cols, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def quant_kernel(x, out, out_scale, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < width
    v = tl.load(x + row * width + cols, mask=mask, other=0.0).to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(v), axis=0), 1e-6)
    tl.store(out_scale + row, most / 448.0)
    tl.store(out + row * width + cols, (v * (448.0 / most)).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count"])
def snake_kernel(x, a, b, out, count, channels, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    c = at % channels
    v = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    s = tl.sin(tl.load(a + c, mask=mask, other=0.0) * v)
    v += tl.load(b + c, mask=mask, other=0.0) * s * s
    tl.store(out + at, v.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _turned(x, at, w, cos, sin, rows, there, col, eps, TURN: tl.constexpr, D: tl.constexpr):
    """Queries x [M, D] normed and, with TURN, rotated, as `heads_kernel` does both. Of a pair of
    columns each needs the other, which is loaded again, from what is still near."""
    wide = x.to(tl.float32)
    r = tl.rsqrt(tl.sum(wide * wide, axis=1) / D + eps)[:, None]
    wide = wide * r * tl.load(w + col)[None, :].to(tl.float32)
    if TURN:
        other = (col + D // 2) % D
        pair = tl.load(at + other[None, :], mask=there, other=0.0).to(tl.float32)
        pair = pair * r * tl.load(w + other)[None, :].to(tl.float32)
        sign = tl.where(col < D // 2, -1.0, 1.0)[None, :]
        place = rows[:, None] * D + (col % (D // 2))[None, :]
        c = tl.load(cos + place, mask=there, other=0.0).to(tl.float32)
        s = tl.load(sin + place, mask=there, other=0.0).to(tl.float32)
        wide = wide * c + sign * pair * s
    return wide.to(x.dtype)


@triton.jit(do_not_specialize=["count", "keys"])
def attention_kernel(
    q, k, v, out, lengths, w, cos, sin, count, keys, q_row, k_row, out_row, scale, eps,
    WINDOW: tl.constexpr, HAS_LENGTHS: tl.constexpr, TURN: tl.constexpr,
    GROUP: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: softmax(q k') v, computed along the keys as they come
    (Dao 2023, arXiv 2307.08691). scale: for powers of 2. TURN: of the queries."""
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    rows, col = first + tl.arange(0, BLOCK_M), tl.arange(0, D)
    there = (rows < count)[:, None]
    at_q = q + (b * count + rows[:, None]) * q_row + head * D
    x = tl.load(at_q + col[None, :], mask=there, other=0.0)
    x = _turned(x, at_q, w, cos, sin, rows, there, col, eps, TURN, D)
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
