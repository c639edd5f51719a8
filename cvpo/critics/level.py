"""The level of Q, corrected beside its shape: what a target network alone learns over its horizon of horizons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cvpo.critics.targets import continuation
from cvpo.errors import ConfigError
from cvpo.types import Batch


@torch.no_grad()
def correct_level(
    critic: Any, online: nn.Module, target: nn.Module, batch: Batch, values: Tensor, rate: float, *, mask_cost: bool
) -> Tensor:
    """``b_s = ρ mean_b w (y_s − Q_s(o, a)) / mean_b w (1 − γᵐ (1 − terminated))`` [...,S] is added to all Q-values of
    signal s, those of the ``online`` and of the ``target`` network.

    Q is that of the target network, y = ``values`` [...,S,B] its TD targets on ``batch``, ρ = ``rate``. At ρ = 1 it is
    the constant that least squares add to solve the Bellman equation of the batch in the mean; small ρ averages over
    batches, whose noise 1/(1 − γᵐ) magnifies.

    A target network of rate τ brings the level of Q to its place over 1/(τ (1 − γᵐ)) updates: 17 000 at γ = 0.997,
    m = 2, τ = 0.01, for most of which Q_c is a fraction of the cost that it stands for. With ρ it is 1/ρ updates. The
    fixed point is the same. Source: Bradtke & Barto (1996), least-squares TD, with one constant feature.
    """
    residual = critic.residual(target, batch, values)
    kept = continuation(batch.discount, batch.terminated, residual.shape[-2], mask_cost=mask_cost)
    weight = batch.weight.unsqueeze(-2)
    by = rate * (weight * residual).mean(-1) / (weight * (1.0 - kept)).mean(-1)
    for net in (online, target):
        critic.shift(net, by)
    return by


def check_level(rate: float, critic: Any, returns: Any) -> None:
    """Raises ConfigError where ``critic`` or ``returns`` do not go with a level that is corrected at ``rate`` > 0."""
    if returns.windows:
        raise ConfigError(
            f"level_rate is {rate}, for the contraction of one bootstrap, and returns {type(returns).__name__} have "
            "that of several; allowed: level_rate=0, or returns='td'"
        )
    critic = getattr(critic, "learned_by", critic)
    missing = [name for name in ("residual", "shift") if not hasattr(critic, name)]
    if missing:
        raise ConfigError(
            f"level_rate is {rate}, and critic {type(critic).__name__} has no {' and no '.join(missing)}; allowed: "
            "level_rate=0, or a critic that has both"
        )
