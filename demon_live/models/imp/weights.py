"""imp's weights, loaded or random, each part at its first use; errors for damaged files."""

from __future__ import annotations

import contextlib
import functools
import threading
from pathlib import Path
from typing import Any

import torch

from demon_live.errors import EngineError
from demon_live.models.imp import model as imp
from demon_live.models.manifest import Manifest

#: A damaged, truncated or foreign weights file raises one of these.
BROKEN = (OSError, RuntimeError, ValueError, KeyError)
#: Bins of the tone (8 kHz) of the codec that ships.
_BINS = 320


class ImpWeights:
    """imp's modules on the CPU. random: the true shapes with random values."""

    def __init__(self, manifest: Manifest, random: bool) -> None:
        self.manifest, self.random = manifest, random
        self._lock = threading.Lock()

    def _load(self, name: str) -> Any:
        path = self.manifest.file(name)
        try:
            return imp.load_codec(path) if name == "codec.safetensors" else imp.load_flow(path)
        except (*BROKEN, Exception) as error:  # noqa: BLE001 (safetensors' own error is a bare Exception)
            raise damaged(path, error) from None

    def _made_up(self, name: str, which: int = 0) -> Any:
        """A module of random weights, in the shapes of the file if it is there (a graph beside it
        fits no other), otherwise in those that imp ships.
        """
        channels, shapes = self.manifest.channels, dict[str, torch.Tensor]()
        with contextlib.suppress(EngineError):
            shapes = imp.shapes_in(self.manifest.file(name))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            if name == "flow.safetensors":
                made = (
                    imp.flow_like(shapes)
                    if shapes
                    else imp.ImpFlow(channels=channels, lanes=True, linear=True)
                )
                return made.eval().requires_grad_(False)
            lines = channels > imp.CHANNELS
            pair: tuple[torch.nn.Module, ...] = (
                imp.codec_like(shapes)
                if shapes
                else (
                    imp.ImpEncoder(channels, lines=lines),
                    imp.ImpDecoder(channels, _BINS, lines=lines),
                )
            )
            return pair[which].eval().requires_grad_(False)

    @functools.cached_property
    def _codec(self) -> tuple[imp.ImpEncoder, imp.ImpDecoder]:
        if self.random:
            name = "codec.safetensors"
            return self._made_up(name), self._made_up(name, 1)
        codec: tuple[imp.ImpEncoder, imp.ImpDecoder] = self._load("codec.safetensors")
        return codec

    @functools.cached_property
    def flow(self) -> imp.ImpFlow:
        flow: imp.ImpFlow = (
            self._made_up("flow.safetensors") if self.random else self._load("flow.safetensors")
        )
        return flow

    @property
    def encoder(self) -> imp.ImpEncoder:
        with self._lock:
            return self._codec[0]

    @property
    def decoder(self) -> imp.ImpDecoder:
        with self._lock:
            return self._codec[1]


def damaged(path: Path, error: Exception) -> EngineError:
    """The error for a file that is there but cannot be used."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return EngineError(
        f"{path} cannot be used: {reason}",
        hint="compare the files with: demon engines verify imp, or install demon-live again",
    )
