"""Voices with long bright partials: plucked and bowed strings, bells, additive pads. The codec
learns lines above 1 kHz from them (`bright`); genres do not use them.

Each is a sum of sines, one envelope each, up to 18 kHz. See `voices` for the shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from demon_live.notes.voices import HIGH, MID, Notes, sine

__all__ = ["PARTIALS", "ring"]

HIGHEST = 18_000.0
MODES = (0.5, 1.0, 1.19, 1.5, 2.0, 2.44, 2.76, 3.76, 4.3, 5.4, 6.8, 8.2, 9.6, 11.5)
"""Ratios of the partials of a bell."""


def audible(f: Tensor) -> Tensor:
    """1 for frequencies that are played, 0 above."""
    return (f < HIGHEST).float()


def plucked(n: Notes) -> Tensor:
    """A string: place of the pluck, brightness, ring, damping of the highs, stiffness."""
    place, bright, decay, damping, stiff, _ = n.k
    total = torch.zeros(1, device=n.f.device)
    for h in range(1, 37):
        f = h * n.f * (1 + stiff * h * h).sqrt()
        level = torch.sin(torch.pi * h * place) / h**bright * audible(f)
        total = total + level * sine(f * n.t) * torch.exp(-n.t * (1 + damping * h) / decay)
    pick = 0.2 * n.noise(MID) * torch.exp(-n.t / 0.003)
    return 0.6 * (total + pick * n.vel) * n.attack(0.001) * n.release(0.3)


def bowed(n: Notes) -> Tensor:
    """Harmonics that swell, with vibrato: attack, brightness, rate, depth, breath."""
    rise, bright, rate, depth, breath, _ = n.k
    turn = n.t + depth / 1000 * (torch.sin(6.283 * rate * n.t) * (n.t / 0.4).clamp(max=1))
    total = torch.zeros(1, device=n.f.device)
    for h in range(1, 31):
        body = 0.5 + 0.5 * torch.cos(0.0021 * h * n.f + n.k[4] * 9)
        swell = 1 - torch.exp(-n.t / (rise * (0.6 + 0.05 * h)))
        total = total + body / h**bright * audible(h * n.f) * swell * sine(h * n.f * turn)
    return 0.4 * (total + breath * 0.1 * n.noise(HIGH)) * n.release(0.25)


def chime(n: Notes) -> Tensor:
    """A bell: ring, brightness, stretch of its ratios, beating."""
    decay, bright, stretch, beat, *_ = n.k
    total = torch.zeros(1, device=n.f.device)
    for i, ratio in enumerate(MODES):
        f = n.f * ratio**stretch
        pair = sine(f * n.t) + 0.6 * sine((f + beat * (1 + 0.3 * i)) * n.t + 0.2)
        fall = torch.exp(-n.t * (0.5 + 0.22 * i) / decay)
        total = total + pair * fall / (1 + i) ** bright * audible(f)
    return 0.4 * total * n.attack(0.001) * n.release(0.4)


def sheet(n: Notes) -> Tensor:
    """An additive pad: three detuned rows of partials that come and go."""
    rise, bright, detune, rate, odd, _ = n.k
    total = torch.zeros(1, device=n.f.device)
    for h in range(1, 22):
        wave = 0.6 + 0.4 * torch.sin(6.283 * rate * (1 + 0.13 * h) * n.t + 1.7 * h)
        level = wave / h**bright * (1 - odd * (h % 2 == 0))
        for side in (-1.0, 0.0, 1.0):
            f = h * n.f * (1 + side * detune)
            total = total + 0.4 * level * audible(f) * sine(f * n.t + 0.37 * h * (side + 2))
    return 0.4 * total * n.attack(rise) * n.release(0.5)


PARTIALS: dict[str, tuple[Callable[[Notes], Tensor], float]] = {
    "plucked": (plucked, 0.5),
    "bowed": (bowed, 0.5),
    "chime": (chime, 0.4),
    "sheet": (sheet, 0.4),
}
"""Voice -> (function, level)."""


def ring(voice: str) -> float:
    """Seconds that a note sounds on after its end."""
    return {"plucked": 0.31, "bowed": 0.26, "chime": 0.41, "sheet": 0.51}[voice]
