"""How much memory an engine takes, and what would fit.

    weights_bytes(config, ...) -> bytes      row_bytes(config, frames) -> bytes of one more row

Estimates: exact for weights, and for a row the largest activations alive at once (the SwiGLU's,
beside the residual stream), with room for what libraries keep.
"""

from __future__ import annotations

import torch

from demon_live.errors import EngineError
from demon_live.models.acestep.layout import AceConfig
from demon_live.models.acestep.load import AceModules

#: Parameters of condition encoder and text encoder; of all parts beside the DiT, with both
#: tokenizers and the VAE.
_TEXTS = 608_369_664 + 595_776_512
_BESIDE = _TEXTS + 105_032_198 + 105_011_776 + 168_695_426


def dit_parameters(c: AceConfig) -> int:
    """Parameters of the DiT."""
    wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
    attention = c.hidden * (2 * wide + 2 * narrow) + 2 * c.head_dim
    layer = 2 * attention + 3 * c.hidden * c.intermediate + 9 * c.hidden
    times = 2 * (257 * c.hidden + (c.hidden + 1) * c.hidden + 6 * c.hidden * (c.hidden + 1))
    ends = c.hidden * 3 * c.channels * c.patch + c.hidden + c.hidden * c.channels * c.patch
    embed = c.encoder_hidden * c.hidden + c.hidden
    return c.layers * layer + times + ends + c.channels + embed + 3 * c.hidden


#: Bytes that encoding and ticks want beside the weights: a tile of a source, a loop at depth 4.
BESIDE_WEIGHTS = 1_700_000_000


def weights_bytes(config: AceConfig, width: float = 2.0, offload: bool = False) -> int:
    """Bytes of everything an engine loads, at `width` bytes a parameter of the DiT. offload:
    without what encodes texts."""
    beside = _BESIDE - _TEXTS if offload else _BESIDE
    return int(dit_parameters(config) * width + beside * 2)


def row_bytes(config: AceConfig, frames: int) -> int:
    """Bytes that one more row of `frames` frames takes while a tick runs."""
    tokens = -(-frames // config.patch)
    kept = 2 * config.layers * 256 * config.kv_heads * config.head_dim
    return 2 * (tokens * (3 * config.intermediate + 10 * config.hidden) + kept)


def out_of_memory(modules: AceModules, rows: int, frames: int, fp8: bool = False) -> EngineError:
    """The error for a tick that did not fit: what would. fp8: its weights lie beside bf16's, which
    LoRAs change."""
    config, seconds = modules.config, frames / 25
    hint = "free GPU memory that other programs use, or play imp"
    if modules.device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(modules.device)
        fits = int(0.9 * free // row_bytes(config, frames))
        if fits >= 1:
            hint = f"depth {min(fits, rows - 1) or 1} would fit"
        else:
            most = int(0.9 * free // row_bytes(config, 25))
            hint = f"loops up to {max(most, 5)} s would fit at depth 1"
        hint += f" ({free / 1e9:.1f} of {total / 1e9:.1f} GB are free)"
    if fp8:
        hint += f"; bf16 takes {dit_parameters(config) / 1e9:.1f} GB less: DEMON_ACE_FP8=0"
    # Whoever sheds load knows the case by its usual name.
    return EngineError(
        f"the GPU is out of memory: {rows} generations of {seconds:.0f} s do not fit", hint=hint
    )
