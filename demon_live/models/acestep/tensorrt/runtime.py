"""A plan on a card: what it takes and gives, and contexts that enqueue it on a stream.

    plan = TensorRTPlan(library, data, device, name)   plan.ports: name, type, range of sizes
    context = plan.context()                       one for each stream that runs beside another
    context.run(given, into, stream)               torch tensors by address; nothing is waited for

Memory that a plan works in is torch's, made for the sizes in use, not for the largest
that the plan takes. Tensors are checked when an address or a size changes, which in a ring is when
a bucket does: a tick that repeats the last one costs one call into the library.

What is read of the library here is all that a stand-in has to have (tests/fake_trt.py): Runtime,
engine.get_tensor_*, context.set_input_shape, set_tensor_address, execute_async_v3 and the memory.

Threads: a context belongs to one thread and one stream; contexts of one plan may run beside each
other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demon_live.errors import EngineError
from demon_live.models.acestep.tensorrt.library import Library, logger

#: The library's types that cross the border, by name.
_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
}


@dataclass(frozen=True, slots=True)
class PlanPort:
    """An input or output. shape: -1 where it is free. low, high: of an input's free sizes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    given: bool
    low: tuple[int, ...] = ()
    opt: tuple[int, ...] = ()
    high: tuple[int, ...] = ()


class TensorRTPlan:
    """A plan, deserialised. name: for messages. kernels: a file that keeps what the library makes
    of the plan on this card (RTX), so that the next start is quicker.

    Raises EngineError: the library does not take it here, with the library's reason.
    """

    def __init__(
        self,
        library: Library,
        data: bytes,
        device: torch.device,
        name: str,
        kernels: Path | None = None,
    ) -> None:
        trt = library.load()
        self.library, self.device, self.name, self._trt = library, device, name, trt
        log, self.errors = logger(trt)
        self._runtime = trt.Runtime(log)
        self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise EngineError(
                f"{library} does not load the plan {name}: {self.reason()}",
                hint="build it again on this machine, or play with --backend graphs",
            )
        self.ports = self._ports()
        self._config, self._cache = self._configured(kernels)
        self._kernels = kernels

    def reason(self) -> str:
        """The last error of the library."""
        return self.errors[-1].splitlines()[0] if self.errors else "it gives no reason"

    def _ports(self) -> dict[str, PlanPort]:
        engine, found = self.engine, {}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            kind = engine.get_tensor_dtype(name).name
            if kind not in _TYPES:
                raise EngineError(f"the plan {self.name} has {name} of type {kind}, unknown here")
            given = engine.get_tensor_mode(name).name == "INPUT"
            shape = tuple(engine.get_tensor_shape(name))
            sizes: tuple[tuple[int, ...], ...] = ()
            if given:
                sizes = tuple(tuple(s) for s in engine.get_tensor_profile_shape(name, 0))
            found[name] = PlanPort(name, _TYPES[kind], shape, given, *sizes)
        return found

    def expect(self, given: Sequence[str], made: Sequence[str]) -> None:
        """Raises EngineError unless inputs and outputs are just these."""
        there = (
            {n for n, p in self.ports.items() if p.given},
            {n for n, p in self.ports.items() if not p.given},
        )
        if there != (set(given), set(made)):
            has = ", ".join(sorted(self.ports))
            raise EngineError(
                f"the plan {self.name} is of another graph: it has {has}",
                hint="build it again: demon engines build",
            )

    def _configured(self, kernels: Path | None) -> tuple[Any, Any]:
        """(the configuration of contexts, the library's cache of kernels or None)."""
        if not hasattr(self.engine, "create_runtime_config"):
            raise EngineError(
                f"{self.library} is too old to play plans",
                hint="pip install 'tensorrt>=10.11', or play with --backend graphs",
            )
        trt, config = self._trt, self.engine.create_runtime_config()
        kinds = trt.ExecutionContextAllocationStrategy
        config.set_execution_context_allocation_strategy(kinds.USER_MANAGED)
        # Of RTX: kernels are made for a size when it first comes, not exchanged while it plays, and
        # a tick is launched as one graph.
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if hasattr(config, "cuda_graph_strategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if kernels is None or not hasattr(config, "create_runtime_cache"):
            return config, None
        cache = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            # Of another driver or card it is refused by the library, and made anew.
            cache.deserialize(kernels.read_bytes())
        config.set_runtime_cache(cache)
        return config, cache

    def remember(self) -> None:
        """Write the kernels that were made since, for the next start."""
        if self._cache is None or self._kernels is None:
            return
        part = self._kernels.with_suffix(".kernels.part")
        with contextlib.suppress(OSError):
            part.write_bytes(bytes(memoryview(self._cache.serialize())))
            part.replace(self._kernels)

    def context(self) -> Context:
        """A way to run it on one stream. Raises EngineError: not enough memory, mostly."""
        made = self.engine.create_execution_context(self._config)
        if made is None:
            raise EngineError(f"no context of the plan {self.name} can be made: {self.reason()}")
        return Context(self, made)


class Context:
    """See `Plan.context`."""

    def __init__(self, plan: TensorRTPlan, made: Any) -> None:
        self.plan, self._made = plan, made
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, int] = {}
        self._scratch: Tensor | None = None

    def run(self, given: Mapping[str, Tensor], into: Mapping[str, Tensor], stream: int) -> None:
        """Enqueue the plan on a stream (its handle): given -> into, both on the plan's device.

        Raises EngineError: a tensor that does not fit the plan, or the library's refusal.
        """
        moved = False
        for name, tensor in given.items():
            moved |= self._put(name, tensor)
        if moved:
            self._make_room()
        for name, tensor in into.items():
            self._put(name, tensor)
        if not self._made.execute_async_v3(stream):
            raise EngineError(f"the plan {self.plan.name} does not run: {self.plan.reason()}")

    def _put(self, name: str, tensor: Tensor) -> bool:
        """Bind one tensor; whether a size has changed."""
        place, shape = tensor.data_ptr(), tuple(tensor.shape)
        moved = self._shapes.get(name) != shape
        if not moved and self._places.get(name) == place:
            return False
        port = self.plan.ports.get(name)
        if port is None:
            raise EngineError(f"the plan {self.plan.name} has no {name}")
        self._check(port, tensor)
        if moved and port.given and not self._made.set_input_shape(name, shape):
            raise EngineError(f"the plan {self.plan.name} refuses {name}: {self.plan.reason()}")
        if not self._made.set_tensor_address(name, place):
            raise EngineError(f"the plan {self.plan.name} refuses {name}: {self.plan.reason()}")
        self._shapes[name], self._places[name] = shape, place
        return moved and port.given

    def _check(self, port: PlanPort, tensor: Tensor) -> None:
        what, plan = f"{port.name} of the plan {self.plan.name}", self.plan
        if tensor.dtype != port.dtype or tensor.device.type != plan.device.type:
            raise EngineError(
                f"{what} is {port.dtype} on {plan.device.type}, "
                f"this is {tensor.dtype} on {tensor.device.type}"
            )
        if not tensor.is_contiguous():
            raise EngineError(f"{what} must be contiguous")
        shape = tuple(tensor.shape)
        fixed = len(shape) == len(port.shape) and all(
            n in (-1, m) for n, m in zip(port.shape, shape, strict=True)
        )
        if not fixed:
            raise EngineError(f"{what} is {list(port.shape)}, this is {list(shape)}")
        if port.given and not all(
            a <= n <= b for a, n, b in zip(port.low, shape, port.high, strict=True)
        ):
            raise EngineError(
                f"{what} takes {list(port.low)} to {list(port.high)}, this is {list(shape)}",
                hint="the sizes stand in the [plan] table of the engine's manifest; --backend "
                "graphs has no such limit",
            )

    def _make_room(self) -> None:
        """Working memory for these sizes, kept until larger ones come."""
        need = int(self._made.update_device_memory_size_for_shapes())
        if self._scratch is None or self._scratch.numel() < need:
            # Of the stream that runs the plan: torch gives it to others in that stream's order.
            self._scratch = torch.empty(max(need, 256), dtype=torch.uint8, device=self.plan.device)
        self._made.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
