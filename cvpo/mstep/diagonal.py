"""The decoupled terms of diagonal Gaussians, with what depends on the old policy alone worked out once.

The particles enter through their moments under the old policy, with x = (a − μ₀)/σ₀: Σ w, Σ w x and Σ w x². With
v = (μ − μ₀)/σ₀ and y = 2 log(σ₀/σ), each summed over dimensions::

    KL_μ = ½ v²        KL_Σ = ½ (eʸ − 1 − y)        ∂KL_μ/∂μ = v/σ₀        ∂KL_Σ/∂σ = −(eʸ − 1)/σ
    Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)] = −½ [v (v Σ w − 2 Σ w x) + eʸ Σ w x² − y Σ w] − rest

Shapes: μ, σ, Σ w x and Σ w x² [...,B,D], Σ w [...,B,1], the rest [...,B].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cvpo.distributions import log_volume, whiten


class Moments(NamedTuple):
    """The old policy, and the moments of the particles under it."""

    mean0: Tensor
    scale0: Tensor
    total: Tensor
    first: Tensor
    second: Tensor
    rest: Tensor


def moments_of(mean0: Tensor, scale0: Tensor, actions: Tensor, weights: Tensor) -> Moments:
    """Those of ``actions`` [...,B,K,D] with ``weights`` [...,B,K]."""
    x = whiten(scale0, actions - mean0.unsqueeze(-2))
    weighted = weights.unsqueeze(-1) * x
    total, first, second = weights.sum(-1, keepdim=True), weighted.sum(-2), (weighted * x).sum(-2)
    rest = 0.5 * second.sum(-1) + 2.0 * log_volume(mean0, scale0) * total.squeeze(-1)
    return Moments(mean0, scale0, total, first, second, rest)


def likelihood(mean: Tensor, scale: Tensor, *given: Tensor) -> Tensor:
    """The third of the terms above [...,B], in which all may be differentiated; ``given``: :class:`Moments`."""
    return (0.5 * _by_likelihood(*_parts(mean, scale, *given), *given).sum(-1) - given[-1]).to(mean.dtype)


def _parts(
    mean: Tensor, scale: Tensor, mean0: Tensor, scale0: Tensor, total: Tensor, first: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """v, y, eʸ − 1 and v Σ w − Σ w x."""
    v = (mean - mean0) / scale0
    # Unequal float32 numbers differ by at least 6e-8, relatively: float64 has the digits for eʸ − 1 − y.
    y = 2.0 * (scale0.double() / scale).log()
    return v, y, torch.expm1(y), v * total - first


def _by_likelihood(v: Tensor, y: Tensor, growth: Tensor, pull: Tensor, *given: Tensor) -> Tensor:
    """Twice the likelihood, but for the rest, by dimension."""
    _, _, total, first, second, _ = given
    return v * (first - pull) + y * total - (growth + 1.0) * second


class DiagonalTerms(torch.autograd.Function):
    """KL_μ, KL_Σ and the likelihood [...,3,B], with their derivatives by μ and σ; relatively exact in float32."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, scale: Tensor, *given: Tensor) -> Tensor:
        v, y, growth, pull = _parts(mean, scale, *given)
        by_likelihood = _by_likelihood(v, y, growth, pull, *given)
        found = 0.5 * torch.stack([v * v, growth - y, by_likelihood], -3).sum(-1)
        found[..., 2, :].sub_(given[-1])
        ctx.save_for_backward(mean, scale, *given, v, growth, pull)
        return found.to(mean.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        mean, scale, *given, v, growth, pull = ctx.saved_tensors
        if torch.is_grad_enabled():
            # This may be differentiated once more.
            v, _, growth, pull = _parts(mean, scale, *given)
        _, scale0, total, _, second, _ = given
        to_mean, to_scale, to_likelihood = grad.unsqueeze(-1).unbind(-3)
        by_mean = (to_mean * v - to_likelihood * pull) / scale0
        by_scale = (to_likelihood * ((growth + 1.0) * second - total) - to_scale * growth) / scale
        return by_mean, by_scale.to(scale.dtype), None, None, None, None, None, None
