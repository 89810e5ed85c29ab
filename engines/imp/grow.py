"""Weights of a smaller model as the start of a larger one.

A codec of 64 channels becomes a nested one of more: base and tone are what they were, detail
counts for nothing yet. A flow model of 64 channels goes on with the detail unknown. New columns of
an input are zero, so that the first output is the old one's.

A flow model without `LinearGuess` gets the one of its bank, and its last matrix is fitted to what
is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.draw import Batch

__all__ = ["base", "fit_linear", "grown", "grown_flow"]

HEADS = ("decoder.level.weight", "decoder.level.bias", "decoder.phase.weight", "decoder.phase.bias")
ECHO = 120
"""A new bin of the tone begins as the bin this many (3 kHz) below it, a little quieter."""


def heads(old: Tensor, bins: int, softer: float) -> Tensor:
    """Rows of mid and side for `bins` bins, from rows for fewer."""
    rows = old.unflatten(0, (2, -1))
    while rows.shape[1] < bins:
        more = rows[:, rows.shape[1] - ECHO :][:, : bins - rows.shape[1]]
        rows = torch.cat([rows, more - softer], dim=1)
    return rows.flatten(0, 1)


def grown(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a codec in the shapes of `new`, named as there; what is new is taken from `new`
    (rows) or is zero (columns).
    """
    found = {}
    for name, value in new.items():
        if name not in old:
            found[name] = value
            continue
        given = old[name].to(value)
        if name in HEADS and given.shape != value.shape:
            softer = 0.5 if name == "decoder.level.bias" else 0.0
            given = heads(given, value.shape[0] // 2, softer)
        if given.shape != value.shape:
            whole = value.clone()
            if name == "decoder.inp.weight":
                whole.zero_()
            whole[tuple(slice(n) for n in given.shape)] = given
            given = whole
        found[name] = given
    return found


def base(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The base of a nested codec as a codec of its own, that decodes as if the detail were zero."""
    found = dict(tensors)
    for name in ("encoder.out.weight", "encoder.out.bias", "encoder.mean", "encoder.std"):
        found[name] = tensors[name][: imp.CHANNELS].clone()
    found["decoder.inp.weight"] = tensors["decoder.inp.weight"][:, : imp.CHANNELS].clone()
    return found


def grown_flow(old: Mapping[str, Tensor], flow: imp.ImpFlow) -> dict[str, Tensor]:
    """Tensors of a flow model in the shapes of `flow`; a branch that `old` lacks stays as it is
    there.
    """
    new = flow.state_dict()
    few, many = old["out.bias"].shape[0] // imp.PATCH, flow.channels
    found = {name: old[name].to(value) if name in old else value for name, value in new.items()}
    if few == many:
        return found
    width = new["inp.weight"].shape[0]
    columns = found["inp.weight"].view(width, imp.PATCH, -1)
    x, hint, rest = columns.split([few, few, columns.shape[-1] - 2 * few], dim=-1)
    empty = columns.new_zeros(width, imp.PATCH, many - few)
    found["inp.weight"] = torch.cat([x, empty, hint, empty, rest], dim=-1).reshape(width, -1)
    for name in ("out.weight", "out.bias"):
        whole = new[name].clone().unflatten(0, (imp.PATCH, many))
        whole[:, :few] = found[name].unflatten(0, (imp.PATCH, few))
        found[name] = whole.flatten(0, 1)
    return found


@torch.no_grad()
def fit_linear(flow: imp.ImpFlow, draw: Callable[[], Batch], batches: int = 48) -> None:
    """Give `flow` the linear guess of clean frames as `draw` gives them, and fit its last matrix so
    that both together say what it said before of the base, and what is best of the detail.
    """
    linear = flow.linear
    if linear is None:
        raise ValueError("a flow model without a linear guess")
    guess = imp.LinearGuess(flow.channels).to(linear.axes.device)
    drawn = [draw() for _ in range(batches)]
    masks = [b.keep.repeat_interleave(imp.PATCH, 1) for b in drawn]
    frames = torch.cat([b.x0[m] for b, m in zip(drawn, masks, strict=True)]).double()
    variance, axes = torch.linalg.eigh(torch.cov(frames.T) + frames.mean(0).outer(frames.mean(0)))
    guess.axes.copy_(axes.T)
    guess.spread.copy_(variance.clamp(min=1e-4).log())
    seen: list[Tensor] = []
    hook = flow.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    size = flow.out.in_features + 1
    normal = torch.zeros(size, size, dtype=torch.float64, device=axes.device)
    found = torch.zeros(size, flow.out.out_features, dtype=torch.float64, device=axes.device)
    for x0, t, hint, phase, cond, lanes, keep, _ in drawn:
        noise = torch.randn_like(x0)
        x = torch.lerp(x0, noise, t[:, None, None])
        target = flow(x, t, hint, phase, cond, lanes, keep) - linear(x, t)
        target[..., imp.CHANNELS :] = (noise - x0)[..., imp.CHANNELS :]
        left = (target - guess(x, t)).unflatten(1, (-1, imp.PATCH)).flatten(2)[keep].double()
        h = F.pad(seen.pop()[keep].double(), (0, 1), value=1.0)
        normal += h.T @ h
        found += h.T @ left
    hook.remove()
    ridge = 1e-4 * normal.diagonal().mean() * torch.eye(size, device=axes.device).double()
    solved = torch.linalg.solve(normal + ridge, found).float()
    flow.out.weight.copy_(solved[:-1].T)
    flow.out.bias.copy_(solved[-1])
    linear.load_state_dict(guess.state_dict())
