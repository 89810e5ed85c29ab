"""A base class for engines of one's own: `velocity` and `decode` are all that it needs.

    class Mine(EngineBase):
        channels = 2

        def velocity(self, x, t, rows): ...     # [B, T, C], [B] -> [B, T, C]
        def decode(self, latent): ...           # [B, F, C] -> [B, F * 1920, 2]

    Offline(Mine())                             demon live --engine my_module:Mine

Under a name of its own (`--engine mine`) an installed package offers it as an entry point of the
group `demon_live.engines`.

Threads: see models/protocol.py.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from demon_live import controls
from demon_live.core import RATES, Floats
from demon_live.errors import EngineError
from demon_live.models.manifest import FAMILY, Manifest
from demon_live.models.protocol import Row

if TYPE_CHECKING:
    import torch

#: Controls that need more of a model than velocity and decode.
_MODEL = {"hint", "prompt_mix", "timbre", "lyrics"}


class EngineBase:
    """An engine with everything but its model; see `models.protocol.Engine`.

    A condition is a mapping of what was asked for: prompt, prompt2, key, bpm, cycles, beats and
    frames; None without words.

    Attributes:
        channels: C of a latent.
        steps, shift, depth: of the ring: solver steps, their schedule, generations in flight.
        margin, window: latent frames of `decode`: context that makes a window exact, and its size.
        controls: those that it obeys, besides those of the mixer.
        tick_ms: length of a tick in renders.
    """

    name = ""
    channels = 64
    steps, shift, depth = 8, 3.0, 4
    margin, window = 8, 16
    tick_ms = 80.0
    controls = frozenset({*controls.names("step"), *controls.names("slot")} - _MODEL)
    notes: list[str]
    device: torch.device
    manifest: Manifest

    def __new__(cls, *args: Any, **named: Any) -> Self:
        import torch

        made = super().__new__(cls)
        made.notes, made.device = [], torch.device("cpu")
        made.manifest = cls.describe_class()
        made.name = made.manifest.name
        made._conditions = {}
        return made

    _conditions: dict[tuple[Any, ...], Mapping[str, Any]]

    @classmethod
    def describe_class(cls) -> Manifest:
        """What is known of it without opening it."""
        try:
            source, path = inspect.getsource(cls), Path(inspect.getfile(cls))
        except (OSError, TypeError):
            source, path = cls.__qualname__, Path()
        return Manifest(
            name=cls.name or cls.__name__.lower(),
            family=FAMILY,
            summary=(cls.__doc__ or "").partition("\n")[0],
            licence="",
            path=path,
            folder=path.parent,
            weights=(),
            frame_hz=RATES.frame_hz,
            sample_rate=RATES.sample_rate,
            hop=RATES.hop,
            channels=cls.channels,
            frames_low=2,
            frames_high=1 << 20,
            frames_multiple=2,
            controls=cls.controls,
            steps=cls.steps,
            shift=cls.shift,
            depth=cls.depth,
            margin=cls.margin,
            window=cls.window,
            backends=("eager",),
            tick_ms=cls.tick_ms,
            plan=None,
            digest=hashlib.sha256(source.encode()).hexdigest(),
        )

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """v [B, T, C] of x [B, T, C] at times t [B]: (x - x0) / t for a predicted x0."""
        raise NotImplementedError(f"{type(self).__name__} needs velocity(x, t, rows)")

    def decode(self, latent: Floats) -> Floats:
        """latent [B, F, C] -> audio [B, F*1920, 2]."""
        raise NotImplementedError(f"{type(self).__name__} needs decode(latent)")

    def encode(self, audio: Floats) -> Floats:
        """A loop float32 [n, 2] -> latent [F, C]; only for scores with a source."""
        raise EngineError(
            f"engine {self.name} reads no source", hint="source none, or give it encode(audio)"
        )

    def condition(self, prompt: str, **place: Any) -> Any:
        """What was asked for; equal arguments give the same object."""
        key = (prompt, *sorted(place.items()))
        if key not in self._conditions:
            if len(self._conditions) > 256:
                self._conditions.clear()
            self._conditions[key] = MappingProxyType({"prompt": prompt, **place})
        return self._conditions[key]

    def unconditioned(self, condition: Any) -> Any:
        """The condition of the negative pass of guidance."""
        return None

    def check_prompt(self, prompt: str) -> list[str]:
        """How a prompt is understood, then one line for each word that is not."""
        return []

    def warm_up(self, frames: int, depth: int) -> None:
        """Called with each new shape, before its first tick."""

    def describe(self) -> str:
        """One line for displays."""
        return f"{self.name} ({self.device.type})"

    def close(self) -> None:
        """Free memory and threads."""
