"""Categorical distributions: KL(π₀ ‖ π) = Σ_k π₀ φ(log π_k − log π₀k), φ(x) = eˣ − 1 − x, every term at least 0."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.distributions.draw import Generators, draw
from cvpo.distributions.kl import phi, same_kind


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


def categorical_log_prob(logits: Tensor, actions: Tensor) -> Tensor:
    """Σ_j a_j log π_j [...,B,K] of one-hot ``actions`` [...,B,K,n]; 0 · log 0 = 0."""
    return torch.where(actions != 0, actions * torch.log_softmax(logits, -1).unsqueeze(-2), 0.0).sum(-1)


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

    def sample(self, count: int, generator: Generators = None) -> Tensor:
        """``count`` one-hot actions per state, [...,B,K,n], without gradient; ``generator`` as ``draw`` takes it."""
        cumulative = torch.softmax(self.logits.detach(), -1).cumsum(-1)
        # Divided by the total: the last possible category ends at exactly 1, which no uniform number reaches.
        edges = (cumulative / cumulative[..., -1:])[..., None, :-1]
        shape = (*self.logits.shape[:-1], count, 1)
        return self._one_hot((draw(torch.rand, shape, generator, cumulative) >= edges).sum(-1))

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
