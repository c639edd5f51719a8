"""Supervised fit of the network to the projected distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from cvpo import validators
from cvpo.errors import ConfigError
from cvpo.mstep.fit import FitState, build_state, descend, finish
from cvpo.mstep.protocol import Projection
from cvpo.mstep.terms import Terms


@attrs.frozen
class Regression:
    """min_θ  mean_b KL(π* ‖ π_θ),  π* = projection.project(π_old, actions, weights), then the guard.

    The projection is exact, so there are no multipliers: ``iterations`` Adam steps with learning rate ``lr`` on the
    divergence from the target, which is inside the trust region. ``max_grad_norm`` clips the gradient; ``None`` does
    not.
    """

    summary: ClassVar[str] = "supervised fit to the exactly projected policy; no multipliers"

    iterations: int = attrs.field(default=5, validator=validators.number(ge=1, integer=True))
    lr: float = attrs.field(default=1e-3, validator=validators.number(gt=0))
    max_grad_norm: float | None = attrs.field(default=None, validator=validators.number(gt=0, optional=True))

    def build(self, policy: nn.Module, projection: Projection, population: Sequence[int] = ()) -> FitState:
        """The optimiser for ``policy``."""
        return build_state(policy, projection, population, self.lr)

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
        """One M-step in place on ``policy``; its statistics. ``loss`` is before the last step."""
        with torch.no_grad():
            target = projection.project(old, actions, weights)
        if not callable(getattr(target, "kl", None)):
            raise ConfigError(f"the projection's project gives a {type(target).__name__}; allowed: a distribution")
        terms = Terms(state.terms, projection, old, actions, weights)
        losses = []
        for _ in range(self.iterations):
            loss = target.kl(policy(obs)).mean(-1)
            descend(state, loss.sum().backward, self.max_grad_norm)
            losses.append(loss.detach())
        return finish(state, lambda: terms.kls(policy(obs)), old_params, losses)
