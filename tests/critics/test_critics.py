"""Critics against plain networks, loops and hand calculations."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch.nn import functional as F

from cvpo import critics, estep
from cvpo.critics.aggregate import maximum, mean, minimum, resolve, upper_confidence_bound
from cvpo.critics.given import GivenCost
from cvpo.critics.mlp import MLPCritic
from cvpo.critics.quantile import QuantileCritic
from cvpo.critics.targets import td_targets
from cvpo.errors import ConfigError
from cvpo.estep import Status
from cvpo.types import Batch

OBS, ACT = 5, 3


def single(net, g: int, obs: torch.Tensor, action: torch.Tensor, layer_norm: bool = False) -> torch.Tensor:
    """Network g of the stack, evaluated alone on [obs, action] with plain matrix products."""
    x = torch.cat([obs, action.clamp(-1, 1)], -1)
    for layer in net.mlp.layers:
        x = x @ layer.weight[g] + layer.bias[g]
        x = torch.relu(F.layer_norm(x, x.shape[-1:]) if layer_norm else x)
    return (x @ net.mlp.head.weight[g] + net.mlp.head.bias[g]).squeeze(-1)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
def test_evaluate_equals_the_members_one_by_one(hidden: tuple[int, ...], layer_norm: bool):
    critic = MLPCritic(hidden=hidden, members=2, cost="max", layer_norm=layer_norm)
    net = critic.build(OBS, ACT, 3, generator=torch.Generator().manual_seed(0))
    obs, actions = torch.randn(7, OBS), 2.0 * torch.randn(7, 4, ACT)
    q = critic.evaluate(net, obs, actions)
    assert q.shape == (3, 7, 4)
    tiled = obs[:, None].expand(-1, 4, -1)
    members = torch.stack([single(net, g, tiled, actions, layer_norm) for g in range(6)]).view(3, 2, 7, 4)
    expected = torch.stack([members[0].amin(0), members[1].amax(0), members[2].amax(0)])
    torch.testing.assert_close(q, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(members[:, 0], members[:, 1])  # members differ, so aggregation is seen


@pytest.mark.parametrize(("population", "cost_members"), [(1, 2), (2, 2), (1, [1, 3])])
def test_the_reward_and_the_costs_may_have_ensembles_of_different_sizes(population: int, cost_members):
    critic = MLPCritic(hidden=(8,), members=3, cost_members=cost_members, reward="mean", cost="max")
    net = critic.build(OBS, ACT, 3, population, generator=torch.Generator().manual_seed(0))
    sizes = [3, 2, 2] if cost_members == 2 else [3, 1, 3]
    lead = (population,) if population > 1 else ()
    data = batch()
    obs, action = (value.expand(*lead, *value.shape) for value in (data.obs, data.action))
    q = critic.evaluate(net, obs, action.unsqueeze(-2)).squeeze(-1)
    for p in range(population):
        own = [single(net, 7 * p + g, data.obs, data.action) for g in range(7)]
        parts = [torch.stack(part) for part in (own[:3], own[3 : 3 + sizes[1]], own[3 + sizes[1] :])]
        expected = torch.stack([parts[0].mean(0), parts[1].amax(0), parts[2].amax(0)])
        torch.testing.assert_close(q[p] if lead else q, expected, rtol=1e-5, atol=1e-6)
        if not lead:
            target, means = torch.randn(3, 6), torch.stack([part.mean(0) for part in parts])
            torch.testing.assert_close(critic.residual(net, data, target), target - means)
            errors = torch.cat([part - own for part, own in zip(parts, target, strict=True)])
            loss, td = critic.loss(net, data, target)
            torch.testing.assert_close(loss, errors.square().mean(-1).sum(), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(td, errors.detach().abs().mean(0), rtol=1e-5, atol=1e-6)
            assert [len(each) for each in critic.ensemble(net, obs, action.unsqueeze(-2))] == sizes
    critic.shift(net, torch.arange(3.0).expand(*lead, 3))
    shifted = critic.evaluate(net, obs, action.unsqueeze(-2)).squeeze(-1)
    torch.testing.assert_close(shifted, q + torch.arange(3.0).unsqueeze(-1), rtol=1e-5, atol=1e-5)


def test_population_and_leading_dimensions():
    critic = MLPCritic(hidden=(8,))
    net = critic.build(OBS, ACT, 2, population=4, generator=torch.Generator().manual_seed(0))
    obs, actions = torch.randn(4, 6, OBS), torch.randn(4, 6, 3, ACT)
    q = critic.evaluate(net, obs, actions)
    assert q.shape == (4, 2, 6, 3)
    alone = critic.build(OBS, ACT, 2)
    for p in range(4):
        with torch.no_grad():
            for ours, theirs in zip(alone.parameters(), net.parameters(), strict=True):
                ours.copy_(theirs[4 * p : 4 * p + 4])
        torch.testing.assert_close(critic.evaluate(alone, obs[p], actions[p]), q[p], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        critic.evaluate(alone, obs, actions)[3], critic.evaluate(alone, obs[3], actions[3]), rtol=1e-5, atol=1e-5
    )


def test_aggregations():
    values = torch.tensor([[[1.0]], [[4.0]], [[7.0]]])
    assert minimum(values).item() == 1.0 and maximum(values).item() == 7.0 and mean(values).item() == 4.0
    torch.testing.assert_close(upper_confidence_bound(2.0)(values).item(), 4.0 + 2.0 * 6.0**0.5)
    torch.testing.assert_close(resolve("ucb:0.5")(values).item(), 4.0 + 0.5 * 6.0**0.5)
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        MLPCritic(reward="meen")
    for factor in ("x", "nan", "inf", "-5"):
        with pytest.raises(ConfigError, match="allowed: ucb:FACTOR, a finite number >= 0"):
            MLPCritic(cost=f"ucb:{factor}")


def test_given_shows_the_members_of_each_signal_in_order() -> None:
    def effort(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return actions.square().sum(-1)

    critic = GivenCost(costs=(effort, None), critic=MLPCritic(hidden=(8,), members=3, reward="mean", cost="mean"))
    net, obs, actions = critic.build(3, 2, 3), torch.randn(5, 3), torch.randn(5, 4, 2)
    members = critic.ensemble(net, obs, actions)
    assert [each.shape[-3] for each in members] == [3, 1, 3]
    torch.testing.assert_close(torch.stack([each.mean(-3) for each in members]), critic.evaluate(net, obs, actions))


@pytest.mark.parametrize("kind", [MLPCritic, QuantileCritic])
def test_each_cost_may_have_an_aggregation_of_its_own(kind: type) -> None:
    obs, actions = torch.randn(5, 3), torch.randn(5, 4, 2)
    found = {}
    for cost in ("max", "mean", ["max", "mean"]):
        critic = kind(hidden=(8,), members=3, cost=cost)
        net = critic.build(3, 2, 3, generator=torch.Generator().manual_seed(0))
        found[str(cost)] = critic.evaluate(net, obs, actions)
    both = found["['max', 'mean']"]
    assert torch.equal(both[1], found["max"][1]) and torch.equal(both[2], found["mean"][2])
    assert not torch.equal(both[1], found["mean"][1])
    with pytest.raises(ConfigError, match="cost has 2 aggregations; allowed: one for all, or one for each of 1"):
        kind(cost=("max", "mean")).build(3, 2, 2)


@pytest.mark.parametrize("kind", [MLPCritic, QuantileCritic])
def test_sizes_of_ensembles_that_do_not_fit_are_named(kind: type) -> None:
    assert [int((kind(cost_members=(1, 4)).build(3, 2, 3).signal == s).sum()) for s in range(3)] == [2, 1, 4]
    with pytest.raises(ConfigError, match="cost_members has 2 numbers; allowed: one for all, or one for each of 1"):
        kind(cost_members=(1, 2)).build(3, 2, 2)
    with pytest.raises(ConfigError, match="cost_members is 0; allowed: an integer >= 1, or None"):
        kind(cost_members=(1, 0))


def batch(size: int = 6, weight: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(
        obs=torch.randn(size, OBS, generator=generator),
        action=torch.randn(size, ACT, generator=generator),
        signals=torch.randn(3, size, generator=generator),
        next_obs=torch.randn(size, OBS, generator=generator),
        terminated=torch.arange(size) % 2 == 0,
        discount=torch.full((size,), 0.9),
        weight=torch.ones(size) if weight is None else weight,
        index=torch.arange(size),
    )


def test_loss_and_td_errors():
    critic = MLPCritic(hidden=(8,), members=2)
    net = critic.build(OBS, ACT, 3, generator=torch.Generator().manual_seed(0))
    data = batch(weight=torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.5]))
    target = torch.randn(3, 6)
    loss, td = critic.loss(net, data, target)
    members = torch.stack([single(net, g, data.obs, data.action) for g in range(6)]).view(3, 2, 6)
    errors = members - target[:, None]
    torch.testing.assert_close(loss, (errors.square() * data.weight).mean(-1).sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(td, errors.detach().abs().mean((0, 1)), rtol=1e-5, atol=1e-6)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_targets_stop_at_termination_and_never_at_truncation():
    data = batch()
    values = torch.randn(3, 6)
    target = td_targets(data.signals, data.discount, data.terminated, values)
    for b in range(6):
        bootstrap = 0.0 if data.terminated[b] else 0.9 * values[:, b]
        torch.testing.assert_close(target[:, b], data.signals[:, b] + bootstrap)
    unmasked = td_targets(data.signals, data.discount, data.terminated, values, mask_cost=False)
    torch.testing.assert_close(unmasked[0], target[0])
    torch.testing.assert_close(unmasked[1:], data.signals[1:] + 0.9 * values[1:])


def test_episode_limit_is_the_discounted_value_of_its_cost_rate():
    """Against direct sums: a cost of C/T in every step, over the horizon (terminating) or forever (truncating)."""
    limit, horizon, gamma = 25.0, 100, 0.99
    sums = torch.pow(torch.tensor(gamma, dtype=torch.float64), torch.arange(20_000))
    forever = float(limit / horizon * sums.sum())
    within = float(limit / horizon * sums[:horizon].sum())
    from cvpo.critics.limits import to_q_scale

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


def test_critic_is_a_frozen_configuration():
    critic = MLPCritic(members=3, cost="ucb:2")
    assert attrs.evolve(critic, members=4).members == 4
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        critic.members = 5
    with pytest.raises(ConfigError, match=r"MLPCritic.members is 0; allowed: an integer >= 1"):
        MLPCritic(members=0)


def test_many_particles_are_evaluated_in_parts_that_stay_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    critic = MLPCritic(hidden=(32, 16))
    net = critic.build(3, 2, 2, generator=torch.Generator().manual_seed(0))
    obs, actions = torch.randn(7, 3), torch.randn(7, 5, 2)
    whole = critic.evaluate(net, obs, actions).detach()
    # Four networks of 32 units and 5 particles: two states at once, and one is left.
    monkeypatch.setattr("cvpo.networks.CACHED", 2 * 4 * 32 * 5)
    with torch.no_grad():
        torch.testing.assert_close(critic.evaluate(net, obs, actions), whole)
