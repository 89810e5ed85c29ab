"""Distances between a loop and its reconstruction. Audio [2, n] float32; torch."""

from __future__ import annotations

import math

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
