"""Guidance: APG (arXiv 2410.02416) with rescale, and wavelet correction (DCW, arXiv 2604.16044).

APG: norms and projections are taken per channel over a window of time around each frame, cyclic
like the loop. ACE-Step and DEMON take them over the whole song, so that strength there depends on
the song's length and one loud bar turns guidance down everywhere; here each bar has its own. The
limit 2.5 is theirs, for a window of one second.

DCW: after a step, the low and high band along time (one level of a Haar transform, zero padding) of
the new state are pushed away from those of the model's own prediction. Off by default.

Threads: belongs to the engine thread, for the sake of its scratch tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from demon_live.engine.staging import Workspace

#: Frames in a window (1 s), and the largest norm over it of a guidance update.
WINDOW: Final = 25
LIMIT: Final = 2.5

_TINY: Final = 1e-12


def _reach(frames: int, window: int = WINDOW) -> int:
    """Frames of a window on either side of its middle; a loop shorter than it counts once."""
    return min(window, frames if frames % 2 else frames - 1) // 2


def window_sum(a: Tensor, b: Tensor, out: Tensor, work: Workspace, window: int = WINDOW) -> Tensor:
    """Sum of a b over the `window` frames around each frame, cyclic. [n, T, C] -> out [n, T, C].

    By doubling: sums of 1, 2, 4, ... frames, those of the window's binary digits added up, in the
    same order for every frame.
    """
    n, frames, channels = a.shape
    reach = _reach(frames, window)
    width = 2 * reach + 1
    run, other = (work.get(name, (n, frames + 2 * reach, channels)) for name in ("run", "runs"))
    torch.mul(a, b, out=run[:, reach : reach + frames])
    if reach:
        run[:, :reach].copy_(run[:, frames : frames + reach])
        run[:, reach + frames :].copy_(run[:, reach : 2 * reach])
    # The width is odd: its first digit is a 1.
    out.copy_(run[:, :frames])
    size, start = 2, 1
    while size <= width:
        longer = other[:, : run.shape[1] - size // 2]
        torch.add(run[:, : -(size // 2)], run[:, size // 2 :], out=longer)
        run, other = longer, run
        if width & size:
            out.add_(run[:, start : start + frames])
            start += size
        size *= 2
    return out


def apg(
    positive: Tensor,
    negative: Tensor,
    guide: Tensor,
    work: Workspace,
    momentum: Tensor | None = None,
    memory: Tensor | None = None,
) -> Tensor:
    """The guided velocity. Velocities [n, T, C]; guide, momentum [n, 1 or T, 1].

    d = v+ - v-;  m <- d + mu m;  d <- m min(1, 2.5 / |m|);  d = d_par + d_orth against v+;
    v = v+ + (g - 1) d_orth.  g = 1 leaves the bits of v+. memory: m, written. The result lies in
    `work`, until the next call; "power" there holds the windows of |v+|^2.
    """
    update, sums = work.like("update", positive), work.like("sums", positive)
    power = work.like("power", positive)
    change = work.like("change", positive) if memory is None else memory
    if memory is None or momentum is None:
        torch.sub(positive, negative, out=change)
    else:
        torch.sub(positive, negative, out=update)
        torch.mul(memory, momentum, out=change).add_(update)
    # A window of zeros has an endless rsqrt, and its limit is 1.
    window_sum(change, change, sums, work).rsqrt_().clamp_(max=1.0 / LIMIT)
    torch.mul(change, sums, out=update)
    window_sum(update, positive, sums, work)
    window_sum(positive, positive, power, work).clamp_(min=_TINY)
    update.sub_(sums.div_(power).mul_(positive)).mul_((guide - 1.0) * LIMIT)
    return torch.add(positive, update, out=work.like("guided", positive))


def rescale(guided: Tensor, power: Tensor, amount: Tensor, work: Workspace) -> Tensor:
    """v <- r v |v+| / |v| + (1 - r) v, in place; r = 0 leaves the bits of v.

    power: windows of |v+|^2, as `apg` leaves them. Norms are over the window.
    """
    found = window_sum(guided, guided, work.like("sums", guided), work).clamp_(min=_TINY)
    ratio = torch.div(power, found, out=found).sqrt_().sub_(1.0).mul_(amount)
    return guided.add_(ratio.mul_(guided))


def guided(
    positive: Tensor,
    negative: Tensor,
    curves: tuple[Tensor, Tensor | None, Tensor | None],
    memory: Tensor,
    work: Workspace,
) -> Tensor:
    """APG and rescale. curves: guide, rescale, momentum; None = neutral for all of the slots."""
    guide, amount, momentum = curves
    out = apg(positive, negative, guide, work, momentum, memory)
    return out if amount is None else rescale(out, work.like("power", out), amount, work)


# -- wavelet correction

_HALF = 0.5**0.5


@dataclass(frozen=True, slots=True)
class Dcw:
    """Which bands are corrected, and how strongly: low at t = 1, falling to 0; high the reverse."""

    mode: Literal["low", "high", "double"] = "double"
    low: float = 0.05
    high: float = 0.02

    @property
    def active(self) -> bool:
        low, high = _strengths(self)
        return low != 0.0 or high != 0.0


def _strengths(settings: Dcw) -> tuple[float, float]:
    return (
        settings.low if settings.mode != "high" else 0.0,
        settings.high if settings.mode != "low" else 0.0,
    )


def haar_split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar bands (low, high) along time, [n, ceil(T / 2), C] each; odd T gets a zero frame."""
    if x.shape[1] % 2:
        x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    even, odd = x[:, 0::2], x[:, 1::2]
    return (even + odd) * _HALF, (even - odd) * _HALF


def haar_merge(low: Tensor, high: Tensor, frames: int) -> Tensor:
    """The inverse of `haar_split`, cut to `frames`."""
    pairs = torch.stack([(low + high) * _HALF, (low - high) * _HALF], dim=2)
    return pairs.flatten(1, 2)[:, :frames]


def correct(x: Tensor, prediction: Tensor, t: Tensor, settings: Dcw) -> Tensor:
    """x + the inverse transform of (t l (xL - yL), (1 - t) h (xH - yH)), y the prediction.

    x, prediction: [n, T, C]; t: [n, 1, 1]. The transform is linear, so only the difference goes
    through it: no difference, or zero strengths, leave the bits of x.
    """
    if not settings.active:
        return x
    low_strength, high_strength = _strengths(settings)
    low, high = haar_split(x - prediction)
    change = haar_merge(t * low_strength * low, (1.0 - t) * high_strength * high, x.shape[1])
    return x + change
