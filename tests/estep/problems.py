"""Problems drawn for the E-step tests."""

from __future__ import annotations

import torch

from cvpo.estep import DualProblem


def draw_problem(
    seed: int,
    lead: tuple[int, ...] = (),
    costs: int = 1,
    states: int = 8,
    particles: int = 6,
    epsilon: float = 0.1,
    tightness: float = 0.1,
    prior: bool = False,
    dtype: torch.dtype = torch.float64,
) -> DualProblem:
    """Gaussian Q-values with costs that pay off, so that the unconstrained optimum breaks the limits.

    Each limit sits the fraction ``tightness`` of the way from the prior's own cost to the least possible one.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    q_reward = normal(states, particles)
    q_cost = 0.6 * q_reward.unsqueeze(-3) + 0.8 * normal(costs, states, particles)
    log_prior = normal(states, particles) if prior else None
    p = torch.softmax(torch.zeros_like(q_reward) if log_prior is None else log_prior, dim=-1)
    mean = (q_cost * p.unsqueeze(-3)).sum(-1).mean(-1)
    limit = mean + tightness * (q_cost.amin(-1).mean(-1) - mean)
    return DualProblem(
        q_reward.to(dtype), q_cost.to(dtype), limit, epsilon, None if log_prior is None else log_prior.to(dtype)
    )
