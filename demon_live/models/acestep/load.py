"""Checkpoint files -> ACE-Step's modules, or the same modules with random weights.

    load(checkpoint, dtype, device) -> AceModules      build(config, ...) -> AceModules, random

Modules are built without memory, then filled tensor by tensor from safetensors: each is checked
(name, shape, a float type), cast and moved before the next is read, so that the fp32 shards of XL
never need more than their bf16 result and one tensor. No code of a checkpoint is run, and the only
pickle that is opened, silence_latent.pt, is opened with `weights_only`.

Threads: call from one thread; the modules are read-only afterwards, but for LoRA.
"""

from __future__ import annotations

import functools
import json
import logging
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demon_live.errors import EngineError
from demon_live.models.acestep import UNUSED, hidden, require, untraced
from demon_live.models.acestep.layout import (
    PARTS,
    AceConfig,
    Checkpoint,
    place_of,
    read_json,
)
from demon_live.models.acestep.qwen import Qwen3
from demon_live.paths import open_file

#: Bytes of a safetensors header, as the format's own reader bounds it.
_LONGEST_HEADER = 100_000_000
_log = logging.getLogger(__name__)
#: Frames of the silence latents that come with a checkpoint: 600 s.
SILENCE = 15000
#: Settings of the Oobleck VAE of ACE-Step 1.5: 48 kHz stereo, 1920 samples a frame, 64 channels.
VAE: dict[str, Any] = {
    "encoder_hidden_size": 128,
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "decoder_channels": 128,
    "decoder_input_channels": 64,
    "audio_channels": 2,
    "sampling_rate": 48000,
}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class AceModules:
    """An engine's modules, in eval mode, without gradients. words, text: None with random weights.

    silence: what the VAE makes of silence, float32 [1, frames, channels] on `device`.
    """

    config: AceConfig
    dit: Any
    encoder: Any
    tokenizer: Any
    detokenizer: Any
    vae: Any
    silence: Tensor
    device: torch.device
    dtype: torch.dtype
    text: Any = None
    words: Any = None

    @property
    def random(self) -> bool:
        return self.words is None


# ----------------------------------------------------------------------------------------- building


@functools.cache
def classes() -> dict[str, Any]:
    """The classes of the modules, the VAE's too; the first call loads diffusers, some seconds."""
    require()
    try:
        with untraced(), hidden(UNUSED if "diffusers" not in sys.modules else ()):
            return _imported()
    # A version of diffusers or torch that cannot do without them.
    except Exception:  # noqa: BLE001
        _log.info("diffusers is loaded with all that it asks for", exc_info=True)
        return _imported()


def _imported() -> dict[str, Any]:
    from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
    from diffusers.pipelines.ace_step.modeling_ace_step import (
        AceStepAudioTokenDetokenizer,
        AceStepAudioTokenizer,
        AceStepConditionEncoder,
    )

    kinds = (
        AceStepTransformer1DModel,
        AceStepConditionEncoder,
        AceStepAudioTokenizer,
        AceStepAudioTokenDetokenizer,
        AutoencoderOobleck,
    )
    return dict(zip((*PARTS, "vae"), kinds, strict=True))


def _empty(config: AceConfig, part: str) -> Any:
    """A part without memory, but for the constants that no checkpoint stores."""
    arguments = config.arguments()[part]
    kind = classes()[part]
    with torch.device("meta"), untraced():
        module = kind(**arguments)
    if part == "audio_tokenizer":
        constants = type(module.quantizer)(dim=1, levels=list(config.fsq_levels))
        for name in ("_levels", "_basis", "scales"):
            module.quantizer.register_buffer(name, getattr(constants, name), persistent=False)
    return module


def _ready(module: Any, device: torch.device) -> Any:
    return module.to(device).eval().requires_grad_(False)


def _made_up(kind: Callable[[], Any], device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    """A module as its constructor initialises it, from a seed, made on the device."""
    before = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            with device:
                module = kind()
        finally:
            torch.set_default_dtype(before)
    return _ready(module, device)


def build(
    config: AceConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    vae: dict[str, Any] | None = None,
    parts: tuple[str, ...] = PARTS,
    seed: int = 0,
) -> AceModules:
    """The true shapes with random weights, made on the device; parts that are not named are None.

    There is no text encoder: conditions are random states (see encode.py).
    """
    kinds, arguments = classes(), config.arguments()
    made = {
        part: _made_up(lambda p=part: kinds[p](**arguments[p]), device, dtype, seed + i)  # type: ignore[misc]
        if part in parts
        else None
        for i, part in enumerate(PARTS)
    }
    codec = _made_up(lambda: oobleck(vae or VAE), device, dtype, seed + 9)
    _fold(codec)
    noise = torch.randn(1, SILENCE, config.channels, generator=torch.Generator().manual_seed(seed))
    dit, encoder, tokenizer, detokenizer = (made[part] for part in PARTS)
    return AceModules(
        config,
        dit,
        encoder,
        tokenizer,
        detokenizer,
        codec,
        (0.1 * noise).to(device),
        device,
        dtype,
    )


def random_dit(config: AceConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """The DiT alone with random weights."""
    kind, arguments = classes()["transformer"], config.arguments()["transformer"]
    return _made_up(lambda: kind(**arguments), device, dtype, 0)


def oobleck(settings: dict[str, Any]) -> Any:
    """diffusers' AutoencoderOobleck, as its constructor makes it."""
    with warnings.catch_warnings():
        # It uses torch's older weight_norm, whose tensors the checkpoints hold.
        warnings.simplefilter("ignore", FutureWarning)
        return classes()["vae"](**settings)


def _fold(vae: Any) -> None:
    """Weight norm is for training: w = g v / |v|, once and for all."""
    for module in vae.modules():
        for hook in list(getattr(module, "_forward_pre_hooks", {}).values()):
            if type(hook).__name__ == "WeightNorm":
                # Worked out in float32: bf16 norms of wide filters would cost three digits.
                v, g = module.weight_v.data, module.weight_g.data
                dims = [d for d in range(v.ndim) if d != hook.dim]
                v32 = v.float()
                w = v32 * (g.float() / v32.norm(dim=dims, keepdim=True).clamp_min(1e-12))
                nn.utils.remove_weight_norm(module)
                module.weight = nn.Parameter(w.to(v.dtype), requires_grad=False)


# ------------------------------------------------------------------------------------------ reading


def _refuse(path: Path, reason: str, hint: str | None = None) -> EngineError:
    remedy = "see which files are damaged: demon engines verify NAME; fetch them again: fetch NAME"
    return EngineError(f"{path} cannot be used: {reason}", hint=hint or remedy)


def _check_file(path: Path) -> None:
    """A whole safetensors file, or EngineError: missing, a pickle, truncated, foreign."""
    if not path.is_file():
        raise _refuse(path, "it is not there", "fetch it: demon engines fetch NAME")
    size = path.stat().st_size
    with open_file(path) as file:
        head = file.read(8)
        first = file.read(1)
        pickled = head[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and first != b"{"
        if pickled or path.suffix in (".bin", ".pt", ".ckpt"):
            hint = "a pickle can run code of its author's: only safetensors are read"
            raise _refuse(path, "it is a pickle", hint)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise _refuse(path, "it is truncated, or no safetensors file")
        try:
            header = json.loads(first + file.read(length - 1))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            whole = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise _refuse(path, "its header is damaged") from None
    if whole != size:
        raise _refuse(path, f"it is truncated: {size} bytes of {whole}")


def _tensors(
    paths: list[Path], device: torch.device
) -> Iterator[tuple[Path, str, Callable[[], Tensor]]]:
    """(file, name, read) of every tensor, which is read on to the device."""
    from safetensors import safe_open

    for path in paths:
        _check_file(path)
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                yield path, key, lambda k=key: file.get_tensor(k)  # type: ignore[misc]


#: Bytes between two words on how far loading is.
_TOLD_EVERY = 100_000_000


class _Filler:
    """Puts tensors into modules that have no memory yet. host: parts that wait in host memory."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, host: tuple[str, ...] = ()
    ) -> None:
        self.device, self.dtype, self._host = device, dtype, host
        self.state: dict[str, dict[str, Tensor]] = {}

    def put(self, path: Path, part: str, key: str, wanted: Any, read: Callable[[], Tensor]) -> int:
        """Cast a tensor and move it to its place; returns the bytes that were read."""
        value = read()
        if value.dtype not in _FLOATS:
            raise _refuse(path, f"{key} is of type {value.dtype}, not a float")
        if tuple(value.shape) != tuple(wanted.shape):
            found = f"{key} is {list(value.shape)}, the model needs {list(wanted.shape)}"
            raise _refuse(path, found, "it is of another model, or of another size of this one")
        self.state.setdefault(part, {})[key] = value.to(self.place(part), self.dtype)
        return value.nbytes

    def place(self, part: str) -> torch.device:
        """Where the weights of a part lie."""
        return torch.device("cpu") if part in self._host else self.device

    def finish(self, part: str, module: Any) -> Any:
        state = self.state.pop(part, {})
        lacking = [k for k in module.state_dict() if k not in state]
        if lacking:
            raise EngineError(
                f"the checkpoint lacks {len(lacking)} tensors of {part}: {', '.join(lacking[:3])}",
                hint="a shard is missing, or it is of another model: demon engines verify NAME",
            )
        module.load_state_dict(state, strict=False, assign=True)
        return _ready(module, self.place(part))


def _silence(path: Path, channels: int) -> Tensor:
    """silence_latent.pt [1, channels, frames] -> float32 [1, frames, channels]."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises whatever the pickle leads to)
        raise _refuse(path, f"no tensor can be read from it ({type(error).__name__})") from None
    if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[1] != channels:
        raise _refuse(path, f"it does not hold latents of {channels} channels")
    return found.transpose(1, 2).to(torch.float32).contiguous()


def load(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress = lambda done, total: None,
    *,
    offload: bool = False,
) -> AceModules:
    """The modules of a checkpoint. progress: (bytes read, bytes in all). offload: `encode.lent`.

    Raises EngineError: a file is missing, truncated, a pickle, of another family or size.
    """
    require()
    config = checkpoint.config()
    fill = _Filler(device, dtype, ("condition_encoder",) if offload else ())
    modules = {part: _empty(config, part) for part in PARTS}
    wanted = {part: module.state_dict() for part, module in modules.items()}
    total = sum(p.stat().st_size for p in checkpoint.files if p.is_file())
    done, told = 0, 0

    def take(paths: list[Path], part: str | None) -> None:
        nonlocal done, told
        for path, key, read in _tensors(paths, device):
            place = place_of(key) if part is None else (part, key)
            if place is None or place[1] not in wanted[place[0]]:
                hint = "the file is of another model than the manifest says"
                raise _refuse(path, f"it holds {key!r}, which is not ACE-Step's", hint)
            done += fill.put(path, *place, wanted[place[0]][place[1]], read)
            if done - told > _TOLD_EVERY:
                told = done
                progress(done, total)

    if checkpoint.layout == "original":
        take(checkpoint.weights("model"), None)
        silence = _silence(checkpoint.folders["model"] / "silence_latent.pt", config.channels)
    else:
        for part in PARTS:
            take(checkpoint.weights(part), part)
        silence = fill.state["condition_encoder"]["silence_latent"].to("cpu", torch.float32)
    # Kept in float32 and only once, here: 600 s of it would be a sixth of XL's encoder in memory.
    fill.state["condition_encoder"]["silence_latent"] = torch.zeros(
        1, 1, config.channels, dtype=dtype, device=fill.place("condition_encoder")
    )
    modules["condition_encoder"].register_buffer("silence_latent", torch.zeros(1, 1, 64))
    dit, encoder, tokenizer, detokenizer = (fill.finish(part, modules[part]) for part in PARTS)
    vae = vae_of(checkpoint, device, dtype)
    text, words = _text(checkpoint, torch.device("cpu") if offload else device, dtype)
    return AceModules(
        config,
        dit,
        encoder,
        tokenizer,
        detokenizer,
        vae,
        silence.to(device),
        device,
        dtype,
        text,
        words,
    )


def load_part(module: Any, paths: list[Path], device: torch.device, dtype: torch.dtype) -> Any:
    """Fill one module, built on meta, from its own files. Raises EngineError as `load`."""
    fill, wanted = _Filler(device, dtype), module.state_dict()
    for path, key, read in _tensors(paths, device):
        name = key if key in wanted else key.removeprefix("model.")
        if name not in wanted:
            hint = "the file is of another model than the manifest says"
            raise _refuse(path, f"it holds {key!r}, which has no place here", hint)
        fill.put(path, "part", name, wanted[name], read)
    return fill.finish("part", module)


def vae_of(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Any:
    """The Oobleck VAE, weight norm folded. Raises EngineError as `load`."""
    folder = checkpoint.folders["vae"]
    values = {**VAE, **read_json(folder / "config.json")}
    if values.get("_class_name", "AutoencoderOobleck") != "AutoencoderOobleck":
        raise EngineError(f"{folder} is a {values['_class_name']!r}, not an Oobleck VAE")
    with torch.device("meta"), untraced():
        vae = oobleck({key: values[key] for key in VAE})
    vae = load_part(vae, checkpoint.weights("vae"), device, dtype)
    _fold(vae)
    return vae.eval().requires_grad_(False)


def _text(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """(Qwen3 text encoder, tokenizer). Raises EngineError as `load`."""
    from tokenizers import Tokenizer

    folder = checkpoint.folders["text_encoder"]
    values = read_json(folder / "config.json")
    if values.get("model_type") != "qwen3":
        raise EngineError(f"{folder} is a {values.get('model_type')!r}, not Qwen3's text encoder")
    with torch.device("meta"), untraced():
        model = Qwen3(values)
    model = load_part(model, checkpoint.weights("text_encoder"), device, dtype)
    path = checkpoint.folders["tokenizer"] / "tokenizer.json"
    try:
        words = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 (tokenizers raises a bare Exception)
        raise _refuse(path, str(error).splitlines()[0]) from None
    return model, words
