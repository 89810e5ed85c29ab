"""Steps of a teacher: what the flow model learns to do in one evaluation instead of four."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SHIFT", "STEPS", "stride"]

STEPS, SHIFT = 8, 3.0


@torch.no_grad()
def stride(teacher: Callable[..., Tensor], x: Tensor, t: Tensor, *told: Tensor) -> Tensor:
    """Mean velocity of the teacher over one of STEPS steps from t, by two steps of Heun's method.

    How far a step goes follows from the denoise of a generation, which a model is not told: any
    denoise whose schedule may pass through t.

    Args:
        x: [B, T, C] at noise levels t [B].
        told: the rest of what the teacher takes.

    Returns:
        [B, T, C].
    """
    level = t / (SHIFT - (SHIFT - 1) * t)
    length = (level + (1 - level) * torch.rand_like(level)) / STEPS
    moved, now = torch.zeros_like(x), t
    for part in (0.5, 1.0):
        then = (level - part * length).clamp(min=0.0)
        then = SHIFT * then / (1 + (SHIFT - 1) * then)
        h = (then - now)[:, None, None]
        first = teacher(x + moved, now, *told).float()
        second = teacher(x + moved + h * first, then, *told).float()
        # Without noise a velocity has no meaning.
        second = torch.where(then[:, None, None] > 0.01, second, first)
        moved, now = moved + h * (first + second) / 2, then
    return moved / (now - t)[:, None, None].clamp(max=-1e-6)
