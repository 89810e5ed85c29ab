"""An engine whose sound is known exactly: a generation is a level that its request decides.

Latents have two channels, the level of left and right; a frame is decoded by holding it. The model
predicts x0 = level everywhere, whatever the noise, so what is heard tells which request was heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from demon_live.audio.files import write_audio
from demon_live.core import RATES, Floats, Request
from demon_live.runtime.offline import Offline

Level = Callable[[Request], float]


def by_prompt(request: Request) -> float:
    """0.1 for prompt 'a', 0.2 for 'b' ..."""
    prompt = str(request.values.get("prompt", ""))
    return 0.1 * (ord(prompt[0]) - ord("a") + 1) if prompt else 0.0


class MockEngine:
    """See the module. level: of a request. tick_ms: nominal tick of the offline clock."""

    name = "mock"
    channels = 2
    margin = 0
    window = 16
    shift = 3.0
    device = torch.device("cpu")
    controls = frozenset({"blend", "denoise", "seed", "prompt"})

    def __init__(
        self, level: Level, *, steps: int = 8, depth: int = 4, tick_ms: float = 80
    ) -> None:
        self.level, self.steps, self.depth = level, steps, depth
        self.manifest: Any = SimpleNamespace(
            tick_ms=tick_ms, name="mock", digest="0", draft_steps=0, first_window=0
        )
        self.notes: list[str] = []
        self.requests: list[Request] = []
        self.fail = False
        self.closed = False

    def describe(self) -> str:
        return "mock"

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Any]) -> torch.Tensor:
        if self.fail:
            raise RuntimeError("the model is on fire")
        self.requests += [row.request for row in rows if row.request not in self.requests[-64:]]
        levels = torch.tensor([self.level(row.request) for row in rows], dtype=x.dtype)
        return (x - levels[:, None, None]) / t[:, None, None].to(x.dtype)

    def encode(self, audio: Floats) -> Floats:
        return np.asarray(audio.reshape(-1, RATES.hop, 2).mean(1), np.float32)

    def decode(self, latent: Floats) -> Floats:
        return np.repeat(np.asarray(latent, np.float32), RATES.hop, axis=1)

    def condition(self, prompt: str, **_: Any) -> Any:
        return prompt

    def unconditioned(self, condition: Any) -> Any:
        return ""

    def check_prompt(self, prompt: str) -> list[str]:
        return [f"heard: {prompt}"]

    def warm_up(self, frames: int, depth: int) -> None:
        """Nothing is slow here."""

    def close(self) -> None:
        self.closed = True


class Singing(MockEngine):
    """What it is asked for is all that decides its level: that of the timbre, and .05 for words."""

    controls = MockEngine.controls | {"timbre", "lyrics"}

    def __init__(self) -> None:
        super().__init__(self._heard)
        self.timbres: dict[str, float] = {}
        self.told: list[str] = []

    def set_timbre(self, name: str, audio: Any) -> None:
        self.told.append(name)
        self.timbres[name] = float(np.mean(audio))

    def condition(self, prompt: str, *, lyrics: str = "", timbre: str = "", **_: Any) -> Any:
        assert not timbre or timbre in self.timbres, "asked for before it was there"
        return prompt, lyrics, timbre

    def _heard(self, request: Request) -> float:
        _, lyrics, timbre = request.condition
        return self.timbres.get(timbre, 0.0) + (0.05 if lyrics else 0.0)


def offline(engine: MockEngine, folder: Path | None = None, **options: Any) -> Offline:
    """An offline instrument on a mock engine. Sources are looked for in `folder`."""
    return Offline(engine, folders=(folder,) if folder else (), sets=folder, **options)  # type: ignore[arg-type]


def run(instrument: Offline, samples: int) -> Floats:
    """The next `samples` of the left channel, rounded up to whole turns."""
    pieces = []
    done = 0
    while done < samples:
        piece = instrument.turn()
        pieces.append(piece[:, 0])
        done += len(piece)
    return np.concatenate(pieces)


def edges(audio: Floats, low: float, high: float) -> list[int]:
    """Where the level crosses the middle between two levels, either way."""
    above = audio > (low + high) / 2
    return [int(i) + 1 for i in np.flatnonzero(above[1:] != above[:-1])]


def write_tone(path: Path, level: float, seconds: float) -> None:
    """A WAV that holds one level; the same bytes at any time of day."""
    audio = np.full((round(seconds * RATES.sample_rate), 2), level, np.float32)
    write_audio(path, audio)
