"""A model of one's own, six tones that a prompt names: python examples/toy.py writes toy.wav

cd examples && demon live --engine toy:Bells        prompt = '1 3 5'
"""

from collections.abc import Sequence

import numpy as np
import torch

from demon_live import EngineBase, Score, render
from demon_live import dsl as d
from demon_live.models.protocol import Row

#: A frame is 1920 samples, 25 a second: multiples of 25 Hz begin each frame anew.
TONES = np.array([200, 225, 250, 300, 375, 400])
WAVES = np.sin(2 * np.pi * TONES[:, None] * np.arange(1920) / 48000)


class Bells(EngineBase):
    """A channel is the loudness of a tone; the prompt has the numbers of those that sound."""

    channels = len(TONES)
    margin = 0

    def velocity(self, x: torch.Tensor, t: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        clean = torch.zeros_like(x)
        for levels, row in zip(clean, rows, strict=True):
            for word in str((row.condition or {}).get("prompt", "")).split():
                if word.isdigit() and 0 < int(word) <= len(TONES):
                    levels[:, int(word) - 1] = 0.15
        return (x - clean) / t[:, None, None]

    def decode(self, latent: np.ndarray) -> np.ndarray:
        sound = np.einsum("bfc,cn->bfn", latent, WAVES).reshape(len(latent), -1)
        return np.repeat(sound[..., None], 2, axis=2).astype(np.float32)


if __name__ == "__main__":
    with Score() as score:
        d.tempo(120)
        d.deck.loop(1)
        d.deck.prompt = d.mini("<'1 3 5' '1 4 6' '2 3 6' '1 3 4'>")
        d.deck.gain = d.mini("1 .5 .8 .5")
    print(render(score, "toy.wav", engine=Bells(), cycles=8))
