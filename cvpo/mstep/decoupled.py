"""Separate trust regions for the mean and the covariance of a Gaussian policy, as in MPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from cvpo import validators
from cvpo.distributions import Gaussian, covariance_kl, log_volume, mean_kl, same_kind, whiten
from cvpo.mstep.checks import check_kind, check_particles
from cvpo.mstep.diagonal import DiagonalTerms, Moments, likelihood, moments_of
from cvpo.mstep.looped import LoopedTerms, looped_moments, looped_terms
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

    def joined(self, old: Gaussian, actions: Tensor, weights: Tensor) -> Callable[[Gaussian], Tensor] | None:
        """KL_μ, KL_Σ and the objective of each new policy [...,3,B], of diagonal Gaussians in float32; else None."""
        check_kind(self.kinds, old)
        # Who writes another of these means it to be used.
        own = type(self).kl is Decoupled.kl and type(self).objective is Decoupled.objective
        if not own or tuple(self.bounds) != ("mean", "cov") or not old.is_diagonal or old.mean.dtype != torch.float32:
            return None
        if any(part.requires_grad for part in (old.mean, old.scale, actions, weights)):
            return None
        return _Joined(old, looped_moments(old.mean, old.scale, actions, weights))


class _Joined:
    """What ``joined`` gives, and what a fit without autograd asks of it."""

    def __init__(self, old: Gaussian, given: Moments) -> None:
        self._old, self._given = old, given

    def __call__(self, new: Gaussian) -> Tensor:
        check_kind(Decoupled.kinds, new)
        same_kind(self._old, new)
        return DiagonalTerms.apply(new.mean, new.scale, *self._given)

    def by_hand(self) -> LoopedTerms | None:
        """See :class:`cvpo.mstep.protocol.Projection`."""
        return looped_terms(self._given)


def decoupled_likelihood(
    mean0: Tensor, scale0: Tensor, mean: Tensor, scale: Tensor, actions: Tensor, weights: Tensor
) -> Tensor:
    """Σ_k w_k [log N(a_k; μ, Σ₀) + log N(a_k; μ₀, Σ)] [...,B].

    The particles enter through their moments alone, with x = L₀⁻¹(a − μ₀), v = L₀⁻¹(μ − μ₀), A = L⁻¹L₀:
    Σ w‖x − v‖² = Σ w‖x‖² − 2vᵀ Σ w x + ‖v‖² Σ w and Σ w‖Ax‖² = tr(A (Σ w xxᵀ) Aᵀ), so that the gradient does not pass
    through [B,K,D] tensors.
    """
    if scale0.ndim == mean0.ndim:
        return likelihood(mean, scale, *moments_of(mean0, scale0, actions, weights))
    x = whiten(scale0, actions - mean0.unsqueeze(-2))
    weighted = weights.unsqueeze(-1) * x
    total, first, second = weights.sum(-1, keepdim=True), weighted.sum(-2), weighted.mT @ x
    still = second.diagonal(dim1=-2, dim2=-1).sum(-1)
    v = whiten(scale0, (mean - mean0).unsqueeze(-2)).squeeze(-2)
    by_mean = (v * (v * total - 2.0 * first)).sum(-1)
    a = whiten(scale, scale0.mT).mT
    by_covariance = (a @ second * a).sum((-2, -1))
    volume = log_volume(mean0, scale0) + log_volume(mean, scale)
    return -0.5 * (still + by_mean + by_covariance) - total.squeeze(-1) * volume
