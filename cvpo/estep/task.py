"""One minimisation of the dual, as every dual solver gets it: bounds, units, starting points."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cvpo.estep import dual
from cvpo.estep.certify import point_error
from cvpo.estep.lanes import Number
from cvpo.estep.scaling import ETA_FLOOR, Scaled

INFEASIBLE_BELOW = -1e-9
"""Where Q_r >= 0 and some weights meet the limits, g >= 0 everywhere (weak duality); less than rounding is proof."""
ALL_BUT_ZERO = 1e-8
"""Of the least η, where no Q-value is divided by it."""


class Task(NamedTuple):
    """P minimisations of g over ``lower`` <= x = (η, λ) <= ``upper`` [P,S], in normalised units.

    ``q`` [P,S,B,K], ``log_prior`` [P,B,K] or None, ``limit`` [P,M] and ``epsilon`` [P] as in :func:`dual.evaluate`;
    ``units`` = (R, C_1 … C_M) [P,S], as residuals are graded; ``size`` is the same with 0 for what is constant, as the
    reward is in the least-violation form, where ``upper`` is finite. ``slope`` and ``lift`` [P]: see :func:`bottom`. A
    value below ``bound`` [P] proves infeasibility and ends the work; ``active`` [P] marks what to solve.
    """

    q: Tensor
    log_prior: Tensor | None
    limit: Tensor
    epsilon: Tensor
    lower: Tensor
    slope: Tensor
    lift: Tensor
    upper: Tensor
    units: Tensor
    size: Tensor
    bound: Tensor
    active: Tensor

    def take(self, index: Any) -> Task:
        """The problems at ``index`` (a mask, positions or a slice) only."""
        return Task._make(None if part is None else part[index] for part in self)


class Minimum(NamedTuple):
    """Where a minimisation ended: ``x`` [P,S], the dual there, its ``error`` [P], and ``iterations`` [P].

    ``weights`` [P,B,K] there, if at hand; ``failed`` [P] where a backend broke down; ``state``: the solver's own.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    error: Tensor
    iterations: Tensor
    weights: Tensor | None = None
    failed: Tensor | None = None
    state: Any = None


def floors(range_reward: Number, epsilon: Number) -> tuple[Number, Number, Number]:
    """The least η, and ``slope`` and ``lift`` of a :class:`Task`."""
    least = ETA_FLOOR * range_reward
    return least, 0.1 * least, 3e-7 * range_reward / epsilon


def main_task(scaled: Scaled) -> Task:
    """The dual of the problem itself."""
    lower = torch.zeros_like(scaled.q[:, :, 0, 0])
    lower[:, 0], slope, lift = floors(scaled.range_reward, scaled.epsilon)
    return Task(
        q=scaled.q,
        log_prior=scaled.log_prior,
        limit=scaled.limit,
        epsilon=scaled.epsilon,
        lower=lower,
        slope=slope,
        lift=lift,
        upper=torch.full_like(lower, torch.inf),
        units=torch.cat([scaled.range_reward.unsqueeze(1), scaled.range_cost], dim=1),
        size=scaled.size,
        bound=torch.full_like(scaled.epsilon, INFEASIBLE_BELOW),
        active=scaled.finite,
    )


def least_violation_task(scaled: Scaled) -> Task:
    """The dual of least violation, from the problem's own record: Q_r = 0 and λ in [0, 1]^M of the caller's units.

    It is homogeneous of degree one, so costs in small units live at small (η, λ), and the floor of η follows them.
    """
    scaled = scaled.without_reward()
    task = main_task(scaled)
    share = scaled.unit_cost / scaled.unit_reward.unsqueeze(1)
    # Where all costs are constant, λ is 1 on those above their limits and 0 on the others; nothing is divided by η
    # then, and η·ε is all that keeps the proof from the violation.
    constant = scaled.constant.unsqueeze(1)
    known = torch.where(scaled.limit < 0, share, 0.0)
    eta = task.lower[:, :1] * share.amin(1, keepdim=True) * torch.where(constant, ALL_BUT_ZERO, 1.0)
    return task._replace(
        lower=torch.cat([eta, torch.where(constant, known, 0.0)], dim=1),
        slope=task.lower[:, 0],
        upper=torch.cat([task.upper[:, :1], torch.where(constant, known, share)], dim=1),
        bound=torch.full_like(task.bound, -torch.inf),
    )


def cold_start(task: Task, lam: Tensor) -> Tensor:
    """η = √(mean_b Var_p(Q_r − λᵀQ_c)/(2ε)), where KL = ε to second order, with the given λ [P,M]."""
    eta = torch.ones_like(task.lower[:, :1])
    u = dual.exponents(task.q, torch.cat([eta, lam], dim=1))
    if task.log_prior is None:
        first, second = u.mean(-1), (u * u).mean(-1)
    else:
        tilted = task.log_prior.exp() * u
        first, second = tilted.sum(-1), (tilted * u).sum(-1)
    variance = (second - first * first).mean(-1, keepdim=True).clamp(min=0)
    return torch.cat([torch.maximum((variance / (2 * task.epsilon.unsqueeze(1))).sqrt(), task.lower[:, :1]), lam], 1)


def value_at(task: Task, x: Tensor) -> Tensor:
    """g [P] at ``x`` [P,S]."""
    return dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, x).value


def bottom(task: Task, x: Tensor) -> Tensor:
    """The lower bounds [P,S] around ``x``: large λ lift the floor of η, for z = (Q_r − λᵀQ_c)/η rounds with them.

    The lift ends where η·ε would count as an error of its own.
    """
    lift = torch.minimum(task.slope * (x[:, 1:] * task.size[:, 1:]).sum(1), task.lift)
    eta = torch.maximum(task.lower[:, 0], lift)
    return torch.cat([eta.unsqueeze(1), task.lower[:, 1:]], dim=1)


def error_at(task: Task, x: Tensor, gradient: Tensor) -> Tensor:
    """The largest residual [P] at ``x``, given the gradient there."""
    return point_error(gradient, x, bottom(task, x), task.upper, task.epsilon, task.units)


def pushed(task: Task, x: Tensor, gradient: Tensor) -> Tensor:
    """Where a coordinate sits at a bound that the descent pushes against: [P,S]."""
    return ((x <= bottom(task, x)) & (gradient > 0)) | ((x >= task.upper) & (gradient < 0))


def end_at(task: Task, x: Tensor, iterations: Tensor) -> Minimum:
    """The record of a minimisation that ended at ``x``."""
    at = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, x)
    return Minimum(x, at.value, at.gradient, error_at(task, x, at.gradient), iterations, at.weights)
