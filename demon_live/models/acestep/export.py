"""The fused DiT and the decoder as ONNX, with any number of rows, frames and condition tokens.

    export_dit(packed, path)       x, t, context, kept, lengths, kept2, lengths2, mix -> v
    export_decoder(vae, path)      z -> audio
    initialiser(target)            a LoRA's target -> the initialiser that holds it, and its rows

What TensorRT builds plans from, and what onnxruntime runs on a CPU to show that the graph is the
model. One graph serves both kinds of tick: where no row mixes two prompts, the second condition is
a single token of zeros with a share of 0, which costs next to nothing.

The matrices of the layers keep their names (`layers.3.qkv`) and lie as the graph multiplies by
them, [in, out]: so a plan's weights can be exchanged by name, and no optimiser renames them.
Windowed layers carry a band mask: a plan's attention is fused with it.

Threads: one thread; takes the memory of the model once more.
"""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demon_live.models.acestep.fused import KeysValues, Packed, Plain, forward
from demon_live.models.acestep.layout import AceConfig
from demon_live.models.acestep.qwen import rope

DIT_NAMES = ("x", "t", "context", "kept", "lengths", "kept2", "lengths2", "mix")
DECODER_NAMES = ("z",)
#: The matrices of a layer, by their names in `fused.Layer`.
MATRICES = ("qkv", "out", "query", "out2", "gate_up", "down")
#: Another number for another graph: plans of an older one are not used.
RECIPE = 3
#: What a masked score is: far below any other, and finite in fp16 as well.
_MASKED = -30000.0


class _Dense(Plain):
    """Plain operations on matrices [in, out] of type `dtype`, around a residual stream of type
    `trunk`; windows are band masks, made once of sizes that are known when it runs."""

    def __init__(self, config: AceConfig, dtype: torch.dtype, trunk: torch.dtype) -> None:
        super().__init__(config)
        self.dtype, self.trunk = dtype, trunk
        self.near: Tensor | None = None

    def linear(self, x: Any, w: Any) -> Tensor:
        return torch.matmul(x.to(self.dtype), w)

    def norm(self, h: Tensor, w: Tensor, scale: Tensor | None, shift: Tensor | None) -> Any:
        return super().norm(h, w, scale, shift).to(self.dtype)

    def see(self, tokens: int, like: Tensor) -> None:
        """Make the band mask of so many tokens, [1, 1, S, S]."""
        place = torch.arange(tokens, device=like.device)
        far = (place[:, None] - place[None]).abs() > self.config.sliding_window
        self.near = (far.to(self.dtype) * _MASKED)[None, None]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        c = self.config
        k, v = (z.repeat_interleave(c.heads // c.kv_heads, dim=2).transpose(1, 2) for z in (k, v))
        return self._attend(q.transpose(1, 2), k, v, None if window is None else self.near)

    def cross(self, q: Tensor, kept: Tensor, lengths: Tensor) -> Tensor:
        c = self.config
        k, v = kept.to(self.dtype).unflatten(-1, (c.kv_heads, c.head_dim)).transpose(2, 3)
        k, v = (z.repeat_interleave(c.heads // c.kv_heads, dim=1) for z in (k, v))
        place = torch.arange(k.shape[2], device=k.device, dtype=torch.int32)
        beyond = (place[None] >= lengths[:, None]).to(self.dtype) * _MASKED
        # Two of these are mixed by a share in the type of the trunk.
        return self._attend(q.transpose(1, 2), k, v, beyond[:, None, None]).to(self.trunk)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Written out: torch's own exports with a guard against rows without keys, which there are
        none of here, and which keeps the attention from being fused."""
        scores = torch.matmul(q * self.config.head_dim**-0.5, k.transpose(-1, -2))
        scores = scores if mask is None else scores + mask
        out = torch.matmul(torch.softmax(scores, dim=-1), v)
        return out.transpose(1, 2).flatten(2)


class _FieldParameters(nn.Module):
    """The tensors of a dataclass as parameters of their own names, so that the graph keeps them."""

    def __init__(self, made: Any, matrix: torch.dtype, other: torch.dtype) -> None:
        super().__init__()
        self.made, self.kinds = made, dict[str, str]()
        for field in fields(made):
            value = getattr(made, field.name)
            if isinstance(value, nn.Module):
                self.kinds[field.name] = "module"
                self.add_module(field.name, copy.deepcopy(value).to(other))
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                self.kinds[field.name] = "pair"
                for i, one in enumerate(value):
                    self._register(f"{field.name}_{i}", one.to(other))
            elif isinstance(value, Tensor):
                self.kinds[field.name] = "tensor"
                turned = value.to(matrix).t() if field.name in MATRICES else value.to(other)
                self._register(field.name, turned)

    def _register(self, name: str, value: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(value, requires_grad=False))

    def again(self, **more: Any) -> Any:
        """The dataclass, of these parameters."""
        found: dict[str, Any] = {}
        for name, kind in self.kinds.items():
            if kind == "pair":
                count = len(getattr(self.made, name))
                found[name] = tuple(getattr(self, f"{name}_{i}") for i in range(count))
            else:
                found[name] = getattr(self, name)
        return replace(self.made, **found, **more)


class _Dit(nn.Module):
    def __init__(self, packed: Packed, matrix: torch.dtype, other: torch.dtype) -> None:
        super().__init__()
        rest = replace(packed, embed=(), keys_values=None, key_norms=None, base={})  # type: ignore[arg-type]
        self.rest = _FieldParameters(rest, matrix, other)
        self.layers = nn.ModuleList(
            _FieldParameters(layer, matrix, other) for layer in packed.layers
        )
        self.config, self.matrix, self.trunk = packed.config, matrix, other

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        kept: Tensor,
        lengths: Tensor,
        kept2: Tensor,
        lengths2: Tensor,
        mix: Tensor,
    ) -> Tensor:
        c, ops = self.config, _Dense(self.config, self.matrix, self.trunk)
        layers = [layer.again() for layer in self.layers]  # type: ignore[operator]
        packed = self.rest.again(layers=layers)
        tokens = x.shape[1] // c.patch
        ops.see(tokens, x)
        turn = rope(tokens, c.head_dim, c.rope_theta, x)
        both = (KeysValues(kept2, lengths2), mix)
        context = context.to(packed.first[0].dtype)
        return forward(packed, ops, x, t, context, KeysValues(kept, lengths), turn, both)


class _Decoder(nn.Module):
    """Latents and audio are float32 whatever the weights are."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder, self.dtype = vae.decoder, vae.decoder.conv1.weight.dtype

    def forward(self, z: Tensor) -> Tensor:
        audio: Tensor = self.decoder(z.to(self.dtype))
        return audio.float()


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


def _types(packed: Packed, precision: str) -> tuple[torch.dtype, torch.dtype]:
    """(of the matrices and what attention reads, of the rest)."""
    if precision == "fp16":
        # The residual stream overflows fp16; what norms and projections pass on does not.
        return torch.float16, torch.float32
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    return dtype, dtype


def export_dit(packed: Packed, path: Path, precision: str = "fp32") -> None:
    """The DiT. x float32 [B, T, C], t float32 [B], context [B, T, 2C], kept [layers, 2, B, L,
    kv D], lengths int32 [B], a second condition kept2, lengths2 and its share mix float32 [B, T]
    -> v float32 [B, T, C]. B, T / 2 and both L are free.

    precision: fp32, bf16, or fp16 (its matrices, around a residual stream in fp32); context and
    kept are of the matrices' type.
    """
    c, device = packed.config, packed.layers[0].norm1.device
    matrix, other = _types(packed, precision)
    rows, tokens, told = 2, 2 * c.sliding_window + 6, 16
    frames, wide = tokens * c.patch, c.kv_heads * c.head_dim

    def kept(count: int) -> tuple[Tensor, Tensor]:
        states = torch.zeros(c.layers, 2, rows, count, wide, device=device, dtype=matrix)
        return states, torch.full((rows,), count, dtype=torch.int32, device=device)

    given = (
        torch.zeros(rows, frames, c.channels, device=device),
        torch.full((rows,), 0.5, device=device),
        torch.zeros(rows, frames, 2 * c.channels, device=device, dtype=matrix),
        *kept(told),
        *kept(told + 3),
        torch.zeros(rows, frames, device=device),
    )
    b, s, most, most2 = (torch.export.Dim(n) for n in ("rows", "tokens", "told", "told2"))
    time = c.patch * s
    shapes = (
        {0: b, 1: time},
        {0: b},
        {0: b, 1: time},
        {2: b, 3: most},
        {0: b},
        {2: b, 3: most2},
        {0: b},
        {0: b, 1: time},
    )
    _export(
        _Dit(packed, matrix, other),
        given,
        path,
        input_names=list(DIT_NAMES),
        output_names=["v"],
        dynamic_shapes=shapes,
    )
    if precision == "fp16":
        _halve_products(path)


def export_decoder(vae: Any, path: Path) -> None:
    """The Oobleck decoder, weight norm folded: z float32 [B, C, F] -> audio float32 [B, 2, F hop],
    in between in the weights' type."""
    weight = vae.decoder.conv1.weight
    z = torch.zeros(2, weight.shape[1], 20, device=weight.device)
    shapes = ({0: torch.export.Dim("rows"), 2: torch.export.Dim("frames")},)
    _export(
        _Decoder(vae),
        (z,),
        path,
        input_names=list(DECODER_NAMES),
        output_names=["audio"],
        dynamic_shapes=shapes,
    )


def _halve_products(path: Path) -> None:
    """Let every matrix product of a graph run in fp16, between casts: cards without bf16 (the RTX
    20 series) have no others in TensorRT-RTX. What they read is normed, or of the order of 1."""
    import onnx
    from onnx import TensorProto, helper

    # The weights stay where they are, in the file beside the graph.
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    kinds = {i.name: i.data_type for i in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    made = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or kinds[node.output[0]] != TensorProto.FLOAT:
            made.append(node)
            continue
        out = node.output[0]
        for i, name in enumerate(node.input):
            node.input[i] = f"{out}.half{i}"
            made.append(helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT16))
        node.output[0] = f"{out}.half"
        made.append(node)
        made.append(helper.make_node("Cast", [node.output[0]], [out], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(made)
    onnx.save(model, path)


# ------------------------------------------------------------------------------------ names


def initialisers(config: AceConfig) -> dict[str, tuple[int, int]]:
    """Every exchangeable initialiser of the DiT's graph and its shape [in, out]."""
    c = config
    wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes = {
        "qkv": (c.hidden, wide + 2 * narrow),
        "out": (wide, c.hidden),
        "query": (c.hidden, wide),
        "out2": (wide, c.hidden),
        "gate_up": (c.hidden, 2 * c.intermediate),
        "down": (c.intermediate, c.hidden),
    }
    return {f"layers.{i}.{n}": shape for i in range(c.layers) for n, shape in shapes.items()}


_PLACES = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "out",
    "cross_attn.q_proj": "query",
    "cross_attn.o_proj": "out2",
    "mlp.gate_proj": "gate_up",
    "mlp.up_proj": "gate_up",
    "mlp.down_proj": "down",
}


def initialiser(target: str) -> str | None:
    """`layers.3.self_attn.q_proj` -> `layers.3.qkv`, the initialiser that holds a LoRA's target.

    None for the keys and values of conditions, which are computed beside the plan.
    """
    _, layer, name = target.split(".", 2)
    place = _PLACES.get(name)
    return None if place is None else f"layers.{layer}.{place}"
