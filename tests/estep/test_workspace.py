"""One problem in its workspace: the same numbers as those of a stack."""

from __future__ import annotations

import pytest
import torch

from cvpo.compiled import switched_off
from cvpo.estep import DualProblem, Status, dual, registry
from cvpo.estep.lanes import One
from cvpo.estep.passes import Stack
from cvpo.estep.workspace import Workspace, passes_over
from tests.estep.problems import draw_problem

CASES = [(costs, prior) for costs in (0, 1, 3) for prior in ("uniform", "given", "holes")]


def _data(costs: int, prior: str, scale: float = 1.0) -> Stack:
    problem = draw_problem(costs, costs=costs, prior=True)
    q = scale * torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3).unsqueeze(0)
    log_p = problem.log_p.clone().unsqueeze(0)
    if prior == "holes":
        log_p[..., ::3] = -torch.inf
        log_p = log_p.log_softmax(-1)
    return Stack(q, None if prior == "uniform" else log_p)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_dual_is_that_of_a_stack(costs: int, prior: str, scale: float) -> None:
    data = _data(costs, prior, scale)
    x, limit = (0.3, *(0.2 + m for m in range(costs))), tuple(0.1 * (1 + m) for m in range(costs))
    given = torch.tensor([limit], dtype=torch.float64).reshape(1, costs), torch.tensor([0.1], dtype=torch.float64)
    right = dual.evaluate(*data, *given, torch.tensor([x], dtype=torch.float64))
    value, gradient, hessian, weights = dual.evaluate_in(One, Workspace(*data), limit, 0.1, x, True)
    found = (torch.tensor([part], dtype=torch.float64) for part in (value, gradient, hessian))
    for mine, theirs, size in zip((*found, weights), right, (scale, scale, scale**2, 1.0), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12 * size)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_units_are_those_of_a_problem_that_was_divided_by_them(costs: int, prior: str) -> None:
    q, log_prior = _data(costs, prior)
    unit = [2.0**power for power in (9, -7, 0, 30)][: 1 + costs]
    given = Workspace(q.clone(), log_prior, unit)
    divided = Workspace(q / torch.tensor(unit).view(-1, 1, 1), log_prior)
    mix = (0.7, -1.3, 0.2, -0.4)[: 1 + costs]
    assert given.moments(One, mix, True, True)[0] == divided.moments(One, mix, True, True)[0]
    assert given.prior(One) == divided.prior(One)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_prior_moments_are_those_of_a_stack(costs: int, prior: str) -> None:
    data = _data(costs, prior)
    assert Workspace(*data).prior(One) == pytest.approx(list(data.prior(One)), rel=1e-12, abs=1e-12)


def test_infinities_of_both_signs_are_no_warning() -> None:
    problem = draw_problem(3)
    cost = problem.q_cost.clone()
    cost[0, 0, 0], cost[0, 1, 0] = torch.inf, -torch.inf
    for limit in (0.0, torch.inf, -torch.inf):
        solution = registry.create("newton", passes="torch").solve(DualProblem(problem.q_reward, cost, limit, 0.1))
        assert solution.status == Status.NONFINITE


def test_weights_of_one_point_outlive_the_next() -> None:
    space = Workspace(*_data(1, "given"))
    numbers, weights = space.moments(One, (2.0, -1.0), True, True)
    kept = weights.clone()
    space.moments(One, (1.0, -3.0), True, True)
    assert torch.equal(weights, kept)
    assert space.moments(One, (2.0, -1.0), True, True)[0] == numbers


def test_only_one_small_problem_on_the_host_has_one() -> None:
    q = _data(1, "uniform").q
    with switched_off():
        assert isinstance(passes_over(q, None), Workspace)
        for other in (q.expand(2, -1, -1, -1), q[..., :1, :1].expand(-1, -1, 2**9, 2**8), q.to("meta")):
            assert isinstance(passes_over(other, None), Stack)
