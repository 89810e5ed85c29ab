"""What an ACE-Step checkpoint is made of, in either layout.

    original   MODEL/{config.json, *.safetensors, silence_latent.pt}, vae/, Qwen3-Embedding-0.6B/
    diffusers  transformer/, condition_encoder/, audio_tokenizer/, audio_token_detokenizer/, vae/,
               text_encoder/, tokenizer/

In the original layout one state dict holds everything, under upstream's names; `place_of` says
where a tensor belongs in diffusers' modules. XL differs from 2B in its config: the DiT is wider
than its condition encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from demon_live.errors import EngineError
from demon_live.models.manifest import Manifest
from demon_live.paths import read_file

#: The modules of a checkpoint that are diffusers'; text encoder and VAE have files of their own.
PARTS = ("transformer", "condition_encoder", "audio_tokenizer", "audio_token_detokenizer")
Layout = Literal["original", "diffusers"]
#: Bytes of a configuration, or of an index.
_LONGEST = 1 << 24

_PREFIXES = {
    "decoder.": "transformer",
    "encoder.": "condition_encoder",
    "tokenizer.": "audio_tokenizer",
    "detokenizer.": "audio_token_detokenizer",
}
_RENAMES = (
    (".q_proj.", ".to_q."),
    (".k_proj.", ".to_k."),
    (".v_proj.", ".to_v."),
    (".o_proj.", ".to_out.0."),
    (".q_norm.", ".norm_q."),
    (".k_norm.", ".norm_k."),
)
_DECODER_RENAMES = (("proj_in.1.", "proj_in_conv."), ("proj_out.1.", "proj_out_conv."))


def place_of(key: str) -> tuple[str, str] | None:
    """(part, key in diffusers' module) of an upstream tensor name; None for a foreign one."""
    if key == "null_condition_emb":
        return "condition_encoder", key
    for prefix, part in _PREFIXES.items():
        if key.startswith(prefix):
            name = key[len(prefix) :]
            for old, new in _RENAMES:
                name = name.replace(old, new)
            if part == "transformer":
                for old, new in _DECODER_RENAMES:
                    if name.startswith(old):
                        name = new + name[len(old) :]
            return part, name
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises EngineError if it is none."""
    try:
        found = json.loads(read_file(path, _LONGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise EngineError(f"{path} holds no settings")
    return found


@dataclass(frozen=True, slots=True)
class AceConfig:
    """Shapes of a checkpoint. Defaults are the 2B turbo's. hidden: width of the DiT.

    encoder_*: of the condition encoder, tokenizer and detokenizer. cls_timbre: XL's timbre encoder
    puts a learned token in front and answers with its row; 2B's answers with the first frame's.
    """

    hidden: int = 2048
    intermediate: int = 6144
    layers: int = 24
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    encoder_hidden: int = 2048
    encoder_intermediate: int = 6144
    encoder_heads: int = 16
    encoder_kv_heads: int = 8
    lyric_layers: int = 8
    timbre_layers: int = 4
    pooler_layers: int = 2
    text_hidden: int = 1024
    channels: int = 64
    patch: int = 2
    pool: int = 5
    timbre_frames: int = 750
    sliding_window: int = 128
    rope_theta: float = 1e6
    eps: float = 1e-6
    fsq_levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    turbo: bool = True
    cls_timbre: bool = False
    layer_types: tuple[str, ...] = field(default=())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The attention of each DiT layer: windowed and full ones alternate, windowed first."""
        pair = ("sliding_attention", "full_attention")
        return self.layer_types or tuple(pair[i % 2] for i in range(self.layers))

    @staticmethod
    def xl() -> AceConfig:
        """The XL turbo's shapes: its attention is wider (32 x 128) than its residual stream."""
        return AceConfig(
            hidden=2560, intermediate=9728, layers=32, heads=32, kv_heads=8, cls_timbre=True
        )

    @staticmethod
    def of_original(values: Mapping[str, Any], name: str = "config.json") -> AceConfig:
        """From upstream's config.json. Raises EngineError for another family of model."""
        if values.get("model_type") != "acestep":
            kind = values.get("model_type") or values.get("_class_name") or "unknown"
            raise EngineError(
                f"{name} is of a model of type {kind!r}, not of ACE-Step 1.5",
                hint="the engine's manifest and its files do not belong together",
            )
        base = AceConfig()

        def get(key: str, default: Any) -> Any:
            value = values.get(key)
            return default if value is None else value

        hidden = get("hidden_size", base.hidden)
        wide = get("encoder_hidden_size", hidden)
        rope = values.get("rope_parameters") or {}
        return AceConfig(
            hidden=hidden,
            intermediate=get("intermediate_size", base.intermediate),
            layers=get("num_hidden_layers", base.layers),
            heads=get("num_attention_heads", base.heads),
            kv_heads=get("num_key_value_heads", base.kv_heads),
            head_dim=get("head_dim", base.head_dim),
            encoder_hidden=wide,
            encoder_intermediate=get(
                "encoder_intermediate_size", get("intermediate_size", base.encoder_intermediate)
            ),
            encoder_heads=get(
                "encoder_num_attention_heads", get("num_attention_heads", base.heads)
            ),
            encoder_kv_heads=get(
                "encoder_num_key_value_heads", get("num_key_value_heads", base.kv_heads)
            ),
            lyric_layers=get("num_lyric_encoder_hidden_layers", base.lyric_layers),
            timbre_layers=get("num_timbre_encoder_hidden_layers", base.timbre_layers),
            pooler_layers=get("num_attention_pooler_hidden_layers", base.pooler_layers),
            text_hidden=get("text_hidden_dim", base.text_hidden),
            channels=get("audio_acoustic_hidden_dim", base.channels),
            patch=get("patch_size", base.patch),
            pool=get("pool_window_size", base.pool),
            timbre_frames=get("timbre_fix_frame", base.timbre_frames),
            sliding_window=get("sliding_window", base.sliding_window),
            rope_theta=float(get("rope_theta", rope.get("rope_theta", base.rope_theta))),
            eps=get("rms_norm_eps", base.eps),
            fsq_levels=tuple(get("fsq_input_levels", base.fsq_levels)),
            turbo=bool(get("is_turbo", base.turbo)),
            cls_timbre=_is_xl(values, hidden, wide),
            layer_types=tuple(get("layer_types", ())),
        )

    @staticmethod
    def of_diffusers(folders: Mapping[str, Path]) -> AceConfig:
        """From the config.json of diffusers' folders. Raises EngineError as `of_original`."""
        dit = read_json(folders["transformer"] / "config.json")
        if dit.get("_class_name") != "AceStepTransformer1DModel":
            raise EngineError(
                f"{folders['transformer']} is a {dit.get('_class_name')!r}, not ACE-Step's DiT",
                hint="the engine's manifest and its files do not belong together",
            )
        encoder = read_json(folders["condition_encoder"] / "config.json")
        token = read_json(folders["audio_tokenizer"] / "config.json")
        hidden, wide = dit["hidden_size"], encoder["hidden_size"]
        base = AceConfig()
        return AceConfig(
            hidden=hidden,
            intermediate=dit["intermediate_size"],
            layers=dit["num_hidden_layers"],
            heads=dit["num_attention_heads"],
            kv_heads=dit["num_key_value_heads"],
            head_dim=dit["head_dim"],
            encoder_hidden=wide,
            encoder_intermediate=encoder["intermediate_size"],
            encoder_heads=encoder["num_attention_heads"],
            encoder_kv_heads=encoder["num_key_value_heads"],
            lyric_layers=encoder["num_lyric_encoder_hidden_layers"],
            timbre_layers=encoder["num_timbre_encoder_hidden_layers"],
            pooler_layers=token["num_attention_pooler_hidden_layers"],
            text_hidden=encoder["text_hidden_dim"],
            channels=dit["audio_acoustic_hidden_dim"],
            patch=dit["patch_size"],
            pool=token["pool_window_size"],
            sliding_window=dit["sliding_window"],
            rope_theta=dit["rope_theta"],
            eps=dit["rms_norm_eps"],
            fsq_levels=tuple(token.get("fsq_input_levels") or base.fsq_levels),
            turbo=bool(dit.get("is_turbo") or dit.get("model_version") == "turbo"),
            cls_timbre=_is_xl(dit, hidden, wide),
            layer_types=tuple(dit.get("layer_types") or ()),
        )

    def arguments(self) -> dict[str, dict[str, Any]]:
        """Constructor arguments of diffusers' modules, by part."""
        shared: dict[str, Any] = {
            "head_dim": self.head_dim,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.eps,
            "sliding_window": self.sliding_window,
        }
        encoder = {
            **shared,
            "hidden_size": self.encoder_hidden,
            "intermediate_size": self.encoder_intermediate,
            "num_attention_heads": self.encoder_heads,
            "num_key_value_heads": self.encoder_kv_heads,
        }
        pooler = {
            **encoder,
            "audio_acoustic_hidden_dim": self.channels,
            "pool_window_size": self.pool,
            "num_attention_pooler_hidden_layers": self.pooler_layers,
        }
        return {
            "transformer": {
                **shared,
                "hidden_size": self.hidden,
                "intermediate_size": self.intermediate,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "in_channels": 3 * self.channels,
                "audio_acoustic_hidden_dim": self.channels,
                "patch_size": self.patch,
                "layer_types": list(self.kinds),
                "encoder_hidden_size": self.encoder_hidden,
                "is_turbo": self.turbo,
            },
            "condition_encoder": {
                **encoder,
                "text_hidden_dim": self.text_hidden,
                "timbre_hidden_dim": self.channels,
                "num_lyric_encoder_hidden_layers": self.lyric_layers,
                "num_timbre_encoder_hidden_layers": self.timbre_layers,
            },
            "audio_tokenizer": {
                **pooler,
                "fsq_dim": self.encoder_hidden,
                "fsq_input_levels": list(self.fsq_levels),
            },
            "audio_token_detokenizer": pooler,
        }


def _is_xl(values: Mapping[str, Any], hidden: int, wide: int) -> bool:
    modules = " ".join(str(v) for v in (values.get("auto_map") or {}).values())
    version = str(values.get("model_version") or "")
    return hidden != wide or "_xl_" in modules or version.startswith("xl")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Folders of a checkpoint that is there. folders: by part; the original layout has `model`."""

    layout: Layout
    folders: Mapping[str, Path]
    files: tuple[Path, ...]

    def weights(self, part: str) -> list[Path]:
        """The safetensors files of a part, in order. Raises EngineError if there are none."""
        folder = self.folders[part]
        found = sorted(p for p in self.files if p.parent == folder and p.suffix == ".safetensors")
        if not found:
            raise EngineError(
                f"{folder} holds no safetensors file",
                hint="other formats are not read: a pickle can run code of its author's",
            )
        return found

    def config(self) -> AceConfig:
        """The shapes. Raises EngineError for another family."""
        if self.layout == "diffusers":
            return AceConfig.of_diffusers(self.folders)
        path = self.folders["model"] / "config.json"
        return AceConfig.of_original(read_json(path), str(path))


def find_checkpoint(manifest: Manifest) -> Checkpoint:
    """Where the parts of an engine's checkpoint lie. Raises EngineError if a part is not listed."""
    folders: dict[str, Path] = {}
    for weight in manifest.weights:
        place, parent = manifest.place(weight), PurePosixPath(weight.file).parent.name
        name = PurePosixPath(weight.file).name
        if parent in (*PARTS, "vae", "text_encoder"):
            folders[parent] = place.parent
        elif name == "silence_latent.pt":
            folders["model"] = place.parent
        if name == "tokenizer.json":
            folders["tokenizer"] = place.parent
    layout: Layout = "diffusers" if "transformer" in folders else "original"
    if layout == "original" and "tokenizer" in folders:
        folders.setdefault("text_encoder", folders["tokenizer"])
    needed = (
        (*PARTS, "vae", "text_encoder", "tokenizer")
        if layout == "diffusers"
        else ("model", "vae", "text_encoder", "tokenizer")
    )
    lacking = [part for part in needed if part not in folders]
    if lacking:
        raise EngineError(
            f"engine {manifest.name} lists no files of {', '.join(lacking)}",
            name=str(manifest.path),
            hint="the layouts that are read: docstring of demon_live/models/acestep/layout.py",
        )
    return Checkpoint(layout, folders, tuple(manifest.place(w) for w in manifest.weights))
