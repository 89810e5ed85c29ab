"""The plans of an engine: their graphs, precision, sizes, and how their weights are exchanged.

    parts(manifest, config, capability) -> [Part]     the DiT and the decoder
    matrices(packed, ...)                 initialiser -> matrix [in, out], as the plan multiplies
    packed.targets()                      upstream's module names -> views that a LoRA is added to
    Exchange.changed(names, stream)       one refit, enqueued: the next tick has the new weights

A plan takes any size between its least and its largest, and is quickest near the middle one. The
decoder's stay small: longer latents are decoded in tiles, which nine frames of context make exact.

A plan's matrices lie [in, out] under the names of the graph's initialisers
(`models.acestep.export.initialiser`); a LoRA's targets are [out, in] views of the very memory that
a refit reads, so that nothing is copied twice. Keys and values of conditions are computed beside
the plan and need no refit.

Threads: `changed` belongs to the ring's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError
from demon_live.models.acestep.export import MATRICES, initialiser
from demon_live.models.acestep.fused import Packed
from demon_live.models.acestep.tensorrt.library import logger
from demon_live.models.acestep.tensorrt.runtime import TensorRTPlan
from demon_live.models.manifest import Manifest

#: Least, usual and largest shape of each input.
Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
#: Frames of the decoder's largest tile, beside its margins.
_TILE = 250


@dataclass(frozen=True, slots=True)
class Part:
    """One plan. name: dit or decoder. precision: of its matrices or filters; what it reads and
    writes beside them is float32. matrices: initialisers that can be exchanged, if it is refit."""

    name: str
    precision: str
    shapes: Shapes
    matrices: tuple[str, ...] = ()


def precision_of(capability: str) -> str:
    """bf16 where the card has it; the RTX 20 series computes in fp16 round a float32 residual."""
    return "bf16" if float(capability) >= 8.0 else "fp16"


def parts(manifest: Manifest, config: Any, capability: str) -> tuple[Part, Part]:
    """The plans of an ACE-Step engine for a card. config: its AceConfig.

    Raises EngineError if the manifest's [plan] table does not say the sizes.
    """
    from demon_live.models.acestep.export import initialisers

    return (
        Part(
            "dit",
            precision_of(capability),
            _dit(manifest, config),
            tuple(initialisers(config)),
        ),
        Part("decoder", "fp16", _decoder(manifest, config)),
    )


def _dit(manifest: Manifest, config: Any) -> Shapes:
    plan = manifest.plan or {}
    kinds = [plan.get(k) for k in ("rows", "frames", "tokens")]
    if not all(_sizes(k) for k in kinds):
        raise EngineError(
            f"{manifest.path}: [plan] needs rows, frames and tokens, each [min, opt, max]"
        )
    rows, frames, tokens = (list(k or ()) for k in kinds)
    wide = config.kv_heads * config.head_dim
    # The second condition of rows that mix; a single token where none does.
    tokens2 = [1, 1, tokens[2]]
    return {
        "x": _shape(rows, frames, config.channels),
        "t": _shape(rows),
        "context": _shape(rows, frames, 2 * config.channels),
        "kept": _shape(config.layers, 2, rows, tokens, wide),
        "lengths": _shape(rows),
        "kept2": _shape(config.layers, 2, rows, tokens2, wide),
        "lengths2": _shape(rows),
        "mix": _shape(rows, frames),
    }


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(n, int) and n > 0 for n in value)
        and value == sorted(value)
    )


def _decoder(manifest: Manifest, config: Any) -> Shapes:
    window = manifest.window + 2 * manifest.margin
    frames = [1, window, max(window, _TILE + 2 * manifest.margin)]
    return {"z": _shape(1, config.channels, frames)}


def _shape(*dims: Any) -> tuple[list[int], list[int], list[int]]:
    low, opt, high = ([d[i] if isinstance(d, list) else d for d in dims] for i in range(3))
    return low, opt, high


@torch.no_grad()
def matrices(packed: Packed, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Every exchangeable initialiser and its matrix [in, out]. `packed.base` then holds views of
    them, [out, in], so that `packed.targets()` are views as well."""
    found = {}
    for name, weight in list(packed.base.items()):
        layer, place = name.split(".")
        if place not in MATRICES:
            continue
        made = weight.t().to(device, dtype).contiguous()
        packed.base[name] = made.t()
        found[f"layers.{layer}.{place}"] = made
    return found


class Exchange:
    """See the module. matrices: the weights, by initialiser, on the GPU or beside it.

    Raises EngineError if the plan cannot exchange the weights of these names.
    """

    def __init__(self, plan: TensorRTPlan, names: Sequence[str]) -> None:
        trt = plan.library.load()
        log, self.errors = logger(trt)
        self.plan, self._trt = plan, trt
        self.matrices: Mapping[str, Tensor] = {}
        self._refitter = trt.Refitter(plan.engine, log)
        self._given: set[str] = set()
        if lost := sorted(set(names) - set(self._refitter.get_all_weights())):
            raise EngineError(
                f"the plan {plan.name} cannot exchange {lost[0]}, nor {len(lost) - 1} others",
                hint="build it again on this machine: demon engines build",
            )

    def changed(self, names: Iterable[str], stream: int) -> None:
        """These targets were written: the plan takes them over, in the order of the stream."""
        wanted = {initialiser(name) for name in names} - {None}
        for name in sorted(n for n in wanted if n is not None and n not in self._given):
            self._give(name)
        if wanted and (lacking := list(self._refitter.get_missing_weights())):
            raise EngineError(
                f"the plan {self.plan.name} takes no new weights without {', '.join(lacking[:3])}"
                + (f" and {len(lacking) - 3} others" if len(lacking) > 3 else ""),
                hint="build it again on this machine: demon engines build",
            )
        # What was given once is read again from the same memory at every refit.
        if wanted and not self._refitter.refit_cuda_engine_async(stream):
            reason = self.errors[-1] if self.errors else "it gives no reason"
            raise EngineError(f"the plan {self.plan.name} takes no new weights: {reason}")

    def _give(self, name: str) -> None:
        matrix, trt = self.matrices[name], self._trt
        kinds = {torch.float32: "FLOAT", torch.float16: "HALF", torch.bfloat16: "BF16"}
        kind = getattr(trt.DataType, kinds[matrix.dtype])
        weights: Any = trt.Weights(kind, matrix.data_ptr(), matrix.numel())
        on_gpu = matrix.device.type == "cuda"
        place = trt.TensorLocation.DEVICE if on_gpu else trt.TensorLocation.HOST
        if not self._refitter.set_named_weights(name, weights, place):
            reason = self.errors[-1] if self.errors else "it gives no reason"
            raise EngineError(f"the plan {self.plan.name} refuses {name}: {reason}")
        self._given.add(name)
