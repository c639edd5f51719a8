"""The one-dimensional dual of every projection: how far to go along a path on which KL only grows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]

ITERATIONS = 40
TOLERANCE = 1e-9


def pool(kl: Tensor, average: str) -> Tensor:
    """Mean over states [...,1] for ``"batch"``, unchanged [...,B] for ``"state"``."""
    return kl.mean(-1, keepdim=True) if average == "batch" else kl


def mean_step(kl: Tensor, bound: float) -> Tensor:
    """min(1, √(ε/KL)): the step on a path along which KL is exactly quadratic."""
    active = kl > bound
    return torch.where(active, (bound / torch.where(active, kl, 1.0)).sqrt(), 1.0)


def largest_step(curve: Curve, curvature: Tensor, bound: float, average: str) -> Tensor:
    """max t in [0, 1] with KL(t) <= ε, for KL increasing in t with KL(0) = 0; t = 1/(1+β), β the dual variable.

    ``curve(t)`` gives KL and its slope dKL/dt per state [...,B] for t [...,1] or [...,B]; ``curvature`` [...,B] is κ in
    KL(t) ≈ ½κt² near 0. Returns t [...,1] for ``average="batch"``, else [...,B], with KL(t) <= ε(1 + 1e-9) always.
    Safeguarded Newton on √KL, which is nearly linear, in a fixed number of iterations; on the CPU, where a look at a
    bool costs nothing, it stops when all have converged. Gradients are those of the implicit function KL(t) = ε.
    """
    with torch.no_grad():
        t, active = _search(curve, curvature, bound, average)
    if not torch.is_grad_enabled():
        return t
    kl, slope = (pool(value, average) for value in curve(t))
    # Where KL has underflowed the path is flat: t does not depend on it.
    steep = active & (slope.detach() > 0.0)
    step = (kl.detach() - kl) / torch.where(steep, slope.detach(), 1.0)
    return t + torch.where(steep, step, 0.0)


def _search(curve: Curve, curvature: Tensor, bound: float, average: str) -> tuple[Tensor, Tensor]:
    flatness = pool(curvature, average)
    one = torch.ones_like(flatness)
    done = pool(curve(one)[0], average) <= bound
    active = ~done
    low, high = torch.zeros_like(one), one
    guess = (2.0 * bound / flatness).sqrt()
    t = torch.where(done, 1.0, torch.where(guess < 0.9, guess, 0.9))
    for _ in range(ITERATIONS):
        kl, slope = (pool(value, average) for value in curve(t))
        inside = kl <= bound
        low = torch.where(inside, t, low)
        high = torch.where(inside, high, t)
        newton = t - 2.0 * (kl - (kl * bound).sqrt()) / slope
        # A step that is NaN (a singular covariance has infinite KL) or leaves the bracket falls back to bisection.
        safe = (newton > low) & (newton < high)
        done = done | ((kl - bound).abs() <= TOLERANCE * bound)
        t = torch.where(done, t, torch.where(safe, newton, 0.5 * (low + high)))
        if t.device.type == "cpu" and bool(done.all()):
            break
    return torch.where(done, t, low), active
