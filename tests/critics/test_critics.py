"""Critics against plain networks, loops and hand calculations."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch.nn import functional as F

from cvpo.compiled import switched_off
from cvpo.critics.aggregate import maximum, mean, minimum, resolve, upper_confidence_bound
from cvpo.critics.given import GivenCost
from cvpo.critics.mlp import MLPCritic
from cvpo.critics.quantile import QuantileCritic
from cvpo.critics.targets import td_targets
from cvpo.errors import ConfigError
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
    with torch.no_grad(), switched_off():
        torch.testing.assert_close(critic.evaluate(net, obs, actions), whole)
