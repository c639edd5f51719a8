"""Problems that the first start loses among the kinks of the dual, found by drawing thousands; each was MAX_ITER."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cvpo.estep import DualProblem, Status, kkt_residuals, registry

OUT = -float("inf")


def tensor(values: list, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def one_cost_thrice() -> DualProblem:
    """Three limits on one cost, ten orders of magnitude above the reward, and one state with a choice."""
    q_reward = tensor(
        [
            [-0.00015329405606265254, -0.0001535019370118998],
            [-8.667291824206203e-05, -8.667704757750895e-05],
            [-5.0198936071107735e-05, -4.9262407993661334e-05],
        ]
    )
    cost = tensor(
        [
            [-1621962.8278301323, -1683998.0989209083],
            [155666.4199441203, -3077.2251847276248],
            [-2305984.849453296, -562624.2927297801],
        ]
    )
    limits = tensor([-1272716.5418168483, -1271247.91785051, -1278084.0904950933])
    log_prior = tensor([[-0.41228179405124626, -1.0851167543496012], [0.0, OUT], [0.0, OUT]])
    return DualProblem(q_reward, cost.expand(3, 3, 2), limits, 1.0, log_prior)


def a_cost_along_the_reward() -> DualProblem:
    """Float32, four costs, the first twice the reward; two actions in one state of four."""
    low = torch.float32
    q_reward = [
        [-640272.8125, 365632.84375],
        [1832.4281005859375, -202.479248046875],
        [2028.4390869140625, 559.0008544921875],
        [115.8073501586914, 1226.6375732421875],
    ]
    others = [
        [[-800827.375, 182502.0, -62532.8203125, 836192.1875], [3077142.5, -125586.1796875, -398399.25, -842010.8125]],
        [
            [47547.85546875, -582698.75, 1927950.0, -214052.640625],
            [1722434.125, -1125218.125, -840098.9375, -1555682.25],
        ],
        [
            [-988600.75, -995780.1875, -117663.0390625, -63600.4921875],
            [1029186.4375, -619076.25, -1860404.75, 1026775.4375],
        ],
    ]
    q_cost = torch.cat([2.0 * tensor(q_reward, low)[None], tensor(others, low).mT])
    limits = tensor([-318611.041969192, -10776.684510265599, -117010.79651038657, -816909.4311373564])
    log_prior = [[0.0, OUT], [0.0, OUT], [-0.8660970056486402, -0.5457447791528974], [0.0, OUT]]
    return DualProblem(tensor(q_reward, low), q_cost, limits, 0.1, tensor(log_prior))


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
@pytest.mark.parametrize("problem", [one_cost_thrice(), a_cost_along_the_reward()], ids=["thrice", "along"])
def test_what_the_first_start_loses_is_solved_from_the_second(name: str, problem: DualProblem) -> None:
    solution = registry.create(name).solve(problem)
    assert solution.status == Status.OK
    assert kkt_residuals(problem, solution).max <= 1e-5
    stack = DualProblem(
        *(
            torch.stack([part, part])
            for part in (problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
        )
    )
    assert registry.create(name).solve(stack).status.tolist() == [Status.OK] * 2


@pytest.mark.parametrize(("name", "count"), [("newton", 256), ("slsqp", 48), ("osqp", 48)])
def test_priors_that_all_but_exclude_most_actions(name: str, count: int) -> None:
    """One state, priors next to certain, and limits at their own costs: kinks across η that no Hessian sees along."""
    generator = torch.Generator().manual_seed(1)
    q, c, logits = (torch.randn(count, *shape, 8, generator=generator).double() for shape in ((1,), (1, 1), (1,)))
    log_prior = (30 * logits).log_softmax(-1)
    limit = (log_prior.exp().unsqueeze(1) * c).sum(-1).mean(-1)
    epsilon = 10 ** (3 * torch.rand(count, generator=generator).double() - 2)
    problem = DualProblem(q, c, limit, epsilon, log_prior)
    solution = registry.create(name).solve(problem)
    assert (solution.status == Status.OK).all()
    assert kkt_residuals(problem, solution).max.max() <= 1e-6
