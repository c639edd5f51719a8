"""Limits at and just below the least cost that any weights have, the KL bound slack: either status is right there, but
one of them there must be."""

from __future__ import annotations

from typing import Any

import attrs
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


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
@pytest.mark.parametrize("below", [1e-15, 1e-13, 1e-12, 1e-11, 3e-11, 1e-10, 4e-10, 1e-9])
def test_a_constant_cost_just_above_its_limit_has_an_answer(name: str, below: float) -> None:
    """No λ mends it, and one that tries runs off."""
    solver = registry.create(name)
    for seed, cost in enumerate((0.5, 0.017, 1e-6, 0.5, 4e3, 1e8)):
        generator = torch.Generator().manual_seed(seed)
        reward = torch.randn(7, 8, generator=generator, dtype=torch.float64)
        constant = torch.full((1, 7, 8), cost, dtype=torch.float64)
        problem = DualProblem(reward, constant, cost - cost * below, 1.0)
        solution = solver.solve(problem)
        assert solution.status in (Status.OK, Status.INFEASIBLE), (seed, solution)
        assert kkt_residuals(problem, solution).max <= 1e-6


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
@pytest.mark.parametrize("epsilon", [0.01, 50.0])
@pytest.mark.parametrize("level", [1.0, 1e6])
def test_a_constant_cost_is_proved_to_the_digit_whatever_its_level(name: str, level: float, epsilon: float) -> None:
    reward = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = DualProblem(reward, torch.full((1, 5, 8), level, dtype=torch.float64), level - 0.1, epsilon)
    solution = registry.create(name).solve(problem)
    assert solution.status == Status.INFEASIBLE
    require_witness(problem, solution, 1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("newton", {}), ("newton", {"check_every": None}), ("slsqp", {}), ("osqp", {})]
)
@pytest.mark.parametrize("slack", [0.1, 1e-2, 1e-6])
def test_a_constant_cost_within_its_limit_has_no_part_in_the_proof(name: str, options: Any, slack: float) -> None:
    reward = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    limits = torch.tensor([[0.9, 1.0 + slack], [1.0 + slack, 0.9]], dtype=torch.float64)
    problem = DualProblem(reward, torch.ones(2, 2, 5, 8, dtype=torch.float64), limits, torch.full((2,), 0.1).double())
    solution = registry.create(name, **options).solve(problem)
    assert (solution.status == Status.INFEASIBLE).all()
    assert kkt_residuals(problem, solution).max.max() <= 1e-9
    torch.testing.assert_close(solution.lam, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
def test_values_at_the_end_of_double_precision_are_no_exception(name: str) -> None:
    """Their range is nearest to a power of two that is none."""
    reward = torch.tensor([[0.0, 1.5e308]], dtype=torch.float64)
    solution = registry.create(name).solve(DualProblem(reward, reward.new_zeros((0, 1, 2)), (), 0.1))
    assert solution.status == Status.OK


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
def test_a_cost_held_between_two_limits_that_exclude_each_other_has_an_answer(name: str) -> None:
    """At η → 0 both multipliers end within η of their bound of 1."""
    solver, generator = registry.create(name), torch.Generator().manual_seed(0)
    for _ in range(40):
        reward, cost = torch.randn(2, 1, 2, generator=generator, dtype=torch.float64)
        inside = cost.amin() + (cost.amax() - cost.amin()) * torch.rand(2, generator=generator, dtype=torch.float64)
        limits = torch.stack([inside[0], -inside[1]])
        prior = 2 * torch.randn(1, 2, generator=generator, dtype=torch.float64)
        problem = DualProblem(reward, torch.stack([cost, -cost]), limits, 5.0, log_prior=prior)
        solution = solver.solve(problem)
        assert solution.status in (Status.OK, Status.INFEASIBLE)
        assert kkt_residuals(problem, solution).max <= 1e-6
        require_witness(problem, solution, 1e-6)


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "adam"])
def test_a_proof_is_in_the_units_of_each_cost(name: str) -> None:
    """Units twelve orders apart, both limits out of reach: 0 <= λ <= 1 for either, and graded so."""
    cost = torch.tensor([[[1e6, 0.0]], [[0.0, 1e-6]]], dtype=torch.float64)
    limits = torch.tensor([2e5, 2e-7], dtype=torch.float64)
    problem = DualProblem(torch.tensor([[1.0, 0.0]], dtype=torch.float64), cost, limits, 0.1)
    solution = registry.create(name).solve(problem)
    assert solution.status == Status.INFEASIBLE
    assert (solution.lam <= 1.0 + 1e-6).all() and solution.violation.item() == pytest.approx(80205.37, rel=1e-6)
    over = attrs.evolve(solution, lam=solution.lam * torch.tensor([1.0, 20.0], dtype=torch.float64))
    assert kkt_residuals(problem, over).sign > 1.0


@pytest.mark.parametrize("name", registry.names())
def test_a_limit_as_far_as_numbers_go_is_no_exception(name: str) -> None:
    problem = DualProblem(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([-1e300]).double(), 0.1
    )
    assert torch.isfinite(registry.create(name).solve(problem).weights).all()


@pytest.mark.parametrize("costs", [0, 2])
def test_a_stack_of_no_problems_has_residuals(costs: int) -> None:
    problem = DualProblem(torch.zeros(0, 3, 4), torch.zeros(0, costs, 3, 4), torch.zeros(0, costs), torch.zeros(0))
    residual = kkt_residuals(problem, registry.create("newton").solve(problem))
    assert residual.max.shape == (0,) and residual.cost.shape == (0, costs)
