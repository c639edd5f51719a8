"""What changes nothing about a solution, and what must not: units, stacks, precision, warm starts, broken input."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import torch
from torch import Tensor

from cvpo.errors import ConfigError, ProblemError
from cvpo.estep import DualProblem, DualSolution, Status, driver, kkt_residuals, registry
from cvpo.estep.task import Minimum, Task
from tests.estep.problems import EXACT, draw_problem, solve


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
    with pytest.raises(ProblemError, match="warm has eta"):
        registry.create(name).solve(draw_problem(10), cold)


@pytest.mark.parametrize("name", registry.names())
def test_what_is_no_solution_is_no_warm_start(name: str) -> None:
    with pytest.raises(ProblemError, match="warm is of type int; allowed: a DualSolution, or None"):
        registry.create(name).solve(draw_problem(10), 3)


@pytest.mark.parametrize("name", registry.names())
def test_what_is_no_problem_is_named(name):
    with pytest.raises(ProblemError, match="problem is a NoneType; allowed: a cvpo.estep.DualProblem"):
        registry.create(name).solve(None)


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


def test_a_solver_may_have_a_state_of_any_form() -> None:
    """What is looked at again, as infeasible limits are, is a part of the stack only; the state is of all of it."""
    newton = registry.create("newton")

    def minimise(task: Task, start: Tensor, cold: Callable[[], Tensor]) -> Minimum:
        return newton.minimise(task, start, cold)._replace(state={"calls": 1})

    problem = draw_problem(0, (3,), costs=1)
    limit = problem.cost_limit.clone()
    limit[1] = problem.q_cost[1].amin() - 1.0
    found = driver.solve(attrs.evolve(problem, cost_limit=limit), None, minimise, newton.accuracy)
    assert found.status[1] == Status.INFEASIBLE and found.status[0] == found.status[2] == Status.OK
    assert found.state == {"calls": 1}


def test_weights_and_multipliers_of_the_conic_reference_agree() -> None:
    """Although it does not answer for it: on ordinary problems, far better than it grades itself."""
    solver = registry.create("cvxpy")
    for seed in range(8):
        problem = draw_problem(seed, costs=seed % 3)
        found = solver.solve(problem)
        assert found.status == Status.OK
        assert kkt_residuals(problem, found).stationarity <= 1e-6


def test_grading_names_a_solution_of_other_shapes() -> None:
    problem, more = draw_problem(4), draw_problem(4, costs=2)
    with pytest.raises(ProblemError, match=r"solution has eta \[\] and lam \[2\]; allowed: \[\] and \[1\]"):
        kkt_residuals(problem, solve("newton", more))
    fewer = attrs.evolve(solve("newton", problem), weights=torch.ones(3, 4))
    with pytest.raises(ProblemError, match=r"solution has weights \[3, 4\]; allowed: \[8, "):
        kkt_residuals(problem, fewer)
