"""Toy ACE-Step checkpoints in the true layouts: true names and settings, tiny widths.

save_original(folder, config)   as ACE-Step/Ace-Step1.5 is laid out (and XL's shards)
save_diffusers(folder, config)  as diffusers' pipelines are
manifest_of(...)                an engine TOML with sizes and hashes of the files
pipeline_of(folder)             diffusers' own AceStepPipeline of the same weights
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demon_live.models.acestep.layout import PARTS, AceConfig, place_of

TOY = AceConfig(
    hidden=64,
    intermediate=96,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=16,
    encoder_hidden=64,
    encoder_intermediate=96,
    encoder_heads=4,
    encoder_kv_heads=2,
    lyric_layers=4,
    timbre_layers=2,
    text_hidden=32,
    timbre_frames=750,
    sliding_window=8,
)
#: The attention of XL is wider than its residual stream, and its condition encoder narrower.
TOY_XL = replace(TOY, hidden=80, intermediate=112, heads=8, cls_timbre=True)
TOY_VAE: dict[str, Any] = {
    "encoder_hidden_size": 128,  # twice the latent's channels: nothing smaller has its shape
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 1, 1, 1, 1],
    "decoder_channels": 8,
    "decoder_input_channels": 64,
    "audio_channels": 2,
    "sampling_rate": 48000,
}
QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 300,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 4096,
}


def upstream_config(config: AceConfig) -> dict[str, Any]:
    """config.json as upstream writes it."""
    values: dict[str, Any] = {
        "architectures": ["AceStepConditionGenerationModel"],
        "model_type": "acestep",
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "in_channels": 192,
        "audio_acoustic_hidden_dim": 64,
        "patch_size": 2,
        "layer_types": list(config.kinds),
        "sliding_window": config.sliding_window,
        "use_sliding_window": True,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.eps,
        "text_hidden_dim": config.text_hidden,
        "timbre_hidden_dim": 64,
        "timbre_fix_frame": config.timbre_frames,
        "num_lyric_encoder_hidden_layers": config.lyric_layers,
        "num_timbre_encoder_hidden_layers": config.timbre_layers,
        "num_attention_pooler_hidden_layers": config.pooler_layers,
        "pool_window_size": config.pool,
        "fsq_dim": config.encoder_hidden,
        "fsq_input_levels": list(config.fsq_levels),
        "fsq_input_num_quantizers": 1,
        "is_turbo": config.turbo,
        "model_version": "turbo",
        "dtype": "bfloat16",
    }
    name = "xl_turbo" if config.cls_timbre else "turbo"
    values["auto_map"] = {"AutoModel": f"modeling_acestep_v15_{name}.AceStepConditionGeneration"}
    if config.cls_timbre:
        values |= {
            "encoder_hidden_size": config.encoder_hidden,
            "encoder_intermediate_size": config.encoder_intermediate,
            "encoder_num_attention_heads": config.encoder_heads,
            "encoder_num_key_value_heads": config.encoder_kv_heads,
        }
    return values


def upstream_name(part: str, key: str) -> str:
    """The upstream name of a tensor of diffusers' modules: the inverse of `place_of`."""
    if key == "null_condition_emb":
        return key
    prefix = dict(zip(PARTS, ("decoder.", "encoder.", "tokenizer.", "detokenizer."), strict=True))
    name = key
    for new, old in (("q", "to_q"), ("k", "to_k"), ("v", "to_v")):
        name = name.replace(f".{old}.", f".{new}_proj.")
    name = name.replace(".to_out.0.", ".o_proj.")
    name = name.replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
    name = name.replace("proj_in_conv.", "proj_in.1.").replace("proj_out_conv.", "proj_out.1.")
    name = prefix[part] + name
    assert place_of(name) == (part, key)
    return name


def make_modules(config: AceConfig, seed: int = 0) -> dict[str, Any]:
    """diffusers' modules with lively random weights (their own initialisation is nearly silent)."""
    from transformers import Qwen3Config, Qwen3Model

    from demon_live.models.acestep import load

    generator = torch.Generator().manual_seed(seed)
    classes, arguments = load.classes(), config.arguments()
    modules = {part: classes[part](**arguments[part]) for part in PARTS}
    modules["vae"] = load.oobleck(TOY_VAE)
    modules["text_encoder"] = Qwen3Model(Qwen3Config(**QWEN))
    for module in modules.values():
        for name, value in module.named_parameters():
            width = value[0].numel() if value.ndim > 1 else 1
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name:
                value.data = 1 + 0.1 * noise
            elif name.endswith(("weight_g", "alpha", "beta")):
                continue
            else:
                value.data = noise * (1.5 / width**0.5 if value.ndim > 1 else 0.1)
        module.eval().requires_grad_(False)
    silence = torch.randn(1, 15000, 64, generator=generator)
    modules["condition_encoder"].silence_latent = silence
    return modules


def byte_tokenizer() -> dict[str, Any]:
    """tokenizer.json: bytes, and <|endoftext|> at the end of each text, as Qwen3-Embedding has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    end = ("<|endoftext|>", made.token_to_id("<|endoftext|>"))
    made.post_processor = processors.TemplateProcessing("$A <|endoftext|>", special_tokens=[end])
    found: dict[str, Any] = json.loads(made.to_str())
    return found


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(path))


def _json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1))


def _save_shared(folder: Path, modules: dict[str, Any], text: str, words: str) -> None:
    _json(folder / "vae/config.json", {"_class_name": "AutoencoderOobleck", **TOY_VAE})
    _save(folder / "vae/diffusion_pytorch_model.safetensors", modules["vae"].state_dict())
    _json(folder / text / "config.json", {"architectures": ["Qwen3Model"], **QWEN})
    _save(folder / text / "model.safetensors", modules["text_encoder"].state_dict())
    _json(folder / words / "tokenizer.json", byte_tokenizer())


def save_original(
    folder: Path, config: AceConfig = TOY, *, shards: int = 1, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """A checkpoint in the original layout; returns its modules."""
    modules = make_modules(config)
    model = folder / "acestep-v15-turbo"
    state = {
        upstream_name(part, key): value.to(dtype)
        for part in PARTS
        for key, value in modules[part].state_dict().items()
        if key != "silence_latent"
    }
    names = sorted(state)
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}" if shards > 1 else "model"
        _save(model / f"{name}.safetensors", {k: state[k] for k in names[i::shards]})
    _json(model / "config.json", upstream_config(config))
    silence = modules["condition_encoder"].silence_latent
    torch.save(silence.transpose(1, 2).contiguous(), model / "silence_latent.pt")
    _save_shared(folder, modules, "Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B")
    return modules


def save_diffusers(folder: Path, config: AceConfig = TOY) -> dict[str, Any]:
    """The same weights in diffusers' layout; returns the modules."""
    modules = make_modules(config)
    for part in PARTS:
        name = "diffusion_pytorch_model.safetensors"
        _save(folder / part / name, modules[part].state_dict())
        _json(
            folder / part / "config.json",
            {"_class_name": type(modules[part]).__name__, **dict(modules[part].config)},
        )
    _save_shared(folder, modules, "text_encoder", "tokenizer")
    return modules


MANIFEST = """\
name = "{name}"
family = "acestep"
summary = "a toy"
licence = "MIT"
folder = "{folder}"
backends = ["graphs", "eager"]
tick_ms = 40.0
controls = ["blend", "denoise", "seed", "prompt", "prompt2", "prompt_mix", "hint", "key", "cfg",
  "lyrics", "timbre", "guide", "velocity"]

[shapes]
channels = 64
frames_high = 6000

[schedule]
steps = 8
shift = 3.0
depth = 4

[decode]
margin = 9
window = 25
"""


def manifest_of(folder: Path, name: str = "toy-ace") -> Path:
    """engines/NAME.toml beside `folder`, listing every file in it."""
    controls = MANIFEST.format(name=name, folder=folder.name)
    rows = [controls]
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = path.relative_to(folder).as_posix()
        rows.append(
            f'\n[[weights]]\nfile = "{file}"\nsha256 = "{digest}"\nbytes = {path.stat().st_size}\n'
        )
    target = folder.parent / f"{name}.toml"
    target.write_text("".join(rows))
    return target


def pipeline_of(modules: dict[str, Any], folder: Path, text: str = "Qwen3-Embedding-0.6B") -> Any:
    """diffusers' own pipeline over the same modules: the oracle."""
    from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / text / "tokenizer.json"), pad_token="<|endoftext|>"
    )
    pipeline = AceStepPipeline(
        vae=modules["vae"],
        text_encoder=modules["text_encoder"],
        tokenizer=words,
        transformer=modules["transformer"],
        condition_encoder=modules["condition_encoder"],
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=modules["audio_tokenizer"],
        audio_token_detokenizer=modules["audio_token_detokenizer"],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
