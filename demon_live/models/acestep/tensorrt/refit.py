"""Weights of a plan exchanged by name: how a LoRA reaches a plan.

    matrices(packed, ...)                 initialiser -> matrix [in, out], as the plan multiplies
    packed.targets()                      upstream's module names -> views that a LoRA is added to
    Exchange.changed(names, stream)       one refit, enqueued: the next tick has the new weights

A plan's matrices lie [in, out] under the names of the graph's initialisers
(`models.acestep.export.initialiser`); a LoRA's targets are [out, in] views of the very memory that
a refit reads, so that nothing is copied twice. Keys and values of conditions are computed beside
the plan and need no refit.

Threads: `changed` belongs to the ring's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError
from demon_live.models.acestep.export import MATRICES, initialiser
from demon_live.models.acestep.fused import Packed
from demon_live.models.acestep.tensorrt.library import logger
from demon_live.models.acestep.tensorrt.runtime import TensorRTPlan


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
