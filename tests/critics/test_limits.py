"""Limits in the units of Q_c, and what an E-step is asked for on the way to them."""

from __future__ import annotations

import pytest
import torch

from cvpo import critics, estep
from cvpo.critics.limits import to_q_scale
from cvpo.errors import ConfigError
from cvpo.estep import Status


def test_episode_limit_is_the_discounted_value_of_its_cost_rate():
    """Against direct sums: a cost of C/T in every step, over the horizon (terminating) or forever (truncating)."""
    limit, horizon, gamma = 25.0, 100, 0.99
    sums = torch.pow(torch.tensor(gamma, dtype=torch.float64), torch.arange(20_000))
    forever = float(limit / horizon * sums.sum())
    within = float(limit / horizon * sums[:horizon].sum())
    assert to_q_scale(limit, "episode", gamma, horizon) == pytest.approx(forever, rel=1e-9)
    assert to_q_scale(limit, "episode", gamma, horizon, terminates=True) == pytest.approx(within, rel=1e-9)
    assert within / forever == pytest.approx(0.634, abs=1e-3)
    assert to_q_scale(0.25, "step", gamma, 1) == pytest.approx(forever, rel=1e-9)
    assert to_q_scale(3.0, "discounted", gamma, horizon) == 3.0
    with pytest.raises(ConfigError, match="did you mean 'episode'"):
        to_q_scale(1.0, "episodes", gamma, horizon)


def test_policy_limit_is_the_performance_difference():
    q_cost = torch.rand(2, 5, 4, dtype=torch.float64)
    prior = torch.softmax(torch.randn(5, 4, dtype=torch.float64), -1)
    limit, measured = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.5, 3.0]).double()
    component = critics.limits.create("policy", measure="episode", rate=1.0)
    value = component.threshold(q_cost, None, limit, measured, 0.9)
    torch.testing.assert_close(value, q_cost.mean((-1, -2)) + 0.1 * torch.tensor([0.5, -1.0]).double())
    weighted = component.threshold(q_cost, prior, limit, measured, 0.9)
    torch.testing.assert_close(weighted, (q_cost * prior).sum(-1).mean(-1) + 0.1 * torch.tensor([0.5, -1.0]).double())
    own = critics.limits.create("policy", measure="states", rate=0.5).threshold(q_cost, None, limit, measured, 0.9)
    torch.testing.assert_close(own, 0.95 * q_cost.mean((-1, -2)) + 0.05 * limit)
    assert torch.equal(critics.limits.create("q").threshold(q_cost, None, limit, measured, 0.9), limit)


def test_the_paper_limit_may_be_approached_by_a_share_of_the_excess_at_a_time():
    q_cost = torch.rand(2, 5, 4, dtype=torch.float64)
    prior = torch.softmax(torch.randn(5, 4, dtype=torch.float64), -1)
    own = (q_cost * prior).sum(-1).mean(-1)
    # The first cost is over its limit, the second below.
    limit = own + torch.tensor([-0.2, 0.3]).double()
    threshold = critics.limits.create("q", approach=0.25).threshold(q_cost, prior, limit, limit, 0.9)
    torch.testing.assert_close(threshold, torch.stack([own[0] - 0.25 * 0.2, limit[1]]))
    uniform = critics.limits.create("q", approach=0.25).threshold(q_cost, None, limit - 1.0, limit, 0.9)
    torch.testing.assert_close(uniform, 0.75 * q_cost.mean((-1, -2)) + 0.25 * (limit - 1.0))


def test_a_step_of_the_paper_limit_may_be_asked_for_no_more_than_a_stride():
    q_cost = torch.rand(2, 5, 4, dtype=torch.float64)
    prior = torch.softmax(torch.randn(5, 4, dtype=torch.float64), -1)
    own = (q_cost * prior).sum(-1).mean(-1)
    # The first cost is far over its limit, the second just.
    limit = own - torch.tensor([0.5, 0.01]).double()
    deviation = ((q_cost.square() * prior).sum(-1) - (q_cost * prior).sum(-1).square()).mean(-1).sqrt()
    threshold = critics.limits.create("q", stride=0.2).threshold(q_cost, prior, limit, limit, 0.9)
    torch.testing.assert_close(threshold, torch.stack([own[0] - 0.2 * deviation[0], limit[1]]))
    uniform = critics.limits.create("q", stride=0.2).threshold(q_cost, None, limit - 9.0, limit, 0.9)
    spread = q_cost.var(-1, correction=0).mean(-1).sqrt()
    torch.testing.assert_close(uniform, q_cost.mean((-1, -2)) - 0.2 * spread)


def test_so_may_one_of_the_policy_limit():
    q_cost = torch.rand(2, 5, 4, dtype=torch.float64)
    own, spread = q_cost.mean((-1, -2)), q_cost.var(-1, correction=0).mean(-1).sqrt()
    limit = torch.tensor([1.0, 1.0]).double()
    # The first cost was measured far over its limit, the second a little.
    measured = torch.stack([limit[0] + 100.0, limit[1] + spread[1]])
    threshold = critics.limits.create("policy", stride=0.2).threshold(q_cost, None, limit, measured, 0.9)
    torch.testing.assert_close(threshold, own - torch.tensor([0.2, 0.1]).double() * spread)


def test_so_may_one_of_the_calibrated_limit():
    q_cost = torch.rand(2, 5, 4, dtype=torch.float64)
    own, spread = q_cost.mean((-1, -2)), q_cost.var(-1, correction=0).mean(-1).sqrt()
    bias = torch.tensor([-100.0, 0.3]).double()
    threshold = critics.limits.create("calibrated", share=0.5, stride=0.2).threshold(q_cost, None, own, bias, 0.9)
    torch.testing.assert_close(threshold, torch.stack([own[0] - 0.2 * spread[0], own[1] + 0.15]))


def test_the_policy_limit_may_take_back_an_excess_faster():
    q_cost = torch.rand(3, 5, 4, dtype=torch.float64)
    own, limit = q_cost.mean((-1, -2)), torch.ones(3, dtype=torch.float64)
    measured = limit + torch.tensor([-0.1, 0.0, 0.02]).double()
    threshold = critics.limits.create("policy", rate=0.5, recovery=10.0).threshold(q_cost, None, limit, measured, 0.9)
    torch.testing.assert_close(threshold, own + 0.05 * torch.tensor([0.1, 0.0, -0.2]).double())


@pytest.mark.parametrize("seed", range(5))
def test_with_a_stride_a_hopeless_excess_leaves_the_estep_feasible(seed):
    """A stride of half of what the KL ball reaches, in states that no weights bring to the limit."""
    generator = torch.Generator().manual_seed(seed)
    reward, cost = torch.randn(2, 64, 16, generator=generator, dtype=torch.float64)
    cost, limit = 100.0 + cost[None], torch.tensor([1.0], dtype=torch.float64)
    newton = estep.registry.create("newton")
    assert newton.solve(estep.DualProblem(reward, cost, limit, 0.1)).status == Status.INFEASIBLE
    reachable = critics.limits.create("q", stride=0.5 * 0.2**0.5).threshold(cost, None, limit, limit, 0.9)
    solution = newton.solve(estep.DualProblem(reward, cost, reachable, 0.1))
    assert solution.status == Status.OK and 0.0 < solution.lam < 10.0
    assert ((solution.weights * reward).sum(-1).mean() > reward.mean()).item()
