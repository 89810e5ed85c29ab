"""What tells renders from the decoder's sound: discriminators, and what the decoder learns of them.

Each sees one band of the short-time spectrum at one resolution: log magnitude of left, right, mid
and side, compressed complex values of two of them (drawn for each segment), through a narrow stack
of 2-D convolutions with weight norm. Bands have weights of their own, as in the discriminators of
recent codecs (DAC, arXiv 2306.06546), and count alike, so that 1.5 to 5.5 kHz, where the decoder
must choose phases of its own, weighs as much as all above. 171 ms windows part the partials and
show lines every 25 Hz, which a pattern repeated each latent frame would have; 5 ms windows show
attacks. Below 300 Hz the decoder follows the waveform: only short windows look.

Hinge loss. Features are matched by an energy distance, as the spectra in `losses` are: near to the
source's, and as far from those of a second draw of the noise. Plain L1 would thin the noise out.

The weight of either is set at the decoder's output: its gradient has a given share of the norm of
the gradient of the other losses (running means, as in EnCodec, arXiv 2210.13438), so that neither a
strong nor a confused discriminator can take over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from demon_live.models.imp import model as imp
from engines.imp.losses import side_gains
from engines.imp.training import Optimiser

LOW, MIDDLE, HIGH = (300, 1500), (1500, 5500), (5500, 20_000)
VIEWS = (
    (8192, (LOW, MIDDLE)),
    (4096, (MIDDLE,)),
    (2048, (LOW, MIDDLE, HIGH)),
    (256, ((0, 20_000),)),
)
"""Window in samples (a quarter of it is the step), bands in Hz. Few: what a step costs is paid in
steps, and tens of thousands of them are wanted."""
CROP = imp.SAMPLE_RATE
"""Samples of a segment that the discriminators see."""
PLANES = 8
FLOOR = 1e-2


def planes(x: Tensor, size: int, window: Tensor) -> Tensor:
    """Two channels [B, 2, n] -> [B, 8, frames, bins]: log magnitude of them and of their sum and
    difference, compressed complex values of them.
    """
    s = torch.view_as_real(torch.fft.rfft(x.unfold(-1, size, size // 4) * window))
    turned = torch.stack([s[:, 0] + s[:, 1], s[:, 0] - s[:, 1]], dim=1) * math.sqrt(0.5)
    magnitude = (torch.cat([s, turned], dim=1).square().sum(-1) + 1e-8).sqrt()
    level = torch.log(magnitude + FLOOR) / 3
    parts = s * (magnitude[:, :2] + FLOOR).pow(-0.7)[..., None]
    return torch.cat([level, parts[..., 0], parts[..., 1]], dim=1)


class Band(nn.Module):
    """Discriminator of one band: [B, 8, frames, bins] -> features of each layer, logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        shapes = (
            (PLANES, width, (3, 7), (1, 2)),
            (width, width, (3, 5), (2, 2)),
            (width, 2 * width, (3, 5), (1, 2)),
            (2 * width, 2 * width, (3, 3), (1, 1)),
            (2 * width, 1, (3, 3), (1, 1)),
        )
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, k, s, padding=(k[0] // 2, k[1] // 2)))
            for a, b, k, s in shapes
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        kept = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.1)
            kept.append(x)
        return kept, self.layers[-1](x)


class Discriminators(nn.Module):
    """All bands of all resolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.bands = nn.ModuleList(Band(width) for _, bands in VIEWS for _ in bands)
        self.slices = [
            (size, math.ceil(low * size / imp.SAMPLE_RATE), high * size // imp.SAMPLE_RATE)
            for size, bands in VIEWS
            for low, high in bands
        ]
        for size, _ in VIEWS:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def spectra(self, x: Tensor) -> list[Tensor]:
        """[B, 2, n] -> what each band sees, float32."""
        whole = {size: planes(x, size, getattr(self, f"window_{size}")) for size, _ in VIEWS}
        layout = torch.channels_last
        return [whole[n][..., a:b].contiguous(memory_format=layout) for n, a, b in self.slices]

    def forward(self, seen: list[Tensor]) -> list[tuple[list[Tensor], Tensor]]:
        """`spectra` -> features and logits of each band; bf16 on a GPU."""
        device = seen[0].device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return [band(x) for band, x in zip(self.bands, seen, strict=True)]


def judgement(real: Iterable[Tensor], made: Iterable[Tensor]) -> Tensor:
    """Hinge loss of the discriminators, mean over bands; 2 where they cannot tell."""
    parts = [
        F.relu(1 - a.float()).mean() + F.relu(1 + b.float()).mean()
        for a, b in zip(real, made, strict=True)
    ]
    return torch.stack(parts).mean()


def matching(real: list[Tensor], one: list[Tensor], two: list[Tensor]) -> Tensor:
    """Energy distance of the features of a source and of two draws, mean over layers; in units of
    the source's mean size.
    """
    parts = []
    for x, y, z in zip(real, one, two, strict=True):
        x, y, z = x.float(), y.float(), z.float()
        near = (x - y).abs().mean() + (x - z).abs().mean() - (y - z).abs().mean()
        parts.append(0.5 * near / (x.abs().mean() + 1e-3))
    return torch.stack(parts).mean()


class Adversary:
    """The discriminators in training, and the weights of what they say."""

    def __init__(self, device: str, shares: tuple[float, float], width: int = 32) -> None:
        """shares: of hinge and of matching against the other losses' gradient."""
        self.nets = Discriminators(width).to(device)
        self.optimiser = Optimiser([], list(self.nets.parameters()), (0.8, 0.99))
        self.shares = torch.tensor(shares, device=device)
        self.ramp = torch.tensor(0.0, device=device)
        self.norms = torch.zeros(3, device=device)
        self.progress = torch.zeros(3, device=device)

    def views(self, sounds: list[Tensor]) -> list[Tensor]:
        """[B, 2, n] each -> the same random CROP of each, left and right, or mid and side at one
        level (that of the first).
        """
        b, _, n = sounds[0].shape
        device, crop = sounds[0].device, min(CROP, n)
        sides = torch.rand(b, 1, 1, device=device) < 0.5
        start = (torch.rand(b, 1, 1, device=device) * (n - crop + 1)).long()
        index = (start + torch.arange(crop, device=device)).expand(b, 2, crop)
        parts = [v.gather(-1, index) for v in sounds]
        gains = side_gains(parts[0].detach())
        return [torch.where(sides, v, imp.mid_side(v) * gains) for v in parts]

    def pulls(self, x: Tensor, made: list[Tensor]) -> list[list[Tensor]]:
        """Source, two draws [B, 2, n] -> gradients of hinge and of matching by each draw; the
        discriminators' own gradients are left in them for `optimiser.step`.
        """
        real, *drawn = self.views([x, *made])
        with torch.no_grad():
            seen = self.nets.spectra(real)
            known = self.nets(seen)
        fresh = self.nets.spectra(torch.cat(drawn))
        heard = self.nets(fresh)
        hinge = -torch.stack([logits.float().mean() for _, logits in heard]).mean()
        halves = [[f.chunk(2) for f in features] for features, _ in heard]
        match = torch.stack(
            [
                matching(a, [h[0] for h in b], [h[1] for h in b])
                for (a, _), b in zip(known, halves, strict=True)
            ]
        ).mean()
        found = [
            list(torch.autograd.grad(hinge, made, retain_graph=True)),
            list(torch.autograd.grad(match, made)),
        ]
        loss = self.teach(seen, [v.detach()[: len(x)] for v in fresh])
        self.progress.lerp_(torch.stack([loss, hinge.detach(), match.detach()]), 0.02)
        return found

    def learn(self, real: list[Tensor], made: list[Tensor]) -> Tensor:
        """One update of the discriminators from `spectra` of both -> their loss."""
        self.optimiser.clear()
        loss = self.teach(real, made)
        self.optimiser.step()
        return loss

    def teach(self, real: list[Tensor], made: list[Tensor]) -> Tensor:
        """Gradients of the discriminators from `spectra` of both -> their loss."""
        heard = self.nets([torch.cat(pair) for pair in zip(real, made, strict=True)])
        halves = [logits.chunk(2) for _, logits in heard]
        loss = judgement([a for a, _ in halves], [b for _, b in halves])
        loss.backward()
        return loss.detach()

    def weighed(self, held: list[Tensor], pulls: list[list[Tensor]]) -> list[Tensor]:
        """Gradients by each draw: of the other losses, and with them the pulls at their shares,
        times `ramp`. A pull that stands out of its running mean is held to twice that.
        """
        norms = torch.stack([norm(held), *(norm(pull) for pull in pulls)])
        self.norms.lerp_(norms, 0.02)
        usual = torch.maximum(self.norms[1:], norms[1:] / 2)
        weights = (self.ramp * self.shares * self.norms[0] / (usual + 1e-12)).unbind()
        return [
            torch.nan_to_num(g + sum(w * p[i] for w, p in zip(weights, pulls, strict=True)))
            for i, g in enumerate(held)
        ]

    def state(self) -> dict[str, Any]:
        """All that is needed to go on later."""
        return {
            "nets": self.nets.state_dict(),
            "optimiser": self.optimiser.state(),
            "norms": self.norms,
        }

    def reset(self, nets: dict[str, Tensor]) -> None:
        """Forget what was learnt (on noise, while compiling); nets: weights to begin with."""
        self.nets.load_state_dict(nets)
        self.optimiser.reset()
        self.norms.zero_()
        self.progress.zero_()

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave; before the step is captured."""
        self.nets.load_state_dict(state["nets"])
        self.optimiser.restore(state["optimiser"])
        self.norms.copy_(state["norms"])


def norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all elements."""
    return cast(Tensor, torch.linalg.vector_norm(torch.stack([v.norm() for v in tensors])))
