"""imp's linear guess, how weights without it take it on, and the long steps of a teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from demon_live.models.imp import model as imp
from engines.imp.draw import Batch
from engines.imp.grow import fit_linear, grown_flow
from engines.imp.straighten import SHIFT, STEPS, stride

CHANNELS = 96


def covariance() -> Tensor:
    """Of frames of 96 channels, with variances from .1 to 3 along turned axes."""
    turned, _ = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS))
    return turned.T @ torch.diag(torch.linspace(0.1, 3.0, CHANNELS)) @ turned


def batch(root: Tensor) -> Batch:
    """Frames of the covariance root @ root.T, no source and nothing told."""
    rows, frames = 8, 40
    x0 = torch.randn(rows, frames, CHANNELS) @ root.T
    keep = torch.ones(rows, frames // 2).bool()
    return Batch(
        x0,
        torch.rand(rows),
        torch.zeros(rows, frames, CHANNELS + 1),
        torch.rand(rows, frames, 2),
        torch.zeros(rows, frames // 2, 256),
        torch.zeros(rows, frames, imp.LANES),
        keep,
        torch.ones(rows, 1),
    )


def test_the_guess_is_the_conditional_mean_of_gaussian_frames() -> None:
    torch.manual_seed(1)
    sigma = covariance().double()
    variance, axes = torch.linalg.eigh(sigma)
    guess = imp.LinearGuess(CHANNELS).double()
    with torch.no_grad():
        guess.axes.copy_(axes.T)
        guess.spread.copy_(variance.log())
    x, eye = torch.randn(3, 5, CHANNELS).double(), torch.eye(CHANNELS).double()
    for level in (0.0, 0.2, 0.7, 1.0):
        # v = noise - x0 and x = t noise + (1 - t) x0: Cov(v, x) Var(x)^-1 x.
        joint = (level * eye - (1 - level) * sigma) @ torch.linalg.inv(
            level**2 * eye + (1 - level) ** 2 * sigma
        )
        found = guess(x, torch.full((3,), level))
        assert torch.allclose(found, x @ joint.T, atol=1e-4)


def test_weights_without_a_guess_take_on_that_of_their_frames() -> None:
    torch.manual_seed(2)
    sigma = covariance()
    root = torch.linalg.cholesky(sigma)
    old = imp.ImpFlow(channels=CHANNELS, timbre=False, lanes=True, depth=1)
    flow = imp.ImpFlow(channels=CHANNELS, timbre=False, lanes=True, linear=True, depth=1)
    flow.load_state_dict(grown_flow(old.state_dict(), flow))
    fit_linear(flow, lambda: batch(root), batches=30)
    assert flow.linear is not None
    axes, spread = flow.linear.axes.detach(), flow.linear.spread.detach()
    assert torch.allclose(axes @ axes.T, torch.eye(CHANNELS), atol=1e-4)
    again = axes.T @ torch.diag(spread.exp()) @ axes
    assert (again - sigma).norm() < 0.15 * sigma.norm()
    given = batch(root)
    noise = torch.randn_like(given.x0)
    x = torch.lerp(given.x0, noise, given.t[:, None, None])
    rest = given.hint, given.phase, given.cond, given.lanes, given.keep
    target = noise - given.x0
    with torch.no_grad():
        before, after = (one(x, given.t, *rest) for one in (old, flow))
    detail = slice(imp.CHANNELS, None)
    errors = [(v - target)[..., detail].square().mean() for v in (before, after)]
    assert errors[1] < 0.9 * errors[0]


def test_the_shapes_of_weights_say_whether_there_is_a_guess() -> None:
    flow = imp.ImpFlow(channels=CHANNELS, timbre=False, linear=True, depth=1)
    loaded = imp.flow_of(flow.state_dict(), "")
    assert loaded.linear is not None
    assert torch.equal(loaded.linear.axes, flow.linear.axes)  # type: ignore[union-attr]
    plain = imp.ImpFlow(channels=CHANNELS, timbre=False, depth=1)
    assert imp.flow_of(plain.state_dict(), "").linear is None


def test_a_straight_way_is_its_own_long_step() -> None:
    torch.manual_seed(3)
    x, t = torch.randn(64, 4, 2), torch.rand(64)
    constant = torch.randn(64, 4, 2)
    assert torch.allclose(stride(lambda *_: constant, x, t), constant, atol=1e-4)


def test_a_long_step_is_the_mean_of_a_bent_way() -> None:
    """v = cos(6 t), whose mean is a difference of sines."""
    torch.manual_seed(4)
    t = torch.linspace(0.3, 0.99, 32)
    x = torch.zeros(32, 2, 1)

    def teacher(x: Tensor, now: Tensor) -> Tensor:
        return torch.cos(6 * now)[:, None, None].expand_as(x)

    torch.manual_seed(5)
    found = stride(teacher, x, t)[:, 0, 0]
    torch.manual_seed(5)
    level = t / (SHIFT - (SHIFT - 1) * t)
    then = (level - (level + (1 - level) * torch.rand_like(level)) / STEPS).clamp(min=0)
    then = SHIFT * then / (1 + (SHIFT - 1) * then)
    exact = (torch.sin(6 * then) - torch.sin(6 * t)) / 6 / (then - t)
    one_step = torch.cos(6 * t)
    assert (found - exact).abs().max() < 0.03
    assert (found - exact).abs().mean() < 0.1 * (one_step - exact).abs().mean()
