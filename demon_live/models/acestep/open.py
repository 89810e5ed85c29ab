"""Opening an ACE-Step engine: files, device, precision, backend; each step down is noted once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import torch

from demon_live import paths as places
from demon_live.errors import DemonError, EngineError, one_line
from demon_live.models.acestep import require
from demon_live.models.acestep.budget import BESIDE_WEIGHTS, dit_parameters, weights_bytes
from demon_live.models.acestep.engine import AceEngine, AceKernels
from demon_live.models.acestep.graphs import wants_fp8
from demon_live.models.acestep.layout import AceConfig, find_checkpoint
from demon_live.models.acestep.load import AceModules, build, classes, load
from demon_live.models.cuda import UNKNOWN, no_gpu, require_gpu, why_no_compiler, why_no_cuda
from demon_live.models.listing import require_files, require_whole
from demon_live.models.manifest import Manifest
from demon_live.models.protocol import Engine

_log = logging.getLogger(__name__)
#: A DiT up to this size is a toy, which a CPU plays as well.
_TOY = 50_000_000


def config_of(manifest: Manifest) -> AceConfig:
    """The shapes that a manifest's [model] table gives, for random weights."""
    table: dict[str, Any] = dict(manifest.model)
    size = table.pop("size", "2b")
    for key in ("vae", "shortest", "dcw"):
        table.pop(key, None)
    base = {"2b": AceConfig(), "xl": AceConfig.xl()}.get(size)
    known = {field.name for field in fields(AceConfig)}
    if base is None or not table.keys() <= known:
        raise EngineError(
            f"{manifest.path}: [model] gives a size (2b or xl) and fields of AceConfig",
            hint=f"fields: {', '.join(sorted(known))}",
        )
    return replace(base, **table)


def _device(wanted: str, config: AceConfig) -> torch.device:
    if wanted not in ("auto", "cpu", "cuda"):
        raise EngineError(f"there is no device {wanted!r}", hint="auto, cpu or cuda")
    if torch.cuda.is_available() and wanted != "cpu":
        return torch.device("cuda")
    if wanted == "cuda" or (wanted == "auto" and dit_parameters(config) > _TOY):
        raise no_gpu("ACE-Step", why_no_cuda() or UNKNOWN)
    return torch.device("cpu")


def _dtype(device: torch.device, random: bool, config: AceConfig, notes: list[str]) -> torch.dtype:
    """bf16 where the hardware has it; never fp16, which the residual stream overflows."""
    if device.type == "cpu":
        return torch.bfloat16 if random and dit_parameters(config) > _TOY else torch.float32
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    notes.append("this GPU has no bf16: ACE-Step plays in fp32, slowly (fp16 would overflow)")
    return torch.float32


def _offloads(
    device: torch.device, dtype: torch.dtype, config: AceConfig, name: str, notes: list[str]
) -> bool:
    """Whether what encodes texts waits in host memory. Raises EngineError if the rest does not fit
    on the GPU either."""
    if device.type != "cuda" or dit_parameters(config) <= _TOY:
        return False
    width = torch.finfo(dtype).bits // 8
    free, total = torch.cuda.mem_get_info(device)
    if weights_bytes(config, width) + BESIDE_WEIGHTS <= free:
        return False
    need = weights_bytes(config, width, offload=True)
    if need > free:
        raise EngineError(
            f"{name} takes {need / 1e9:.1f} GB of GPU memory, {free / 1e9:.1f} of "
            f"{total / 1e9:.1f} GB are free",
            hint="close other programs on the GPU, play the 2B engine instead of XL, or imp",
        )
    notes.append(
        f"{free / 1e9:.1f} GB of GPU memory are free: what reads texts waits in host memory, and a "
        "new prompt takes about a second longer"
    )
    return True


def _modules(
    manifest: Manifest,
    device: str,
    random: bool,
    notes: list[str],
    progress: Callable[[str], None],
) -> AceModules:
    if random:
        config = config_of(manifest)
        place = _device(device, config)
        dtype = _dtype(place, True, config, notes)
        _offloads(place, dtype, config, manifest.name, [])
        return build(config, place, dtype, vae=manifest.model.get("vae"), parts=_RANDOM_PARTS)
    if device != "cpu" and not torch.cuda.is_available():
        # Said before anyone fetches gigabytes for a machine that cannot play them.
        require_gpu(manifest)
    require_files(manifest)
    checkpoint = find_checkpoint(manifest)
    config = checkpoint.config()
    place = _device(device, config)
    with ThreadPoolExecutor(1, "check") as pool:
        checking = pool.submit(require_whole, manifest, _counted(progress, "checking"))
        classes()
        checking.result()
    dtype = _dtype(place, False, config, notes)
    offload = _offloads(place, dtype, config, manifest.name, notes)
    return load(checkpoint, place, dtype, _counted(progress, "loading"), offload=offload)


def _counted(progress: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """Says how far it is, as `what 1.2 of 6.3 GB`."""
    return lambda done, total: progress(f"{what} {done / 1e9:.1f} of {total / 1e9:.1f} GB")


#: What plays without words: the condition encoder is left out with the text encoder.
_RANDOM_PARTS = ("transformer", "audio_tokenizer", "audio_token_detokenizer")


def _kernels(choice: str, modules: AceModules, threads: int, manifest: Manifest) -> AceKernels:
    if choice == "eager":
        from demon_live.models.acestep.eager import AceEager

        return AceEager(modules, threads)
    if choice == "graphs":
        from demon_live.models.acestep.graphs import AceGraphs

        return AceGraphs(modules, window=manifest.window + 2 * manifest.margin)
    if choice == "tensorrt":
        from demon_live.models.acestep.tensorrt.kernels import AceTensorRT

        return AceTensorRT(manifest, modules)
    raise EngineError(
        f"{manifest.name} has no backend {choice} on {modules.device.type} yet",
        hint="graphs and tensorrt on cuda, eager anywhere",
    )


def _add_loras(engine: AceEngine) -> None:
    """All LoRAs in the user's folder: PEFT directories and .safetensors files. One that does not
    fit is named in the notes and left out."""
    folder = places.state_dir() / "loras"
    if not folder.is_dir():
        return
    added = []
    there = [p for p in sorted(folder.iterdir()) if p.is_dir() or p.suffix == ".safetensors"]
    refused = getattr(engine.kernels, "without_loras", "")
    if there and refused:
        engine.notes.append(f"LoRAs left out: {refused}")
        return
    for path in there:
        try:
            added.append(engine.add_lora(path))
        except EngineError as error:
            engine.notes.append(f"LoRA left out: {error.message}")
    if added:
        engine.notes.append(f"LoRAs: {', '.join(f'lora.{name}' for name in added)}")


def _order(manifest: Manifest, device: torch.device) -> list[str]:
    """The backends to try, best first: on an RTX card plans that were built for it, unless fp8 is
    asked for, which they do not have; else what the manifest says."""
    if device.type != "cuda":
        return [b for b in manifest.backends if b == "eager"]
    first = _plays_plans(device) and not wants_fp8()
    return sorted(manifest.backends, key=lambda b: first and b != "tensorrt")


def _plays_plans(device: torch.device) -> bool:
    from demon_live.models.acestep.tensorrt.library import RTX, capability_of

    return capability_of(device) in RTX


def _why(choice: str, device: torch.device) -> str:
    """Why `auto` takes this backend on a GPU."""
    if choice == "tensorrt":
        return "there is a plan for this card"
    if choice == "eager":
        return "it needs neither compiler nor plan"
    if not _plays_plans(device):
        return "on cards other than RTX it is the fastest"
    return "fp8 is asked for, which plans do not have" if wants_fp8() else "it needs no plan"


# ------------------------------------------------------------------------------------- for plans


def config_for_plans(manifest: Manifest, random: bool) -> AceConfig:
    """The shapes that plans are built for: the checkpoint's, or the manifest's."""
    return config_of(manifest) if random else find_checkpoint(manifest).config()


def modules_for_export(manifest: Manifest, random: bool, dit: bool) -> AceModules:
    """The modules on the CPU, for an export. dit: the DiT's rather than the decoder's; with random
    weights nothing else is made. Raises EngineError as `open_ace`."""
    require()
    config = config_for_plans(manifest, random)
    dtype = torch.bfloat16 if dit and dit_parameters(config) > _TOY else torch.float32
    place = torch.device("cpu")
    if not random:
        return load(find_checkpoint(manifest), place, dtype)
    parts = ("transformer",) if dit else ()
    return build(config, place, dtype, vae=manifest.model.get("vae"), parts=parts)


def _reason(error: Exception) -> DemonError:
    """Why a backend does not open, with a remedy where one is known."""
    if isinstance(error, DemonError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        remedy: str | None = "close other programs on the GPU, or play imp"
    else:
        compiler = why_no_compiler()
        remedy = None if compiler is None else f"{compiler.reason}: {compiler.remedy}"
    return EngineError(one_line(error), hint=remedy)


def open_ace(
    manifest: Manifest,
    backend: str,
    device: str,
    threads: int,
    random_weights: bool,
    progress: Callable[[str], None],
) -> Engine:
    """See models.engine.open_engine."""
    require()
    if (dcw := manifest.model.get("dcw", "")) not in ("", "low", "high", "double"):
        raise EngineError(f"{manifest.path}: dcw is low, high or double, not {dcw!r}")
    notes: list[str] = []
    # Triton's own folder is for all programs, and may lie where it does not last.
    os.environ.setdefault("TRITON_CACHE_DIR", str(places.cache_dir() / "kernels"))
    modules = _modules(manifest, device, random_weights, notes, progress)
    wanted = _order(manifest, modules.device) if backend == "auto" else [backend]
    for choice in wanted:
        progress(f"preparing backend {choice} (kernels are compiled the first time)")
        try:
            engine = AceEngine(manifest, modules, _kernels(choice, modules, threads, manifest))
        # A backend may fail in any way: its compiler, its library, the driver, memory.
        except Exception as error:
            _log.warning("backend %s", choice, exc_info=True)
            reason = _reason(error)
            if choice == wanted[-1]:
                raise reason from error
            remedy = f" ({reason.hint})" if reason.hint else ""
            notes.append(f"{manifest.name} runs without backend {choice}: {reason.message}{remedy}")
            continue
        if backend == "auto" and modules.device.type == "cuda":
            notes.append(f"backend {choice}: {_why(choice, modules.device)}")
        engine.notes = notes
        _add_loras(engine)
        return engine
    raise EngineError(f"engine {manifest.name} lists no backend that runs on {modules.device.type}")
