"""Action distributions and their KL divergences, computed without cancellation.

Shape legend: leading ``...`` independent problems, ``B`` states, ``K`` particles, ``D`` action dimensions, ``n``
discrete actions. A Gaussian's ``scale`` is ``[...,B,D]`` (standard deviations) or ``[...,B,D,D]`` (lower Cholesky
factor): the number of dimensions decides which. Functions take and return tensors; the two records hold parameters.

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

from cvpo.errors import ProblemError

# φ(x)/x² = 1/2! + x/3! + … + x⁵/7!, highest first.
_SERIES = [1.0 / math.factorial(n) for n in range(7, 1, -1)]


def _phi(x: Tensor) -> Tensor:
    """φ in float64, whatever the dtype of ``x``: relative error below 1e-13."""
    x = x.double()
    series = x * _SERIES[0] + _SERIES[1]
    for coefficient in _SERIES[2:]:
        series = series * x + coefficient
    return torch.where(x.abs() < 1e-2, x * x * series, torch.expm1(x) - x)


class _Phi(torch.autograd.Function):
    """φ with its derivative eˣ − 1 given, so that autograd does not walk back through the series."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _phi(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * torch.expm1(x)


class _ScaleTerm(torch.autograd.Function):
    """φ(2 log(a/b)), with dφ/db = −2(a − b)(a + b)/b³ and dφ/da = −(b/a) dφ/db, which do not cancel."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        if a.dtype == torch.float32:
            # Unequal float32 numbers differ by at least 6e-8, relatively: float64 has the digits for the plain formula.
            x = 2.0 * (a.double() / b).log()
            return (torch.expm1(x) - x).float()
        return _phi(2.0 * log_ratio(a.double(), b.double())).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        ratio = a / b
        slope = 2.0 * grad * ((a - b) / b) * (ratio + 1.0) / b
        return (slope / ratio if ctx.needs_input_grad[0] else None), -slope


def phi(x: Tensor) -> Tensor:
    """φ(x) = eˣ − 1 − x, at least 0 and exact to relative precision (x² / 2 near 0, where the formula cancels)."""
    return _Phi.apply(x)


def scale_term(a: Tensor, b: Tensor) -> Tensor:
    """φ(2 log(a / b)) = (a/b)² − 1 − 2 log(a/b) for positive ``a``, ``b``: twice KL(N(0, a²) ‖ N(0, b²))."""
    return _ScaleTerm.apply(a, b)


def log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a / b) for positive ``a`` and ``b``, exact to relative precision also where they nearly agree."""
    above = a > b
    excess = torch.where(above, a - b, b - a) / torch.where(above, b, a)
    size = torch.log1p(excess)
    return torch.where(above, size, -size)


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
    return torch.linalg.solve_triangular(scale, offset.mT, upper=False).mT


def colour(scale: Tensor, noise: Tensor) -> Tensor:
    """L x for particles x ``noise`` [...,B,K,D]; the inverse of :func:`whiten`."""
    if scale.ndim == noise.ndim - 1:
        return noise * scale.unsqueeze(-2)
    return noise @ scale.mT


def mean_kl(mean0: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
    """½‖L⁻¹(μ − μ₀)‖² [...,B]: the KL divergence of two Gaussians that share the covariance LLᵀ."""
    return 0.5 * whiten(scale, (mean - mean0).unsqueeze(-2)).square().sum((-2, -1))


def covariance_kl(mean: Tensor, scale0: Tensor, scale: Tensor) -> Tensor:
    """½[Σ_{i>j} A_ij² + Σ_i φ(2 log A_ii)], A = L⁻¹L₀ [...,B]: the KL divergence of two Gaussians that share a mean.

    ``mean`` [...,B,D] says only which kind of scale both are. Off the diagonal A equals L⁻¹(L₀ − L), which is 0 between
    equals at any condition number.
    """
    half = scale_term(diagonal(scale0, mean), diagonal(scale, mean)).sum(-1)
    if scale.ndim > mean.ndim:
        mixing = torch.linalg.solve_triangular(scale, scale0 - scale, upper=False)
        half = half + mixing.tril(-1).square().sum((-2, -1))
    return 0.5 * half


def categorical_kl(logits0: Tensor, logits: Tensor) -> Tensor:
    """Σ_k π₀ φ(log π_k − log π₀k) [...,B] for logits [...,B,n]; a category of probability 0 under π₀ adds π_k.

    Equal to Σ π₀ (log π₀ − log π) because both sum to 1, but without its cancellation.
    """
    possible = logits0 > -math.inf
    change = torch.where(possible, logits, 0.0) - torch.where(possible, logits0, 0.0)
    shift = torch.logsumexp(logits, -1, keepdim=True) - torch.logsumexp(logits0, -1, keepdim=True)
    d = torch.where(possible, change - shift, 0.0)
    return probability_kl(torch.softmax(logits0, -1), torch.softmax(logits, -1), d)


def probability_kl(p0: Tensor, p: Tensor, d: Tensor) -> Tensor:
    """Σ_k p₀ φ(d_k) [...,B] for d = log p − log p₀; where p₀ = 0, ``d`` is not read and the term is p."""
    d = torch.where(p0 > 0, d, 0.0)
    # For d > 1/2 the plain form does not cancel, and eᵈ would overflow where p₀ nearly underflows.
    far = d > 0.5
    terms = torch.where(far, p - p0 * (1.0 + d), p0 * phi(torch.where(far, 0.0, d)))
    return torch.where(p0 > 0, terms, p).sum(-1)


def log_volume(mean: Tensor, scale: Tensor) -> Tensor:
    """Σ_i log L_ii + ½D log 2π [...,B]: minus the log density at the mean."""
    return diagonal(scale, mean).log().sum(-1) + 0.5 * mean.shape[-1] * math.log(2.0 * math.pi)


def gaussian_log_prob(mean: Tensor, scale: Tensor, actions: Tensor) -> Tensor:
    """log N(a; μ, LLᵀ) = −½‖L⁻¹(a − μ)‖² − Σ_i log L_ii − ½D log 2π [...,B,K] of ``actions`` [...,B,K,D]."""
    square = whiten(scale, actions - mean.unsqueeze(-2)).square().sum(-1)
    return -0.5 * square - log_volume(mean, scale).unsqueeze(-1)


def categorical_log_prob(logits: Tensor, actions: Tensor) -> Tensor:
    """Σ_j a_j log π_j [...,B,K] of one-hot ``actions`` [...,B,K,n]; 0 · log 0 = 0."""
    return torch.where(actions != 0, actions * torch.log_softmax(logits, -1).unsqueeze(-2), 0.0).sum(-1)


@attrs.frozen(eq=False)
class Gaussian:
    """N(μ, LLᵀ) per state: ``mean`` μ [...,B,D]; ``scale`` L [...,B,D], or [...,B,D,D] lower with positive diagonal."""

    kind: ClassVar[str] = "gaussian"
    mean: Tensor
    scale: Tensor

    @property
    def mode(self) -> Tensor:
        """The mean [...,B,D]."""
        return self.mean

    @property
    def is_diagonal(self) -> bool:
        """Whether ``scale`` holds standard deviations rather than a Cholesky factor."""
        return self.scale.ndim == self.mean.ndim

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` actions per state, [...,B,K,D], without gradient."""
        mean, scale = self.mean.detach(), self.scale.detach()
        shape = (*mean.shape[:-1], count, mean.shape[-1])
        noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean.unsqueeze(-2) + colour(scale, noise)

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


@attrs.frozen(eq=False)
class Categorical:
    """π_k = softmax_k(logits) per state: ``logits`` [...,B,n], −∞ for a category that is never drawn."""

    kind: ClassVar[str] = "categorical"
    logits: Tensor

    @property
    def mode(self) -> Tensor:
        """One-hot of the most probable category [...,B,n]; the first of several."""
        return self._one_hot(self.logits.argmax(-1))

    @property
    def log_probs(self) -> Tensor:
        """log π [...,B,n]."""
        return torch.log_softmax(self.logits, -1)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` one-hot actions per state, [...,B,K,n], without gradient."""
        cumulative = torch.softmax(self.logits.detach(), -1).cumsum(-1)
        # Divided by the total: the last possible category ends at exactly 1, which no uniform number reaches.
        edges = (cumulative / cumulative[..., -1:])[..., None, :-1]
        shape = (*self.logits.shape[:-1], count, 1)
        uniform = torch.rand(shape, generator=generator, dtype=cumulative.dtype, device=cumulative.device)
        return self._one_hot((uniform >= edges).sum(-1))

    def log_prob(self, actions: Tensor) -> Tensor:
        """Σ_j a_j log π_j [...,B,K] of one-hot ``actions`` [...,B,K,n]; 0 · log 0 = 0."""
        return categorical_log_prob(self.logits, actions)

    def entropy(self) -> Tensor:
        """−Σ_k π log π [...,B], in nats."""
        log_probs = self.log_probs
        return -(log_probs.exp() * torch.where(log_probs > -math.inf, log_probs, 0.0)).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self ‖ other) [...,B]. Raises ProblemError where ``other`` is of another kind."""
        same_kind(self, other)
        return categorical_kl(self.logits, other.logits)

    def detach(self) -> Categorical:
        """The same distribution, cut from the autograd graph."""
        return Categorical(self.logits.detach())

    def to(self, *args: Any, **kwargs: Any) -> Categorical:
        """The same distribution in another dtype or on another device; arguments as of ``Tensor.to``."""
        return Categorical(self.logits.to(*args, **kwargs))

    def _one_hot(self, index: Tensor) -> Tensor:
        classes = torch.arange(self.logits.shape[-1], device=index.device)
        return (index.unsqueeze(-1) == classes).to(self.logits.dtype)


Distribution = Gaussian | Categorical


def same_kind(first: Any, second: Any) -> None:
    """Raise ProblemError unless both are Gaussians with the same kind of scale, or both categorical."""
    kinds = [(d.kind, getattr(d, "is_diagonal", None)) for d in (first, second)]
    if kinds[0] != kinds[1]:
        words = [kind + {True: " (diagonal)", False: " (Cholesky)", None: ""}[diag] for kind, diag in kinds]
        raise ProblemError(
            f"a KL divergence between a {words[0]} and a {words[1]} distribution; allowed: the same kind"
        )
