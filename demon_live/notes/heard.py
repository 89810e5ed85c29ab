"""What is heard of notes in a sound: pitch classes that stand out, onsets in a band.

The measures by which `demon bench notes` and the evaluation of imp hold a sound against what was
written.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demon_live.core import RATES

SR = RATES.sample_rate
LOWEST = 32.703
"""Hz of C1, from which pitch classes are counted."""
NEAR = 0.03
"""Seconds between an onset that is heard and the one that was written."""
BANDS = {"kick": (60.0, 160.0), "snare": (1500.0, 9000.0), "hat": (7000.0, 16000.0)}
MUSIC, BASS = (200.0, 2000.0), (38.0, 200.0)
"""Hz between which chords and bass are looked for."""
RISE = 5.0
"""dB that the level of a band rises by at a hit."""


def chroma(part: Tensor, low: float, high: float) -> npt.NDArray[np.float64]:
    """Energy of the pitch classes of a mono stretch between two frequencies, [12]."""
    size = max(len(part), 2 * SR)
    s = torch.fft.rfft(part * torch.hann_window(len(part), device=part.device), size).abs()
    f = torch.fft.rfftfreq(size, 1 / SR, device=part.device)
    among = (f >= low) & (f < high)
    semitone = 12 * torch.log2(f[among] / LOWEST)
    near = (1 - 2.5 * (semitone - semitone.round()).abs()).clamp(min=0)
    classes = semitone.round().long() % 12
    row = torch.zeros(12, device=part.device)
    row.index_add_(0, classes, s[among].square() * near / f[among])
    return row.sqrt().double().cpu().numpy()


def stands_out(row: npt.NDArray[np.float64], classes: set[int]) -> bool:
    """Whether these pitch classes hold more than any transposition of them."""
    told = np.zeros(12)
    told[sorted(classes)] = 1
    return int(np.argmax([row @ np.roll(told, k) for k in range(12)])) == 0


def onsets(mono: Tensor, low: float, high: float) -> npt.NDArray[np.float64]:
    """Seconds of the rises of level in a band."""
    f = torch.fft.rfftfreq(len(mono), 1 / SR, device=mono.device)
    y = torch.fft.irfft(torch.fft.rfft(mono) * ((f >= low) & (f < high)), len(mono))
    step = 240 if low < 1000 else 120
    power = y[: len(y) // step * step].view(-1, step).square().mean(1)
    width, apart = 4, int(0.04 * SR / step)
    smooth = torch.stack([power.roll(k) for k in range(width)]).mean(0)
    level = 10 * torch.log10(smooth + 1e-2 * smooth.max() + 1e-12)
    rise = (level.roll(-width) - level).cpu().numpy()
    found = [
        i
        for i in range(len(rise))
        if rise[i] > RISE
        and rise[i] >= rise.take(range(i - apart, i + apart + 1), mode="wrap").max()
    ]
    return (np.array(found, dtype=np.float64) + width / 2 + 0.5) * step / SR


def agreement(found: npt.NDArray[np.float64], told: list[float], whole: float) -> float:
    """F-measure of onsets on a circle of `whole` seconds."""
    if not len(found) or not told:
        return 0.0
    apart = np.abs(found[:, None] - np.array(told)[None])
    apart = np.minimum(apart, whole - apart)
    hits = min((apart.min(0) < NEAR).sum(), (apart.min(1) < NEAR).sum())
    return float(2 * hits / (len(found) + len(told)))
