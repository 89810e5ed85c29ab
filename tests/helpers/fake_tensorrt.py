"""A stand-in for TensorRT's module that runs a plan in onnxruntime, on tensors by their addresses.

A plan of its own is JSON: {"onnx": path, "profile": {input: [least, usual, largest]}}. It has what
`models.acestep.tensorrt.runtime` and `.refit` ask of the library and no more, refuses what the
library refuses, and keeps a record of the calls.
"""

from __future__ import annotations

import ctypes
import json
from enum import Enum
from typing import Any

import numpy as np


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        INFO = 3

    def __init__(self) -> None: ...

    def log(self, severity: Any, message: str) -> None: ...


class DataType(Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    INT32 = "tensor(int32)"
    BOOL = "tensor(bool)"


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1


class CudaGraphStrategy(Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


_NUMPY: dict[DataType, Any] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT32: np.int32,
}


def at(place: int, shape: tuple[int, ...], kind: DataType) -> Any:
    """The array that lies at an address."""
    dtype = np.dtype(_NUMPY[kind])
    count = int(np.prod(shape)) * dtype.itemsize
    raw = (ctypes.c_char * count).from_address(place)
    return np.frombuffer(raw, dtype).reshape(shape)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        try:
            return Engine(json.loads(data), self.logger)
        except ValueError:
            self.logger.log(ILogger.Severity.ERROR, "magicTag mismatch\nmore of it")
            return None


class Engine:
    def __init__(self, plan: dict[str, Any], logger: Any) -> None:
        import onnx
        import onnxruntime

        self.plan, self.logger = plan, logger
        self.model = onnx.load(plan["onnx"])
        self.start = lambda: onnxruntime.InferenceSession(
            self.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.session = self.start()
        self.ins = {i.name: i for i in self.session.get_inputs()}
        self.outs = {o.name: o for o in self.session.get_outputs()}
        self.num_io_tensors = len(self.ins) + len(self.outs)
        self.contexts: list[Context] = []

    def _of(self, name: str) -> Any:
        return self.ins.get(name) or self.outs[name]

    def get_tensor_name(self, i: int) -> str:
        return [*self.ins, *self.outs][i]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self._of(name).type)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.ins else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [n if isinstance(n, int) else -1 for n in self._of(name).shape]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.plan["profile"][name]

    def create_runtime_config(self) -> Any:
        return RuntimeConfig()

    def create_execution_context(self, config: Any) -> Any:
        assert config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        eager = DynamicShapesKernelSpecializationStrategy.EAGER
        assert config.dynamic_shapes_kernel_specialization_strategy is eager
        assert config.cuda_graph_strategy is CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        made = Context(self)
        self.contexts.append(made)
        return made


class RuntimeCache:
    def __init__(self) -> None:
        self.read: bytes | None = None

    def deserialize(self, data: bytes) -> bool:
        self.read = data
        return True

    def serialize(self) -> bytes:
        return b"kernels" + (self.read or b"")


class RuntimeConfig:
    strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.places: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.streams: list[int] = []
        self.shaped = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.plan["profile"][name]
        self.shaped += 1
        self.shapes[name], self.memory = shape, None
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, place: int) -> bool:
        self.places[name] = place
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shapes.keys() == self.engine.ins.keys(), "every input has its size first"
        return 4 * sum(int(np.prod(shape)) for shape in self.shapes.values())

    def set_device_memory(self, place: int, size: int) -> None:
        assert size >= self.update_device_memory_size_for_shapes()
        self.memory = (place, size)

    def execute_async_v3(self, stream: int) -> bool:
        if self.memory is None:
            self.engine.logger.log(ILogger.Severity.ERROR, "no device memory was set")
            return False
        kind = self.engine.get_tensor_dtype
        given = {n: at(self.places[n], s, kind(n)) for n, s in self.shapes.items()}
        for name, value in zip(self.engine.outs, self.engine.session.run(None, given), strict=True):
            at(self.places[name], value.shape, kind(name))[...] = value
        self.streams.append(stream)
        return True


class Weights:
    def __init__(self, kind: DataType, place: int, count: int) -> None:
        self.kind, self.place, self.count = kind, place, count


class Refitter:
    def __init__(self, engine: Engine, logger: Any) -> None:
        self.engine, self.logger = engine, logger
        self.given: dict[str, Weights] = {}
        self.kinds = {i.name: i for i in engine.model.graph.initializer}

    def get_all_weights(self) -> list[str]:
        return list(self.engine.plan.get("refit", ()))

    def get_missing_weights(self) -> list[str]:
        return []

    def set_named_weights(self, name: str, weights: Weights, place: TensorLocation) -> bool:
        there = self.kinds.get(name)
        if there is None or int(np.prod(there.dims)) != weights.count:
            self.logger.log(ILogger.Severity.ERROR, f"no weights {name} of that size")
            return False
        self.given[name] = weights
        return True

    def refit_cuda_engine_async(self, stream: int) -> bool:
        for name, weights in self.given.items():
            there = self.kinds[name]
            array = at(weights.place, tuple(there.dims), weights.kind)
            there.ClearField("external_data")
            there.data_location = 0
            there.raw_data = array.tobytes()
        self.engine.session = self.engine.start()
        return True
