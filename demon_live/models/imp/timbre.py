"""imp's timbre reference: the sound of a recording as the last 128 numbers of the condition.

    audio [2, n] -> level of 32 bands of mid and side, 100 times a second          `levels`
    those        -> of each band: mean, deviation, width, attacks; standardised    `statistics`
    recording    -> the same of its part that is not silent                        `timbre_of`

Loudness and order in time are forgotten, and with them most of what is played. The bands are too
wide to tell a key: a tritone up moves the numbers by a fifth of what another kit does (30 renders;
statistics of the codec's latent: by .4 to .8 of it). Zeros mean that there is no reference; two of
them blend as two prompts do. Needs torch; pure functions.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from demon_live.core import Floats
from demon_live.models.imp.labels import TIMBRE
from demon_live.models.imp.model import SAMPLE_RATE

BANDS, FFT, HOP = 32, 2048, 480
LOWEST, HIGHEST = 40.0, 16_000.0
#: Every recording is brought to this level first (-18 dB, that of the renders); powers below the
#: floor count as it.
LEVEL, FLOOR = 0.126, 1e-4
#: Statistics of 120 renders of all genres: what they are on average in each band (written at every
#: fourth, between them a line) and how far they lie apart.
CENTRES = (
    (2.98, 1.58, 0.96, 0.19, -0.51, -0.77, -1.01, -1.29, -1.71),
    (0.89, 0.66, 0.65, 0.77, 0.82, 0.79, 0.75, 0.73, 0.67),
    (-4.34, -1.85, -1.38, -1.71, -1.88, -2.09, -2.28, -2.30, -2.08),
    (0.09, 0.08, 0.08, 0.10, 0.10, 0.09, 0.09, 0.09, 0.09),
)
SCALES = (0.9, 0.4, 0.9, 0.04)
#: Foreign recordings reach no further out than this.
FURTHEST = 4.0
#: Seconds; of a reference longer than three of these, front, middle and back count.
STRETCH = 10.0
#: Quieter than this at either end is no part of the sound (full scale 1).
SILENT = 1e-3


@functools.cache
def _bank(device: torch.device) -> tuple[Tensor, Tensor]:
    """Triangles on the mel scale, each of sum 1 [BANDS, FFT/2+1]; the window [FFT]."""
    f = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (torch.linspace(low, high, BANDS + 2) / 2595) - 1)
    below, middle, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rows = torch.minimum((f - below) / (middle - below), (above - f) / (above - middle)).clamp(
        min=0
    )
    return (rows / rows.sum(1, keepdim=True)).to(device), torch.hann_window(FFT).to(device)


@functools.cache
def _centres(device: torch.device) -> Tensor:
    """[4, BANDS]."""
    coarse = torch.tensor(CENTRES)[:, None]
    return torch.nn.functional.interpolate(coarse, BANDS, mode="linear", align_corners=True)[
        :, 0
    ].to(device)


def levels(audio: Tensor) -> Tensor:
    """A loop [2, n] -> power of the bands of mid and side [2, BANDS, T], gone round at its ends."""
    bank, window = _bank(audio.device)
    sound = torch.stack([audio[0] + audio[1], audio[0] - audio[1]]).float() / 2
    sound = sound * (LEVEL / audio.float().square().mean().sqrt().clamp(min=1e-6))
    n = sound.shape[1]
    at = torch.arange(-FFT // 2, max(1, n // HOP) * HOP + FFT // 2 - HOP, device=audio.device) % n
    frames = sound[:, at].unfold(1, FFT, HOP) * window
    power: Tensor = bank @ torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1).mT
    return power


def statistics(power: Tensor, heard: Tensor | None = None) -> Tensor:
    """The result of `levels` -> [128]; `heard` [T] bool: which frames count (default: all)."""
    weight = power.new_ones(power.shape[-1]) if heard is None else heard.to(power.dtype)
    weight = weight / weight.sum().clamp(min=1.0)
    level = 0.5 * torch.log(power[0] + FLOOR)
    mean = level @ weight
    spread = ((level - mean[:, None]).square() @ weight).sqrt()
    mid, side = 0.5 * torch.log(power @ weight + FLOOR)
    attacks = (level - level.roll(1, 1)).clamp(min=0) @ weight
    rows = torch.stack([mean, spread, side - mid, attacks]) - _centres(power.device)
    return (rows / rows.new_tensor(SCALES)[:, None]).flatten().clamp(-FURTHEST, FURTHEST)


def heard_part(audio: Floats) -> Floats:
    """A recording [n, 2] without silent ends; three stretches of it if it is long. Raises
    ValueError: silent."""
    if audio.ndim != 2 or audio.shape[1] != 2:
        raise ValueError(f"a timbre reference must be float32 [n, 2], this is {list(audio.shape)}")
    loud = np.flatnonzero(np.abs(audio).max(axis=1, initial=0.0) > SILENT)
    if not len(loud):
        raise ValueError("the timbre reference is silent")
    part = audio[loud[0] : loud[-1] + 1]
    stretch = int(STRETCH * SAMPLE_RATE)
    if len(part) > 3 * stretch:
        middle = (len(part) - stretch) // 2
        part = np.concatenate(
            [part[:stretch], part[middle : middle + stretch], part[len(part) - stretch :]]
        )
    return part


@torch.no_grad()
def timbre_of(audio: Floats) -> Floats:
    """A recording float32 [n, 2] at 48 kHz -> float32 [128]. Raises ValueError: silent."""
    part = np.ascontiguousarray(heard_part(audio).T, dtype=np.float32)
    vector: Floats = statistics(levels(torch.from_numpy(part))).numpy()
    assert len(vector) == TIMBRE
    return vector
