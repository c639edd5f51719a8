"""One trust region on the joint distribution, for Gaussian and categorical policies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo import validators
from cvpo.distributions import Categorical, Gaussian, probability_kl
from cvpo.mstep.checks import check_kind, check_particles
from cvpo.mstep.paths import curve_of, mean_at, moments, rounded, scale_at
from cvpo.mstep.root import largest_step


@attrs.frozen
class Full:
    """max Σ_k w_k log π(a_k)  s.t.  KL(π₀ ‖ π) <= ε: the moments of the mixture (w + βπ₀)/(1 + β), one root β >= 0.

    Gaussian: μ = (m_w + βμ₀)/(1+β), Σ = (Σ_k w(a−m_w)(a−m_w)ᵀ + βΣ₀)/(1+β) + β/(1+β)² (m_w−μ₀)(m_w−μ₀)ᵀ, or its
    diagonal. Categorical: the mixture itself; ``weights`` [...,B,n] over all categories with ``actions`` ``None``, or
    [...,B,K] over one-hot ``actions`` [...,B,K,n]. Solved in float64; the result has the dtype of ``old``. ``kl`` is in
    nats; ``average`` says whether it bounds the mean over the batch or each state.
    """

    summary: ClassVar[str] = "one KL bound on the joint distribution; Gaussian and categorical policies"
    kinds: ClassVar[tuple[str, ...]] = ("gaussian", "categorical")

    kl_bound: float = attrs.field(default=0.01, alias="kl", validator=validators.number(gt=0))
    average: str = attrs.field(default="batch", validator=validators.one_of(("batch", "state")))

    @property
    def bounds(self) -> dict[str, float]:
        """ε as ``joint``."""
        return {"joint": self.kl_bound}

    def project(self, old: Any, actions: Tensor | None, weights: Tensor) -> Any:
        """The maximiser, for actions [...,B,K,D] and weights [...,B,K]. Raises ProblemError for what does not fit."""
        check_kind(self.kinds, old)
        check_particles(old, actions, weights)
        return _PROJECT[old.kind](old, actions, weights, self.kl_bound, self.average)

    def kl(self, old: Any, new: Any) -> dict[str, Tensor]:
        """KL(π₀ ‖ π) [...,B]."""
        return {"joint": old.kl(new)}

    def objective(self, old: Any, new: Any, actions: Tensor | None, weights: Tensor) -> Tensor:
        """Σ_k w_k log π(a_k) [...,B]."""
        log_probs = new.log_probs if actions is None else new.log_prob(actions)
        return torch.where(weights > 0, weights * log_probs, 0.0).sum(-1)


def _project_gaussian(old: Gaussian, actions: Tensor, weights: Tensor, bound: float, average: str) -> Gaussian:
    dtype = old.mean.dtype
    old = old.to(torch.float64)
    u, g = moments(old, actions.double(), weights.double(), centred=True)
    t = largest_step(*curve_of(g, u), bound=bound, average=average)
    return Gaussian(rounded(mean_at(old, u, t), old.mean, dtype), rounded(scale_at(old, g, u, t), old.scale, dtype))


def _project_categorical(
    old: Categorical, actions: Tensor | None, weights: Tensor, bound: float, average: str
) -> Categorical:
    dtype = old.logits.dtype
    log_p0 = torch.log_softmax(old.logits.double(), -1)
    shares = weights.double() / weights.double().sum(-1, keepdim=True)
    if actions is not None:
        shares = (shares.unsqueeze(-1) * actions.double()).sum(-2)
    p0 = log_p0.exp()
    possible = p0 > 0
    curvature = torch.where(possible, (shares - p0).square() / torch.where(possible, p0, 1.0), 0.0).sum(-1)
    log_p0 = torch.where(possible, log_p0, 0.0)
    t = largest_step(partial(categorical_curve, p0, log_p0, shares), curvature, bound, average).unsqueeze(-1)
    # Where π₀ is 0 the mixture is t w, whose logarithm needs w > 0.
    seen = shares > 0
    fresh = torch.where(seen, (t * torch.where(seen, shares, 1.0)).log(), -torch.inf)
    return Categorical(torch.where(possible, log_p0 + log_growth(p0, log_p0, shares, t), fresh).to(dtype))


def categorical_curve(p0: Tensor, log_p0: Tensor, shares: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """KL(t) = Σ_k π₀ φ(log π_t/π₀) with π_t = π₀ + t(w − π₀) [...,B], and dKL/dt = t Σ_k (w − π₀)²/π_t."""
    t = t.unsqueeze(-1)
    p = (1.0 - t) * p0 + t * shares
    kl = probability_kl(p0, p, log_growth(p0, log_p0, shares, t))
    slope = (t * (shares - p0).square() / torch.where(p > 0, p, 1.0)).sum(-1)
    return kl, slope


def log_growth(p0: Tensor, log_p0: Tensor, shares: Tensor, t: Tensor) -> Tensor:
    """log π_t/π₀ [...,B,n] where π₀ > 0, else 0; ``t`` [...,B|1,1].

    log1p(t(w − π₀)/π₀) is exact near π₀; where w is most of the mixture, its quotient may overflow and the plain
    difference of logarithms, at least log 2, does not cancel.
    """
    far = (p0 > 0) & (t * shares > 2.0 * p0)
    near = (p0 > 0) & ~far
    small = torch.log1p(torch.where(near, t * (shares - p0), 0.0) / torch.where(near, p0, 1.0))
    mixed = torch.where(far, (1.0 - t) * p0 + t * shares, 1.0)
    return torch.where(far, mixed.log() - log_p0, small)


_PROJECT: dict[str, Callable[..., Any]] = {"gaussian": _project_gaussian, "categorical": _project_categorical}
