"""How a loop sounds above 1 kHz: lines or breath, wide or narrow, steady or pulsing. No reference.

flat_1k, flat_2k   flatness of the power spectrum (171 ms) at 1.2-2.4 and 2.4-5 kHz in half octaves,
                   dB, weighted by energy: white noise -2.5, lines far lower
noise_to_tone      what median filters call neither tone nor hit, over what they call tone, dB above
                   1 kHz (`harmonic`); noise_to_tone_low: .3 to 1 kHz
line_25            line of the envelope above 1 kHz at 25 Hz over its neighbours, dB: what a pattern
                   repeated each latent frame makes
side_mid, side_high  level of the sides against the middle at .2-2 and 2-8 kHz, dB
crest              highest sample over root mean square, dB
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SR = 48_000
LONG, HOP = 8192, 2048
MEDIAN = 31
"""Length of the median filters, frames and bins."""


def decibels(power: Tensor) -> Tensor:
    """Power -> dB, with a floor."""
    return 10 * torch.log10(power.clamp(min=1e-12))


def magnitudes(loop: Tensor) -> Tensor:
    """Spectra of the middle of a loop [2, n], round the seam: [frames, bins]."""
    mono = loop.mean(0)
    around = torch.cat([mono[-LONG // 2 :], mono, mono[: LONG // 2]])
    window = torch.hann_window(LONG, device=loop.device)
    return torch.fft.rfft(around.unfold(-1, LONG, HOP) * window).abs()


def flatness(size: Tensor, low: float, high: float) -> float:
    """Flatness of [frames, bins] between two frequencies, in half octaves, dB."""
    f = torch.arange(size.shape[1], device=size.device) * (SR / LONG)
    rows, weights, edge = [], [], low
    while edge < high * 0.99:
        top = edge * 2**0.5
        power = size[:, (f >= edge) & (f < min(high, top))].square() + 1e-14
        rows.append(decibels(torch.exp(power.log().mean(1)) / power.mean(1)))
        weights.append(power.sum(1))
        edge = top
    value, weight = torch.stack(rows), torch.stack(weights)
    return float((value * weight).sum() / weight.sum())


def median(size: Tensor) -> Tensor:
    """Median filter along the last axis."""
    padded = F.pad(size[None], (MEDIAN // 2, MEDIAN // 2), mode="reflect")[0]
    return padded.unfold(-1, MEDIAN, 1).median(-1).values


def harmonic(size: Tensor) -> tuple[Tensor, Tensor]:
    """[frames, bins] -> (tones, what is neither tone nor hit), by median filters, margin 2."""
    tone, blow = median(size.T).T.square(), median(size).square()
    kept = size * tone / (tone + 4 * blow + 1e-20)
    hit = size * blow / (blow + 4 * tone + 1e-20)
    return kept, (size - kept - hit).clamp(min=0)


def line(loop: Tensor) -> float:
    """Strength of the envelope's line at 25 Hz above 1 kHz, dB over its neighbours."""
    mono = loop.mean(0)
    f = torch.fft.rfftfreq(len(mono), 1 / SR, device=loop.device)
    high = torch.fft.irfft(torch.fft.rfft(mono) * (f > 1000), len(mono))
    envelope = high[: len(high) // 48 * 48].abs().view(-1, 48).mean(1)
    window = torch.hann_window(len(envelope), device=loop.device)
    power = torch.fft.rfft((envelope - envelope.mean()) * window).abs().square()
    f = torch.fft.rfftfreq(len(envelope), 1e-3, device=loop.device)
    near = (f - 25).abs()
    return float(
        decibels(power[near < 0.4].mean()) - decibels(power[(near < 4) & (near > 1)].mean())
    )


def texture(loop: Tensor) -> dict[str, float]:
    """A loop [2, n] -> the figures above."""
    size = magnitudes(loop)
    f = torch.arange(size.shape[1], device=size.device) * (SR / LONG)
    kept, rest = (v.square().sum(0) for v in harmonic(size))
    high, low = f >= 1000, (f >= 300) & (f < 1000)
    row = {"flat_1k": flatness(size, 1200, 2400), "flat_2k": flatness(size, 2400, 5000)}
    for name, part in (("noise_to_tone", high), ("noise_to_tone_low", low)):
        row[name] = float(decibels(rest[part].sum()) - decibels(kept[part].sum()))
    row["line_25"] = line(loop)
    s = torch.fft.rfft(torch.stack([loop.mean(0), (loop[0] - loop[1]) / 2])).abs().square()
    f = torch.fft.rfftfreq(loop.shape[1], 1 / SR, device=loop.device)
    for name, a, b in (("side_mid", 200, 2000), ("side_high", 2000, 8000)):
        middle, side = s[:, (f >= a) & (f < b)].sum(1)
        row[name] = float(decibels(side) - decibels(middle)) if side > 1e-6 * middle else -60.0
    level = loop.square().mean().sqrt() + 1e-9
    row["crest"] = float(20 * torch.log10(loop.abs().max() / level))
    return row
