"""What the codec learns from and is held to above 1 kHz: bright loops, sides, pulses, texture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.bright import brightened
from engines.imp.losses import PULSE, Pulse, side_gains, spectra
from engines.imp.partials import PARTIALS
from engines.imp.render import Renderer
from engines.imp.score import compose
from engines.imp.texture import texture

SECONDS = 2


def held(pulse: float, noise: float = 0.0) -> Tensor:
    """A chord of bright partials [2, n], pulsing 25 times a second by `pulse`, with noise."""
    t = torch.arange(SECONDS * imp.SAMPLE_RATE) / imp.SAMPLE_RATE
    chord = sum(0.02 * torch.sin(2 * math.pi * f * t + f) for f in range(1130, 9000, 470))
    assert isinstance(chord, Tensor)
    chord = chord * (1 + pulse * torch.cos(2 * math.pi * 25 * t))
    g = torch.Generator().manual_seed(0)
    return (chord + noise * torch.randn(len(t), generator=g)).expand(2, -1)


def test_pulses_at_the_rate_of_the_frames_cost() -> None:
    window, pulse = torch.hann_window(PULSE), Pulse("cpu")
    steady, slight, strong = (spectra(held(p)[:1], PULSE, window) for p in (0.0, 0.1, 0.4))
    assert pulse(steady, steady) < 1e-3
    assert pulse(steady, slight) > 0.3
    assert pulse(steady, strong) > 2 * pulse(steady, slight)
    assert pulse(strong, slight) < 1e-3  # as much as the source has is free
    depth = pulse.depth(slight)
    assert depth[0, 0, 0] == pytest.approx(0.1, abs=0.02)


def test_sides_count_at_the_level_of_the_middle() -> None:
    g = torch.Generator().manual_seed(1)
    middle, side = torch.randn(2, 1, 4800, generator=g)
    near = torch.stack([middle + 0.25 * side, middle - 0.25 * side], dim=1)
    mono = middle[:, None].expand(-1, 2, -1)
    gains = side_gains(torch.cat([near, mono]))
    assert gains[0, 1] / gains[0, 0] == pytest.approx(4.0, rel=0.05)
    assert gains[1, 1] / gains[1, 0] == pytest.approx(8.0)
    balanced = imp.mid_side(near) * gains[:1]
    assert balanced[0, 1].std() == pytest.approx(balanced[0, 0].std().item(), rel=0.05)


def test_texture_tells_lines_from_breath_and_pulse_from_steadiness() -> None:
    clean, breath, pulse = (texture(held(*given)) for given in ((0.0,), (0.0, 0.1), (0.3,)))
    assert clean["flat_1k"] < breath["flat_1k"] - 5
    assert clean["noise_to_tone"] < breath["noise_to_tone"] - 3
    assert pulse["line_25"] > clean["line_25"] + 10
    assert clean["side_high"] == -60.0
    wide = held(0.0) * torch.tensor([[1.0], [0.2]])
    assert texture(wide)["side_high"] == pytest.approx(20 * math.log10(0.8 / 1.2), abs=0.1)


@pytest.mark.parametrize("seed", [3, 13])
def test_bright_songs_are_the_same_again_and_sound(seed: int) -> None:
    song = brightened(compose(seed, bars=2))
    assert song == brightened(compose(seed, bars=2))
    assert {e.voice for e in song.events} & set(PARTIALS)
    (loop,) = Renderer()([song])
    assert loop.isfinite().all()
    assert 0.02 < loop.square().mean().sqrt() < 0.3
    assert loop.abs().max() < 1
