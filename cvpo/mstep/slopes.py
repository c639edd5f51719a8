"""A fit's terms at the policy as it is, and the gradients of what they add up to: by autograd or by hand."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cvpo.by_hand import GaussianByHand, by_hand
from cvpo.handover import require_pair, require_tensor
from cvpo.mstep.terms import Terms


class Slopes(Protocol):
    """Values first, then the gradients there."""

    def values(self) -> Tensor:
        """The KL terms, then the objective [*population, terms + 1, B]."""

    def kls(self) -> Tensor:
        """The KL terms alone, without gradients."""

    def backward(self, factors: Tensor) -> None:
        """Give the parameters the gradient of Σ_j ``factors_j`` mean_b values_j, summed over the population."""


def slopes_of(policy: nn.Module, terms: Terms, obs: Tensor) -> Slopes:
    """By hand where ``policy`` and ``terms`` are known in closed form, with the same numbers but for rounding."""
    known = None if obs.requires_grad or type(obs) is not Tensor else terms.by_hand()
    net = None if known is None else by_hand(policy)
    return Traced(policy, terms, obs) if net is None else ByHand(net, known, terms.shape, obs)


class Traced:
    """Of any policy and any projection, by autograd."""

    def __init__(self, policy: nn.Module, terms: Terms, obs: Tensor) -> None:
        self._policy, self._terms, self._obs = policy, terms, obs

    def values(self) -> Tensor:
        self._values = self._terms.all(self._policy(self._obs))
        return self._values.detach()

    @torch.no_grad()
    def kls(self) -> Tensor:
        return self._terms.kls(self._policy(self._obs))

    def backward(self, factors: Tensor) -> None:
        (factors * self._values.mean(-1)).sum().backward()


class ByHand:
    """Of the library's diagonal Gaussians inside its decoupled bounds."""

    def __init__(self, net: GaussianByHand, terms: Any, shape: tuple[int, ...], obs: Tensor) -> None:
        self._net, self._terms, self._shape, self._obs = net, terms, shape, obs

    @torch.no_grad()
    def values(self) -> Tensor:
        self._new = self._net(self._obs)
        found = self._terms(self._new)
        require_tensor("what the projection's by_hand gives", found, self._shape)
        return found

    def kls(self) -> Tensor:
        return self.values()[..., :-1, :]

    @torch.no_grad()
    def backward(self, factors: Tensor) -> None:
        slopes = require_pair("what the slopes of by_hand give", self._terms.slopes(factors))
        for slope in slopes:
            require_tensor("a slope of by_hand", slope, self._new.mean.shape, self._new.mean.dtype)
        self._net.backward(*slopes)
