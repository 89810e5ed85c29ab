"""What the codec is held to: its tone to the waveform, its sound to spectra (see `train_codec`)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.measure import mel_bank
from engines.imp.pool import SEGMENT

SIZES = (4096, 2048, 1024, 384, 128)
WAVE = ((0, 300, 0.7), (300, 1200, 1.0), (1200, 2400, 0.8), (2400, 5000, 0.4))
"""Bands in Hz that the waveform is held to, and how much."""
PULSE = 384
"""Window of the spectra that envelopes are read from, samples; a quarter of it is the step."""
PULSE_BANDS = ((1200, 2400), (2400, 5000), (5000, 10_000), (10_000, 20_000))
LINES = (25.0, 50.0, 100.0)
"""Hz of the modulations that a pattern repeated each latent frame has."""
WIDEST = 8.0
"""Gain at most that brings quiet sides to the level of the middle in the spectral losses."""


def spectra(x: Tensor, size: int, window: Tensor) -> Tensor:
    """[N, samples] -> [N, frames, bins, 2]."""
    return torch.view_as_real(torch.fft.rfft(x.unfold(-1, size, size // 4) * window))


def spectral_loss(
    x: Tensor, y: Tensor, z: Tensor, mel: Tensor | None, held: int | None = None
) -> Tensor:
    """Energy distance, half of 2 d(x, y) - d(y, z), of the spectra of a source x and of two draws
    y, z: log magnitude, magnitude, compressed complex (of the first `held` bins), and log mel.
    """
    a, b, c = ((v.square().sum(-1) + 1e-8).sqrt() for v in (x, y, z))

    def energy(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (u - v).abs().mean() - 0.5 * (v - w).abs().mean()

    def norm(v: Tensor) -> Tensor:
        return (v.square().sum((1, 2)) + 1e-6).sqrt()

    level = energy(*(torch.log(v + 1e-2) for v in (a, b, c)))
    shape = ((norm(a - b) - 0.5 * norm(b - c)) / (norm(a) + 0.3)).mean()
    low = [(v[..., :held, :], w[..., :held]) for v, w in ((x, a), (y, b), (z, c))]
    parts = [v * (w + 1e-2).pow(-0.7)[..., None] for v, w in low]
    size = (low[0][1] * (low[0][1] + 1e-2).pow(-0.7)).mean()
    phase = energy(*parts) / (size + 0.02)
    loss = level + shape + phase
    if mel is not None:
        loss = loss + 2 * energy(*(torch.log(v @ mel + 1e-3) for v in (a, b, c)))
    return loss


def side_gains(x: Tensor) -> Tensor:
    """Gains of middle and sides of a source [B, 2, n] that bring the sides to the level of the
    middle, where floors do not hide them: [B, 2, 1].
    """
    level = imp.mid_side(x).square().mean(-1, keepdim=True).sqrt()
    gain = (level[:, :1] / (level[:, 1:] + 1e-4)).clamp(1, WIDEST)
    return torch.cat([torch.ones_like(gain), gain], dim=1) * math.sqrt(2)


class Pulse:
    """Excess of the envelope's lines at 25, 50 and 100 Hz: what a pattern repeated each latent
    frame adds to held tones. As much modulation as the source has costs nothing.
    """

    def __init__(self, device: str) -> None:
        f = torch.arange(PULSE // 2 + 1, device=device) * (imp.SAMPLE_RATE / PULSE)
        self.bands = torch.stack([((f >= a) & (f < b)).float() for a, b in PULSE_BANDS], dim=1)
        self.turns = torch.tensor(LINES, device=device) * (PULSE // 4 / imp.SAMPLE_RATE)

    def depth(self, x: Tensor) -> Tensor:
        """Spectra [N, frames, bins, 2] -> depth of modulation [N, bands, lines], 0 to about 1."""
        envelope = (x.square().sum(-1) @ self.bands + 1e-6).sqrt()
        count = envelope.shape[1]
        n = torch.arange(count, device=x.device)
        window = torch.hann_window(count, device=x.device)[:, None] * (4 / count)
        angle = 2 * math.pi * n[:, None] * self.turns
        level = (envelope / envelope.mean(1, keepdim=True) - 1).transpose(1, 2)
        parts = level @ (window * angle.cos()), level @ (window * angle.sin())
        return (parts[0].square() + parts[1].square() + 1e-8).sqrt()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Spectra of a source and of what was made of it -> mean excess, 1: doubled."""
        own = self.depth(x)
        return (F.relu(self.depth(y) - own) / (own + 0.05)).mean()


class Loss:
    """Loss of a batch; one latent frame at each end is left out.

    wave: bands of the waveform loss. phase: Hz below which complex spectra are compared. pulse:
    weight of `Pulse`.
    """

    def __init__(
        self,
        device: str,
        compiled: bool,
        wave: tuple[tuple[int, int, float], ...] = WAVE,
        phase: float | None = None,
        pulse: float = 0.3,
    ) -> None:
        self.pulse, self.lines = pulse, Pulse(device)
        self.windows = {n: torch.hann_window(n, device=device) for n in SIZES}
        self.mel = mel_bank().T.contiguous().to(device)
        self.part = torch.compile(spectral_loss, dynamic=False) if compiled else spectral_loss
        f = torch.fft.rfftfreq(SEGMENT - 2 * imp.HOP, 1 / imp.SAMPLE_RATE, device=device)
        self.bands = torch.stack([((f >= a) & (f < b)).float() for a, b, _ in wave], dim=1)
        self.share = torch.tensor([w for _, _, w in wave], device=device)
        self.held = {n: int(phase * n / imp.SAMPLE_RATE) if phase else None for n in SIZES}

    def wave(self, tone: Tensor, x: Tensor) -> Tensor:
        """log-NMSE of the tone in the bands of the waveform loss."""
        scale = 2 / x.shape[-1]
        error = torch.fft.rfft(tone - x).abs().square().sum(1) @ self.bands * scale
        power = torch.fft.rfft(x).abs().square().sum(1) @ self.bands * scale
        return (torch.log(error / (power + 0.05) + 1e-3) * self.share).mean(0).sum()

    def __call__(self, made: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """made: the tone, and it with two draws of the air, [B, 2, n] each."""
        tone, one, two, x = (v[..., imp.HOP : -imp.HOP] for v in (*made, x))
        wave = self.wave(tone, x)
        sides = torch.rand(len(x), 1, 1, device=x.device) < 0.5
        gains = side_gains(x)

        def view(v: Tensor) -> Tensor:
            turned = imp.mid_side(v) * gains
            return torch.where(sides, v, turned).flatten(0, 1)

        views = [view(v) for v in (x, one, two)]
        total = wave
        for n in SIZES:
            mel = self.mel if n == 2048 else None
            parts = [spectra(v, n, self.windows[n]) for v in views]
            total = total + self.part(*parts, mel, self.held[n])  # type: ignore[call-arg, arg-type]
            if n == PULSE and self.pulse:
                total = total + self.pulse * self.lines(parts[0], parts[1])
        return total, wave
