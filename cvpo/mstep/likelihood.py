"""The paper's M-step: weighted maximum likelihood with multipliers on the KL terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from cvpo import validators
from cvpo.mstep.fit import FitState, build_state, descend, finish
from cvpo.mstep.protocol import Projection
from cvpo.mstep.slopes import slopes_of
from cvpo.mstep.terms import Terms


@attrs.frozen
class Likelihood:
    """min_θ max_{α>=0}  −mean_b objective(π_θ) + Σ_j α_j (mean_b KL_j(π_old ‖ π_θ) − ε_j), then the guard.

    ``iterations`` Adam steps in θ with learning rate ``lr``, each followed by a step of dual ascent,
    α_j ← clip(α_j + ``multiplier_lr``·min(KL_j/ε_j − 1, 1), 0, ``multiplier_max``). The slack is relative to its bound,
    so that one rate serves every term (0.01 is the paper's scale of 1 at ε = 0.01 and of 100 at ε = 0.0001), and is cut
    at 1, so that an overshoot does not wind α up for thousands of updates. α is clipped where it is stored; at the
    saddle point it is the β of the projection. ``multipliers``: ``"keep"`` them from one update to the next, or
    ``"reset"`` to 0. Where the projection bounds each state, α follows the largest KL.

    The weights sum to 1 over K: the likelihood is not divided by K again. ``max_grad_norm`` clips the gradient;
    ``None`` does not. Source: CVPO, arXiv 2201.11927, section 4.3.
    """

    summary: ClassVar[str] = "weighted log-likelihood with multipliers on the KL terms (the paper)"

    iterations: int = attrs.field(default=5, validator=validators.number(ge=1, integer=True))
    lr: float = attrs.field(default=1e-3, validator=validators.number(gt=0))
    multiplier_lr: float = attrs.field(default=0.05, validator=validators.number(ge=0))
    multiplier_max: float = attrs.field(default=100.0, validator=validators.number(gt=0))
    multipliers: str = attrs.field(default="keep", validator=validators.one_of(("keep", "reset")))
    max_grad_norm: float | None = attrs.field(default=None, validator=validators.number(gt=0, optional=True))

    def build(self, policy: nn.Module, projection: Projection, population: Sequence[int] = ()) -> FitState:
        """Optimiser and multipliers for ``policy``."""
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
        """One M-step in place on ``policy``; its statistics, with ``alpha/<term>``."""
        if self.multipliers == "reset":
            state.alpha.zero_()

        slopes = slopes_of(policy, Terms(state.terms, projection, old, actions, weights), obs)
        losses = []
        for iteration in range(self.iterations):
            values = slopes.values()
            if iteration > 0:
                self._ascend(state, state.ratios(values[..., :-1, :]))
            factors = torch.cat([state.alpha, -torch.ones_like(state.alpha[..., :1])], -1)
            losses.append((factors * values.mean(-1)).sum(-1) - (state.alpha * state.bounds).sum(-1))
            descend(state, partial(slopes.backward, factors), self.max_grad_norm)

        fitted = state.ratios(slopes.kls())
        self._ascend(state, fitted)
        stats = finish(state, slopes.kls, old_params, losses, fitted)
        alpha = state.alpha.clone()
        return stats | {f"alpha/{term}": alpha[..., j] for j, term in enumerate(state.terms)}

    def _ascend(self, state: FitState, ratios: Tensor) -> None:
        # Only a KL measured after a step says anything about it: before the first one it is 0 by construction.
        slack = torch.nan_to_num(ratios - 1.0, nan=1.0).clamp(max=1.0)
        state.alpha.add_(slack, alpha=self.multiplier_lr).clamp_(0.0, self.multiplier_max)
