"""The Oobleck decoder for windows: the same sums, arranged so that little is computed in vain.

    Decoder(vae).full(z)               = vae.decode(z), [B, 2, F * hop]
    Decoder(vae).window(z, first, n)   = the audio of frames first..first+n of that, exactly

A window needs nine frames of context on either side, but only its first layers do: each layer here
convolves without padding, so that what depends on the window's edge is never computed, and the
expensive layers near the end run on little more than the window itself. Channels lie innermost
([B, N, C]), as tensor cores want them; transposed convolutions (kernel 2s, stride s) are one matrix
product and one addition of its two halves.

Threads: read-only after construction. Formulas: Oobleck's decoder (Stable Audio, diffusers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.errors import EngineError

#: snake(x [.., C], a [C], b [C]) -> x + b sin(a x)^2
Snake = Callable[[Tensor, Tensor, Tensor], Tensor]


def snake(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x + b sin(a x)^2, computed in float32 (Ziyin et al. 2020, arXiv 2006.08195)."""
    wide = x.float()
    return (wide + b * torch.sin(a * wide).square()).to(x.dtype)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A residual unit: snake, convolution of 7 with dilation, snake, convolution of 1."""

    snake1: tuple[Tensor, Tensor]
    conv: Tensor
    bias: Tensor
    dilation: int
    snake2: tuple[Tensor, Tensor]
    mix: Tensor
    mix_bias: Tensor


@dataclass(frozen=True, slots=True)
class _DecoderBlock:
    """Snake, upsampling by `stride` [Cin, 2s * Cout], three residual units."""

    snake: tuple[Tensor, Tensor]
    up: Tensor
    bias: Tensor
    stride: int
    padding: int
    units: tuple[_Unit, ...]


def _rates(module: Any) -> tuple[Tensor, Tensor]:
    """(a, b) of a Snake1d, float32 [C]."""
    alpha, beta = module.alpha.detach().float().flatten(), module.beta.detach().float().flatten()
    if module.logscale:
        alpha, beta = alpha.exp(), beta.exp()
    return alpha.contiguous(), (beta + 1e-9).reciprocal().contiguous()


def _filter(weight: Tensor) -> Tensor:
    """[out, in, k] -> [out, in, 1, k], channels innermost."""
    return weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _unit(module: Any) -> _Unit:
    return _Unit(
        _rates(module.snake1),
        _filter(module.conv1.weight),
        module.conv1.bias.detach(),
        module.conv1.dilation[0],
        _rates(module.snake2),
        module.conv2.weight.detach().squeeze(-1).contiguous(),
        module.conv2.bias.detach(),
    )


def _block(module: Any) -> _DecoderBlock:
    up = module.conv_t1
    stride, kernel = up.stride[0], up.kernel_size[0]
    if kernel != 2 * stride:
        raise EngineError(f"an Oobleck decoder upsamples by {stride} with a kernel of {kernel}")
    # [in, out, 2s] -> [in, 2s * out]: one row of the product holds the 2s samples it adds to.
    weight = up.weight.detach().permute(0, 2, 1).flatten(1).contiguous()
    units = tuple(_unit(getattr(module, f"res_unit{i}")) for i in (1, 2, 3))
    return _DecoderBlock(
        _rates(module.snake1), weight, up.bias.detach(), stride, up.padding[0], units
    )


class Decoder:
    """A VAE's decoder whose weight norm is folded. hop: samples a frame."""

    def __init__(self, vae: Any, act: Snake = snake) -> None:
        decoder = vae.decoder
        self._act = act
        self._first = (_filter(decoder.conv1.weight), decoder.conv1.bias.detach())
        self._blocks = [_block(module) for module in decoder.block]
        self._last_snake = _rates(decoder.snake1)
        # [2, C, 7] -> [C, 7 * 2]: one product, then seven shifted additions of two channels.
        last = decoder.conv2.weight.detach()
        self._last = last.permute(1, 2, 0).flatten(1).contiguous()
        self.dtype = last.dtype
        self.hop = 1
        for block in self._blocks:
            self.hop *= block.stride

    @torch.no_grad()
    def full(self, z: Tensor) -> Tensor:
        """z [B, F, C] -> audio [B, 2, F * hop], as the VAE decodes it."""
        audio, _ = self._run(z, padded=True)
        return audio

    @torch.no_grad()
    def window(self, z: Tensor, first: int, count: int) -> Tensor:
        """audio [B, 2, count * hop] of frames first..first+count of z [B, F, C].

        Exact, that is independent of what lies beyond z, if nine frames lie on either side.
        Raises EngineError if z does not reach that far.
        """
        audio, start = self._run(z, padded=False)
        begin = first * self.hop - start
        end = begin + count * self.hop
        if begin < 0 or end > audio.shape[2]:
            raise EngineError(
                f"frames {first}..{first + count} of {z.shape[1]} lack context to be decoded",
                hint="nine frames on either side make a window exact",
            )
        return audio[:, :, begin:end]

    def _run(self, z: Tensor, padded: bool) -> tuple[Tensor, int]:
        """(audio [B, 2, N], the sample at which it begins). padded: zeros beyond the ends."""
        x = z.to(self.dtype)
        start = 0 if padded else 3
        x = self._conv(x, *self._first, 1, padded)
        for block in self._blocks:
            x, start = self._upsampled(self._act(x, *block.snake), block, start, padded)
            for unit in block.units:
                x = self._united(x, unit, padded)
                start += 0 if padded else 3 * unit.dilation
        x = self._act(x, *self._last_snake)
        taps = (x @ self._last).float().unflatten(-1, (7, 2))
        if padded:
            taps = F.pad(taps, (0, 0, 0, 0, 3, 3))
        count = taps.shape[1] - 6
        audio = taps[:, :count, 0].clone()
        for k in range(1, 7):
            audio += taps[:, k : k + count, k]
        return audio.transpose(1, 2), start + (0 if padded else 3)

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor, dilation: int, padded: bool) -> Tensor:
        reach = 3 * dilation if padded else 0
        wide = x.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(wide, weight, bias, padding=(0, reach), dilation=(1, dilation))
        return y.squeeze(2).transpose(1, 2)

    def _united(self, x: Tensor, unit: _Unit, padded: bool) -> Tensor:
        y = self._act(x, *unit.snake1)
        y = self._conv(y, unit.conv, unit.bias, unit.dilation, padded)
        y = F.linear(self._act(y, *unit.snake2), unit.mix, unit.mix_bias)
        lost = (x.shape[1] - y.shape[1]) // 2
        return x[:, lost : x.shape[1] - lost] + y

    def _upsampled(
        self, x: Tensor, b: _DecoderBlock, start: int, padded: bool
    ) -> tuple[Tensor, int]:
        """Row i of the product adds to samples i s .. (i + 2) s of the output, less the padding."""
        batch, count = x.shape[:2]
        halves = (x @ b.up).view(batch, count, 2, b.stride, -1)
        if padded:
            now, before = F.pad(halves[:, :, 0], (0, 0, 0, 0, 0, 1)), halves[:, :, 1]
            y = now + F.pad(before, (0, 0, 0, 0, 1, 0))
            y = y.reshape(batch, (count + 1) * b.stride, -1) + b.bias
            return y[:, b.padding : y.shape[1] - b.padding], 0
        y = halves[:, 1:, 0] + halves[:, :-1, 1] + b.bias
        return y.reshape(batch, (count - 1) * b.stride, -1), (start + 1) * b.stride - b.padding
