"""The decoupled terms of diagonal Gaussians, with what depends on the old policy alone worked out once.

The particles enter through their moments under the old policy, with x = (a − μ₀)/σ₀: Σ w, Σ w x and Σ w x². With
v = (μ − μ₀)/σ₀ and y = 2 log(σ₀/σ), each summed over dimensions::

    KL_μ = ½ v²        KL_Σ = ½ (eʸ − 1 − y)        ∂KL_μ/∂μ = v/σ₀        ∂KL_Σ/∂σ = −(eʸ − 1)/σ
    Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)] = −½ [v (v Σ w − 2 Σ w x) + eʸ Σ w x² − y Σ w] − rest

Shapes: μ, σ, Σ w x and Σ w x² [...,B,D], Σ w [...,B,1], the rest [...,B].
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    x = (actions - mean0.unsqueeze(-2)) / scale0.unsqueeze(-2)
    weighted = weights.unsqueeze(-1) * x
    total, first, second = weights.sum(-1, keepdim=True), weighted.sum(-2), (weighted * x).sum(-2)
    volume = 2.0 * scale0.log().sum(-1) + mean0.shape[-1] * math.log(2.0 * math.pi)
    return Moments(mean0, scale0, total, first, second, 0.5 * second.sum(-1) + volume * total.squeeze(-1))


def likelihood(
    mean: Tensor,
    scale: Tensor,
    mean0: Tensor,
    scale0: Tensor,
    total: Tensor,
    first: Tensor,
    second: Tensor,
    rest: Tensor,
) -> Tensor:
    """The third of the terms above [...,B], in which all may be differentiated."""
    v, ratio = (mean - mean0) / scale0, scale0 / scale
    by_dimension = v * (v * total - 2.0 * first) + ratio.square() * second - 2.0 * ratio.log() * total
    return -0.5 * by_dimension.sum(-1) - rest


class DiagonalTerms(torch.autograd.Function):
    """KL_μ, KL_Σ and the likelihood [...,3,B] in float32, with their derivatives by μ and σ."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, scale: Tensor, mean0: Tensor, scale0: Tensor, *given: Tensor) -> Tensor:
        total, first, second, rest = given
        v = (mean - mean0) / scale0
        # Unequal float32 numbers differ by at least 6e-8, relatively: float64 has the digits for the plain formula.
        y = 2.0 * (scale0.double() / scale).log()
        growth = torch.expm1(y)
        pull = v * total - first
        by_likelihood = v * (first - pull) + y * total - (growth + 1.0) * second
        found = 0.5 * torch.stack([v * v, growth - y, by_likelihood], -3).sum(-1)
        found[..., 2, :] -= rest
        ctx.save_for_backward(scale, scale0, total, second, v, growth, pull)
        return found.to(mean.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scale, scale0, total, second, v, growth, pull = ctx.saved_tensors
        to_mean, to_scale, to_likelihood = grad.unsqueeze(-1).unbind(-3)
        by_mean = (to_mean * v - to_likelihood * pull) / scale0
        by_scale = (to_likelihood * ((growth + 1.0) * second - total) - to_scale * growth) / scale
        return by_mean, by_scale.to(scale.dtype), None, None, None, None, None, None
