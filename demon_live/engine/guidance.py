"""Guidance: adaptive projected guidance (APG, arXiv 2410.02416) and its rescale.

Norms and projections are taken per channel over a window of time around each frame, cyclic like
the loop. ACE-Step and DEMON take them over the whole song, so that strength there depends on the
song's length and one loud bar turns guidance down everywhere; here a bar answers for itself. The
limit 2.5 is theirs, for a window of one second.

Threads: pure functions.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = ["LIMIT", "WINDOW", "apg", "rescale", "window_sum"]

#: Frames in a window (1 s), and the largest norm over it of a guidance update.
WINDOW: Final = 25
LIMIT: Final = 2.5

_TINY: Final = 1e-12


def window_sum(x: Tensor, window: int = WINDOW) -> Tensor:
    """Sum over the `window` frames around each frame, cyclic. [n, T, C] -> [n, T, C].

    By doubling: sums of 1, 2, 4, ... frames, those of the window's binary digits added up, in the
    same order for every frame.
    """
    frames = x.shape[1]
    reach = min(window, frames if frames % 2 else frames - 1) // 2
    if reach < 1:
        return x
    run, size, start = torch.cat([x[:, -reach:], x, x[:, :reach]], dim=1), 1, 0
    total: Tensor | None = None
    width = 2 * reach + 1
    while size <= width:
        if width & size:
            part = run[:, start : start + frames]
            total = part if total is None else total + part
            start += size
        run = run[:, :-size] + run[:, size:]
        size *= 2
    assert total is not None
    return total


def apg(
    positive: Tensor, negative: Tensor, guide: Tensor, momentum: Tensor | None = None,
    memory: Tensor | None = None, eta: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(guided velocity, new memory). Velocities [n, T, C]; guide, momentum [n, 1 or T, 1].

    d = v+ - v-;  m <- d + mu m;  d <- m min(1, 2.5 / |m|);  d = d_par + d_orth against v+;
    v = v+ + (g - 1) (d_orth + eta d_par).  g = 1 leaves the bits of v+.
    """
    update = positive - negative
    if momentum is not None and memory is not None:
        update = update + momentum * memory
    norm = window_sum(update * update).clamp_min(_TINY).sqrt()
    direction = update * (LIMIT / norm).clamp_max(1.0)
    share = window_sum(direction * positive) / window_sum(positive * positive).clamp_min(_TINY)
    parallel = share * positive
    return positive + (guide - 1.0) * (direction - (1.0 - eta) * parallel), update


def rescale(guided: Tensor, positive: Tensor, amount: Tensor) -> Tensor:
    """v <- r v |v+| / |v| + (1 - r) v, norms over the window; r = 0 leaves the bits of v."""
    wanted = window_sum(positive * positive).clamp_min(_TINY)
    found = window_sum(guided * guided).clamp_min(_TINY)
    ratio = (wanted / found).sqrt()
    return guided + amount * (guided * ratio - guided)
