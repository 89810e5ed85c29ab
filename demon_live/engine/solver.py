"""Schedules, and one solver step of all slots as coefficient curves.

Flow matching: x_t = t * noise + (1 - t) * x0, v = noise - x0. A generation goes down a schedule of
S + 1 noise levels (`timesteps`). By definition, and with all other controls neutral, it is

    t = timesteps(S, denoise, shift)
    x = t[0] * noise + (1 - t[0]) * source
    for k in range(S):
        z = normal(key(seed, STEP, k), T, C)
        v = velocity * model(x, t[k])
        x0 = x - t[k] * v
        if blend is None:
            x = x + (t[k + 1] - t[k]) * v + t[k + 1] * noise_curve * z
        else:
            x = t[k + 1] * z + (1 - t[k + 1]) * (blend * x0 + (1 - blend) * source)

Every step is linear in the tensors of a slot once the model has answered, so a step is

    x' = a x + b v + c z + d source + e target

with five coefficient curves per slot, [n, 1] or [n, T], computed here in float64 from the slot's
two levels and its lanes. Tensors see only that one expression: no branch depends on data, all
slots share one call, slots with and without a blend curve mix freely, and an absent control has
coefficients that leave the bits of the others alone (times 1, plus 0). Identities are exact: b = 0
where a frame is pinned, and d or e = 1 at the end.

Lanes and mixes are arrays of the host or float64 tensors of a device: the same operations, rounded
alike, so the same bits. A GPU computes the curves itself: arrays of slots by frames would take
longer to make and to send than all the rest of a tick.

Notation: t = t_k, u = t_{k+1}, s velocity scale, m mask (1 = new), w morph in effect, c blend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demon_live.engine.staging import upload
from demon_live.errors import ScoreError

#: A denoise at or under this returns the source.
_SOURCE_BELOW = 1e-6


def _start_level(steps: int, denoise: float, parity: bool = False) -> float:
    """The level before the shift at which a schedule starts: `denoise` itself.

    parity: S / floor(S / denoise), the staircase of the DEMON engine (9 values on [.5, 1] for
    S = 8), for comparison with it.
    """
    if denoise <= _SOURCE_BELOW:
        return 0.0
    if not parity or denoise >= 1.0:
        return float(denoise)
    return steps / math.floor(steps / denoise)


def timesteps(
    steps: int, denoise: float = 1.0, shift: float = 3.0, parity: bool = False
) -> NDArray[np.float64]:
    """The S + 1 noise levels of a generation, float64 [steps + 1], falling, the last one 0.

    t_k = t_start (1 - k / S), then t <- s t / (1 + (s - 1) t)   (ACE-Step 1.5; s = 3 for turbo)

    denoise <= 1e-6 gives S + 1 zeros, which leave the source as it is. Raises ScoreError when
    steps < 1, denoise is outside [0, 1] or shift <= 0.
    """
    if steps < 1:
        raise ScoreError(f"a schedule needs at least 1 step, not {steps}", hint="steps 8")
    if not 0.0 <= denoise <= 1.0:
        raise ScoreError(f"denoise goes from 0 to 1, this is {denoise:g}", hint="denoise = .7")
    if not (math.isfinite(shift) and shift > 0.0):
        raise ScoreError(f"shift must be over 0, this is {shift:g}", hint="shift = 3")
    level = _start_level(steps, denoise, parity) * (1.0 - np.arange(steps + 1) / steps)
    return np.asarray(shift * level / (1.0 + (shift - 1.0) * level), dtype=np.float64)


# -- a step


#: float64, an array or a tensor. (Any: the two share operators, not a type.)
Curve = Any


Kind = Literal["euler", "blend", "both"]


def zeros(like: Curve) -> Curve:
    """Zeros of the same shape and kind."""
    return torch.zeros_like(like) if isinstance(like, Tensor) else np.zeros_like(like)


def _where(flag: Any, a: Curve, b: Curve) -> Curve:
    return torch.where(flag, a, b) if isinstance(flag, Tensor) else np.where(flag, a, b)


@dataclass(frozen=True, slots=True)
class Mix:
    """Coefficients of x, v, z, source and target; each float64 [n, 1] or [n, T] (or one row for
    all)."""

    x: Curve
    v: Curve
    z: Curve
    source: Curve
    target: Curve

    def where(self, flag: Any, other: Mix) -> Mix:
        """This mix for the rows with a flag ([n, 1]), `other` for the rest."""
        return Mix(
            _where(flag, self.x, other.x),
            _where(flag, self.v, other.v),
            _where(flag, self.z, other.z),
            _where(flag, self.source, other.source),
            _where(flag, self.target, other.target),
        )


@dataclass(frozen=True, slots=True)
class Lanes:
    """What a step reads. t, u: float64 [n, 1]; blended: bool [n, 1]. Curves: [n or 1, 1 or T]."""

    t: Curve
    u: Curve
    velocity: Curve
    noise: Curve
    morph: Curve
    mask: Curve
    blend: Curve
    blended: Any

    @property
    def kind(self) -> Kind:
        """Which steps these rows take. Of the host's lanes only."""
        return "blend" if self.blended.all() else "both" if self.blended.any() else "euler"

    @property
    def curved(self) -> bool:
        """Whether a lane is a curve."""
        lanes = self.velocity, self.noise, self.morph, self.mask, self.blend
        return any(lane.shape[1] > 1 for lane in lanes)

    def rows(self, rows: Sequence[int]) -> Lanes:
        """The lanes of some rows."""
        at, n = list(rows), len(self.t)

        def some(curve: Curve) -> Curve:
            return np.broadcast_to(curve, (n, curve.shape[1]))[at]

        return Lanes(
            self.t[at],
            self.u[at],
            some(self.velocity),
            some(self.noise),
            some(self.morph),
            some(self.mask),
            some(self.blend),
            self.blended[at],
        )


def clean(lanes: Lanes) -> Mix:
    """The prediction of the clean latent, after mask and morph.

    x0 = x - t s v;  x0 <- m x0 + (1 - m) source;  x0 <- (1 - w) x0 + w target
    """
    m, w = lanes.mask, lanes.morph
    keep = (1.0 - w) * m
    zero = zeros(keep)
    return Mix(keep, -(keep * (lanes.t * lanes.velocity)), zero, (1.0 - w) * (1.0 - m), w + zero)


def euler(lanes: Lanes, x0: Mix) -> Mix:
    """x' = x + (u - t) s v + u n z + (1 - u / t) (x0 - (x - t s v)).

    The last term carries what mask and morph changed in the prediction x0; it is the Euler step
    along (x - x0) / t, written so that nothing changed is exactly nothing added. n: noise curve.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = _where(lanes.t > 0.0, 1.0 - lanes.u / lanes.t, zeros(lanes.t) + 1.0)
    plain = -(lanes.t * lanes.velocity)
    return Mix(
        1.0 + gain * (x0.x - 1.0),
        (lanes.u - lanes.t) * lanes.velocity + gain * (x0.v - plain),
        lanes.u * lanes.noise,
        gain * x0.source,
        gain * x0.target,
    )


def anchored(lanes: Lanes, x0: Mix) -> Mix:
    """c x0 + (1 - c) source: the prediction, pulled to the source frame by frame."""
    c = lanes.blend
    return Mix(c * x0.x, c * x0.v, c * x0.z, c * x0.source + (1.0 - c), c * x0.target)


def blended(lanes: Lanes, x0: Mix) -> Mix:
    """x' = u z + (1 - u) (c x0 + (1 - c) source), on the last step too (DEMON, mechanism 3).

    c = 1 is the plain SDE step, c = 0 ends on the source exactly. The noise curve has no part in
    it: all of the noise is fresh already.
    """
    pulled, rest = anchored(lanes, x0), 1.0 - lanes.u
    return Mix(
        rest * pulled.x,
        rest * pulled.v,
        lanes.u + zeros(pulled.x),
        rest * pulled.source,
        rest * pulled.target,
    )


def step(lanes: Lanes, kind: Kind | None = None) -> Mix:
    """The next x: per row blended or Euler. kind: `lanes.kind`, to be given with a device's."""
    x0, kind = clean(lanes), kind or lanes.kind
    if kind == "euler":
        return euler(lanes, x0)
    if kind == "blend":
        return blended(lanes, x0)
    return blended(lanes, x0).where(lanes.blended, euler(lanes, x0))


def morph_to_source(mix: Mix, own: NDArray[np.bool_] | Tensor | None) -> Mix:
    """Morph goes to the source in slots without a target. own: which slots have one ([n, 1]); None:
    no slot has."""
    merged = Mix(mix.x, mix.v, mix.z, mix.source + mix.target, zeros(mix.target))
    return merged if own is None else mix.where(own, merged)


def prediction(lanes: Lanes) -> Mix:
    """The clean prediction that `step` heads for: per row pulled to the source or not."""
    x0 = clean(lanes)
    return anchored(lanes, x0).where(lanes.blended, x0)


def mask_in(t: Curve, mask: Curve) -> Mix:
    """x <- m x + (1 - m) (t n + (1 - t) source), before the model; n, a fixed noise, is in z."""
    rest = 1.0 - mask
    return Mix(mask, zeros(mask), rest * t, rest * (1.0 - t), zeros(mask))


def birth(start: float, init: Curve | None, has_source: bool) -> tuple[Curve, Curve]:
    """Coefficients ([1] or [T]) of noise and source in the first x of a slot.

    init curve c: c noise + (1 - c) source; else t_0 noise + (1 - t_0) source; no source: noise.
    """
    level = np.array([start]) if init is None else init
    if not has_source:
        return np.ones(1), np.zeros(1)
    return level, 1.0 - level


def reproject(old: Curve, new: Curve, pull: Curve) -> Mix:
    """The mix that moves x from level old to new; x0, the clean prediction, takes v's place.

    Downward: e = (x - (1 - old) x0) / old;  x <- new e + (1 - new) ((1 - p) x0 + p source).
    Upward: x <- new z + (1 - new) x0 with counter-based z. Equal levels leave x alone.

    pull p: the part by which denoise fell. A prediction that was made further from the source
    cannot find back to it by itself; with it, a move to denoise 0 gives the source.
    """
    down = (new < old) & (old > 0.0)
    up = new > old
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(down, new / old, 1.0)
    x = np.where(up, 0.0, ratio)
    x0 = np.where(down, (1.0 - new) * (1.0 - pull) - ratio * (1.0 - old), 0.0)
    zero = np.zeros_like(x)
    return Mix(
        x,
        np.where(up, 1.0 - new, x0),
        np.where(up, new, 0.0),
        np.where(down, (1.0 - new) * pull, 0.0),
        zero,
    )


def stacked(mix: Mix) -> NDArray[np.float32]:
    """The coefficients of x, v, z, source, target as float32 [5, n, 1 or T, 1]."""
    curves = mix.x, mix.v, mix.z, mix.source, mix.target
    shape = np.broadcast_shapes(*(curve.shape for curve in curves))
    out = np.empty((5, *shape, 1), dtype=np.float32)
    for row, curve in zip(out, curves, strict=True):
        row[..., 0] = curve
    return out


def columns_of(mix: Mix) -> Tensor:
    """`stacked` of a mix of tensors, on their device."""
    curves = mix.x, mix.v, mix.z, mix.source, mix.target
    shape = np.broadcast_shapes(*(curve.shape for curve in curves))
    out = torch.empty((5, *shape, 1), dtype=torch.float32, device=mix.x.device)
    for row, curve in zip(out.unbind(0), curves, strict=True):
        row[..., 0].copy_(curve)
    return out


def combine(
    columns: Tensor,
    x: Tensor,
    terms: Sequence[Tensor | None],
    out: Tensor,
    scratch: Tensor,
    scaled: bool = True,
) -> Tensor:
    """a x + b v + c z + d source + e target into `out` (not x). Tensors float32 [n, T, C].

    columns: of `stacked`. terms: v, z, source, target; None for those whose coefficients
    are zero everywhere, by the host: adding zeros would change no bit.
    scaled: False if a is 1 everywhere. Products and sums are separate operations: a fused one
    rounds differently from kernel to kernel, and a slot's bits must not depend on the shape of
    its neighbours' lanes.
    """
    base = torch.mul(x, columns[0], out=out) if scaled else x
    for tensor, curve in zip(terms, columns[1:].unbind(0), strict=True):
        if tensor is not None:
            base = torch.add(base, torch.mul(tensor, curve, out=scratch), out=out)
    return base if base is out else out.copy_(base)


def apply(
    mix: Mix,
    x: Tensor,
    v: Tensor | None,
    z: Tensor | None,
    source: Tensor | None,
    target: Tensor | None,
) -> Tensor:
    """`combine` with a mix, into a new tensor."""
    columns = upload(stacked(mix), x.device)
    terms = v, z, source, target
    return combine(columns, x, terms, torch.empty_like(x), torch.empty_like(x))
