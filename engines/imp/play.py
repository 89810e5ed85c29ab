"""imp as it is judged: a codec and a flow model of one set of weights, sampled by Euler's method.

Shift 3; rows are padded to a common length. What plays live is `demon_live.engine`; alike in kind,
not in bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from demon_live.models.imp.labels import Floats, loop_frames, loop_phase
from engines.imp.training import load_shards

__all__ = ["Ask", "Imp", "around"]

BATCH = 16


@dataclass(frozen=True)
class Ask:
    """What one sample is asked for; `source` and `hint` are latents [T, C], `lanes` [T, LANES]."""

    cond: Floats
    bars: float
    bpm: float
    seed: int
    source: Tensor | None = None
    hint: Tensor | None = None
    lanes: Floats | None = None

    @property
    def frames(self) -> int:
        return loop_frames(self.bars, self.bpm)


class Imp:
    """Codec and flow model of one set of weights."""

    def __init__(self, codec: Path, flow: Path, device: str) -> None:
        self.device = device
        tensors = load_shards(codec, "codec")
        self.encoder, self.decoder = imp.codec_of(tensors)
        self.flow = imp.flow_of(load_shards(flow, "flow"), "")
        self.channels = self.encoder.channels
        for module in (self.encoder, self.decoder, self.flow):
            module.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def sample(
        self,
        asks: list[Ask],
        *,
        steps: int = 8,
        denoise: float = 1.0,
        strength: float = 0.5,
        guidance: float = 1.0,
    ) -> list[Tensor]:
        """Latents [T, C]: Euler, shift 3. Guidance 1: none. Rows are padded to a common length."""
        made: list[Tensor] = []
        for part in split(asks):
            made += self.rows(part, steps, denoise, strength, guidance)
        return made

    def rows(
        self, asks: list[Ask], steps: int, denoise: float, strength: float, guidance: float
    ) -> list[Tensor]:
        """One batch of `sample`."""
        b, longest, c = len(asks), max(a.frames for a in asks), self.channels
        if self.flow.channels != c:
            raise ValueError(f"a flow model of {self.flow.channels} channels, a codec of {c}")
        told = torch.zeros(b, longest, imp.LANES)
        x, hint = torch.zeros(b, longest, c), torch.zeros(b, longest, c + 1)
        phase, keep = torch.zeros(b, longest, imp.PHASE), torch.zeros(b, longest // 2).bool()
        times = [denoise * (1 - k / steps) for k in range(steps + 1)]
        times = [3 * t / (1 + 2 * t) for t in times]
        for i, a in enumerate(asks):
            n = a.frames
            noise = np.random.RandomState(a.seed).standard_normal((n, c)).astype(np.float32)
            x[i, :n] = torch.from_numpy(noise)
            if a.source is not None:
                x[i, :n] = times[0] * x[i, :n] + (1 - times[0]) * a.source.cpu()
            if a.hint is not None:
                hint[i, :n, :-1], hint[i, :n, -1] = a.hint.cpu(), strength
            if a.lanes is not None:
                told[i, :n] = torch.from_numpy(a.lanes)
            phase[i, :n] = torch.from_numpy(loop_phase(a.bars, a.bpm, n))
            keep[i, : n // 2] = True
        cond = torch.from_numpy(np.stack([a.cond for a in asks]))
        x, hint, phase, keep, cond, told = (
            v.to(self.device) for v in (x, hint, phase, keep, cond, told)
        )
        for now, then in itertools.pairwise(times):
            t = torch.full((b,), now, device=self.device)
            v = self.flow(x, t, hint, phase, cond, told, keep)
            if guidance != 1:
                plain = self.flow(x, t, hint, phase, torch.zeros_like(cond), None, keep)
                v = plain + guidance * (v - plain)
            x = x + (then - now) * v
        return [x[i, : a.frames] for i, a in enumerate(asks)]

    def audio(self, latent: Tensor, samples: int) -> Tensor:
        """Latent [T, C] -> loop [2, samples]."""
        return self.decoder.decode_loop(latent[None])[0][:, :samples]

    def latent(self, loop: Tensor) -> Tensor:
        """Loop -> latent [T, C]."""
        return self.encoder.encode_loop(loop[None])[0]


def around(latent: Tensor, frames: int) -> Tensor:
    """A circular latent [T, C] gone round for `frames`."""
    return latent[torch.arange(frames, device=latent.device) % len(latent)]


def split(asks: list[Ask]) -> Iterable[list[Ask]]:
    """Batches."""
    return (asks[i : i + BATCH] for i in range(0, len(asks), BATCH))
