"""What the constructor accepts, broadcasts and refuses, and what check() finds."""

from __future__ import annotations

import pytest
import torch

from cvpo.errors import ProblemError
from cvpo.estep import DualProblem, Status, registry

Q = torch.zeros(2, 5, 3)
C = torch.zeros(2, 4, 5, 3)


def test_floats_are_broadcast_and_kept_in_float64() -> None:
    problem = DualProblem(Q, C, 0.5, 0.1)
    assert problem.cost_limit.shape == (2, 4) and problem.cost_limit.dtype == torch.float64
    assert problem.kl_epsilon.shape == (2,) and problem.kl_epsilon[1] == 0.1
    assert DualProblem(Q, C, [1.0, 2.0, 3.0, 4.0], 0.1).cost_limit[1].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("limit", [None, 0.3, torch.zeros(2, 0)])
def test_no_costs_may_be_written_as_none(limit: object) -> None:
    problem = DualProblem(Q, None, limit, 0.1)
    assert problem.costs == 0 and problem.q_cost.shape == (2, 0, 5, 3) and problem.cost_limit.shape == (2, 0)


def test_log_prior_is_normalised_and_may_exclude_particles() -> None:
    prior = torch.tensor([[2.0, -torch.inf, 1.0]]).expand(5, 3)
    problem = DualProblem(Q[0], None, None, 0.1, prior)
    torch.testing.assert_close(problem.log_p.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    assert (problem.log_p[:, 1] == -torch.inf).all()
    torch.testing.assert_close(DualProblem(Q, None, None, 0.1).log_p.exp(), torch.full_like(Q, 1 / 3).double())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((Q[0, 0], None, None, 0.1), "q_reward"),
        ((Q[:, :0], None, None, 0.1), "q_reward"),
        ((Q.long(), None, None, 0.1), "q_reward"),
        ((Q, C[:, :, :4], 0.0, 0.1), "q_cost"),
        ((Q, C[0], 0.0, 0.1), "q_cost"),
        ((Q, C, None, 0.1), "cost_limit"),
        ((Q, C, torch.zeros(3), 0.1), "cost_limit"),
        ((Q, C, 0.0, torch.ones(3)), "kl_epsilon"),
        ((Q, C, 0.0, 0.1, torch.zeros(5, 3)), "log_prior"),
    ],
)
def test_shapes_that_do_not_fit_name_the_field_and_what_is_allowed(arguments: tuple, field: str) -> None:
    with pytest.raises(ProblemError, match=rf"^{field} .*allowed"):
        DualProblem(*arguments)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((Q + torch.nan, C, 0.0, 0.1), "q_reward"),
        ((Q, C + torch.inf, 0.0, 0.1), "q_cost"),
        ((Q, C, torch.nan, 0.1), "cost_limit"),
        ((Q, C, 0.0, torch.inf), "kl_epsilon"),
        ((Q, C, 0.0, 0.0), "kl_epsilon"),
        ((Q, C, 0.0, 0.1, Q - torch.inf), "log_prior"),
    ],
)
def test_check_names_the_field_with_values_that_cannot_be_used(arguments: tuple, field: str) -> None:
    problem = DualProblem(*arguments)
    with pytest.raises(ProblemError, match=rf"^{field} .*allowed"):
        problem.check()


def test_check_returns_a_good_problem() -> None:
    problem = DualProblem(Q, C, 0.0, 0.1)
    assert problem.check() is problem


def test_every_status_has_its_own_message() -> None:
    assert len({status.message for status in Status}) == len(Status) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[1.0]], None, None, 0.1), "q_reward is a list; allowed: a tensor"),
        ((torch.zeros(2, 3), None, torch.tensor([25.0]), 0.1), "cost_limit is given, and q_cost is not"),
        ((torch.zeros(2, 3), None, None, "0.1"), "kl_epsilon is '0.1'; allowed"),
        ((torch.zeros(2, 3), torch.zeros(1, 2, 3), "a", 0.1), "cost_limit is 'a'; allowed"),
    ],
)
def test_what_is_no_tensor_is_named(arguments, message):
    with pytest.raises(ProblemError, match=message):
        DualProblem(*arguments)


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp", "cvxpy", "adam"])
@pytest.mark.parametrize("costs", [0, 2])
def test_no_problems_have_no_solutions(name: str, costs: int):
    problem = DualProblem(torch.zeros(0, 8, 5), torch.zeros(0, costs, 8, 5), torch.zeros(0, costs), 0.1)
    solution = registry.create(name).solve(problem)
    assert solution.eta.shape == solution.status.shape == (0,) and solution.lam.shape == (0, costs)
    assert solution.weights.shape == (0, 8, 5) and solution.violation.shape == (0,)
