"""The last stage of imp's decoder: spectra and levels of noise -> audio. No weights.

    tone   log magnitude and phase of the lowest bins, STFT of 1920/480: what the decoder can follow
    air    log levels of noise in 40 bands, 200 times a second: what only its level is known of

A codec of 1,600 numbers a second follows the phase of music up to about 1 kHz. A deterministic
decoder fills what lies above with one pattern repeated each latent frame, which buzzes at 25 Hz.
Here that part is noise, shaped in windows of 10 ms so that hats and claps keep their attacks; the
decoder learns how much of each (see engines/imp/train_codec.py). The noise is a function of the
latent: the same latent gives the same audio in any window, a small change moves it by little.

Thread contract: modules hold constants only; forward passes are re-entrant.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 48_000
HOP = 1_920
"""Samples a latent frame."""
FFT = 1_920
STEP = 480
"""Samples a spectral frame: four spectral frames to a latent frame."""
BINS = FFT // 2 + 1
TONE_BINS = 200
"""Bins of 25 Hz that the tone fills, from 0 Hz, where no weights say otherwise."""
AIR_FFT, AIR_STEP = 480, 240
AIR_BINS = AIR_FFT // 2 + 1
AIR_BANDS = 40
AIR_RATE = STEP // AIR_STEP
AIR_OUTPUTS = 2 * AIR_RATE * AIR_BANDS
"""Noise levels of a spectral frame: two halves of it, mid and side, the bands."""
NOISE_FLOOR, NOISE_FULL = 600.0, 1200.0
"""Hz: no noise below the first, all of it from the second on."""
GRAINS = 16
"""Stretches of noise that a latent frame mixes."""


def band_weights() -> Tensor:
    """Log level of each bin as a mix of the bands' log levels, [AIR_BANDS, 241]: linear between
    centres that lie evenly on the mel scale from 300 Hz.
    """
    f = np.arange(AIR_BINS) * (SAMPLE_RATE / AIR_FFT)

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return np.asarray(2595 * np.log10(1 + np.asarray(hz) / 700))

    place = (mel(f) - mel(300.0)) / (mel(24_000.0) - mel(300.0)) * (AIR_BANDS - 1)
    place = place.clip(0, AIR_BANDS - 1)
    weights = (1 - np.abs(place[None] - np.arange(AIR_BANDS)[:, None])).clip(0)
    return torch.from_numpy(weights).float()


class Synthesis(nn.Module):
    """level, phase, air, share -> audio."""

    win: Tensor
    air_win: Tensor
    bands: Tensor
    mask: Tensor
    grains: Tensor

    def __init__(self) -> None:
        super().__init__()
        # On the CPU by name: on the meta device this one call would load torch._dynamo (1.5 s).
        self._constant("win", torch.hann_window(FFT, device="cpu"))
        self._constant("air_win", torch.hann_window(AIR_FFT, device="cpu").sqrt())
        self._constant("bands", band_weights())
        f = torch.arange(AIR_BINS, device="cpu") * (SAMPLE_RATE / AIR_FFT)
        self._constant("mask", ((f - NOISE_FLOOR) / (NOISE_FULL - NOISE_FLOOR)).clamp(0, 1))
        draw = np.random.RandomState(7)  # its stream is frozen by numpy's promise
        self._constant("grains", torch.from_numpy(draw.standard_normal((GRAINS, 2 * HOP))).float())

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(
        self, level: Tensor, phase: Tensor, air: Tensor, share: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """What the trunk gives -> audio [B, 2, T*1920].

        level, phase [B, 4T, 2*bins], mid then side, bins of 25 Hz from 0 Hz; air [B, 4T,
        AIR_OUTPUTS]; share [B, T, GRAINS], of unit length: what the noise of each latent frame is
        mixed of; turn as in `tone`.
        """
        with torch.autocast(level.device.type, enabled=False):
            y = self.tone(level.float(), phase.float(), None if turn is None else turn.float())
            return stereo(y + self.air(air.float(), share.float()))

    def parts(
        self, level: Tensor, phase: Tensor, air: Tensor, share: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """As `forward`, tones and noise apart: [B, 4, T*1920], left and right of each."""
        with torch.autocast(level.device.type, enabled=False):
            tone = self.tone(level.float(), phase.float(), None if turn is None else turn.float())
            return torch.cat([stereo(tone), stereo(self.air(air.float(), share.float()))], dim=1)

    def tone(self, level: Tensor, phase: Tensor, turn: Tensor | None = None) -> Tensor:
        """Mid and side [B, 2, T*1920] by the inverse STFT.

        turn [B, 4T, 4*bins]: what is added to the unit phasors of the lowest bins: real parts of
        mid and side, then imaginary parts.
        """
        half = (*level.shape[:2], 2, -1)
        size, phase = torch.exp(level.clamp(max=6.0)).reshape(half), phase.reshape(half)
        real, imaginary = phase.cos(), phase.sin()
        if turn is not None:
            parts = turn.reshape(*level.shape[:2], 2, 2, -1)
            parts = F.pad(parts, (0, real.shape[-1] - parts.shape[-1]))
            real, imaginary = real + parts[:, :, 0], imaginary + parts[:, :, 1]
        s = torch.complex(size * real, size * imaginary).transpose(1, 2)
        frames = torch.fft.irfft(s, FFT) * self.win
        return overlap_add(frames.unflatten(-1, (FFT // STEP, STEP))) / 1.5

    def air(self, levels: Tensor, share: Tensor) -> Tensor:
        """The noise of mid and side, [B, 2, T*1920]."""
        b, t, _ = share.shape
        noise = (share @ self.grains).view(b, t, 2, HOP).transpose(1, 2).reshape(b, 2, t * HOP)
        return self.shaped(noise, self.gains(levels))

    def gains(self, air: Tensor) -> Tensor:
        """Gain of each bin of the noise, [B, 2, 8T, 241]."""
        b, n, _ = air.shape
        levels = air.reshape(b, n, 2, AIR_RATE, AIR_BANDS).transpose(1, 2)
        levels = levels.reshape(b, 2, n * AIR_RATE, AIR_BANDS)
        return torch.exp((levels @ self.bands).clamp(max=2.0)) * self.mask

    def shaped(self, noise: Tensor, gains: Tensor) -> Tensor:
        """Noise of unit level [B, 2, n] filtered frame by frame, windows of 480 every 240."""
        edge = (AIR_FFT - AIR_STEP) // 2
        frames = F.pad(noise, (edge, edge)).unfold(-1, AIR_FFT, AIR_STEP) * self.air_win
        frames = torch.fft.irfft(torch.fft.rfft(frames) * gains, AIR_FFT) * self.air_win
        return overlap_add(frames.unflatten(-1, (AIR_FFT // AIR_STEP, AIR_STEP)))


def stereo(y: Tensor) -> Tensor:
    """Mid/side -> left/right, [B, 2, n]."""
    return torch.stack([y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]], dim=1)


def overlap_add(frames: Tensor) -> Tensor:
    """[B, 2, N, R, step] -> [B, 2, N*step]: windows of R steps, one step apart, centred."""
    b, c, n, r, step = frames.shape
    y = torch.zeros(b, c, n + r - 1, step, dtype=frames.dtype, device=frames.device)
    for i in range(r):
        y[:, :, i : i + n] += frames[:, :, :, i]
    edge = (r - 1) * step // 2
    return y.reshape(b, c, -1)[..., edge : edge + n * step]


def grain_angles(channels: int) -> Tensor:
    """Projection of a latent frame onto the angles of its noise, [channels, GRAINS].

    Steep enough (about a turn for one deviation) that frames alike in sound differ in noise.
    """
    draw = np.random.RandomState(11)
    scale = 6.0 / math.sqrt(channels)
    return torch.from_numpy(scale * draw.standard_normal((channels, GRAINS))).float()
