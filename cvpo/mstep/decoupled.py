"""Separate trust regions for the mean and the covariance of a Gaussian policy, as in MPO."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo import validators
from cvpo.distributions import Gaussian, covariance_kl, log_volume, mean_kl, same_kind, whiten
from cvpo.mstep.checks import check_kind, check_particles
from cvpo.mstep.paths import curve_of, mean_at, moments, rounded, scale_at
from cvpo.mstep.root import largest_step, mean_step, pool


@attrs.frozen
class Decoupled:
    """max Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)]  s.t.  ½‖μ−μ₀‖²_{Σ₀⁻¹} <= ε_μ,  KL(N(μ₀,Σ₀)‖N(μ₀,Σ)) <= ε_Σ.

    The maximiser is μ = μ₀ + (m_w − μ₀)·min(1, √(ε_μ/KL_μ)) and Σ = (S_w + βΣ₀)/(1 + β), with m_w = Σ_k w a,
    S_w = Σ_k w (a−μ₀)(a−μ₀)ᵀ and β >= 0 the root of KL_Σ = ε_Σ, or 0 where that bound is slack. Solved in float64; the
    result has the dtype of ``old``. ``kl_mean`` and ``kl_cov`` are in nats; ``average`` says whether they bound the
    mean over the batch (one step and one β for all states) or each state. Source: Abdolmaleki et al., arXiv 1812.02256,
    section 4.
    """

    summary: ClassVar[str] = "mean and covariance each inside its own KL bound (MPO, the paper); Gaussian policies"
    kinds: ClassVar[tuple[str, ...]] = ("gaussian",)

    kl_mean: float = attrs.field(default=0.01, validator=validators.number(gt=0))
    kl_cov: float = attrs.field(default=0.0001, validator=validators.number(gt=0))
    average: str = attrs.field(default="batch", validator=validators.one_of(("batch", "state")))

    @property
    def bounds(self) -> dict[str, float]:
        """ε_μ as ``mean`` and ε_Σ as ``cov``."""
        return {"mean": self.kl_mean, "cov": self.kl_cov}

    def project(self, old: Gaussian, actions: Tensor, weights: Tensor) -> Gaussian:
        """The maximiser, for actions [...,B,K,D] and weights [...,B,K]. Raises ProblemError for what does not fit."""
        check_kind(self.kinds, old)
        check_particles(old, actions, weights)
        dtype = old.mean.dtype
        old = old.to(torch.float64)
        u, g = moments(old, actions.double(), weights.double(), centred=False)
        t_mean = mean_step(pool(0.5 * u.square().sum(-1), self.average), self.kl_mean)
        still = torch.zeros_like(u)
        t_cov = largest_step(*curve_of(g, still), bound=self.kl_cov, average=self.average)
        mean, scale = mean_at(old, u, t_mean), scale_at(old, g, still, t_cov)
        return Gaussian(rounded(mean, old.mean, dtype), rounded(scale, old.scale, dtype))

    def kl(self, old: Gaussian, new: Gaussian) -> dict[str, Tensor]:
        """KL_μ, measured in the old covariance, and KL_Σ, each [...,B]."""
        check_kind(self.kinds, old, new)
        same_kind(old, new)
        return {
            "mean": mean_kl(old.mean, old.scale, new.mean),
            "cov": covariance_kl(old.mean, old.scale, new.scale),
        }

    def objective(self, old: Gaussian, new: Gaussian, actions: Tensor, weights: Tensor) -> Tensor:
        """Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)] [...,B]; it is not the joint likelihood of ``new``."""
        return decoupled_likelihood(old.mean, old.scale, new.mean, new.scale, actions, weights)


def decoupled_likelihood(
    mean0: Tensor, scale0: Tensor, mean: Tensor, scale: Tensor, actions: Tensor, weights: Tensor
) -> Tensor:
    """Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)] [...,B].

    The particles enter through their moments alone, with x = L₀⁻¹(a − μ₀), v = L₀⁻¹(μ − μ₀), A = L⁻¹L₀:
    Σ w‖x − v‖² = Σ w‖x‖² − 2vᵀ Σ w x + ‖v‖² Σ w and Σ w‖Ax‖² = tr(A (Σ w xxᵀ) Aᵀ), so that the gradient does not pass
    through [B,K,D] tensors.
    """
    x = whiten(scale0, actions - mean0.unsqueeze(-2))
    weighted = weights.unsqueeze(-1) * x
    total, first = weights.sum(-1, keepdim=True), weighted.sum(-2)
    if scale0.ndim == mean0.ndim:
        second = (weighted * x).sum(-2)
        given = mean0, scale0, total, first, second
        if any(part.requires_grad for part in given):
            return _diagonal_likelihood(mean, scale, *given)
        return _DiagonalLikelihood.apply(mean, scale, *given)
    second = weighted.mT @ x
    still = second.diagonal(dim1=-2, dim2=-1).sum(-1)
    v = whiten(scale0, (mean - mean0).unsqueeze(-2)).squeeze(-2)
    by_mean = (v * (v * total - 2.0 * first)).sum(-1)
    a = whiten(scale, scale0.mT).mT
    by_covariance = (a @ second * a).sum((-2, -1))
    volume = log_volume(mean0, scale0) + log_volume(mean, scale)
    return -0.5 * (still + by_mean + by_covariance) - total.squeeze(-1) * volume


def _diagonal_likelihood(
    mean: Tensor, scale: Tensor, mean0: Tensor, scale0: Tensor, total: Tensor, first: Tensor, second: Tensor
) -> Tensor:
    """:func:`decoupled_likelihood` [...,B] from moments of the particles, Σ w [...,B,1], Σ w x and Σ w x² [...,B,D]."""
    v, square = (mean - mean0) / scale0, (scale0 / scale).square()
    by_dimension = v * (v * total - 2.0 * first) + (square + 1.0) * second + 2.0 * total * (scale.log() + scale0.log())
    return -0.5 * by_dimension.sum(-1) - (mean.shape[-1] * math.log(2.0 * math.pi)) * total.squeeze(-1)


class _DiagonalLikelihood(torch.autograd.Function):
    """:func:`_diagonal_likelihood` with ∂/∂μ = (Σ w x − v Σ w)/σ₀ and ∂/∂σ = ((σ₀/σ)² Σ w x² − Σ w)/σ, so that autograd
    does not walk back through its parts."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, scale: Tensor, *given: Tensor) -> Tensor:
        ctx.save_for_backward(mean, scale, *given)
        return _diagonal_likelihood(mean, scale, *given)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        mean, scale, mean0, scale0, total, first, second = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        by_mean = grad * (first - (mean - mean0) / scale0 * total) / scale0
        by_scale = grad * ((scale0 / scale).square() * second - total) / scale
        return by_mean, by_scale, None, None, None, None, None
