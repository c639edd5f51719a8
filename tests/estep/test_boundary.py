"""Limits at and just below the least cost that any weights have, the KL bound slack: either status is right there, but
one of them there must be."""

from __future__ import annotations

import pytest
import torch

from cvpo.estep import DualProblem, Status, kkt_residuals, registry
from cvpo.testing.estep_grading import require_witness


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
@pytest.mark.parametrize("below", [0.0, 1e-10, 1e-9, 3e-9, 1e-8, 3e-8, 1e-6])
def test_a_limit_just_below_the_least_cost_has_an_answer(name: str, below: float) -> None:
    solver = registry.create(name)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        reward = torch.randn(32, 3, generator=generator).double()
        cost = torch.randn(1, 32, 3, generator=generator).double()
        problem = DualProblem(reward, cost, (cost.amin(-1).mean() - below).reshape(1), 1000.0)
        solution = solver.solve(problem)
        assert solution.status in (Status.OK, Status.INFEASIBLE), (seed, solution)
        assert kkt_residuals(problem, solution).max <= 1e-6
        require_witness(problem, solution, 1e-6)
