"""Returns: what the critics are drawn to, given replayed transitions or windows of them.

Shape legend: ``B`` transitions, ``n`` steps of a window, ``S`` signals (reward first), ``D`` action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import attrs
import torch
from torch import Tensor

from cvpo.critics.targets import td_targets
from cvpo.errors import ConfigError
from cvpo.registry import Registry
from cvpo.types import Batch, Window
from cvpo.validators import number

returns = Registry(
    "returns",
    {
        "td": "cvpo.critics.returns:TemporalDifference",
        "lambda": "cvpo.critics.returns:LambdaReturns",
        "retrace": "cvpo.critics.returns:Retrace",
    },
)


class Evaluation(NamedTuple):
    """The policy π that is evaluated, and what the target critics say of it.

    ``policy(obs)`` its distribution [...,B]; ``next_values(obs)`` V_s = E_π Q_s [...,S,B], or samples [A,S,B] of the
    return; ``q_values(obs, actions)`` Q_s [...,S,B] of one action [...,B,D] in each state; ``gamma`` of one step;
    ``mask_cost``: termination ends the costs too.
    """

    policy: Callable[[Tensor], Any]
    next_values: Callable[[Tensor], Tensor]
    q_values: Callable[[Tensor, Tensor], Tensor]
    gamma: float
    mask_cost: bool


class Returns(Protocol):
    """The critics' target. ``windows``: it needs ``batch.window``, and the mean of V_s, not samples of the return."""

    windows: ClassVar[bool]

    def targets(self, batch: Batch, evaluation: Evaluation) -> Tensor:
        """y_s [...,S,B], or [A,S,B] where ``evaluation.next_values`` gives samples."""
        ...


@attrs.frozen
class TemporalDifference:
    """``y_s = x_s + γᵐ (1 − terminated) V_s(o')``, x_s the m-step sum that the buffer gives (1 step for ``uniform``).

    Not corrected for the policy that took the steps after the first.
    """

    summary: ClassVar[str] = "n-step sums as the buffer gives them, then V of the policy"
    windows: ClassVar[bool] = False

    def targets(self, batch: Batch, evaluation: Evaluation) -> Tensor:
        """See :func:`cvpo.critics.targets.td_targets`."""
        values = evaluation.next_values(batch.next_obs)
        return td_targets(batch.signals, batch.discount, batch.terminated, values, mask_cost=evaluation.mask_cost)


@attrs.frozen
class LambdaReturns:
    """``y_s = Q_s(o₀,a₀) + Σ_t (γ decay)ᵗ δ_t,s`` over a window, ``δ_t,s = x_t,s + γ V_s(o_{t+1}) − Q_s(o_t,a_t)``.

    V and Q of the target critics; termination takes V away, truncation does not. ``decay`` λ in [0, 1]: 0 is the
    one-step target. The fixed point is Q^π whatever policy took the steps, because V is that of π, but iterations
    approach it only while the two policies differ less the larger λ is. Source: Harutyunyan et al. (2016), Q(λ) with
    off-policy corrections, arXiv 1602.04951.
    """

    decay: float = attrs.field(default=0.9, validator=number(ge=0, le=1))

    summary: ClassVar[str] = "TD errors of a window, each step counting decay times the one before"
    windows: ClassVar[bool] = True

    def targets(self, batch: Batch, evaluation: Evaluation) -> Tensor:
        """y_s [S,B] from ``batch.window``."""
        window = window_of(batch)
        return traced(window, evaluation, self.decay * window.inside.to(window.signals.dtype))


@attrs.frozen
class Retrace:
    """``y_s = Q_s(o₀,a₀) + Σ_t γᵗ (Π_{1<=i<=t} c_i) δ_t,s``, ``c_i = decay · min(1, π(a_i|o_i)/μ(a_i|o_i))``.

    δ as in :class:`LambdaReturns`; μ is the policy that took the step, by the log-probability stored with it. It goes
    towards Q^π whatever μ was, and no ratio exceeds 1, so that the variance stays small. A step whose μ is not known
    (NaN) ends the trace. Source: Munos et al. (2016), arXiv 1606.02647, equation 3.
    """

    decay: float = attrs.field(default=0.9, validator=number(ge=0, le=1))

    summary: ClassVar[str] = "lambda-returns, cut where the policy would not have taken the step"
    windows: ClassVar[bool] = True

    def targets(self, batch: Batch, evaluation: Evaluation) -> Tensor:
        """y_s [S,B] from ``batch.window``."""
        window = window_of(batch)
        now = evaluation.policy(window.obs.flatten(-3, -2)).log_prob(window.action.flatten(-3, -2).unsqueeze(-2))
        ratio = torch.exp((now.view_as(window.log_prob) - window.log_prob).clamp(max=0.0)).nan_to_num(nan=0.0)
        return traced(window, evaluation, self.decay * ratio * window.inside)


def window_of(batch: Batch) -> Window:
    """The batch's window; raises ConfigError where there is none."""
    if batch.window is None:
        raise ConfigError("batch.window is None; allowed: the single steps of each window, of a buffer with windows")
    return batch.window


def traced(window: Window, evaluation: Evaluation, trace: Tensor) -> Tensor:
    """``Q_s(o₀,a₀) + Σ_t γᵗ (Π_{1<=i<=t} trace_i) δ_t,s`` [...,S,B] for ``trace`` [...,B,n].

    The first of a trace is not read. Windows of a population have a leading axis P.
    """
    obs, next_obs, action = (value.flatten(-3, -2) for value in (window.obs, window.next_obs, window.action))
    gamma = torch.full(obs.shape[:-1], evaluation.gamma, dtype=obs.dtype, device=obs.device)
    target = td_targets(
        window.signals.flatten(-2),
        gamma,
        window.terminated.flatten(-2),
        evaluation.next_values(next_obs),
        mask_cost=evaluation.mask_cost,
    )
    q = evaluation.q_values(obs, action)
    errors = (target - q).view_as(window.signals)
    steps = evaluation.gamma * trace
    steps[..., 0] = 1.0
    return q.view_as(errors)[..., 0] + (steps.cumprod(-1).unsqueeze(-3) * errors).sum(-1)
