"""Level the codec: `python -m engines.imp.calibrate --codec FILE`. Fits one gain a bin on training
renders.

A waveform loss shrinks what it cannot follow in phase, so the decoder comes out too quiet above
about 1 kHz. The mean log-magnitude difference between source and reconstruction, smoothed over
bins, is added to the bias of the decoder's magnitude head (mid and side apart, above 1 kHz only).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demon_live.models import imp
from engines.imp.training import say

SEEDS = range(300_000, 300_028)
LIMIT = 0.6
"""Largest gain, nepers."""


def levels(audio: Tensor) -> Tensor:
    """log magnitude [2, 961] of mid and side in quiet and loud frames alike, [frames, 2, 961]."""
    window = torch.hann_window(imp.FFT)
    s = torch.stft(
        imp.mid_side(audio[None])[0], imp.FFT, imp.STEP, imp.FFT, window, return_complex=True
    )
    return s.abs().permute(2, 0, 1)


@torch.no_grad()
def correction(encoder: imp.ImpEncoder, decoder: imp.ImpDecoder) -> Tensor:
    """Gain in nepers to add to the decoder's level, [2 * 961]."""
    from engines.imp.render import Renderer
    from engines.imp.score import compose

    renderer, total, count = Renderer(), torch.zeros(2, imp.BINS), torch.zeros(2, imp.BINS)
    for seed in SEEDS:
        (loop,) = renderer([compose(seed, bars=2)])
        made = decoder.decode_loop(encoder.encode_loop(loop[None]))[0][:, : loop.shape[1]]
        a, b = levels(loop), levels(made)
        heard = a > 0.01
        total += ((torch.log(a + 1e-3) - torch.log(b + 1e-3)) * heard).sum(0)
        count += heard.sum(0)
    gain = total / count.clamp(min=200)
    gain = torch.nn.functional.avg_pool1d(gain[:, None], 31, 1, 15, count_include_pad=False)[:, 0]
    f = torch.arange(imp.BINS) * (imp.SAMPLE_RATE / imp.FFT)
    return (gain.clamp(-0.2, LIMIT) * ((f - 800) / 800).clamp(0, 1)).flatten()


def main() -> None:
    """Fit and write back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, default=Path(__file__).parent / "codec.safetensors")
    path = parser.parse_args().codec
    encoder, decoder = imp.load_codec(path)
    gain = correction(encoder, decoder)
    say(
        "gain dB at 1, 2, 4, 8, 16 kHz, mid:",
        [round(8.686 * gain[k].item(), 1) for k in (40, 80, 160, 320, 640)],
    )
    tensors = load_file(path)
    tensors["decoder.level.bias"] = (tensors["decoder.level.bias"].float() + gain).half()
    save_file(tensors, path)


if __name__ == "__main__":
    main()
