"""What an M-step is made of: the contracts of a projection and of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from cvpo.mstep.fit import FitState


class Projection(Protocol):
    """argmax_π ``objective(π)`` subject to every term of ``kl(π₀, π)`` within its bound.

    ``old`` and ``new`` are distributions of one kind; actions [...,B,K,D] (``None``: one weight per category of a
    categorical distribution), weights [...,B,K] >= 0 that sum to 1 over K.

    Two optional attributes: ``average``, ``"batch"`` (the default: bounds hold for the mean over B) or ``"state"`` (for
    each state), and ``kinds``, the kinds of distribution it accepts (the default is every kind). One optional method,
    ``joined(old, actions, weights)``: a function of ``new`` that gives the terms of :meth:`kl`, in the order of
    :attr:`bounds`, then :meth:`objective`, in one tensor [...,J+1,B] and quicker than one by one; or None.

    What ``joined`` gives may have ``by_hand()``, for fits of the library's diagonal Gaussians without autograd.
    It gives the same function without gradients, with a method ``slopes(factors)`` for ``factors`` [...,J+1]: the
    derivatives by mean and scale of Σ_j ``factors_j`` mean_b term_j at the last ``new``; or None.
    """

    @property
    def bounds(self) -> Mapping[str, float]:
        """The trust region: the bound on each term of :meth:`kl`, in nats."""

    def project(self, old: Any, actions: Tensor | None, weights: Tensor) -> Any:
        """The maximiser: a distribution of the same kind as ``old``, inside the bounds."""

    def kl(self, old: Any, new: Any) -> dict[str, Tensor]:
        """The terms it bounds, each [...,B] and at least 0, with the keys of :attr:`bounds`."""

    def objective(self, old: Any, new: Any, actions: Tensor | None, weights: Tensor) -> Tensor:
        """What it maximises [...,B]: a weighted log-likelihood, differentiable in ``new``."""


class Fit(Protocol):
    """Moves a network from π_old towards the projected policy, in place, and never leaves the trust region.

    ``old`` and ``old_params`` are π_old on ``obs`` and its parameters, without gradient and in memory of their own: the
    parameters of ``policy``, in the same order, change in place.
    """

    def build(self, policy: nn.Module, projection: Projection, population: Sequence[int] = ()) -> FitState:
        """The state it keeps between updates: optimiser and multipliers."""

    def fit(
        self,
        state: FitState,
        policy: nn.Module,
        projection: Projection,
        obs: Tensor,
        old: Any,
        old_params: Sequence[Tensor],
        actions: Tensor | None,
        weights: Tensor,
    ) -> dict[str, Tensor]:
        """One M-step; returns ``loss``, ``kl/<term>`` (relative to its bound), ``guard_t`` and its own, each
        [*population]."""
