"""Derivatives of solutions: against finite differences, and one solver's against another's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cvpo.compiled import switched_off
from cvpo.estep import DualProblem, DualSolution, Status, direct, registry
from cvpo.estep.newton import Newton
from cvpo.estep.newton_descent import Pace
from tests.estep.problems import draw_problem

CASES = [(0, False), (1, True), (3, False)]


def inputs_of(problem: DualProblem) -> list[Tensor]:
    """Q_r, Q_c, d, ε and, where there is one, log p, that require a gradient."""
    parts = [problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon]
    if problem.log_prior is not None:
        parts.append(problem.log_prior)
    return [part.clone().requires_grad_() for part in parts]


def outputs_of(solution: DualSolution) -> tuple[Tensor, Tensor, Tensor]:
    return solution.eta, solution.lam, solution.weights


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_newton_passes_gradcheck(costs: int, prior: bool) -> None:
    problem = draw_problem(20, costs=costs, states=3, particles=4, prior=prior)
    solver = Newton(tolerance=1e-12)
    solution = solver.solve(problem)
    assert solution.status == Status.OK and (solution.lam > 0.05).all(), "the active set is meant to be stable here"

    def solve(*parts: Tensor) -> tuple[Tensor, ...]:
        found = outputs_of(solver.solve(DualProblem(*parts)))
        return found if costs else (found[0], found[2])

    assert torch.autograd.gradcheck(solve, inputs_of(problem), eps=1e-5, atol=1e-5, rtol=1e-5)


def test_newton_passes_gradcheck_where_the_limits_are_out_of_reach_and_on_a_stack() -> None:
    out_of_reach = draw_problem(24, costs=1, states=2, particles=3, tightness=0.9)
    ordinary = draw_problem(25, costs=1, states=2, particles=3)
    names = ("q_reward", "q_cost", "cost_limit")
    problem = DualProblem(*(torch.stack([getattr(p, n) for p in (out_of_reach, ordinary)]) for n in names), 0.1)
    solver = Newton(tolerance=1e-12)
    assert solver.solve(problem).status.tolist() == [Status.INFEASIBLE, Status.OK]

    def solve(*parts: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(solver.solve(DualProblem(*parts)))

    assert torch.autograd.gradcheck(solve, inputs_of(problem), eps=1e-5, atol=1e-5, rtol=1e-5)


def gradients(name: str, problem: DualProblem, options: dict[str, float]) -> list[Tensor]:
    """∂ of a fixed mixture of η, λ and the weights, with respect to every input."""
    parts = inputs_of(problem)
    outputs = outputs_of(registry.create(name, **options).solve(DualProblem(*parts)))
    generator = torch.Generator().manual_seed(0)
    mixed = sum((torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs)
    return list(torch.autograd.grad(mixed, parts))


@pytest.mark.parametrize("name", ["slsqp", "osqp", "cvxpy"])
@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_the_other_exact_solvers_have_the_same_gradients(name: str, costs: int, prior: bool) -> None:
    # One limit more than bind: the inactive set must come out the same, too.
    problem = draw_problem(30 + costs, costs=costs, states=4, particles=5, prior=prior)
    limit = problem.cost_limit.clone()
    limit[1:2] += 10.0
    problem = DualProblem(problem.q_reward, problem.q_cost, limit, 0.1, problem.log_prior)
    expected = gradients("newton", problem, {"tolerance": 1e-12})
    for found, right in zip(gradients(name, problem, {}), expected, strict=True):
        scale = right.abs().max().clamp(min=1e-3) if right.numel() else 1.0
        torch.testing.assert_close(found, right, rtol=0, atol=float(1e-3 * scale))


def test_adam_is_not_differentiable_and_says_so() -> None:
    solver = registry.create("adam", steps=5)
    assert solver.differentiable is False and "Not differentiable" in type(solver).__doc__
    solution = solver.solve(DualProblem(*inputs_of(draw_problem(40))))
    assert not any(output.requires_grad for output in outputs_of(solution))


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "adam"])
def test_the_others_say_that_they_are(name: str) -> None:
    solver = registry.create(name)
    assert solver.differentiable is True
    assert all(output.requires_grad for output in outputs_of(solver.solve(DualProblem(*inputs_of(draw_problem(41))))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_autograd_keeps_may_be_an_answer(dtype: torch.dtype) -> None:
    """One problem is solved where autograd is not looking; its answer is an ordinary tensor."""
    problem = draw_problem(43)
    parts = [part.to(dtype) for part in (problem.q_reward, problem.q_cost, problem.cost_limit)]
    solution = Newton().solve(DualProblem(*parts, problem.kl_epsilon))
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    sum((output * factor).sum() for output in outputs_of(solution)).backward()
    right = sum(output.double().sum() for output in outputs_of(solution))
    torch.testing.assert_close(factor.grad, right)


def test_where_an_unsolved_problem_ended_is_an_ordinary_tensor_too() -> None:
    with switched_off():
        solution, left, end = direct.solve(draw_problem(43), None, Pace(tolerance=1e-12, max_iter=1), 1e-6)
    assert solution is None and left is None and not end.weights.is_inference()


def test_unsolved_entries_have_zero_gradients_and_spoil_no_others() -> None:
    stack = draw_problem(42, lead=(2,))
    parts = inputs_of(stack)
    with torch.no_grad():
        parts[0][0, 0, 0] = torch.nan
    solution = registry.create("newton").solve(DualProblem(*parts))
    assert solution.status.tolist() == [Status.NONFINITE, Status.OK]
    (slope,) = torch.autograd.grad(solution.weights[:, 0, 0].sum(), parts[0])
    assert (slope[0] == 0).all() and torch.isfinite(slope[1]).all() and slope[1].abs().max() > 0


def test_a_violation_that_no_weights_change_has_zero_gradients() -> None:
    reward = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cost = torch.ones(1, 4, 3, dtype=torch.float64, requires_grad=True)
    solution = registry.create("newton").solve(DualProblem(reward, cost, (0.5,), 0.1))
    assert solution.status == Status.INFEASIBLE
    loss = solution.eta + solution.lam.sum() + (solution.weights * torch.arange(3)).sum()
    for gradient in torch.autograd.grad(loss, (reward, cost)):
        assert (gradient == 0).all()
