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

from cvpo.estep.lanes import Lanes
from cvpo.estep.problem import DualProblem
from cvpo.estep.stacks import Many
from cvpo.estep.units import in_units, units

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

    @property
    def constant(self) -> Tensor:
        """Where every cost is the same for all actions of a state [P]."""
        return (self.size[:, 1:] == 0).all(1)

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


def scale(problem: DualProblem, lanes: Lanes = Many) -> Scaled:
    """The normalised stack, leading dimensions flattened to P.

    Differentiates through values, not through units; with the ``lanes`` of :class:`~cvpo.estep.stacks.Host`, not.
    """
    raw, signals = shifted(problem), 1 + problem.costs
    width, rest = raw.numbers[:, :signals].detach(), raw.numbers[:, signals:]
    found = units(lanes, problem.costs, (*lanes.split(width), *lanes.split(rest)))
    numbers = lanes.join((*found.unit, *found.graded, *found.size, found.epsilon, *found.limit), raw.q)
    unit, graded, size, epsilon, limit = numbers.split_with_sizes((*3 * (signals,), 1, problem.costs), 1)
    return Scaled(
        q=in_units(raw.q, unit),
        log_prior=raw.log_prior,
        limit=limit,
        epsilon=epsilon[:, 0],
        unit_reward=unit[:, 0],
        unit_cost=unit[:, 1:],
        range_reward=graded[:, 0],
        range_cost=graded[:, 1:],
        size=size,
        finite=lanes.join((found.finite,), raw.q)[:, 0],
    )


class Shifted(NamedTuple):
    """``q`` [P,S,B,K] in float64 less its least values, ``log_prior``, and what :func:`units` reads, ``numbers`` [P,n].

    ``q`` is a copy that belongs to the caller. The numbers: mean ranges of all signals; limits; mean absolute shifts
    of the costs; ε; and an upper bound of use for it. One of them is not finite where anything in the problem is not.
    """

    q: Tensor
    log_prior: Tensor | None
    numbers: Tensor


def shifted(problem: DualProblem) -> Shifted:
    """The first half of :func:`scale`: all that reads the data."""
    costs, states, particles = problem.q_cost.shape[-3:]
    q = torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3).to(torch.float64)
    q = q.reshape(-1, 1 + costs, states, particles)
    epsilon = problem.kl_epsilon.reshape(-1, 1)
    limit = problem.cost_limit.reshape(len(epsilon), costs, 1)
    # Shifts change neither duals nor weights, so they carry no derivative, and the copy is shifted in place.
    values = q.detach()
    if problem.log_prior is None:
        log_prior = None
        # No weights reach KL_max + 1, KL_max = mean_b max_k -log p: a larger ε is the same, and η·(ε - KL) is not.
        most = torch.full_like(epsilon, math.log(particles) + 1)
        low = values.amin(-1)
        q.sub_(low.unsqueeze(-1))
        width = values.amax(-1)
    else:
        log_prior = problem.log_prior.reshape(-1, states, particles)
        outside = (log_prior == -torch.inf).unsqueeze(1)
        most = 1 - log_prior.masked_fill(log_prior == -torch.inf, 0.0).amin(-1).mean(-1, keepdim=True)
        most = torch.where(torch.isfinite(values).flatten(1).all(1, keepdim=True), most, torch.nan)
        low = values.masked_fill(outside, torch.inf).amin(-1)
        q = q.sub_(low.unsqueeze(-1)).masked_fill_(outside, 0.0)
        width = q.detach().amax(-1)
    means = torch.cat([width, limit - low[:, 1:], low[:, 1:].abs()], dim=1).mean(-1)
    return Shifted(q, log_prior, torch.cat([means, epsilon, most], dim=1))
