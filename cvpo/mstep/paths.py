"""Paths from the old Gaussian to the weighted moments of its particles, in coordinates where the old one is N(0, I).

With x_k = L₀⁻¹(a_k − μ₀), u = Σ_k w_k x_k and t = 1/(1+β), a path is μ = μ₀ + t L₀u, Σ = L₀ C(t) L₀ᵀ,
C(t) = I + t G + t(1−t) uuᵀ. The full projection has G = Σ_k w_k (x−u)(x−u)ᵀ − I; in the decoupled one the covariance
moves alone, with G = Σ_k w_k xxᵀ − I and u = 0. Diagonal Gaussians keep the diagonals. Centred moments, and G itself
rather than C − I, avoid cancellation.

Shapes: x [...,B,K,D], w [...,B,K], u [...,B,D], G [...,B,D] or [...,B,D,D], t [...,1] or [...,B].
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from cvpo.distributions import Gaussian, colour, phi, whiten
from cvpo.mstep.root import Curve


def moments(old: Gaussian, actions: Tensor, weights: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """u and G of the particles; weights are normalised over K, so that rounding in their sum does not matter."""
    particles = whiten(old.scale, actions - old.mean.unsqueeze(-2))
    shares = (weights / weights.sum(-1, keepdim=True)).unsqueeze(-1)
    u = (shares * particles).sum(-2)
    if centred:
        particles = particles - u.unsqueeze(-2)
    if old.is_diagonal:
        return u, (shares * particles.square()).sum(-2) - 1.0
    return u, (shares * particles).mT @ particles - torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)


def curve_of(g: Tensor, u: Tensor) -> tuple[Curve, Tensor]:
    """KL(t) with its slope, and its curvature |u|² + ½‖G + uuᵀ‖² at t = 0 [...,B], for either kind of scale."""
    square = u.square().sum(-1)
    if g.ndim == u.ndim:
        return partial(diagonal_curve, g, u), square + 0.5 * (g + u.square()).square().sum(-1)
    return partial(cholesky_curve, g, u), square + 0.5 * (g + _outer(u)).square().sum((-2, -1))


def diagonal_curve(g: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """KL(t) = ½Σ_i [t²u²/r + φ(−log r)] with r = 1 + t g + t(1−t)u² [...,B], and dKL/dt."""
    t = t.unsqueeze(-1)
    u2 = u.square()
    growth = g + (1.0 - t) * u2
    r = 1.0 + t * growth
    slope_r = g + (1.0 - 2.0 * t) * u2
    kl = 0.5 * (t * t * u2 / r + phi(-torch.log1p(t * growth))).sum(-1)
    slope = 0.5 * (t * (2.0 * u2 * r + slope_r * (growth - t * u2)) / r.square()).sum(-1)
    return kl, slope


def cholesky_curve(g: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """KL(t) = ½[t²‖Xu‖² + Σ_{i>j} X_ij² + Σ_i φ(2 log X_ii)], X = chol(C)⁻¹ [...,B], and dKL/dt.

    Where C is singular, KL is ∞.
    """
    t = t[..., None, None]
    identity = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    outer = _outer(u)
    growth = g + (1.0 - t) * outer
    root, info = torch.linalg.cholesky_ex(identity + t * growth)
    inverse_root = torch.linalg.solve_triangular(root, identity.expand_as(root), upper=False)
    white = inverse_root @ u.unsqueeze(-1)
    t1 = t[..., 0, 0]
    square = white.square().sum((-2, -1))
    spread = inverse_root.tril(-1).square().sum((-2, -1))
    kl = 0.5 * (t1 * t1 * square + spread + phi(-2.0 * root.diagonal(dim1=-2, dim2=-1).log()).sum(-1))
    # C' = dC/dt and C⁻¹(I − C⁻¹) = t C⁻¹ growth C⁻¹, which does not cancel at small t.
    precision = inverse_root.mT @ inverse_root
    slope_c = g + (1.0 - 2.0 * t) * outer
    pull = inverse_root.mT @ white
    turn = (pull.mT @ slope_c @ pull)[..., 0, 0]
    trace = ((precision @ slope_c) * (precision @ growth).mT).sum((-2, -1))
    slope = t1 * square + 0.5 * t1 * (trace - t1 * turn)
    return torch.where(info == 0, kl, math.inf), slope


def mean_at(old: Gaussian, u: Tensor, t: Tensor) -> Tensor:
    """μ(t) = μ₀ + t L₀u [...,B,D]."""
    return old.mean + colour(old.scale, (t.unsqueeze(-1) * u).unsqueeze(-2)).squeeze(-2)


def scale_at(old: Gaussian, g: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """Scale of Σ(t) = L₀ C(t) L₀ᵀ, of the same kind as the old one: L₀ chol C(t)."""
    if old.is_diagonal:
        t = t.unsqueeze(-1)
        return old.scale * (1.0 + t * (g + (1.0 - t) * u.square())).sqrt()
    t = t[..., None, None]
    identity = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    return old.scale @ torch.linalg.cholesky_ex(identity + t * (g + (1.0 - t) * _outer(u)))[0]


def rounded(value: Tensor, origin: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 ``value`` in ``dtype``, rounded towards ``origin``: rounding takes no coordinate further from it."""
    nearest = value.to(dtype)
    if dtype == value.dtype:
        return nearest
    beyond = (nearest.double() - value) * (value - origin) > 0
    inner = torch.nextafter(nearest, origin.to(dtype))
    return nearest + (torch.where(beyond, inner, nearest) - nearest).detach()


def _outer(u: Tensor) -> Tensor:
    return u.unsqueeze(-1) * u.unsqueeze(-2)
