"""Problems drawn for the E-step tests, and their solutions by the solvers that promise the optimum."""

from __future__ import annotations

import torch

from cvpo.estep import DualProblem, DualSolution, kkt_residuals, registry

EXACT = ["newton", "slsqp", "osqp"]


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


def solve(name: str, problem: DualProblem, warm: DualSolution | None = None, **options: object) -> DualSolution:
    """The solution by a solver of EXACT, whose residuals are what it promises."""
    solution = registry.create(name, **options).solve(problem, warm)
    bound = 1e-6 if problem.q_reward.dtype == torch.float64 else 1e-5
    assert (kkt_residuals(problem, solution).max <= bound).all()
    return solution


def cost_of(problem: DualProblem, weights: torch.Tensor) -> torch.Tensor:
    """mean_b Σ_k w Q_c,m."""
    return (weights.unsqueeze(-3) * problem.q_cost).sum(-1).mean(-1)
