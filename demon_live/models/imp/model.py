"""imp's modules: an audio codec (C channels at 25 Hz, 48 kHz stereo) and a flow model.

    ImpEncoder  audio [B, 2, n*1920] -> latent [B, n, C], unit variance
    ImpDecoder  latent [B, T, C] -> trunk -> spectra -> Synthesis -> audio [B, 2, T*1920]
    ImpFlow     x, t, hint, phase, cond, lanes -> velocity [B, T, C];
                x_t = t*noise + (1-t)*x0,  v = noise - x0

C, the bins of the tone and what the flow model can be told are properties of the weights: the
loaders read them from the shapes. Codecs of more than 64 channels are nested: the first 64 (base)
sound on their own when the rest (detail) is zero.

Loops are circular. The flow model knows time only as musical position: rotary angles and Fourier
features are whole multiples of the bar and of the loop, so position 0 and position "one loop
later" are the same place, at any tempo and length, and attention reaches across the seam as across
any other bar line. The codec's halves see a few frames of context only; `encode_loop` and
`decode_loop` take it from the other end of the loop.

Rows of a batch never mix. Modules hold no state but weights; forward passes are
re-entrant. Training code is in engines/imp/, the labels in labels.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from demon_live.models.imp.labels import FRAME_HZ as FRAME_HZ
from demon_live.models.imp.labels import LABELS, TIMBRE
from demon_live.models.imp.labels import PHASE as PHASE
from demon_live.models.imp.labels import loop_frames as loop_frames
from demon_live.models.imp.synthesis import AIR_OUTPUTS, BINS, STEP, grain_angles
from demon_live.models.imp.synthesis import FFT as FFT
from demon_live.models.imp.synthesis import HOP as HOP
from demon_live.models.imp.synthesis import TONE_BINS as TONE_BINS
from demon_live.models.imp.synthesis import Synthesis as Synthesis
from demon_live.notes.lanes import LANES as LANES

CHANNELS = 64
"""Channels of the base, and of modules that are made without weights."""
SAMPLE_RATE = 48_000
RATE = HOP // STEP

LINE_BINS = 96
"""Bins of 25 Hz (2.4 kHz) that the lines of a detail reach; see `ImpEncoder`."""

Spectra: TypeAlias = tuple[Tensor, ...]
"""level, phase, air, share, and turn if the weights have lines: see `Synthesis`."""
Kernel: TypeAlias = Callable[..., Tensor]


def convnext(
    x: Tensor, taps: Tensor, shift: Tensor, norm: Tensor, bias: Tensor, up: Tensor, up_bias: Tensor,
    down: Tensor, down_bias: Tensor, scale: Tensor,
) -> Tensor:  # fmt: skip
    """ConvNeXt on [B, N, d]: depthwise taps [d, 1, k], LayerNorm, GELU MLP, scaled residual."""
    reach, n = taps.shape[-1] // 2, x.shape[1]
    padded = F.pad(x, (0, 0, reach, reach))
    y = shift
    for j in range(taps.shape[-1]):
        y = y + padded[:, j : j + n] * taps[:, 0, j]
    y = F.layer_norm(y, (y.shape[-1],), norm, bias)
    y = F.linear(F.gelu(F.linear(y, up, up_bias), approximate="tanh"), down, down_bias)
    return x + scale * y


class ConvNeXt(nn.Module):
    """ConvNeXt block. `kernel` computes it; training swaps it for a compiled one."""

    kernel: Kernel = staticmethod(convnext)

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.reach = taps // 2
        self.mix = nn.Conv1d(width, width, taps, padding=taps // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        m, n, u, d = self.mix, self.norm, self.up, self.down
        return ConvNeXt.kernel(
            x, m.weight, m.bias, n.weight, n.bias, u.weight, u.bias, d.weight, d.bias, self.scale
        )


def mid_side(audio: Tensor) -> Tensor:
    """Left/right -> mid/side, [B, 2, n]."""
    left, right = audio[:, 0], audio[:, 1]
    return torch.stack([(left + right) / 2, (left - right) / 2], dim=1)


def wrapped(x: Tensor, margin: int, dim: int) -> Tensor:
    """`margin` elements of the other end added on either side along `dim`, round and round."""
    n = x.shape[dim]
    index = torch.arange(-margin, n + margin, device=x.device) % n
    return x.index_select(dim, index)


class ImpEncoder(nn.Module):
    """Audio -> latent: log and compressed complex spectrum, ConvNeXt at 100 Hz, then 25 Hz.

    lines: the detail also sees the complex spectrum below 2.4 kHz through one matrix of its own.
    The blocks keep no phase above 600 Hz that a second half of the latent could carry.
    """

    win: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = CHANNELS, *, lines: bool = False) -> None:
        super().__init__()
        self.channels = channels
        detail, seen = channels - CHANNELS, RATE * 4 * LINE_BINS
        self.lines = nn.Linear(seen, detail, bias=False) if lines else None
        self.inp = nn.Linear(BINS * 6, 320)
        self.fine = nn.ModuleList(ConvNeXt(320, 5) for _ in range(6))
        self.pool = nn.Linear(RATE * 320, 448)
        self.coarse = nn.ModuleList(ConvNeXt(448, 3) for _ in range(3))
        self.norm = nn.LayerNorm(448)
        self.out = nn.Linear(448, channels)
        # On the CPU by name: on the meta device this one call would load torch._dynamo (1.5 s).
        self.register_buffer("win", torch.hann_window(FFT, device="cpu"), persistent=False)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def features(self, audio: Tensor) -> Tensor:
        """[B, 2, n*1920] -> [B, 4n, 6*961]: log magnitude and |S|^.3 phasor of mid and side."""
        edge = (FFT - STEP) // 2
        frames = F.pad(mid_side(audio), (edge, edge)).unfold(-1, FFT, STEP) * self.win
        s = torch.view_as_real(torch.fft.rfft(frames))
        size = (s.square().sum(-1) + 1e-8).sqrt()
        c = s * (size + 1e-3).pow(-0.7)[..., None]
        level = (torch.log(size + 1e-3) + 3) / 2.5
        parts = c.permute(0, 2, 1, 4, 3).flatten(2)
        return torch.cat([level[:, 0], level[:, 1], parts], dim=-1)

    def raw(self, audio: Tensor) -> Tensor:
        """Latent before normalisation, [B, n, C]."""
        with torch.autocast(audio.device.type, enabled=False):
            f = self.features(audio)
        y = self.inp(f).float()
        for block in self.fine:
            y = block(y)
        b, n, width = y.shape
        y = self.pool(y.reshape(b, n // RATE, RATE * width)).float()
        for block in self.coarse:
            y = block(y)
        z = cast(Tensor, self.out(self.norm(y))).float()
        if self.lines is None:
            return z
        seen = f[..., 2 * BINS :].reshape(*f.shape[:2], 4, BINS)[..., :LINE_BINS].flatten(2)
        return z + F.pad(self.lines(seen.reshape(b, n // RATE, -1)).float(), (CHANNELS, 0))

    def forward(self, audio: Tensor) -> Tensor:
        """audio float32 [B, 2, n*1920] -> latent [B, n, C] with about unit variance a channel."""
        latent: Tensor = (self.raw(audio) - self.mean) / self.std
        return latent

    @torch.no_grad()
    def encode_loop(self, audio: Tensor, frames: int | None = None) -> Tensor:
        """A loop [B, 2, samples] of any length -> latent [B, frames, C], context wrapped.

        `frames` defaults to the smallest even number that covers the loop; what they cover past
        its end is its beginning.
        """
        samples = audio.shape[-1]
        count = frames if frames is not None else 2 * math.ceil(samples / (2 * HOP))
        index = torch.arange(-MARGIN * HOP, (count + MARGIN) * HOP, device=audio.device) % samples
        latent: Tensor = self(audio.index_select(-1, index))
        return latent[:, MARGIN:-MARGIN]


COARSE_BLOCKS, COARSE_TAPS = 2, 3
FINE_BLOCKS, FINE_TAPS = 8, 5


class ImpDecoder(nn.Module):
    """Latent -> audio: ConvNeXt at 25 Hz, then 100 Hz; magnitude and phase, levels of noise.

    lines: phasors below 2.4 kHz are turned by the detail through one matrix of its own, and by the
    blocks.
    """

    angles: Tensor

    def __init__(
        self, channels: int = CHANNELS, tone_bins: int = TONE_BINS, *, lines: bool = False
    ) -> None:
        super().__init__()
        self.channels = channels
        made = 4 * LINE_BINS
        self.lines = nn.Conv1d(channels - CHANNELS, RATE * made, 3, padding=1) if lines else None
        self.turn = nn.Linear(384, made) if lines else None
        self.inp = nn.Conv1d(channels, 512, 3, padding=1)
        self.coarse = nn.ModuleList(ConvNeXt(512, COARSE_TAPS) for _ in range(COARSE_BLOCKS))
        self.spread = nn.Linear(512, RATE * 384)
        self.fine = nn.ModuleList(ConvNeXt(384, FINE_TAPS) for _ in range(FINE_BLOCKS))
        self.norm = nn.LayerNorm(384)
        self.level = nn.Linear(384, 2 * tone_bins)
        self.phase = nn.Linear(384, 2 * tone_bins)
        self.air = nn.Linear(384, AIR_OUTPUTS)
        self.register_buffer("angles", grain_angles(channels), persistent=False)
        self.synthesis = Synthesis()

    def trunk(self, latent: Tensor) -> Spectra:
        """latent [B, T, C] -> what `Synthesis` takes: log magnitude and phase (rad) of the tone,
        log levels of the noise, what the noise of each frame is mixed of; turns of the phasors.
        """
        y = self.inp(latent.transpose(1, 2)).transpose(1, 2).float()
        for block in self.coarse:
            y = block(y)
        b, n, _ = y.shape
        y = self.spread(y).reshape(b, RATE * n, -1).float()
        for block in self.fine:
            y = block(y)
        y = self.norm(y)
        turn = torch.cos(latent @ self.angles)
        share = turn * torch.rsqrt(turn.square().sum(-1, keepdim=True) + 1e-6)
        spectra = self.level(y), self.phase(y), self.air(y), share
        if self.lines is None or self.turn is None:
            return spectra
        own = self.lines(latent[..., CHANNELS:].transpose(1, 2)).transpose(1, 2)
        return *spectra, own.reshape(b, RATE * n, -1) + self.turn(y)

    def forward(self, latent: Tensor) -> Tensor:
        """latent [B, T, C] -> audio [B, 2, T*1920]; exact `MARGIN` frames away from either end."""
        audio: Tensor = self.synthesis(*self.trunk(latent))
        return audio

    @torch.no_grad()
    def decode_loop(self, latent: Tensor) -> Tensor:
        """A whole circular latent [B, T, C] -> audio [B, 2, T*1920] with the context wrapped."""
        edge = MARGIN * HOP
        audio: Tensor = self(wrapped(latent, MARGIN, 1))
        return audio[..., edge:-edge]


def _margin() -> int:
    """Latent frames that a decoded frame depends on, each side: the sum of the layers' reach."""
    overlap = math.ceil((FFT - STEP) / 2 / STEP)
    fine = overlap + FINE_BLOCKS * (FINE_TAPS // 2)
    return 1 + COARSE_BLOCKS * (COARSE_TAPS // 2) + math.ceil(fine / RATE)


MARGIN = _margin()


# ------------------------------------------------------------------------------------ flow model

WIDTH, DEPTH, HEADS, INNER, PATCH = 256, 10, 4, 512, 2
_PLANES = WIDTH // HEADS // 2
BAR_FEATURES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Fourier features of the position in the bar (64: a 64th note)."""
LOOP_FEATURES = (1, 2, 3, 4, 8)
ROTARY_BAR = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24)
"""Turns a bar; with ROTARY_LOOP one for each of a head's 32 planes. Whole: the loop closes."""
ROTARY_LOOP = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 12, 16)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position: x [B, S, H, 64], planes (i, i+32), by angles with cos, sin [B, S, 1, 32]."""
    a, b = x[..., :_PLANES], x[..., _PLANES:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x over its root mean square along the last axis, times gain."""
    return x * (torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * gain)


class FlowBlock(nn.Module):
    """Transformer block: modulated LayerNorm, circular rotary attention, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate = nn.Linear(WIDTH, INNER, bias=False)
        self.up = nn.Linear(WIDTH, INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)
        self.table = nn.Parameter(torch.zeros(6, WIDTH))
        self.q_gain = nn.Parameter(torch.ones(WIDTH // HEADS))
        self.k_gain = nn.Parameter(torch.ones(WIDTH // HEADS))
        nn.init.normal_(self.proj.weight, std=0.002)
        nn.init.normal_(self.down.weight, std=0.002)

    def heads(self, x: Tensor) -> Tensor:
        """[B, S, 256] -> [B, S, 4, 64]."""
        return x.reshape(x.shape[0], -1, HEADS, WIDTH // HEADS)

    def forward(
        self, x: Tensor, mod: Tensor, cos: Tensor, sin: Tensor, keep: Tensor | None
    ) -> Tensor:
        """x [B, S, 256]; mod [B, 1 or S, 6, 256]; cos, sin [B, S, 1, 32]; keep [B, 1, 1, S] or
        None.
        """
        m = (mod + self.table).unbind(2)
        y = F.layer_norm(x, (WIDTH,)) * (1 + m[1]) + m[0]
        v = self.heads(self.v(y))
        q = rotate(rms_norm(self.heads(self.q(y)), self.q_gain), cos, sin).to(v.dtype)
        k = rotate(rms_norm(self.heads(self.k(y)), self.k_gain), cos, sin).to(v.dtype)
        y = attend(q, k, v, keep)
        x = x + (1 + m[2]) * self.proj(y)
        y = F.layer_norm(x, (WIDTH,)) * (1 + m[4]) + m[3]
        return cast(Tensor, x + (1 + m[5]) * self.down(F.silu(self.gate(y)) * self.up(y)))


def attend(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """Attention over all positions: [B, S, H, 64] each -> [B, S, H*64]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if torch.compiler.is_exporting():
        weight = torch.softmax(q @ (k * (WIDTH // HEADS) ** -0.5).transpose(-1, -2), dim=-1)
        y = weight @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    return y.transpose(1, 2).flatten(2)


class LinearGuess(nn.Module):
    """What a noisy frame alone says of its velocity, if clean frames were Gaussian.

    Along an axis of variance s: E[v | x_t] = (t - (1 - t) s) / (t^2 + (1 - t)^2 s) x_t. The blocks
    then model what is left, and need not carry the noise.
    axes [C, C]: orthonormal rows; spread [C]: log variances of clean frames along them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.axes = nn.Parameter(torch.eye(channels))
        self.spread = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B, T, C], t [B] -> v [B, T, C]."""
        t, s = t.float()[:, None, None], self.spread.exp()
        gain = (t - (1 - t) * s) / (t * t + (1 - t) * (1 - t) * s)
        return ((x @ self.axes.T) * gain) @ self.axes


def _without_branches(
    module: nn.Module, tensors: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Weights from before a branch was there: it keeps the start that says nothing."""
    branches = ("timbre.", "lanes.")
    own: dict[str, Tensor] = {
        k: v for k, v in module.state_dict().items() if k.startswith(branches)
    }
    for name, value in own.items():
        tensors.setdefault(prefix + name, value)


class ImpFlow(nn.Module):
    """Velocity of a circular latent: x_t = t*noise + (1-t)*x0, v = noise - x0, t in [0, 1].

    timbre: with the branch that reads a timbre reference. It has no biases, so that no reference
    (zeros) adds exactly nothing, and it adds nothing to anything before it is trained. Weights
    without it load all the same.
    lanes: with the branch that reads notes and hits frame by frame, in the same way.
    linear: with `LinearGuess`.
    depth: how many blocks, DEPTH by default.
    """

    bar_features: Tensor
    loop_features: Tensor
    rotary_bar: Tensor
    rotary_loop: Tensor
    tones: Tensor

    def __init__(
        self,
        *,
        channels: int = CHANNELS,
        timbre: bool = True,
        lanes: bool = False,
        linear: bool = False,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        positions = 2 * (len(BAR_FEATURES) + len(LOOP_FEATURES))
        self.inp = nn.Linear(PATCH * (channels + channels + 1 + positions), WIDTH)
        self.time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.cond = nn.Sequential(nn.Linear(LABELS, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.modulate = nn.Linear(WIDTH, 6 * WIDTH)
        self.blocks = nn.ModuleList(FlowBlock() for _ in range(depth or DEPTH))
        self.final = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, PATCH * channels)
        for layer in (self.modulate, self.final, self.out):
            nn.init.normal_(layer.weight, std=0.002)
            nn.init.zeros_(layer.bias)
        # Last of what is drawn: the rest starts as it did before there was a reference.
        self.timbre = self._timbre_branch() if timbre else None
        self.lanes = nn.Linear(PATCH * LANES, WIDTH, bias=False) if lanes else None
        if self.lanes is not None:
            nn.init.zeros_(self.lanes.weight)
        self.linear = LinearGuess(channels) if linear else None
        self.register_load_state_dict_pre_hook(_without_branches)  # type: ignore[no-untyped-call]
        tones = torch.exp(torch.arange(128) * (-math.log(10_000.0) / 128)) * 1000
        self._constant("tones", tones)
        self._constant("bar_features", torch.tensor(BAR_FEATURES))
        self._constant("loop_features", torch.tensor(LOOP_FEATURES))
        self._constant("rotary_bar", torch.tensor(ROTARY_BAR))
        self._constant("rotary_loop", torch.tensor(ROTARY_LOOP))

    @staticmethod
    def _timbre_branch() -> nn.Sequential:
        first = nn.Linear(TIMBRE, WIDTH, bias=False)
        last = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.zeros_(last.weight)
        return nn.Sequential(first, nn.SiLU(), last)

    @property
    def width(self) -> int:
        """Numbers of the condition vector that it reads."""
        return LABELS if self.timbre is None else LABELS + TIMBRE

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float(), persistent=False)

    def positions(self, phase: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phase [B, T, 2] -> Fourier features [B, T, 34], rotary cos and sin [B, T/2, 1, 32]."""
        bar, loop = phase[..., :1], phase[..., 1:]
        turn = torch.cat([bar * self.bar_features, loop * self.loop_features], dim=-1)
        angle = 2 * math.pi * (turn - turn.floor())
        b, t, _ = phase.shape
        token = phase.reshape(b, t // PATCH, PATCH, PHASE).mean(2)
        bar, loop = token[..., :1], token[..., 1:]
        spin = torch.cat([bar * self.rotary_bar, loop * self.rotary_loop], dim=-1)
        spin = (2 * math.pi * (spin - spin.floor()))[:, :, None]
        return torch.cat([angle.sin(), angle.cos()], dim=-1), spin.cos(), spin.sin()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        hint: Tensor,
        phase: Tensor,
        cond: Tensor,
        lanes: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """-> v [B, T, C].

        x [B, T, C] noisy latent (T even); t [B]; hint [B, T, C+1] source latent and strength 0..1
        (all zeros: none); phase [B, T, 2] from `loop_phase`; cond [B, D] from `condition`, or one
        for every two frames [B, T/2, D], of which it reads the first `width` numbers;
        lanes [B, T, LANES], None or zeros: nothing is told;
        keep bool [B, T/2] marks real tokens where rows of several lengths share a batch (training).
        """
        b, n, _ = x.shape
        features, cos, sin = self.positions(phase.float())
        y = torch.cat([x, hint, features], dim=-1)
        y = self.inp(y.reshape(b, n // PATCH, -1))
        if self.lanes is not None and lanes is not None:
            y = y + self.lanes(lanes.reshape(b, n // PATCH, -1))
        angle = t.float()[:, None] * self.tones
        e = self.time(torch.cat([angle.cos(), angle.sin()], dim=-1))
        e = e if cond.ndim == 2 else e[:, None]
        e = e + self.cond(cond[..., :LABELS])
        if self.timbre is not None:
            e = e + self.timbre(cond[..., LABELS:])
        e = F.silu(e if cond.ndim > 2 else e[:, None])
        mod = self.modulate(e).unflatten(-1, (6, WIDTH))
        mask = None if keep is None else keep[:, None, None]
        for block in self.blocks:
            y = block(y, mod, cos, sin, mask)
        shift, scale = self.final(e).chunk(2, dim=-1)
        y = F.layer_norm(y, (WIDTH,)) * (1 + scale) + shift
        v = cast(Tensor, self.out(y)).reshape(b, n, self.channels)
        return v if self.linear is None else v + self.linear(x, t)


# --------------------------------------------------------------------------------------- weights

_Module = TypeVar("_Module", bound=nn.Module)


def _filled(module: _Module, tensors: Mapping[str, Tensor], prefix: str) -> _Module:
    own = {
        name.removeprefix(prefix): value.float()
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    module.load_state_dict(own, strict=True)
    return module.eval().requires_grad_(False)


def codec_like(tensors: Mapping[str, Tensor]) -> tuple[ImpEncoder, ImpDecoder]:
    """Encoder and decoder of the shapes of `tensors`, named as in codec.safetensors; not filled."""
    channels = tensors["encoder.mean"].shape[0]
    bins = tensors["decoder.level.bias"].shape[0] // 2
    lines = "encoder.lines.weight" in tensors
    return ImpEncoder(channels, lines=lines), ImpDecoder(channels, bins, lines=lines)


def codec_of(tensors: Mapping[str, Tensor]) -> tuple[ImpEncoder, ImpDecoder]:
    """Encoder and decoder of the shapes and values of `tensors`."""
    encoder, decoder = codec_like(tensors)
    return _filled(encoder, tensors, "encoder."), _filled(decoder, tensors, "decoder.")


def flow_like(tensors: Mapping[str, Tensor], prefix: str = "flow.") -> ImpFlow:
    """The flow model of the shapes and branches of `tensors`; not filled."""
    channels = tensors[f"{prefix}out.bias"].shape[0] // PATCH
    lanes = f"{prefix}lanes.weight" in tensors
    linear = f"{prefix}linear.axes" in tensors
    knows, depth = knows_timbre(tensors), blocks_in(tensors, prefix)
    return ImpFlow(channels=channels, timbre=knows, lanes=lanes, linear=linear, depth=depth)


def blocks_in(names: Iterable[str], prefix: str = "flow.") -> int:
    """How many blocks the flow model of weights of these names has."""
    return sum(name.startswith(f"{prefix}blocks.") and name.endswith(".table") for name in names)


def flow_of(tensors: Mapping[str, Tensor], prefix: str = "flow.") -> ImpFlow:
    """The flow model of the shapes, branches and values of `tensors`."""
    return _filled(flow_like(tensors, prefix), tensors, prefix)


def shapes_in(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file without their values."""
    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def load_codec(path: Path) -> tuple[ImpEncoder, ImpDecoder]:
    """engines/imp/codec.safetensors -> encoder and decoder, float32, on the CPU, in eval mode."""
    return codec_of(load_file(path))


def load_flow(path: Path) -> ImpFlow:
    """engines/imp/flow.safetensors -> flow model, float32, on the CPU, in eval mode; with the
    branches that the file has."""
    return flow_of(load_file(path))


def knows_timbre(names: Iterable[str]) -> bool:
    """Whether weights of these names were trained with a timbre reference."""
    return any(name.removeprefix("flow.").startswith("timbre.") for name in names)


def save_half(path: Path, **modules: nn.Module) -> None:
    """Write modules as float16 safetensors; tensor names are `<argument name>.<parameter name>`."""
    tensors = {
        f"{prefix}.{name}": value.detach().half().contiguous().cpu()
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    save_file(tensors, path)
