"""The normalised problem that solvers and residuals work on, so that every tolerance in them is relative.

Per state, Q_r and Q_c are shifted by their least value over the prior's support, and d by the mean of Q_c's shifts:
this changes neither duals nor weights, and takes large offsets out of the arithmetic. Then Q_r is divided by a power
of two near R = mean_b range_k Q_r, and Q_c,m and d_m by one near C_m, likewise. Powers of two make the division exact:
near η = 0 a rounding of λ is amplified by Q_c/η, up to eight digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cvpo.estep.problem import DualProblem

ETA_FLOOR = 1e-8
"""Least η of any solver, in units of R: below it the softmax cannot be resolved in float64."""


class Scaled(NamedTuple):
    """A stack of P normalised problems in float64, and the units that lead back.

    ``q`` [P,S,B,K], ``log_prior`` [P,B,K] or None, ``limit`` [P,M], ``epsilon`` [P]. ``unit_reward`` [P] and
    ``unit_cost`` [P,M] are the powers of two; ``range_reward`` [P] and ``range_cost`` [P,M] are R and C_m in those
    units, with 0 replaced by the caller's 1, as residuals are graded; ``size`` [P,S] is both without
    that, 0 for what is constant.
    ``finite`` [P] marks usable problems.
    """

    q: Tensor
    log_prior: Tensor | None
    limit: Tensor
    epsilon: Tensor
    unit_reward: Tensor
    unit_cost: Tensor
    range_reward: Tensor
    range_cost: Tensor
    size: Tensor
    finite: Tensor

    def take(self, index: Tensor) -> Scaled:
        """The problems at ``index`` (a mask or positions) only."""
        return Scaled._make(None if part is None else part[index] for part in self)

    def without_reward(self) -> Scaled:
        """The same problems with Q_r = 0, in units of the largest C_m: their dual is that of least violation.

        λ in [0, 1] of the caller's units is [0, ``unit_cost / unit_reward``] in the returned record's.
        """
        q = torch.cat([torch.zeros_like(self.q[:, :1]), self.q[:, 1:]], dim=1)
        return self._replace(
            q=q,
            unit_reward=self.unit_cost.amax(1),
            range_reward=torch.ones_like(self.range_reward),
            size=torch.cat([torch.zeros_like(self.size[:, :1]), self.size[:, 1:]], dim=1),
        )

    def inward(self, eta: Tensor, lam: Tensor) -> Tensor:
        """x = (η, λ) [P,S] in these units, from ``eta`` [P] and ``lam`` [P,M] in the caller's."""
        unit = self.unit_reward.unsqueeze(1)
        return torch.cat([eta.unsqueeze(1) / unit, lam * (self.unit_cost / unit)], dim=1)

    def outward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``eta`` [P] and ``lam`` [P,M] in the caller's units, from x = (η, λ) [P,S] in these."""
        return x[:, 0] * self.unit_reward, x[:, 1:] * (self.unit_reward.unsqueeze(1) / self.unit_cost)


def scale(problem: DualProblem) -> Scaled:
    """The normalised stack, leading dimensions flattened to P. Differentiates through shifts, not through units."""
    costs, states, particles = problem.q_cost.shape[-3:]
    q = torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3).to(torch.float64)
    q = q.reshape(-1, 1 + costs, states, particles)
    epsilon = problem.kl_epsilon.reshape(-1)
    limit = problem.cost_limit.reshape(epsilon.shape[0], costs)
    log_prior = None
    if problem.log_prior is None:
        low, high = q.amin(-1), q.amax(-1)
        finite = torch.isfinite(low + high).flatten(1).all(1)
        q = q - low.unsqueeze(-1)
    else:
        log_prior = problem.log_prior.reshape(-1, states, particles)
        outside = (log_prior == -torch.inf).unsqueeze(1)
        low = q.masked_fill(outside, torch.inf).amin(-1)
        high = q.masked_fill(outside, -torch.inf).amax(-1)
        finite = torch.isfinite(q).flatten(1).all(1) & ~log_prior.isnan().flatten(1).any(1)
        q = (q - low.unsqueeze(-1)).masked_fill(outside, 0.0)
    finite = finite & torch.isfinite(limit).all(1) & torch.isfinite(epsilon) & (epsilon > 0)
    # No weights reach KL_max + 1, KL_max = mean_b max_k -log p: a larger bound is the same, and η·(ε - KL) is not.
    if log_prior is None:
        epsilon = epsilon.clamp(max=math.log(particles) + 1)
    else:
        epsilon = torch.minimum(epsilon, 1 - log_prior.masked_fill(log_prior == -torch.inf, 0.0).amin(-1).mean(-1))
    # Problems that are not finite keep units that can be divided by.
    width = torch.where(finite.unsqueeze(1), (high - low).detach().mean(-1), 0.0)
    unit = _power_of_two(width)
    # A constant cost has no scale of its own; it takes that of the others, so that violations stay comparable.
    spread = torch.where(width[:, 1:] > 0, unit[:, 1:], 0.0)
    unit_cost = torch.where(width[:, 1:] > 0, unit[:, 1:], _filled(spread))
    unit = torch.cat([unit[:, :1], unit_cost], dim=1)
    graded = torch.where(width > 0, width, 1.0) / unit
    limit = (limit.unsqueeze(-1) - low[:, 1:]).mean(-1)
    # A constant cost right on its limit: no λ could mend the rounding of the difference.
    rounding = (width[:, 1:] == 0) & (limit.abs() <= 1e-14 * low[:, 1:].abs().mean(-1))
    return Scaled(
        q=q / unit.view(*unit.shape, 1, 1),
        log_prior=log_prior,
        limit=torch.where(rounding, 0.0, limit) / unit_cost,
        epsilon=torch.where(finite, epsilon, 1.0),
        unit_reward=unit[:, 0],
        unit_cost=unit_cost,
        range_reward=graded[:, 0],
        range_cost=graded[:, 1:],
        size=width / unit,
        finite=finite,
    )


def _power_of_two(width: Tensor) -> Tensor:
    return torch.where(width > 0, torch.exp2(torch.log2(width).round()), 1.0)


def _filled(spread: Tensor) -> Tensor:
    if spread.shape[1] == 0:
        return spread
    largest = spread.amax(1, keepdim=True)
    return torch.where(largest > 0, largest, 1.0).expand_as(spread)
