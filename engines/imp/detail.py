"""How near a reconstruction comes where no waveform can be followed: level, attacks, partials.

level     mean level against the source, dB
error     mean error of the level every 5 ms, dB, where the source is within 40 dB of its loudest
attacks   correlation of the rises of level, 5 ms apart
partials  correlation of the fine spectrum (5.9 Hz bins, 170 ms windows) with its smooth course
          taken away: 1 where every partial is in its place, 0 for noise
comb      autocorrelation at one latent frame, above 1.2 kHz, and that of the source: what a pattern
          repeated each frame, heard as a buzz of 25 Hz, raises
peaks     how far the fine spectrum stands out of its smooth course, against the source: 1 as
          tonal, below it more like noise
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SR = 48_000
BANDS = ((300, 600), (600, 1200), (1200, 2400), (2400, 5000), (5000, 16_000))
LONG = 8192
SMOOTH = 33
"""Bins of the fine spectrum over which its smooth course is taken, about 190 Hz."""


def band_levels(x: Tensor, low: float, high: float) -> Tensor:
    """dB every 5 ms of a loop's middle [2, n] in a band."""
    mono = x.mean(0)
    f = torch.fft.rfftfreq(len(mono), 1 / SR, device=x.device)
    y = torch.fft.irfft(torch.fft.rfft(mono) * ((f >= low) & (f < high)), len(mono))
    power = F.avg_pool1d(y.square()[None], 480, 240)[0]
    return 10 * torch.log10(power + 1e-10)


def fine(x: Tensor, low: float, high: float) -> Tensor:
    """Log spectrum of the middle in a band less its smooth course, [frames, bins]."""
    window = torch.hann_window(LONG, device=x.device)
    s = torch.fft.rfft(x.mean(0).unfold(-1, LONG, LONG // 2) * window).abs()
    f = torch.fft.rfftfreq(LONG, 1 / SR, device=x.device)
    level = torch.log(s[:, (f >= low) & (f < high)] + 1e-3)
    padded = F.pad(level[:, None], (SMOOTH // 2, SMOOTH // 2), mode="reflect")
    return level - F.avg_pool1d(padded, SMOOTH, 1)[:, 0]


def comb(x: Tensor, low: float, high: float) -> float:
    """Autocorrelation of a loop [2, n] in a band at one latent frame (40 ms)."""
    f = torch.fft.rfftfreq(x.shape[-1], 1 / SR, device=x.device)
    y = torch.fft.irfft(torch.fft.rfft(x) * ((f >= low) & (f < high)), x.shape[-1])
    return float((y * y.roll(SR // 25, -1)).sum() / (y.square().sum() + 1e-9))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, over all elements."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm() + 1e-9))


def detail(x: Tensor, y: Tensor) -> dict[str, float]:
    """A loop and its reconstruction [2, n] -> the figures above for each band, `name low-high`."""
    row: dict[str, float] = {}
    for low, high in BANDS:
        a, b = band_levels(x, low, high), band_levels(y, low, high)
        heard = a > a.max() - 40
        rises = [
            (v[2:] - v[:-2]).clamp(min=0)[heard[2:]] for v in (a.clamp(min=-70), b.clamp(min=-70))
        ]
        p, q = fine(x, low, high), fine(y, low, high)
        power = [10 ** (v / 10) for v in (a, b)]
        row |= {
            f"level {low}-{high}": float(10 * torch.log10(power[1].mean() / power[0].mean())),
            f"error {low}-{high}": float((a - b).abs()[heard].mean()),
            f"attacks {low}-{high}": correlation(*rises),
            f"partials {low}-{high}": correlation(p, q),
            f"peaks {low}-{high}": float(q.std() / p.std()),
        }
        if low >= 1200:
            row[f"comb {low}-{high}"] = comb(y, low, high)
            row[f"comb of the source {low}-{high}"] = comb(x, low, high)
    return row
