"""The plans of an engine: their graphs, their precision, and the sizes they are built for.

    parts(manifest, config, capability) -> [Part]     the DiT and the decoder

A plan takes any size between its least and its largest, and is quickest near the middle one. The
decoder's stay small: longer latents are decoded in tiles, which nine frames of context make exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demon_live.errors import EngineError
from demon_live.models.manifest import Manifest

#: Least, usual and largest shape of each input.
Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
#: Frames of the decoder's largest tile, beside its margins.
_TILE = 250


@dataclass(frozen=True, slots=True)
class Part:
    """One plan. name: dit or decoder. precision: of its matrices or filters; what it reads and
    writes beside them is float32. matrices: initialisers that can be exchanged, if it is refit."""

    name: str
    precision: str
    shapes: Shapes
    matrices: tuple[str, ...] = ()


def precision_of(capability: str) -> str:
    """bf16 where the card has it; the RTX 20 series computes in fp16 round a float32 residual."""
    return "bf16" if float(capability) >= 8.0 else "fp16"


def parts(manifest: Manifest, config: Any, capability: str) -> tuple[Part, Part]:
    """The plans of an ACE-Step engine for a card. config: its AceConfig.

    Raises EngineError if the manifest's [plan] table does not say the sizes.
    """
    from demon_live.models.acestep.export import initialisers

    return (
        Part(
            "dit",
            precision_of(capability),
            _dit(manifest, config),
            tuple(initialisers(config)),
        ),
        Part("decoder", "fp16", _decoder(manifest, config)),
    )


def _dit(manifest: Manifest, config: Any) -> Shapes:
    plan = manifest.plan or {}
    kinds = [plan.get(k) for k in ("rows", "frames", "tokens")]
    if not all(_sizes(k) for k in kinds):
        raise EngineError(
            f"{manifest.path}: [plan] needs rows, frames and tokens, each [min, opt, max]"
        )
    rows, frames, tokens = (list(k or ()) for k in kinds)
    wide = config.kv_heads * config.head_dim
    # The second condition of rows that mix; a single token where none does.
    tokens2 = [1, 1, tokens[2]]
    return {
        "x": _shape(rows, frames, config.channels),
        "t": _shape(rows),
        "context": _shape(rows, frames, 2 * config.channels),
        "kept": _shape(config.layers, 2, rows, tokens, wide),
        "lengths": _shape(rows),
        "kept2": _shape(config.layers, 2, rows, tokens2, wide),
        "lengths2": _shape(rows),
        "mix": _shape(rows, frames),
    }


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(n, int) and n > 0 for n in value)
        and value == sorted(value)
    )


def _decoder(manifest: Manifest, config: Any) -> Shapes:
    window = manifest.window + 2 * manifest.margin
    frames = [1, window, max(window, _TILE + 2 * manifest.margin)]
    return {"z": _shape(1, config.channels, frames)}


def _shape(*dims: Any) -> tuple[list[int], list[int], list[int]]:
    low, opt, high = ([d[i] if isinstance(d, list) else d for d in dims] for i in range(3))
    return low, opt, high
