"""What can be measured of loops: distance to a reconstruction, onsets, seams, clouds of embeddings.

Audio [2, n] float32; torch.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SR = 48_000
BANDS = ((0, 24), (24, 64), (64, 100), (100, 128))
"""Mel bands whose error is reported apart: about 0-500, 500-2500, 2500-8000, 8000-24000 Hz."""


def si_sdr(x: Tensor, y: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio of y against x, dB."""
    scale = (x * y).sum() / (y.square().sum() + 1e-9)
    return (10 * torch.log10(x.square().sum() / ((x - scale * y).square().sum() + 1e-9))).item()


def low_passed(x: Tensor, cut: float = 2000.0) -> Tensor:
    """Everything below `cut` Hz."""
    f = torch.fft.rfftfreq(x.shape[-1], 1 / SR, device=x.device)
    return torch.fft.irfft(torch.fft.rfft(x) * (f < cut), x.shape[-1])


def mel_bank(fft: int = 2048, bands: int = 128) -> Tensor:
    """Triangular mel filters, [bands, fft/2+1]."""
    f = torch.linspace(0, SR / 2, fft // 2 + 1)
    edges = 700 * (
        10 ** (torch.linspace(0, 2595 * math.log10(1 + SR / 1400), bands + 2) / 2595) - 1
    )
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return torch.minimum((f - low) / (middle - low), (high - f) / (high - middle)).clamp(min=0)


def log_mel(x: Tensor) -> Tensor:
    """log10 mel magnitude, [..., 128, frames]."""
    window = torch.hann_window(2048, device=x.device)
    s = torch.stft(x.reshape(-1, x.shape[-1]), 2048, 512, 2048, window, return_complex=True).abs()
    return torch.log10(mel_bank().to(x.device) @ s + 1e-3)


def spectrum_apart(x: Tensor, y: Tensor) -> float:
    """How far the average spectra of two loops lie apart, dB: mean over 128 mel bands of the level
    of each, at one loudness.
    """

    def average(loop: Tensor) -> Tensor:
        power = (10 ** log_mel(loop)).square().mean((0, 2))
        level = 10 * torch.log10(power / power.mean() + 1e-6)
        return level - level.mean()

    return (average(x) - average(y)).abs().mean().item()


def compare(x: Tensor, y: Tensor) -> dict[str, float]:
    """SI-SDR (all, below 2 kHz), log10-mel L1 (all and by band), mean log10-mel bias (positive: y
    too quiet).
    """
    n = min(x.shape[-1], y.shape[-1])
    x, y = x[..., :n], y[..., :n]
    difference = log_mel(x) - log_mel(y)
    row = {
        "si_sdr": si_sdr(x, y),
        "si_sdr_2k": si_sdr(low_passed(x), low_passed(y)),
        "mel": difference.abs().mean().item(),
        "bias": difference.mean().item(),
    }
    for i, (a, b) in enumerate(BANDS):
        row[f"mel_{i}"] = difference[:, a:b].abs().mean().item()
    return row


def averaged(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each column, rounded."""
    return {k: round(sum(r[k] for r in rows) / len(rows), 4) for k in rows[0]}


# ---------------------------------------------------------------------------------- loops alone


def onsets(loop: Tensor) -> npt.NDArray[np.float64]:
    """Seconds of the onsets: peaks of the spectral flux in two bands."""
    mono = torch.nn.functional.pad(loop.mean(0), (480, 480))
    s = torch.stft(
        mono,
        1024,
        480,
        1024,
        torch.hann_window(1024, device=loop.device),
        return_complex=True,
        center=False,
    ).abs()
    level = torch.log(1 + 100 * s)
    rise = (level[:, 1:] - level[:, :-1]).clamp(min=0)
    e = (rise[:8].mean(0) + rise[8:].mean(0)).cpu().numpy()
    threshold = np.convolve(e, np.ones(41) / 41, "same") + 0.5 * e.std()
    peaks = [
        i
        for i in range(2, len(e) - 2)
        if e[i] > threshold[i] and e[i] >= e[max(0, i - 4) : i + 5].max()
    ]
    return (np.array(peaks) + 1.5) / 100


def alike(x: Tensor, y: Tensor) -> float:
    """Correlation of the rhythm of two loops: rises of the level in eight bands, 100 a second."""

    def rises(loop: Tensor) -> Tensor:
        window = torch.hann_window(1024, device=loop.device)
        s = torch.stft(loop.mean(0), 1024, 480, 1024, window, return_complex=True).abs()
        edges = torch.tensor([1, 3, 6, 12, 24, 48, 96, 192, 400])
        bands = [s[i:j].square().mean(0) for i, j in itertools.pairwise(edges.tolist())]
        level = torch.log(torch.stack(bands) + 1e-3)
        rise = (level[:, 2:] - level[:, :-2]).clamp(min=0)
        return rise - rise.mean(1, keepdim=True)

    a, b = rises(x), rises(y)
    return float((a * b).sum() / (a.norm() * b.norm() + 1e-9))


def grid(loop: Tensor, bpm: float) -> dict[str, float]:
    """Onsets against the beat grid: share near a sixteenth, share of beats with an onset, their
    F-measure.
    """
    found = onsets(loop)
    if len(found) < 3:
        return {"grid_precision": 0.0, "beat_recall": 0.0, "grid_f": 0.0}
    step = 15.0 / bpm
    off = np.abs((found + step / 2) % step - step / 2)
    beats = np.arange(int(loop.shape[1] / 48000 * bpm / 60)) * 60 / bpm
    precision = float((off < 0.02).mean())
    recall = float((np.abs(beats[:, None] - found[None]).min(1) < 0.03).mean())
    return {
        "grid_precision": precision,
        "beat_recall": recall,
        "grid_f": 2 * precision * recall / max(1e-9, precision + recall),
    }


def seams(loops: list[Tensor]) -> dict[str, float]:
    """The step over the seam as a percentile of all steps of its loop, mean over loops (50: like
    any other).
    """
    ranks = []
    for x in loops:
        steps = (x[:, 1:] - x[:, :-1]).abs().amax(0)
        ranks.append(float((steps < (x[:, 0] - x[:, -1]).abs().max()).float().mean()) * 100)
    return {"seam_percentile": sum(ranks) / len(ranks)}


def tone(loop: Tensor) -> float:
    """Centre of gravity of the magnitude spectrum, Hz."""
    size = torch.fft.rfft(loop.mean(0)).abs()
    f = torch.fft.rfftfreq(loop.shape[1], 1 / SR, device=loop.device)
    return float((size * f).sum() / size.sum())


def frechet(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Frechet distance of two clouds [n, d]."""
    from scipy.linalg import sqrtm

    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    ca, cb = np.cov(a.T), np.cov(b.T)
    return float(mean + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb))))
