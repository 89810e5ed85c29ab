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

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

from demon_live.errors import EngineError
from demon_live.paths import install

_NEEDED = ("diffusers", "tokenizers")
#: Packages that diffusers would load because they are there, and that nothing here uses: PEFT
#: brings FSDP, and is refused in some versions; transformers and SciPy serve its pipelines.
UNUSED = ("peft", "transformers", "accelerate", "scipy")
_TRACER = "torch._dynamo"


class _Tracer(types.ModuleType):
    """Stands for torch.compile's tracer or a part of it: every name is a decorator that leaves
    things alone."""

    __path__: list[str] = []  # noqa: RUF012 (as the import system reads it)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _undecorated


class _Parts(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the parts of the tracer, all empty."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        mine = name.startswith(f"{_TRACER}.")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if mine else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Tracer(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Inside, torch.compile's tracer is not loaded: it takes a second, on some machines ten, and
    imports and modules without memory want its decorators only."""
    if _TRACER in sys.modules:
        yield
        return
    parts = _Parts()
    sys.modules[_TRACER] = _Tracer(_TRACER)
    sys.meta_path.insert(0, parts)
    try:
        yield
    finally:
        sys.meta_path.remove(parts)
        for name in [n for n in sys.modules if n == _TRACER or n.startswith(f"{_TRACER}.")]:
            del sys.modules[name]


@contextlib.contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Inside, packages that have not been loaded are not found."""
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


def _undecorated(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, where nothing is compiled."""
    return function if function is not None else lambda wrapped: wrapped


def require() -> None:
    """Raise EngineError, with the remedy, unless the packages of the extra `ace` are installed."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise EngineError(
            f"ACE-Step needs {', '.join(lacking)}, not installed here",
            hint=f"{install('ace')}; the engine imp needs none of it",
        )
