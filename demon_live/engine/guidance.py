"""Guidance: adaptive projected guidance (APG, arXiv 2410.02416) and its rescale.

Norms and projections are taken per channel over a window of time around each frame, cyclic like
the loop. ACE-Step and DEMON take them over the whole song, so that strength there depends on the
song's length and one loud bar turns guidance down everywhere; here a bar answers for itself. The
limit 2.5 is theirs, for a window of one second.

Threads: belongs to the engine thread, for the sake of its scratch tensors.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from demon_live.engine.workspace import Workspace

__all__ = ["LIMIT", "WINDOW", "apg", "rescale", "window_sum"]

#: Frames in a window (1 s), and the largest norm over it of a guidance update.
WINDOW: Final = 25
LIMIT: Final = 2.5

_TINY: Final = 1e-12


def window_sum(x: Tensor, out: Tensor, work: Workspace, window: int = WINDOW) -> Tensor:
    """Sum over the `window` frames around each frame, cyclic. [n, T, C] -> out [n, T, C].

    By doubling: sums of 1, 2, 4, ... frames, those of the window's binary digits added up, in the
    same order for every frame.
    """
    n, frames, channels = x.shape
    reach = min(window, frames if frames % 2 else frames - 1) // 2
    width, size, start = 2 * reach + 1, 1, 0
    run, other = (work.get(name, (n, frames + 2 * reach, channels)) for name in ("run", "runs"))
    torch.cat([x[:, frames - reach :], x, x[:, :reach]], dim=1, out=run)
    while size <= width:
        if width & size:
            part = run[:, start : start + frames]
            if start:
                out.add_(part)
            else:
                out.copy_(part)
            start += size
        longer = other[:, : run.shape[1] - size]
        torch.add(run[:, :-size], run[:, size:], out=longer)
        run, other, size = longer, run, 2 * size
    return out


def apg(
    positive: Tensor,
    negative: Tensor,
    guide: Tensor,
    work: Workspace,
    momentum: Tensor | None = None,
    memory: Tensor | None = None,
    eta: float = 0.0,
) -> Tensor:
    """The guided velocity. Velocities [n, T, C]; guide, momentum [n, 1 or T, 1].

    d = v+ - v-;  m <- d + mu m;  d <- m min(1, 2.5 / |m|);  d = d_par + d_orth against v+;
    v = v+ + (g - 1) (d_orth + eta d_par).  g = 1 leaves the bits of v+. memory: m, written.
    """
    update = torch.sub(positive, negative, out=work.like("update", positive))
    if memory is not None:
        if momentum is not None:
            update.add_(torch.mul(memory, momentum, out=work.like("product", positive)))
        memory.copy_(update)
    product, sums = work.like("product", positive), work.like("sums", positive)
    norm = window_sum(torch.mul(update, update, out=product), sums, work)
    update.mul_(norm.clamp_min_(_TINY).rsqrt_().mul_(LIMIT).clamp_max_(1.0))
    share = window_sum(torch.mul(update, positive, out=product), sums, work)
    power = work.like("power", positive)
    window_sum(torch.mul(positive, positive, out=product), power, work)
    parallel = share.div_(power.clamp_min_(_TINY)).mul_(positive)
    update.sub_(parallel.mul_(1.0 - eta)).mul_(guide - 1.0)
    return positive + update


def rescale(guided: Tensor, positive: Tensor, amount: Tensor, work: Workspace) -> Tensor:
    """v <- r v |v+| / |v| + (1 - r) v, norms over the window; r = 0 leaves the bits of v."""
    product, found = work.like("product", positive), work.like("sums", positive)
    wanted = work.like("power", positive)
    window_sum(torch.mul(positive, positive, out=product), wanted, work)
    window_sum(torch.mul(guided, guided, out=product), found, work)
    ratio = wanted.clamp_min_(_TINY).div_(found.clamp_min_(_TINY)).sqrt_()
    return guided + ratio.sub_(1.0).mul_(guided).mul_(amount)
