"""The solvers against known answers, an independent primal solver, and the edges of the problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint, minimize

from cvpo.errors import ConfigError, ProblemError
from cvpo.estep import DualProblem, DualSolution, Status, kkt_residuals, registry
from tests.estep.problems import draw_problem

EXACT = ["newton", "slsqp"]
TINY = 1e-9


def solve(name: str, problem: DualProblem, warm: DualSolution | None = None, **options: object) -> DualSolution:
    solution = registry.create(name, **options).solve(problem, warm)
    bound = 1e-6 if problem.q_reward.dtype == torch.float64 else 1e-5
    assert (kkt_residuals(problem, solution).max <= bound).all()
    return solution


def cost_of(problem: DualProblem, weights: torch.Tensor) -> torch.Tensor:
    return (weights.unsqueeze(-3) * problem.q_cost).sum(-1).mean(-1)


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
@pytest.mark.parametrize("magnitude", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_changes_only_the_scale_of_the_duals(name: str, magnitude: float) -> None:
    problem = draw_problem(4, costs=2)
    base = solve(name, problem)
    factors = torch.tensor([1.0, magnitude], dtype=torch.float64)
    scaled = DualProblem(
        magnitude * problem.q_reward, factors.view(2, 1, 1) * problem.q_cost, factors * problem.cost_limit, 0.1
    )
    found = solve(name, scaled)
    torch.testing.assert_close(found.weights, base.weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.eta, magnitude * base.eta, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.lam, base.lam * magnitude / factors, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", EXACT)
def test_offsets_per_state_change_nothing(name: str) -> None:
    problem = draw_problem(5)
    shift = 1e3 * torch.randn(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = DualProblem(
        problem.q_reward - 2 * shift, problem.q_cost + shift, problem.cost_limit + shift.mean(), problem.kl_epsilon
    )
    torch.testing.assert_close(solve(name, moved).weights, solve(name, problem).weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", EXACT)
def test_float32_weights_are_near_those_of_float64(name: str) -> None:
    low = draw_problem(6, costs=2, dtype=torch.float32)
    same = DualProblem(low.q_reward.double(), low.q_cost.double(), low.cost_limit, low.kl_epsilon)
    found, exact = solve(name, low), solve(name, same)
    assert found.weights.dtype == torch.float32 and found.eta.dtype == found.lam.dtype == torch.float64
    torch.testing.assert_close(found.weights.double(), exact.weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", EXACT)
def test_a_stack_is_solved_as_its_parts_are(name: str) -> None:
    stack = draw_problem(7, lead=(2, 3), costs=2, prior=True)
    together = solve(name, stack)
    assert together.eta.shape == together.status.shape == (2, 3) and together.lam.shape == (2, 3, 2)
    for i in range(2):
        for j in range(3):
            alone = solve(
                name,
                DualProblem(
                    stack.q_reward[i, j], stack.q_cost[i, j], stack.cost_limit[i, j], 0.1, stack.log_prior[i, j]
                ),
            )
            torch.testing.assert_close(together.weights[i, j], alone.weights, atol=1e-6, rtol=0)
            assert together.status[i, j] == alone.status


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


@pytest.mark.parametrize("name", EXACT)
def test_values_that_are_not_finite_give_the_prior_and_say_so(name: str) -> None:
    stack = draw_problem(9, lead=(4,), prior=True)
    for index, value in enumerate([torch.nan, torch.inf, -torch.inf]):
        stack.q_reward[index, 0, 0] = value
    solution = registry.create(name).solve(stack)
    assert solution.status.tolist() == [Status.NONFINITE] * 3 + [Status.OK]
    torch.testing.assert_close(solution.weights[:3], stack.log_p.exp()[:3])
    assert torch.isfinite(solution.eta).all() and torch.isfinite(solution.lam).all()
    assert torch.isfinite(solution.violation).all()
    no_bound = registry.create(name).solve(DualProblem(stack.q_reward[3], None, None, 0.0))
    assert no_bound.status == Status.NONFINITE


@pytest.mark.parametrize("name", EXACT)
def test_a_warm_start_is_faster_and_failed_entries_of_it_are_ignored(name: str) -> None:
    stack = draw_problem(10, lead=(3,), costs=2)
    cold = solve(name, stack)
    again = solve(name, stack, cold)
    assert (again.iterations < cold.iterations).all()
    torch.testing.assert_close(again.weights, cold.weights, atol=1e-6, rtol=0)
    broken = DualSolution(
        cold.eta * torch.nan, cold.lam * torch.inf, cold.weights, torch.full_like(cold.status, Status.NONFINITE),
        cold.iterations, cold.violation,
    )  # fmt: skip
    torch.testing.assert_close(solve(name, stack, broken).weights, cold.weights, atol=1e-6, rtol=0)
    with pytest.raises(ProblemError, match="warm"):
        registry.create(name).solve(draw_problem(10), cold)


@pytest.mark.parametrize("name", EXACT)
def test_a_warm_start_crosses_between_feasible_and_infeasible(name: str) -> None:
    feasible, not_met = draw_problem(11, tightness=0.1), draw_problem(11, tightness=0.9)
    first, second = solve(name, feasible), solve(name, not_met)
    torch.testing.assert_close(solve(name, not_met, first).weights, second.weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(solve(name, feasible, second).weights, first.weights, atol=1e-6, rtol=0)
    assert solve(name, not_met, second).iterations < second.iterations


@pytest.mark.parametrize("name", EXACT)
def test_inputs_are_left_as_they_were(name: str) -> None:
    problem = draw_problem(12, costs=2, prior=True)
    tensors = (problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
    before = [tensor.clone() for tensor in tensors]
    solve(name, problem)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_unknown_names_and_options_are_explained() -> None:
    with pytest.raises(ConfigError, match="did you mean 'newton'"):
        registry.create("newtn")
    with pytest.raises(ConfigError, match="max_iter"):
        registry.create("newton", max_iters=3)
    with pytest.raises(ConfigError, match="tolerance"):
        registry.create("newton", tolerance=0.0)
