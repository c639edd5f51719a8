"""What the contract of a projection measures with: references, roundings, and messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from cvpo.distributions import Categorical, Distribution, Gaussian, whiten
from cvpo.mstep.protocol import Projection
from cvpo.testing.drawing import require


def pooled(projection: Projection, value: Tensor) -> Tensor:
    """``value`` [...,B] as the projection's ``average`` bounds it: the mean [...,1], or each state [...,B]."""
    return value.mean(-1, keepdim=True) if getattr(projection, "average", "batch") == "batch" else value


def joint(old: Any, new: Any) -> Tensor:
    return td.kl_divergence(_reference(old), _reference(new))


REFERENCES: dict[str, Callable[[Any, Any], Tensor]] = {
    "joint": joint,
    "mean": lambda old, new: joint(old, Gaussian(new.mean, old.scale)),
    "cov": lambda old, new: joint(old, Gaussian(old.mean, new.scale)),
}


def _reference(distribution: Distribution) -> td.Distribution:
    if isinstance(distribution, Categorical):
        return td.Categorical(logits=distribution.logits, validate_args=False)
    if distribution.is_diagonal:
        return td.Independent(td.Normal(distribution.mean, distribution.scale), 1)
    return td.MultivariateNormal(distribution.mean, scale_tril=distribution.scale)


def likelihood(distribution: Any, actions: Tensor | None, weights: Tensor) -> Tensor:
    """Σ_k w_k log π(a_k) [...,B]; 0 · log 0 = 0."""
    logs = distribution.log_probs if actions is None else distribution.log_prob(actions)
    return torch.where(weights > 0, weights * logs, 0.0).sum(-1)


def rounding_of(old: Distribution, dtype: torch.dtype) -> Tensor:
    """Length [...,B] in the old scale of an error of 2 units in the last place of every parameter."""
    unit = 4.0 * torch.finfo(dtype).eps / 2.0
    if isinstance(old, Categorical):
        return unit * torch.where(old.logits.isfinite(), old.logits, 0.0).abs().amax(-1).clamp(min=1.0)
    if old.is_diagonal:
        return unit * (old.mean.abs() / old.scale).norm(dim=-1) + unit * math.sqrt(size(old))
    identity = torch.eye(size(old), dtype=torch.float64).expand_as(old.scale)
    inverse = whiten(old.scale, identity).mT.abs()
    by_mean = (inverse @ old.mean.abs().unsqueeze(-1)).squeeze(-1).norm(dim=-1)
    return unit * (by_mean + torch.linalg.matrix_norm(inverse @ old.scale.abs()))


def agree(words: str, value: Tensor, reference: Tensor, size: int) -> None:
    worst = (value - reference).abs() - 1e-10 * reference.abs() - 1e-13 * size
    i = worst.argmax()
    found, expected = float(value.flatten()[i]), float(reference.flatten()[i])
    require(float(worst.max()) <= 0.0, f"{words} is {found:.12g}; torch.distributions: {expected:.12g}")


def batch(distribution: Distribution) -> torch.Size:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).shape[:-1]


def size(distribution: Distribution) -> int:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).shape[-1]


def dtype(distribution: Distribution) -> torch.dtype:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).dtype


def least(value: Tensor) -> float:
    return float(value.min())
