"""Synthetic E-step problems: one recipe for the solver benchmark, its goals and its baselines.

Q_r is standard normal and Q_c = 0.6 Q_r + 0.8 N(0, 1), so that costs pay off and the unconstrained optimum breaks the
limits; d lies a tenth of the way from the prior's own cost to the least possible one, and ε = 0.1, unless told
otherwise. All is float64: single precision cannot reach the finest tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvpo.estep import DualProblem

MOVE = 0.01
"""Share of their spread by which Q-values move between a warm start and its problem."""


def draw(
    seed: int,
    lead: tuple[int, ...] = (),
    states: int = 256,
    particles: int = 64,
    costs: int = 1,
    tightness: float = 0.1,
    epsilon: float = 0.1,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> DualProblem:
    """One stack, uniform prior; ``change`` alters (Q_r, Q_c) before the limits are placed."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(*lead, states, particles, generator=generator, dtype=torch.float64)
    noise = torch.randn(*lead, costs, states, particles, generator=generator, dtype=torch.float64)
    c = 0.6 * q.unsqueeze(-3) + 0.8 * noise
    if change is not None:
        q, c = change(q, c)
    return DualProblem(q, c, limits(c, tightness), epsilon)


def limits(c: Tensor, tightness: float) -> Tensor:
    """d [...,M]: 0 is the uniform prior's own cost, 1 the least cost of any weights, beyond 1 out of reach."""
    mean = c.mean((-2, -1))
    return mean + tightness * (c.amin(-1).mean(-1) - mean)


def moved(problem: DualProblem, seed: int, share: float = MOVE) -> DualProblem:
    """Every Q-value changed by N(0, 1) times ``share`` of the spread of its signal; limits and ε stay."""
    generator = torch.Generator().manual_seed(seed)

    def shifted(q: Tensor) -> Tensor:
        spread = q.std(-1, correction=0).mean(-1)[..., None, None]
        return q + share * spread * torch.randn(q.shape, generator=generator, dtype=q.dtype)

    q_cost = shifted(problem.q_cost) if problem.costs else problem.q_cost
    return DualProblem(shifted(problem.q_reward), q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
