"""ACE-Step 1.5: its modules come from diffusers, everything round them is ours.

    layout.py    config.json and key names, the original layout and diffusers'
    load.py      files -> modules: safetensors only, tensor by tensor, checked; or random weights
    text.py      prompt, lyrics, key, tempo -> the exact text that the model was trained on
    qwen.py      the text encoder
    encode.py    that text, a timbre reference, a source -> condition states, context latents
    forward.py   the DiT through diffusers' own blocks, padded conditions masked: the oracle
    fused.py     the same in our own arrangement: fewer, larger matrix products; triton_ops.py
    oobleck.py   windows of the VAE's decoder
    engine.py    conditions, stacking of rows; on the backends eager.py, graphs.py, tensorrt/
    open.py      opening: device, precision, backend; budget.py: memory
    export.py    ONNX graphs for plans

This package is the only one that imports diffusers and tokenizers (extra `ace`), and
it does so when an engine opens. Facts and formulas: the modelling code of ACE-Step 1.5 (MIT) and
diffusers 0.42 (Apache-2.0).
"""

from __future__ import annotations

import importlib.util

from demon_live.errors import EngineError
from demon_live.paths import install

_NEEDED = ("diffusers", "tokenizers")


def require() -> None:
    """Raise EngineError, with the remedy, unless the packages of the extra `ace` are installed."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise EngineError(
            f"ACE-Step needs {', '.join(lacking)}, not installed here",
            hint=f"{install('ace')}; the engine imp needs none of it",
        )
