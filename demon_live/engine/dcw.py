"""Differential correction in the wavelet domain (DCW, arXiv 2604.16044; ACE-Step v0.1.7).

After a step, the low and high band along time (one level of a Haar transform, zero padding) of
the new state are pushed away from those of the model's own prediction. An option, off by default.

Threads: pure functions; settings are immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Dcw", "correct", "merge", "split"]

_HALF = 0.5**0.5


@dataclass(frozen=True, slots=True)
class Dcw:
    """Which bands are corrected, and how strongly: low at t = 1, falling to 0; high the reverse."""

    mode: Literal["low", "high", "double"] = "double"
    low: float = 0.05
    high: float = 0.02

    @property
    def active(self) -> bool:
        low, high = _strengths(self)
        return low != 0.0 or high != 0.0


def _strengths(settings: Dcw) -> tuple[float, float]:
    return (
        settings.low if settings.mode != "high" else 0.0,
        settings.high if settings.mode != "low" else 0.0,
    )


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar bands (low, high) along time, [n, ceil(T / 2), C] each; odd T gets a zero frame."""
    if x.shape[1] % 2:
        x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    even, odd = x[:, 0::2], x[:, 1::2]
    return (even + odd) * _HALF, (even - odd) * _HALF


def merge(low: Tensor, high: Tensor, frames: int) -> Tensor:
    """The inverse of `split`, cut to `frames`."""
    pairs = torch.stack([(low + high) * _HALF, (low - high) * _HALF], dim=2)
    return pairs.flatten(1, 2)[:, :frames]


def correct(x: Tensor, prediction: Tensor, t: Tensor, settings: Dcw) -> Tensor:
    """x + the inverse transform of (t l (xL - yL), (1 - t) h (xH - yH)), y the prediction.

    x, prediction: [n, T, C]; t: [n, 1, 1]. The transform is linear, so only the difference goes
    through it: no difference, or zero strengths, leave the bits of x.
    """
    if not settings.active:
        return x
    low_strength, high_strength = _strengths(settings)
    low, high = split(x - prediction)
    change = merge(t * low_strength * low, (1.0 - t) * high_strength * high, x.shape[1])
    return x + change
