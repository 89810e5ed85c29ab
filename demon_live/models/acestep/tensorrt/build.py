"""ONNX -> plan, through whichever library serves the card.

    build(onnx, plan, library, shapes, capability, ...) -> what the plan is

Networks are strongly typed: a plan computes in the types that the graph says. RTX plans need no
GPU, but for refit (weights that can be exchanged), which needs any CUDA device at the build.

Threads: one thread; a failed build leaves the library broken, so that each runs in a process of
its own (worker.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from demon_live.errors import EngineError
from demon_live.models.acestep.tensorrt.library import Library, logger
from demon_live.models.acestep.tensorrt.parts import Shapes

Progress = Callable[[float], None]


def parsed(trt: Any, library: Library, onnx: Path) -> tuple[Any, Any, Any, list[str]]:
    """(builder, network, parser, errors) of an ONNX file. Raises EngineError."""
    log, errors = logger(trt)
    builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    reader = trt.OnnxParser(network, log)
    if not reader.parse_from_file(str(onnx)):
        reasons = "; ".join(str(reader.get_error(i).desc()) for i in range(reader.num_errors))
        raise EngineError(f"{library.name} does not read {onnx.name}: {reasons[:300]}")
    return builder, network, reader, errors


def _target(trt: Any, config: Any, library: Library, capability: str | None) -> None:
    if capability is None or not library.ahead:
        return
    kind = "SM" + capability.replace(".", "")
    if not hasattr(trt.ComputeCapability, kind):
        raise EngineError(f"{library} builds no plans for compute capability {capability}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, kind), 0)


def _refittable(trt: Any, config: Any, network: Any, names: Sequence[str]) -> None:
    """Only these weights can be exchanged; the builder is free with all others."""
    config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    lost = [name for name in names if not network.mark_weights_refittable(name)]
    if lost:
        raise EngineError(f"the graph has no weights called {', '.join(lost[:3])}")


def _monitor(trt: Any, progress: Progress) -> Any:
    """Tells progress as the share of the steps of the outermost phases; never ends a build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.open: list[list[Any]] = []
            self.last = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.open.append([name, 0, max(steps, 1)])

        def step_complete(self, name: str, step: int) -> bool:
            for phase in self.open:
                if phase[0] == name:
                    phase[1] = step + 1
            share, part = 0.0, 1.0
            for _, done, steps in self.open:
                share += part * min(done, steps) / steps
                part /= steps
            if share > self.last:
                self.last = min(share, 1.0)
                progress(self.last)
            return True

        def phase_finish(self, name: str) -> None:
            self.open = [phase for phase in self.open if phase[0] != name]

    return Monitor()


def build(
    onnx: Path,
    plan: Path,
    library: Library,
    shapes: Shapes,
    capability: str | None = None,
    *,
    refit: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build a plan; returns what is in it: inputs, outputs, refit, bytes, seconds.

    capability: of the card that it is for; None for the one in this machine. refit: initialisers
    that can be exchanged later (for LoRAs). Raises EngineError with the library's own reason.
    """
    trt = library.load()
    builder, network, _reader, errors = parsed(trt, library, onnx)
    config = builder.create_builder_config()
    _target(trt, config, library, capability)
    if refit:
        _refittable(trt, config, network, refit)
    profile = builder.create_optimization_profile()
    for name, (low, opt, high) in shapes.items():
        profile.set_shape(name, tuple(low), tuple(opt), tuple(high))
    config.add_optimization_profile(profile)
    monitor = None if progress is None else _monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    began = time.monotonic()
    made = builder.build_serialized_network(network, config)
    if made is None:
        reason = errors[-1] if errors else "it gives no reason"
        raise EngineError(
            f"{library} builds no plan of {onnx.name}: {reason}",
            hint="the backend graphs plays without a plan",
        )
    plan.parent.mkdir(parents=True, exist_ok=True)
    with plan.open("wb") as file:
        file.write(memoryview(made))
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return {
        "inputs": {p.name: [p.dtype.name, list(p.shape)] for p in inputs},
        "outputs": {p.name: [p.dtype.name, list(p.shape)] for p in outputs},
        "profile": {n: [list(s) for s in map(tuple, profile.get_shape(n))] for n in shapes},
        "refit": len(refit),
        "bytes": plan.stat().st_size,
        "seconds": round(time.monotonic() - began, 2),
    }
