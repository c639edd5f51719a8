"""Temporal-difference targets of all signals at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Bootstrap = Callable[[nn.Module, Tensor, Tensor], Tensor]


def td_targets(
    signals: Tensor, discount: Tensor, terminated: Tensor, next_values: Tensor, *, mask_cost: bool = True
) -> Tensor:
    """``y_s = x_s + γⁿ (1 − terminated) V_s(o')``: [...,S,B].

    ``signals`` [...,S,B] summed over n steps; ``discount`` [...,B] = γⁿ; ``terminated`` [...,B] bool;
    ``next_values`` [...,S,B], or [...,A,S,B] for A samples of the return. Truncation is not in the equation: it always
    bootstraps. ``mask_cost=False`` lets the costs bootstrap through termination too, as some implementations do
    silently (a cost then cannot be escaped by ending the episode); the default is the paper's. Source: CVPO (arXiv
    2201.11927), appendix; Sutton & Barto, 6.1.
    """
    if next_values.ndim > signals.ndim > 2:
        # A single problem broadcasts by itself.
        signals, discount, terminated = signals.unsqueeze(-3), discount.unsqueeze(-2), terminated.unsqueeze(-2)
    factor = continuation(discount, terminated, signals.shape[-2], mask_cost=mask_cost)
    return torch.addcmul(signals, factor, next_values)


def continuation(discount: Tensor, terminated: Tensor, signals: int, *, mask_cost: bool = True) -> Tensor:
    """``γⁿ (1 − terminated)``, what a bootstrap counts: [...,1,B] for all signals alike, or [...,S,B] where the costs
    go on through termination."""
    alive = ((~terminated).to(discount.dtype) * discount).unsqueeze(-2)
    if mask_cost:
        return alive
    costs = discount.unsqueeze(-2).expand(*discount.shape[:-1], signals - 1, -1)
    return torch.cat([alive, costs], dim=-2)


def bootstrap_of(critic: Any) -> Bootstrap:
    """``V_s(o') = mean_k Q_s(o', a_k)`` [...,S,B] from ``(net, next_obs, actions)``, or the critic's own ``bootstrap``:
    samples [A,S,B] of the return, where it learns more than its mean."""
    own = getattr(critic, "bootstrap", None)
    if own is not None:
        return own

    return functools.partial(_mean_value, critic)


def _mean_value(critic: Any, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
    return critic.evaluate(net, obs, actions).mean(-1)
