"""The public contract holds for every registered critic, and fails for every deliberately wrong one."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo import critics
from cvpo.cli import main
from cvpo.critics.given import GivenCost
from cvpo.critics.mlp import MLPCritic
from cvpo.critics.quantile import QuantileCritic
from cvpo.errors import ConfigError
from cvpo.testing import check_critic
from cvpo.types import Batch

SMALL = {"hidden": (32,)}


@pytest.mark.parametrize("name", critics.registry.names())
def test_every_registered_critic_keeps_the_contract(name: str) -> None:
    options = {"critic": {"name": "mlp", **SMALL}} if name == "given" else SMALL
    check_critic(critics.registry.create(name, **options))


def test_so_do_other_choices() -> None:
    check_critic(MLPCritic(hidden=(32,), members=3, reward="mean", cost="ucb:0.5", error="huber", layer_norm=True))
    check_critic(QuantileCritic(hidden=(32,), quantiles=5, cost_level=0.3))
    check_critic(MLPCritic(hidden=(32,), members=3, cost_members=1))
    check_critic(QuantileCritic(hidden=(32,), members=1, cost_members=2, quantiles=5, cost_level=0.3))


@pytest.mark.parametrize("kind", ["mlp", "quantile"])
def test_shapes_that_do_not_fit_are_named(kind):
    critic = critics.registry.create(kind, **SMALL)
    net = critic.build(3, 2, 2)
    for obs, actions in (((7, 3), (7, 2)), ((14, 3), (7, 5, 2)), ((1, 3), (7, 5, 2)), ((7, 4), (7, 5, 2))):
        with pytest.raises(ConfigError, match=r"actions have shape \[7, .*; allowed: obs \[\.\.\.,B,O\] and actions"):
            critic.evaluate(net, torch.randn(obs), torch.randn(actions))
    flags, ones = torch.zeros(6, dtype=torch.bool), torch.ones(6)
    batch = Batch(
        torch.randn(6, 3), torch.randn(6, 2), torch.randn(2, 6), torch.randn(6, 3), flags, ones, ones, flags.long()
    )
    for shape in ((1, 6), (3, 6), (2, 1)):
        with pytest.raises(ConfigError, match="target has shape"):
            critic.loss(net, batch, torch.zeros(shape))


@attrs.frozen
class LeastCost(MLPCritic):
    """The least of the ensemble for costs too, as in the paper's code."""

    def evaluate(self, net, obs, actions):
        return torch.stack([each.amin(-3) for each in self.ensemble(net, obs, actions)], -3)


@attrs.frozen
class ThroughTermination(MLPCritic):
    """Bootstraps by itself, whether the episode goes on or not."""

    def loss(self, net, batch, target):
        with torch.no_grad():
            action = torch.full_like(batch.action, 0.5).unsqueeze(-2)
            value = self.evaluate(net, batch.next_obs, action).squeeze(-1)
        return super().loss(net, batch, batch.signals + batch.discount * value)


@attrs.frozen
class WithoutWeights(MLPCritic):
    """Importance weights forgotten."""

    def loss(self, net, batch, target):
        return super().loss(net, attrs.evolve(batch, weight=torch.ones_like(batch.weight)), target)


@attrs.frozen
class WeightedErrors(MLPCritic):
    """Importance weights in the TD errors, which the next priorities are made of."""

    def loss(self, net, batch, target):
        loss, td = super().loss(net, batch, target)
        return loss, td * batch.weight


@attrs.frozen
class BatchStatistics(MLPCritic):
    """Values relative to the mean of the batch."""

    def evaluate(self, net, obs, actions):
        q = super().evaluate(net, obs, actions)
        return q - q.mean((-1, -2), keepdim=True)


@attrs.frozen
class OneSignal(MLPCritic):
    """The reward's loss alone."""

    def loss(self, net, batch, target):
        values = self.ensemble(net, batch.obs, batch.action.unsqueeze(-2))[0].squeeze(-1)
        errors = values - target[0]
        return (errors.square() * batch.weight).mean(-1).sum(), errors.detach().abs().mean(-2)


@attrs.frozen
class GlobalGenerator(MLPCritic):
    """Draws its network from the generator of the process."""

    def build(self, obs_size, action_size, signals, population=1, generator=None):
        return super().build(obs_size, action_size, signals, population)


WRONG = {
    LeastCost(**SMALL): "a cost's Q is below the mean of the ensemble",
    MLPCritic(**SMALL, cost="min"): "a cost's Q is below the mean of the ensemble",
    GivenCost(critic=MLPCritic(**SMALL, cost="min")): "a cost's Q is below the mean of the ensemble",
    MLPCritic(**SMALL, reward="max"): "the reward's Q is above the mean of the ensemble",
    ThroughTermination(**SMALL): "after policy evaluation on a chain of three states",
    WithoutWeights(**SMALL): "the loss with doubled weights",
    WeightedErrors(**SMALL): "TD errors with doubled weights",
    BatchStatistics(**SMALL): "the first (state|action) alone",
    OneSignal(**SMALL): "after policy evaluation on a chain of three states",
    GlobalGenerator(**SMALL): "a network from the same seed",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda critic: type(critic).__name__)
def test_wrong_critics_are_caught(wrong) -> None:
    with pytest.raises(AssertionError, match=WRONG[wrong]):
        check_critic(wrong)


def test_the_command_line_names_what_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "critic", "mlp", "hidden=(32,)", "cost=min", "--examples", "3"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  pessimism points down for the reward and up for costs" in out and "passed" in out
