"""Each Triton kernel against its formula in torch; on a CUDA device, or interpreted:

TRITON_INTERPRET=1 python -m pytest tests/test_ace_triton.py
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from demon_live.models.acestep import fused, oobleck
from tests.helpers import acestep_toy as toy

pytest.importorskip("triton")
ON = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    ON == "cpu" and os.environ.get("TRITON_INTERPRET") != "1", reason="no CUDA device"
)

#: One rounding to bfloat16.
ROUNDED = 2**-8
#: Products of attention in float32: a card rounds their inputs to TF32.
PRODUCT = 1e-5 if ON == "cpu" else ROUNDED


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


def made(config: Any, kind: str = "TritonOps") -> tuple[Any, fused.Plain]:
    from demon_live.models.acestep import triton_ops

    return getattr(triton_ops, kind)(config), fused.Plain(config)


def near(a: torch.Tensor, b: torch.Tensor, allowed: float) -> None:
    assert float((a.float() - b.float()).abs().max()) <= allowed * float(b.float().abs().max())


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g).to(ON, dtype)


@pytest.mark.parametrize("width", [64, 80])
@pytest.mark.parametrize("how", ["norm", "add", "gate", "mod", "all", "end"])
def test_norms_equal_those_of_torch(width: int, how: str, dtype: torch.dtype) -> None:
    ours, plain = made(replace(toy.TOY, hidden=width))
    h, y = random(2, 5, width, dtype=dtype), random(2, 5, width, dtype=dtype, seed=1)
    w = 1 + 0.1 * random(width, dtype=dtype, seed=2)
    m = random(2, 3, 6, width, seed=3)
    gate = m[:, 1, 2] if how in ("gate", "all", "end") else None
    scale, shift = (m[:, 1, 1], m[:, 1, 0]) if how in ("mod", "all", "end") else (None, None)
    results = []
    for ops in (ours, plain):
        mine = h.clone()
        if how in ("norm", "mod"):
            out = ops.norm(mine, w, scale, shift)
        else:
            call = ops.end_norm if how == "end" else ops.add_norm
            out = call(mine, y, gate, w, scale, shift)
        results.append((out, mine))
    near(results[0][0], results[1][0], 2 * ROUNDED if dtype is torch.bfloat16 else 1e-6)
    near(results[0][1], results[1][1], 2 * ROUNDED if dtype is torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("config", [toy.TOY, toy.TOY_XL], ids=["2b", "xl"])
def test_head_norms_and_rotation_equal_those_of_torch(config: Any, dtype: torch.dtype) -> None:
    """As FlashAttention gets them."""
    ours, plain = made(config)
    ours.own_attention = False
    wide = (config.heads + 2 * config.kv_heads) * config.head_dim
    qkv = random(2, 7, wide, dtype=dtype)
    wq, wk = (1 + 0.1 * random(config.head_dim, dtype=dtype, seed=s) for s in (1, 2))
    turn = fused.turn_of(config, 7, qkv)
    allowed = 3 * ROUNDED if dtype is torch.bfloat16 else 1e-6
    for a, b in zip(
        ours.rotate(qkv.clone(), wq, wk, turn), plain.rotate(qkv, wq, wk, turn), strict=True
    ):
        near(a, b, allowed)
    q = random(2, 7, config.heads * config.head_dim, dtype=dtype)
    near(ours.head_norm(q.clone(), wq), plain.head_norm(q, wq), allowed)


@pytest.mark.parametrize("count", [5, 37, 70, 150])
@pytest.mark.parametrize("config", [toy.TOY, toy.TOY_XL], ids=["2b", "xl"])
def test_attention_of_what_a_matrix_product_gives(
    config: Any, count: int, dtype: torch.dtype
) -> None:
    """Norm, rotation and attention together: whole, windowed, and to conditions of several lengths,
    over more blocks than one."""
    if ON == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter multiplies the bits of bfloat16, not its numbers")
    ours, plain = made(config)
    ours._blocks = dict.fromkeys(ours._blocks, (32, 16, 4, 2))
    qkv = random(2, count, (config.heads + 2 * config.kv_heads) * config.head_dim, dtype=dtype)
    wq, wk = (1 + 0.1 * random(config.head_dim, dtype=dtype, seed=s) for s in (1, 2))
    turn = fused.turn_of(config, count, qkv)
    q = random(2, count, config.heads * config.head_dim, dtype=dtype, seed=3)
    kept = random(2, 2, 40, config.kv_heads * config.head_dim, dtype=dtype, seed=4)
    lengths = torch.tensor([7, 40], dtype=torch.int32, device=ON)
    allowed = 4 * ROUNDED if dtype is torch.bfloat16 else PRODUCT
    for window in (None, config.sliding_window):
        one, two = (
            ops.attend(*ops.rotate(qkv.clone(), wq, wk, turn), window) for ops in (ours, plain)
        )
        near(one, two, allowed)
    one, two = (ops.cross(ops.head_norm(q.clone(), wq), kept, lengths) for ops in (ours, plain))
    near(one, two, allowed)


def test_swiglu_and_snake(dtype: torch.dtype) -> None:
    ours, plain = made(toy.TOY)
    both = random(2, 5, 2 * 96, dtype=dtype)
    allowed = 3 * ROUNDED if dtype is torch.bfloat16 else 1e-6
    near(ours.swiglu(both), plain.swiglu(both), allowed)
    from demon_live.models.acestep.triton_ops import fused_snake

    x, a, b = random(1, 300, 24, dtype=dtype), random(24).exp(), random(24, seed=1).exp()
    near(fused_snake(x, a, b), oobleck.snake(x, a, b), allowed)


def test_fp8_products_are_near_the_exact_ones() -> None:
    """e4m3 keeps three bits of mantissa: a product of long rows is right to a few percent."""
    ours, plain = made(toy.TOY, "Fp8Ops")
    h = random(2, 8, 64, dtype=torch.bfloat16)
    w, mixed = 1 + 0.1 * random(64, seed=1), random(2, 5, 2 * 96, dtype=torch.bfloat16)
    matrix = random(48, 64, dtype=torch.bfloat16, seed=2)
    quantised, scale = ours.norm(h, w, None, None)
    assert scale.shape == (2, 8, 1)
    # The interpreter cuts off where a GPU rounds.
    step = 2**-4 if ON == "cuda" else 2**-3 * 1.2
    near(quantised.float() * scale, plain.norm(h, w, None, None), step)
    values, channel = ours.weight(matrix)
    near(values.float() * channel.t(), matrix, 2**-4)
    for made8, exact in (
        (ours.ready(h), h),
        (ours.swiglu(mixed), plain.swiglu(mixed)),
    ):
        near(made8[0].float() * made8[1], exact, step)
    if ON == "cuda":
        product = ours.linear((quantised, scale), (values, channel))
        near(product, plain.norm(h, w, None, None).to(torch.bfloat16) @ matrix.t(), 0.08)


@pytest.mark.timeout(900)  # loading diffusers alone takes a busy machine a minute
@pytest.mark.parametrize("own", [False, True], ids=["attention of torch", "of our own"])
@pytest.mark.parametrize("config", [toy.TOY, toy.TOY_XL], ids=["2b", "xl"])
def test_the_whole_model(config: Any, own: bool) -> None:
    """A tick in kernels is the tick in torch, to rounding."""
    pytest.importorskip("diffusers")
    ours, plain = made(config)
    ours.own_attention = own
    ours._blocks = dict.fromkeys(ours._blocks, (32, 16, 4, 2))
    dit = toy.make_modules(config)["transformer"].to(ON)
    packed = fused.pack(dit, config, plain)
    x, context = random(3, 90, 64), random(3, 90, 128, seed=1)
    t = torch.linspace(1.0, 0.2, 3, device=ON)
    kept = packed.keep(random(17, config.encoder_hidden, seed=2))[:, :, None]
    lengths = torch.tensor([17, 5, 11], dtype=torch.int32, device=ON)
    cross = fused.KeysValues(kept.expand(-1, -1, 3, -1, -1).contiguous(), lengths)
    other = fused.KeysValues(cross.kept.flip(2).contiguous(), lengths.flip(0).contiguous())
    mixed = (other, torch.linspace(0, 1, 90, device=ON).repeat(3, 1))
    turn = fused.turn_of(config, 45, x)
    one, two = (
        fused.forward(packed, ops, x, t, context, cross, turn, mixed) for ops in (ours, plain)
    )
    near(one, two, 10 * PRODUCT if ON == "cpu" else 3 * PRODUCT)


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize(
    ("major", "right", "own"), [(9, True, True), (9, False, False), (7, True, False)]
)
def test_attention_is_what_passes_its_probe(
    monkeypatch: pytest.MonkeyPatch, major: int, right: bool, own: bool, flash: bool
) -> None:
    """From capability 8 on ours, else FlashAttention; else torch's, and why."""
    from demon_live.models.acestep.triton_ops import TritonOps

    def probe(ops: Any, _: torch.device) -> tuple[bool, str]:
        passes = right if ops.own_attention else flash
        return passes, "" if passes else "too old"

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 5))
    monkeypatch.setattr(TritonOps, "_probe", probe)
    ops = TritonOps(toy.TOY, "cuda")
    assert (ops.own_attention, ops.flash) == (own, flash and major >= 8)
    assert ("capability 8" in ops.why_not) == (major < 8)
    assert ("too old" in ops.why_not) == (major >= 8 and not flash)
