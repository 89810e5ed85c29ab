"""TensorRT: ONNX -> plans, through `tensorrt-rtx` or `tensorrt`, behind one adapter.

    library_for(capability) -> Library       which of the two serves a card, or why none does
    build(onnx, plan, library, ...)          a plan with any number of rows; on any machine for RTX
    build_all(manifest, tell)                what `demon engines build` does; plans are cached

RTX plans are built ahead of time on a CPU for compute capabilities 7.5, 8.6, 8.9 and 12.0 and are
specialised on the card when they load. `tensorrt-rtx` refuses other cards (an H100 is 9.0), which
`graphs` serves. The cache key is the manifest, the library's version and the card: a plan is never
used with anything else. Playing from a plan is not part of this version: it needs an RTX card to be
tested on, and nothing here claims what no card has run.

Threads: one thread; a build takes seconds to minutes and never runs while a set plays.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demon_live import places
from demon_live.errors import EngineError
from demon_live.models.manifest import Manifest

__all__ = ["Library", "build", "build_all", "cache_key", "library_for", "plan_paths"]

#: Compute capabilities that tensorrt-rtx builds for, and the cards they are.
RTX: Mapping[str, str] = {
    "7.5": "RTX 20 series",
    "8.6": "RTX 30 series",
    "8.9": "RTX 40 series",
    "12.0": "RTX 50 series",
}
Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two. name: its package on PyPI; module: how it is imported."""

    name: str
    module: str
    version: str

    def load(self) -> Any:
        """The module. Raises EngineError if its libraries do not load here."""
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise EngineError(
                f"{self.name} is installed, but does not load: {reason}",
                hint="the backend graphs needs no TensorRT",
            ) from None


def _library(name: str, module: str) -> Library:
    if importlib.util.find_spec(module) is None:
        extra = "rtx" if name == "tensorrt-rtx" else "tensorrt"
        raise EngineError(
            f"{name} is not installed", hint=f"pip install 'demon-live[{extra}]', or use graphs"
        )
    from importlib.metadata import version

    return Library(name, module, version(name))


def library_for(capability: str) -> Library:
    """The library that serves a card of this compute capability ('8.9').

    Raises EngineError: the card is too old, or the library is not installed.
    """
    if not re.fullmatch(r"\d+\.\d", capability):
        raise EngineError(f"a compute capability is written like 8.9, this is {capability!r}")
    if capability in RTX:
        return _library("tensorrt-rtx", "tensorrt_rtx")
    if float(capability) < 7.5:
        raise EngineError(
            f"compute capability {capability} is too old for TensorRT",
            hint="RTX 20 series and later are served; imp plays on any machine",
        )
    return _library("tensorrt", "tensorrt")


def cache_key(manifest: Manifest, library: Library, capability: str) -> str:
    """A name for the plans of an engine, a library's version and a card."""
    text = "\n".join((manifest.digest, library.name, library.version, capability))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_paths(manifest: Manifest, library: Library, capability: str) -> dict[str, Path]:
    """Where the plans of the DiT and the decoder lie, or would lie."""
    folder = places.cache_dir() / "plans" / manifest.name
    key = cache_key(manifest, library, capability)
    return {part: folder / f"{part}-{capability}-{key}.plan" for part in ("dit", "decoder")}


def dit_shapes(manifest: Manifest, config: Any) -> Shapes:
    """min, opt and max of each input of the DiT's plan, from the manifest's [plan] table."""
    plan = manifest.plan or {}
    kinds = [plan.get(k) for k in ("rows", "frames", "tokens")]
    if not all(isinstance(k, list) and len(k) == 3 for k in kinds):
        raise EngineError(
            f"{manifest.path}: [plan] needs rows, frames and tokens, each [min, opt, max]"
        )
    rows, frames, told = kinds
    c, wide = config, config.kv_heads * config.head_dim

    def shape(*dims: Any) -> tuple[list[int], list[int], list[int]]:
        low, opt, high = ([d[i] if isinstance(d, list) else d for d in dims] for i in range(3))
        return low, opt, high

    return {
        "x": shape(rows, frames, c.channels),
        "t": shape(rows),
        "context": shape(rows, frames, 2 * c.channels),
        "kept": shape(c.layers, 2, rows, told, wide),
        "lengths": shape(rows),
    }


def build(
    onnx: Path,
    plan: Path,
    library: Library,
    shapes: Shapes,
    capability: str | None = None,
    *,
    refit: bool = False,
) -> dict[str, Any]:
    """Build a plan; returns what is in it: inputs, outputs, bytes, seconds.

    capability: of the card that it is for; None for the one in this machine. refit: weights can be
    exchanged later (a LoRA), which needs a CUDA device at the build.
    Raises EngineError with the library's own reason.
    """
    trt = library.load()
    said: list[str] = []
    builder = trt.Builder(_logger(trt, said))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    reader = trt.OnnxParser(network, _logger(trt, said))
    if not reader.parse_from_file(str(onnx)):
        reasons = "; ".join(str(reader.get_error(i).desc()) for i in range(reader.num_errors))
        raise EngineError(f"{library.name} does not read {onnx.name}: {reasons[:300]}")
    config = builder.create_builder_config()
    if refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if capability is not None and hasattr(config, "set_compute_capability"):
        kind = "SM" + capability.replace(".", "")
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, kind), 0)
    profile = builder.create_optimization_profile()
    for name, (low, opt, high) in shapes.items():
        profile.set_shape(name, tuple(low), tuple(opt), tuple(high))
    config.add_optimization_profile(profile)
    began = time.monotonic()
    made = builder.build_serialized_network(network, config)
    if made is None:
        reason = said[-1] if said else "it gives no reason"
        raise EngineError(
            f"{library.name} {library.version} builds no plan of {onnx.name}: {reason}",
            hint="the backend graphs plays without a plan",
        )
    plan.parent.mkdir(parents=True, exist_ok=True)
    part = plan.with_suffix(".part")
    part.write_bytes(bytes(made))
    part.replace(plan)
    return {
        "inputs": {
            network.get_input(i).name: tuple(network.get_input(i).shape)
            for i in range(network.num_inputs)
        },
        "outputs": {
            network.get_output(i).name: tuple(network.get_output(i).shape)
            for i in range(network.num_outputs)
        },
        "library": f"{library.name} {library.version}",
        "capability": capability,
        "bytes": plan.stat().st_size,
        "seconds": round(time.monotonic() - began, 2),
    }


def _logger(trt: Any, said: list[str]) -> Any:
    """The library's errors, kept for ours; the rest is not for a performer."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                said.append(message)

    # One for the whole life of the process: the library keeps a reference and does not count it.
    made = Logger()
    _KEPT.append(made)
    return made


_KEPT: list[Any] = []


def note(plan: Path, facts: Mapping[str, Any]) -> None:
    """Write what a plan is beside it."""
    plan.with_suffix(".json").write_text(json.dumps(dict(facts), indent=1) + "\n", "utf-8")


def build_all(
    manifest: Manifest,
    packed: Any,
    vae: Any,
    capability: str,
    tell: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Both plans of an engine for a card, those that are cached left as they are."""
    from demon_live.models.acestep.export import export_decoder, export_dit

    library = library_for(capability)
    paths = plan_paths(manifest, library, capability)
    c = packed.config
    high = (manifest.plan or {}).get("frames", [0, 0, 1500])[2]
    frames = {"z": ([1, c.channels, 25], [1, c.channels, 43], [1, c.channels, high])}
    jobs: tuple[tuple[str, Callable[[Path], None], Shapes], ...] = (
        ("dit", lambda path: export_dit(packed, path), dit_shapes(manifest, c)),
        ("decoder", lambda path: export_decoder(vae, path), frames),
    )
    found = {}
    for part, export, shapes in jobs:
        plan = paths[part]
        if plan.is_file():
            tell(f"{part}: there already, {plan}")
            continue
        onnx = plan.parent / f"{part}.onnx"
        onnx.parent.mkdir(parents=True, exist_ok=True)
        tell(f"{part}: exporting")
        export(onnx)
        tell(f"{part}: building with {library.name} {library.version} for {capability}")
        found[part] = build(onnx, plan, library, shapes, capability)
        note(plan, found[part])
        tell(f"{part}: {plan.stat().st_size / 1e6:.1f} MB in {found[part]['seconds']} s")
    return found
