"""Batches that the flow model learns from, drawn from the bank on its device.

What a row is told is drawn too: labels, a timbre reference, a source, notes and hits, each perhaps
left out, so that a performer may say as little as they like. Labels and notes may be told in a
stretch of the loop alone; so may a source: the rest is then to be continued from it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from demon_live.models.imp.labels import LABELS, load_vocabulary
from engines.imp import bank as banks
from engines.imp import lanes as notes
from engines.imp.bank import FRAMES, Bank

__all__ = ["LENGTHS", "Batch", "Sampler", "keep_random"]

LENGTHS = (208, FRAMES)
"""Frames of the batches: each loop goes into the shortest that holds it."""
TAGS, KEY, MODE, TEMPO, BARS = (
    slice(0, 96),
    slice(96, 108),
    slice(108, 112),
    slice(112, 114),
    slice(114, 116),
)


class Batch(NamedTuple):
    """Rows of one length: latent [B, T, C], time [B], source [B, T, C+1], phase [B, T, 2], labels
    [B, T/2, D], notes [B, T, LANES], real tokens [B, T/2], whether anything is said [B, 1].
    """

    x0: Tensor
    t: Tensor
    hint: Tensor
    phase: Tensor
    cond: Tensor
    lanes: Tensor
    keep: Tensor
    said: Tensor


def keep_random(n: int, p: float | Tensor, device: str) -> Tensor:
    """[n, 1] float: 1 with probability p."""
    return (torch.rand(n, 1, device=device) < p).float()


class Sampler:
    """Draws training batches from the bank, on its device."""

    def __init__(
        self, bank: Bank, batch: int, device: str, timbre: float = 0.0, lanes: float = 0.0
    ) -> None:
        """timbre, lanes: shares of the rows that get a reference, and that are told notes."""
        self.batch, self.device, self.timbre, self.lanes = batch, device, timbre, lanes
        self.take(bank)
        self.genres = len(load_vocabulary(banks.TAGS).groups["genre"])

    def take(self, bank: Bank) -> None:
        """Draw from `bank` from now on."""
        self.bank = bank
        lows = (0, *LENGTHS[:-1])
        self.index = [
            torch.nonzero((bank.frames > low) & (bank.frames <= high))[:, 0]
            for low, high in zip(lows, LENGTHS, strict=True)
        ]
        self.counts = [len(index) for index in self.index]
        every = torch.arange(len(bank.frames), device=bank.frames.device)
        self.index = [index if len(index) else every for index in self.index]

    def references(self, index: Tensor) -> Tensor:
        """Timbre references [B, 128]: how another score sounds on the kit of the target, in a
        quarter of the rows (and where there is none) the target itself; of a stretch, with noise.
        """
        n, device, bank = self.batch, self.device, self.bank
        mate = index + bank.mate[index]
        # The mate plays this kit as its source, unless just one of the two is crossed.
        role = (bank.cross[index] == bank.cross[mate]).long()
        own = (mate == index) | (keep_random(n, 0.25, device)[:, 0] > 0)
        part = torch.randint(0, banks.PARTS, (n,), device=device)
        found = bank.timbre[torch.where(own, index, mate), role * ~own, part].float()
        return found + 0.15 * torch.randn_like(found)

    def labels(self, cond: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Condition vectors with labels dropped, and which rows say anything, [B, 1]. given [B, 1]:
        rows with a timbre reference, which drop theirs more often.
        """
        n, device = self.batch, self.device
        cond = cond.clone()
        share = (0.1 + 0.9 * torch.rand(n, 1, device=device)) * (
            1 - given * keep_random(n, 0.3, device)
        )
        kept = (torch.rand(n, 96, device=device) < share).float()
        kept[:, : self.genres] = torch.maximum(kept[:, : self.genres], keep_random(n, 0.8, device))
        cond[:, TAGS] *= kept * (0.75 + 0.25 * torch.rand(n, 1, device=device))
        for part, p in ((KEY, 0.7), (MODE, 0.6), (TEMPO, 0.8), (BARS, 0.7)):
            cond[:, part] *= keep_random(n, p, device)
        said = keep_random(n, 0.88, device) * (1 - given * keep_random(n, 0.08, device))
        return cond * said, said

    def stretch(self, phase: Tensor) -> Tensor:
        """A random stretch of each loop, 1 inside, [B, T, 1]."""
        u = torch.rand(2, self.batch, 1, device=self.device)
        place = (phase[..., 1] - u[0]) % 1.0
        return (place < 0.1 + 0.8 * u[1]).float()[..., None]

    def told(self, lanes: Tensor, phase: Tensor) -> Tensor:
        """Lanes with groups left out, each on its own, in some rows outside of a stretch; and in
        some rows all.
        """
        n, device = self.batch, self.device
        kept = torch.zeros_like(lanes)
        every = keep_random(n, 0.15, device)
        part, inside = keep_random(n, 0.25, device)[..., None], self.stretch(phase)
        given = keep_random(n, self.lanes, device)[..., None] * (1 - part + part * inside)
        for i, group in enumerate(notes.GROUPS):
            on = torch.maximum(keep_random(n, 0.5, device), every)[..., None] * given
            flag = slice(notes.TOLD + i, notes.TOLD + i + 1)
            kept[..., group] = lanes[..., group] * on
            kept[..., flag] = lanes[..., flag] * on
        return kept

    def hints(self, latent: Tensor, cross: Tensor, needed: Tensor, phase: Tensor) -> Tensor:
        """Sources to cover, [B, frames, C+1]: another kit's rendering, or the loop itself; half of
        the rows none, but those `needed`. In some rows a stretch alone is shown: it is to be
        continued.
        """
        n, device = self.batch, self.device
        itself = keep_random(n, 0.25, device)[..., None] * (~cross)[:, None, None]
        source = torch.where(itself > 0, latent[:, 0], latent[:, 1])
        noise = 0.3 * torch.rand(n, 1, 1, device=device) ** 2
        source = source + noise * torch.randn_like(source)
        u = torch.rand(n, 1, 1, device=device)
        strength = torch.where(itself > 0, 0.7 + 0.3 * u, 0.2 + 0.6 * u)
        given = torch.maximum(keep_random(n, 0.45, device)[..., None], needed.float())
        part = keep_random(n, 0.35, device)[..., None] * ~needed
        given = given * (1 - part + part * self.stretch(phase))
        return torch.cat([source, strength.expand(-1, source.shape[1], -1)], dim=-1) * given

    def draw(self, size: int = -1) -> Batch:
        """Rows of loops of the `size`-th of LENGTHS."""
        n, device, bank, frames = self.batch, self.device, self.bank, LENGTHS[size]
        among = self.index[size]
        index = among[torch.randint(0, len(among), (n,), device=device)]
        turn = torch.randint(0, banks.TURNS, (n,), device=device)
        latent = bank.latent[index, turn, :, :frames].float()
        cross = bank.cross[index]
        given = keep_random(n, self.timbre, device)
        # With a reference a crossed target can be asked for as one would: by the labels of its
        # score, and by how the other kit sounds.
        free = cross[:, None] & (given * keep_random(n, 0.6, device) > 0)
        cond, said = self.labels(torch.where(free, bank.other[index], bank.cond[index]), given)
        if self.timbre:
            cond[:, LABELS:] = given * self.references(index)
            said = torch.maximum(said, given)
        normal = torch.sigmoid(0.4 + 1.05 * torch.randn(n, device=device))
        t = torch.where(torch.rand(n, device=device) < 0.2, torch.rand(n, device=device), normal)
        keep = torch.arange(frames // 2, device=device)[None] < (bank.frames[index] // 2)[:, None]
        phase = bank.phase(index, turn, frames)
        hint = self.hints(latent, cross, (cross[:, None] & ~free)[..., None], phase)
        lanes = self.told(bank.lanes[index, turn, :frames].float(), phase)
        part = keep_random(n, 0.15, device)[..., None]
        inside = 1 - part + part * self.stretch(phase)[:, ::2]
        said = torch.maximum(said, lanes[..., notes.TOLD :].amax((1, 2))[:, None])
        return Batch(latent[:, 0], t, hint, phase, cond[:, None] * inside, lanes, keep, said)
