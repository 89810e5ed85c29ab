"""A small listener: latents of a loop -> tags, key, mode, and a 128-number embedding. Trained on
renders; judges samples.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demon_live.models import imp
from engines.imp import bank as banks
from engines.imp.bank import FRAMES, Bank
from engines.imp.training import say

TAGS, GENRES, KEYS = 96, 14, 12


class Probe(nn.Module):
    """[B, FRAMES, 64] and frames [B] -> logits of tags [B, 96], key [B, 12], embedding [B, 128]."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.inp = nn.Conv1d(imp.CHANNELS, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (1, 2, 4, 8)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(4))
        self.pitch = nn.Sequential(nn.Linear(imp.CHANNELS, 512), nn.GELU(), nn.Linear(512, width))
        self.hidden = nn.Linear(4 * width, 128)
        self.tags = nn.Linear(128, TAGS)
        self.key = nn.Sequential(nn.Linear(4 * width, 128), nn.GELU(), nn.Linear(128, KEYS))

    def forward(self, latent: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask = (torch.arange(latent.shape[1], device=latent.device)[None] < frames[:, None]).float()
        y = self.inp((latent * mask[..., None]).transpose(1, 2))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = y + F.gelu(layer(norm(y)))
        count = mask.sum(1, keepdim=True)
        mean = (y * mask[:, None]).sum(2) / count
        spread = ((y - mean[..., None]).square() * mask[:, None]).sum(2).div(count).add(1e-4).sqrt()
        pitch = self.pitch(latent)
        tone = (pitch * mask[..., None]).sum(1) / count
        sharp = (F.gelu(pitch) * mask[..., None]).sum(1) / count
        features = torch.cat([mean, spread, tone, sharp], dim=1)
        embedding = F.gelu(self.hidden(features))
        return self.tags(embedding), self.key(features), embedding


def fit_probe(bank: Bank, seconds: float, device: str) -> Probe:
    """Train on the bank's targets (and sources that were not degraded cannot be told apart:
    targets only).
    """
    probe = Probe().to(device)
    optimiser = torch.optim.AdamW(probe.parameters(), 1.5e-3, weight_decay=0.02)
    first, n = time.perf_counter(), len(bank.bpm)
    while (done := (time.perf_counter() - first) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1.0, 1.02 - done)
        index = torch.randint(0, n, (128,), device=device)
        turn = torch.randint(0, banks.TURNS, (128,), device=device)
        x = bank.latent[index, turn, 0].float()
        x = x + 0.15 * torch.randn_like(x)
        tags, key, _ = probe(x, bank.frames[index])
        labels = bank.cond[index]
        loss = F.binary_cross_entropy_with_logits(tags, labels[:, :TAGS]) * 10
        loss = loss + F.cross_entropy(key, labels[:, TAGS : TAGS + KEYS].argmax(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    say(f"probe: loss {loss.item():.3f}")
    return probe.eval()


@torch.no_grad()
def scores(probe: Probe, latent: Tensor, bank: Bank) -> dict[str, float]:
    """Genre and key accuracy, mean average precision and F1 of the other tags, of latents made
    from the bank's labels.
    """
    tags, key, _ = probe(latent[:, :FRAMES], bank.frames)
    wanted = bank.cond[:, :TAGS]
    genre = (tags[:, :GENRES].argmax(1) == wanted[:, :GENRES].argmax(1)).float().mean().item()
    right = (key.argmax(1) == bank.cond[:, TAGS : TAGS + KEYS].argmax(1)).float().mean().item()
    present, truth = tags[:, GENRES:] > 0, wanted[:, GENRES:] > 0.5
    hit = (present & truth).sum().item()
    f1 = 2 * hit / max(1, (present.sum() + truth.sum()).item())
    return {"genre": genre, "key": right, "tag_f1": f1}
