"""Gaussians with a diagonal or a Cholesky scale.

With A = L⁻¹L₀ and φ(x) = eˣ − 1 − x,

    KL(N(μ₀,Σ₀) ‖ N(μ,Σ)) = ½[‖L⁻¹(μ−μ₀)‖² + Σ_{i>j} A_ij² + Σ_i φ(2 log A_ii)]:

every term is at least 0 and exact to relative precision, so that nothing needs to be clamped. No determinant or inverse
is formed.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.distributions.draw import Generators, draw
from cvpo.distributions.kl import same_kind, scale_term
from cvpo.errors import ProblemError


def diagonal(scale: Tensor, mean: Tensor) -> Tensor:
    """Diagonal [...,B,D] of the scale of ``mean`` [...,B,D]."""
    return scale if scale.ndim == mean.ndim else scale.diagonal(dim1=-2, dim2=-1)


def scale_tril(scale: Tensor, mean: Tensor) -> Tensor:
    """Lower Cholesky factor [...,B,D,D] of either kind of scale."""
    return torch.diag_embed(scale) if scale.ndim == mean.ndim else scale


def whiten(scale: Tensor, offset: Tensor) -> Tensor:
    """L⁻¹ x for particles x ``offset`` [...,B,K,D] and ``scale`` [...,B,D] or [...,B,D,D]."""
    if scale.ndim == offset.ndim - 1:
        return offset / scale.unsqueeze(-2)
    return _solve(scale, offset.mT).mT


def _solve(lower: Tensor, right: Tensor) -> Tensor:
    """L⁻¹ X; LAPACK has no numbers of half precision."""
    if lower.element_size() < 4:
        return torch.linalg.solve_triangular(lower.float(), right.float(), upper=False).to(right.dtype)
    return torch.linalg.solve_triangular(lower, right, upper=False)


def colour(scale: Tensor, noise: Tensor) -> Tensor:
    """L x for particles x ``noise`` [...,B,K,D]; the inverse of :func:`whiten`."""
    if scale.ndim == noise.ndim - 1:
        return noise * scale.unsqueeze(-2)
    return noise @ scale.mT


def mean_kl(mean0: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
    """½‖L⁻¹(μ − μ₀)‖² [...,B]: the KL divergence of two Gaussians that share the covariance LLᵀ."""
    if scale.ndim == mean.ndim:
        return _MeanTerm.apply(mean0, scale, mean)
    return 0.5 * whiten(scale, (mean - mean0).unsqueeze(-2)).square().sum((-2, -1))


class _MeanTerm(torch.autograd.Function):
    """½‖v‖² with v = (μ − μ₀)/σ, and its derivatives v/σ by μ and −v²/σ by σ."""

    @staticmethod
    def forward(ctx: Any, mean0: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(mean0, scale, mean)
        return 0.5 * ((mean - mean0) / scale).square().sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        mean0, scale, mean = ctx.saved_tensors
        # Made again from the arguments: this may be differentiated once more.
        v = (mean - mean0) / scale
        by_mean = grad.unsqueeze(-1) * v / scale
        needs = ctx.needs_input_grad
        return -by_mean if needs[0] else None, -by_mean * v if needs[1] else None, by_mean


def covariance_kl(mean: Tensor, scale0: Tensor, scale: Tensor) -> Tensor:
    """½[Σ_{i>j} A_ij² + Σ_i φ(2 log A_ii)], A = L⁻¹L₀ [...,B]: the KL divergence of two Gaussians that share a mean.

    ``mean`` [...,B,D] says only which kind of scale both are. Off the diagonal A equals L⁻¹(L₀ − L), which is 0 between
    equals at any condition number.
    """
    half = scale_term(diagonal(scale0, mean), diagonal(scale, mean)).sum(-1)
    if scale.ndim > mean.ndim:
        mixing = _solve(scale, scale0 - scale)
        half = half + mixing.tril(-1).square().sum((-2, -1))
    return 0.5 * half


def log_volume(mean: Tensor, scale: Tensor) -> Tensor:
    """Σ_i log L_ii + ½D log 2π [...,B]: minus the log density at the mean."""
    return diagonal(scale, mean).log().sum(-1) + 0.5 * mean.shape[-1] * math.log(2.0 * math.pi)


def gaussian_log_prob(mean: Tensor, scale: Tensor, actions: Tensor) -> Tensor:
    """log N(a; μ, LLᵀ) = −½‖L⁻¹(a − μ)‖² − Σ_i log L_ii − ½D log 2π [...,B,K] of ``actions`` [...,B,K,D]."""
    square = whiten(scale, actions - mean.unsqueeze(-2)).square().sum(-1)
    return -0.5 * square - log_volume(mean, scale).unsqueeze(-1)


@attrs.frozen(eq=False)
class Gaussian:
    """N(μ, LLᵀ) per state: ``mean`` μ [...,B,D]; ``scale`` L [...,B,D], or [...,B,D,D] lower with positive diagonal.

    Raises ProblemError for shapes that do not fit; values are not read.
    """

    kind: ClassVar[str] = "gaussian"
    mean: Tensor
    scale: Tensor

    def __attrs_post_init__(self) -> None:
        for name in ("mean", "scale"):
            if not isinstance(getattr(self, name), Tensor):
                raise ProblemError(f"{name} is a {type(getattr(self, name)).__name__}; allowed: a tensor")
        mean, scale = self.mean.shape, self.scale.shape
        if scale != mean and (len(scale) != len(mean) + 1 or scale != (*mean, mean[-1])):
            raise ProblemError(
                f"scale has shape {list(scale)} for a mean of shape {list(mean)}; allowed: that of the mean, or one "
                f"more axis of length {mean[-1] if mean else 'D'}"
            )

    @property
    def mode(self) -> Tensor:
        """The mean [...,B,D]."""
        return self.mean

    @property
    def is_diagonal(self) -> bool:
        """Whether ``scale`` holds standard deviations rather than a Cholesky factor."""
        return self.scale.ndim == self.mean.ndim

    def sample(self, count: int, generator: Generators = None) -> Tensor:
        """``count`` actions per state, [...,B,K,D], without gradient; ``generator`` as ``draw`` takes it."""
        mean, scale = self.mean.detach(), self.scale.detach()
        shape = (*mean.shape[:-1], count, mean.shape[-1])
        return mean.unsqueeze(-2) + colour(scale, draw(torch.randn, shape, generator, mean))

    def log_prob(self, actions: Tensor) -> Tensor:
        """log N(a; μ, LLᵀ) [...,B,K] of ``actions`` [...,B,K,D]."""
        return gaussian_log_prob(self.mean, self.scale, actions)

    def entropy(self) -> Tensor:
        """½D + ½D log 2π + Σ_i log L_ii [...,B], in nats."""
        return log_volume(self.mean, self.scale) + 0.5 * self.mean.shape[-1]

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self ‖ other) [...,B]. Raises ProblemError where one scale is diagonal and the other is not."""
        same_kind(self, other)
        return mean_kl(self.mean, other.scale, other.mean) + covariance_kl(self.mean, self.scale, other.scale)

    def scale_tril(self) -> Tensor:
        """Lower Cholesky factor [...,B,D,D] of the covariance."""
        return scale_tril(self.scale, self.mean)

    def detach(self) -> Gaussian:
        """The same distribution, cut from the autograd graph."""
        return Gaussian(self.mean.detach(), self.scale.detach())

    def to(self, *args: Any, **kwargs: Any) -> Gaussian:
        """The same distribution in another dtype or on another device; arguments as of ``Tensor.to``."""
        return Gaussian(self.mean.to(*args, **kwargs), self.scale.to(*args, **kwargs))
