"""The solvers against known answers, an independent primal solver, and the edges of the problem."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, minimize

from cvpo.estep import DualProblem, Status
from tests.estep.problems import EXACT, cost_of, draw_problem, solve


def primal_optimum(problem: DualProblem) -> float:
    """max mean_b Σ_k w Q_r over the weights themselves, by a trust-region interior-point method."""
    q, cost, log_p = problem.q_reward.numpy(), problem.q_cost.numpy(), problem.log_p.numpy()
    states, particles = q.shape

    def kl(w: np.ndarray) -> float:
        return float((w * (np.log(w) - log_p.ravel())).sum() / states)

    result = minimize(
        lambda w: -(w * q.ravel()).sum() / states,
        np.exp(log_p).ravel(),
        jac=lambda w: -q.ravel() / states,
        hess=lambda w: np.zeros((w.size, w.size)),
        method="trust-constr",
        bounds=Bounds(1e-12, 1.0, keep_feasible=True),
        constraints=[
            LinearConstraint(np.kron(np.eye(states), np.ones(particles)), 1.0, 1.0),
            LinearConstraint(cost.reshape(len(cost), -1) / states, -np.inf, problem.cost_limit.numpy()),
            NonlinearConstraint(
                kl,
                -np.inf,
                problem.kl_epsilon.item(),
                jac=lambda w: (np.log(w) - log_p.ravel() + 1) / states,
                hess=lambda w, v: v[0] * np.diag(1 / w) / states,
            ),
        ],
        options={"gtol": 1e-10, "xtol": 1e-14, "barrier_tol": 1e-12, "maxiter": 3000},
    )
    return -result.fun


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("costs", "prior"), [(1, False), (2, True)])
def test_objective_is_that_of_an_independent_primal_solver(name: str, costs: int, prior: bool) -> None:
    problem = draw_problem(3, costs=costs, states=3, particles=4, prior=prior)
    solution = solve(name, problem)
    assert solution.status == Status.OK
    assert (solution.lam > 0.05).all(), "the limits are meant to bind here"
    reward = (solution.weights * problem.q_reward).sum(-1).mean()
    assert reward.item() == pytest.approx(primal_optimum(problem), abs=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_two_particles_that_share_by_the_limit(name: str) -> None:
    """Q_r = Q_c = (1, 0), d = 0.3: the optimum is (0.3, 0.7), although the KL bound is slack."""
    q = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    solution = solve(name, DualProblem(q, q.unsqueeze(0), 0.3, 5.0))
    torch.testing.assert_close(solution.weights, torch.tensor([[0.3, 0.7]], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", EXACT)
def test_without_costs_a_loose_bound_is_greedy_and_ties_share_by_the_prior(name: str) -> None:
    q = torch.tensor([[1.0, 1.0, 0.0], [0.2, 0.1, 0.3]], dtype=torch.float64)
    prior = torch.tensor([[0.2, 0.6, 0.2], [0.4, 0.3, 0.3]], dtype=torch.float64).log()
    solution = solve(name, DualProblem(q, None, None, 50.0, prior))
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(solution.weights, expected, atol=1e-6, rtol=0)
    assert solution.eta >= 0.99e-8 * 0.6


@pytest.mark.parametrize("name", EXACT)
def test_one_particle_has_one_answer(name: str) -> None:
    q = torch.randn(4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    feasible = solve(name, DualProblem(q, q.unsqueeze(0), q.mean().item() + 0.1, 0.1))
    assert feasible.status == Status.OK and (feasible.weights == 1).all()
    not_met = solve(name, DualProblem(q, q.unsqueeze(0), q.mean().item() - 0.1, 0.1))
    assert not_met.status == Status.INFEASIBLE and not_met.violation.item() == pytest.approx(0.1)


@pytest.mark.parametrize("name", EXACT)
def test_constant_rewards_leave_the_projection_on_the_limits(name: str) -> None:
    problem = draw_problem(1)
    flat = DualProblem(torch.full_like(problem.q_reward, 3.0), problem.q_cost, problem.cost_limit, 0.5)
    solution = solve(name, flat)
    assert solution.status == Status.OK
    torch.testing.assert_close(cost_of(flat, solution.weights), flat.cost_limit, atol=1e-6, rtol=0)
    nowhere = solve(name, DualProblem(flat.q_reward, None, None, 0.5))
    torch.testing.assert_close(nowhere.weights, torch.full_like(nowhere.weights, 1 / 6), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", EXACT)
def test_a_cost_that_copies_the_reward_has_a_singular_hessian_and_is_solved(name: str) -> None:
    q = draw_problem(2).q_reward
    problem = DualProblem(q, torch.stack([q, 2 * q + 1]), [q.mean().item(), 2 * q.mean().item() + 1.2], 0.1)
    solution = solve(name, problem)
    assert solution.status == Status.OK
    assert cost_of(problem, solution.weights)[0].item() == pytest.approx(q.mean().item(), abs=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_limits_out_of_reach_give_the_least_violation_and_its_certificate(name: str) -> None:
    problem = draw_problem(8, costs=1, tightness=0.9)
    solution = solve(name, problem)
    assert solution.status == Status.INFEASIBLE
    # With one cost, least violation is least cost inside the KL ball: the E-step of reward -Q_c, which has no limits.
    least = solve(name, DualProblem(-problem.q_cost[0], None, None, 0.1))
    torch.testing.assert_close(solution.weights, least.weights, atol=1e-6, rtol=0)
    expected = cost_of(problem, least.weights) - problem.cost_limit
    assert solution.violation.item() == pytest.approx(expected.item(), abs=1e-6)
    assert solution.lam.item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["newton", "osqp"])
def test_a_multiplier_left_a_rounding_error_above_zero_does_not_mislead_the_step(name: str) -> None:
    """λ = 1e-17 of a slack limit is free by one bit: the step must pin it and solve for the others without it."""
    steps = []
    for seed in range(10):
        tight = draw_problem(seed, costs=2, states=13, particles=16, epsilon=1.0, prior=True)
        limits = tight.cost_limit + torch.tensor([1.0, 0.0])
        problem = DualProblem(tight.q_reward, tight.q_cost, limits, 1.0, tight.log_prior)
        start = solve(name, problem)
        assert start.lam[0] == 0
        for off in (1e-5, 1e-3):
            beside = attrs.evolve(start, eta=start.eta * (1 + off), lam=start.lam.clamp(min=1e-17))
            steps.append(int(solve(name, problem, beside).iterations))
    assert max(steps) <= 7
