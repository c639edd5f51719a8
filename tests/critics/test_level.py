"""The level of Q is corrected beside its shape: fast where a target network is slow, the fixed point the same."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

from cvpo import critics
from cvpo.critics.level import correct_level
from cvpo.critics.targets import bootstrap_of, td_targets
from cvpo.errors import ConfigError
from cvpo.types import Batch
from tests.fakes import line_agent

TAU = 0.01
NAMES = ("mlp", "quantile")
#: Rewards and costs of the states, and where each leads.
SIGNALS = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.3, 0.1]])
AHEAD = torch.tensor([1, 2, 0])


def chain(gamma: float, ends: torch.Tensor) -> Batch:
    """The circle 0 → 1 → 2 → 0 with one action, ending where ``ends``; every state 20 times."""
    at = torch.arange(3).repeat(20)
    obs = torch.eye(3)
    size = torch.ones(len(at))
    return Batch(obs[at], torch.zeros(len(at), 1), SIGNALS[:, at], obs[AHEAD[at]], ends[at], gamma * size, size, at)


def truth(gamma: float, ends: torch.Tensor, mask_cost: bool) -> torch.Tensor:
    """Q [S,3], by solving the Bellman equation."""
    rows = []
    for signal, values in enumerate(SIGNALS.double()):
        kept = torch.where(ends & (mask_cost or signal == 0), 0.0, gamma).double()
        rows.append(
            torch.linalg.solve(torch.eye(3).double() - kept.unsqueeze(1) * torch.eye(3)[AHEAD].double(), values)
        )
    return torch.stack(rows).float()


def learned(name: str, batch: Batch, updates: int, rate: float, mask_cost: bool = True, tau: float = TAU) -> Any:
    """Q [S,3] by the target network, after ``updates`` with a target network of rate ``tau``."""
    critic = critics.registry.create(name, hidden=(32,))
    online, target = (critic.build(3, 1, 2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    optimiser = torch.optim.Adam(online.parameters(), lr=3e-3)
    bootstrap, action = bootstrap_of(critic), torch.zeros(len(batch.obs), 1, 1)
    for _ in range(updates):
        with torch.no_grad():
            ahead = bootstrap(target, batch.next_obs, action)
            values = td_targets(batch.signals, batch.discount, batch.terminated, ahead, mask_cost=mask_cost)
        loss, _ = critic.loss(online, batch, values)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if rate:
            correct_level(critic, online, target, batch, values, rate, mask_cost=mask_cost)
        with torch.no_grad():
            torch._foreach_lerp_(tuple(target.parameters()), tuple(online.parameters()), tau)
    with torch.no_grad():
        return critic.evaluate(target, torch.eye(3), torch.zeros(3, 1, 1)).squeeze(-1)


def says(critic: Any, net: Any, batch: Batch) -> torch.Tensor:
    """Mean Q of the members [S,B]."""
    members = critic.ensemble(net, batch.obs, batch.action.unsqueeze(1))
    return torch.stack([each.squeeze(-1).mean(-2) for each in members])


@pytest.mark.parametrize("name", NAMES)
def test_the_level_is_there_long_before_the_target_network_brings_it(name: str) -> None:
    """γ = 0.99: the target network needs 10 000 updates for it."""
    batch, never = chain(0.99, torch.zeros(3, dtype=torch.bool)), torch.zeros(3, dtype=torch.bool)
    true = truth(0.99, never, True).mean(-1)
    slow = learned(name, batch, 300, 0.0).mean(-1)
    assert (slow < 0.1 * true).all()
    torch.testing.assert_close(learned(name, batch, 300, 0.02).mean(-1), true, rtol=0.01, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask_cost", [True, False])
def test_the_fixed_point_is_the_same(name: str, mask_cost: bool) -> None:
    """γ = 0.7, one state ends the episode, and the costs with it or not."""
    ends = torch.tensor([False, False, True])
    batch = chain(0.7, ends)
    true = truth(0.7, ends, mask_cost)
    for rate in (0.0, 0.1):
        found = learned(name, batch, 1_500, rate, mask_cost, tau=0.05)
        torch.testing.assert_close(found, true, rtol=0.0, atol=0.03)


@pytest.mark.parametrize("mask_cost", [True, False])
def test_a_correction_in_the_mean_is_exact_at_rate_1(mask_cost: bool) -> None:
    """Values that are off by a constant are right after one correction."""
    critic = critics.registry.create("mlp", hidden=(8,), members=3, cost_members=2, cost="max")
    batch = chain(0.9, torch.tensor([False, True, False]))
    net, other = (critic.build(3, 1, 2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    with torch.no_grad():
        values = says(critic, net, batch)
        kept = 0.9 * torch.stack([~batch.terminated, ~batch.terminated | (not mask_cost)]).float()
        off = torch.tensor([[3.0], [-2.0]])
        # If all values were higher by ``off``, so would be y, by γ times it.
        by = correct_level(critic, other, net, batch, values + off * (1.0 - kept), 1.0, mask_cost=mask_cost)
        torch.testing.assert_close(by, off.squeeze(-1))
        for each in (net, other):
            after = says(critic, each, batch)
            torch.testing.assert_close(after, values + off)


def test_importance_weights_count() -> None:
    critic = critics.registry.create("mlp", hidden=(8,))
    batch = chain(0.9, torch.zeros(3, dtype=torch.bool))
    batch = attrs.evolve(batch, weight=(batch.index == 1).float())
    net, other = (critic.build(3, 1, 2, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    with torch.no_grad():
        values = says(critic, net, batch)
        values += torch.where(batch.index == 1, 0.5, 100.0)
        by = correct_level(critic, other, net, batch, values, 0.1, mask_cost=True)
    torch.testing.assert_close(by, torch.full((2,), 0.1 * 0.5 / 0.1))


@pytest.mark.parametrize("name", NAMES)
def test_given_costs_stay_as_they_are_and_the_others_are_corrected(name: str) -> None:
    given, inner = lambda obs, actions: actions.sum(-1) + 2.0, critics.registry.create(name, hidden=(8,))
    critic = critics.registry.create("given", costs=(given, None), critic=inner)
    batch = chain(0.9, torch.zeros(3, dtype=torch.bool))
    online, target = (critic.build(3, 1, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    with torch.no_grad():
        before = critic.evaluate(online, batch.obs, batch.action.unsqueeze(1))
        ahead = bootstrap_of(critic)(target, batch.next_obs, torch.zeros(len(batch.obs), 1, 1))
        signals = SIGNALS[[0, 1, 1]][:, batch.index]
        values = td_targets(signals, batch.discount, batch.terminated, ahead, mask_cost=True)
        by = correct_level(critic, online, target, batch, values, 0.1, mask_cost=True)
        after = critic.evaluate(online, batch.obs, batch.action.unsqueeze(1))
    # From values near 0, the mean of a signal over 1 − γ is what is missing.
    expected = 0.1 * torch.tensor([1.0, 0.0, 0.4 / 3]) / 0.1
    torch.testing.assert_close(by, expected, rtol=0.05, atol=0.05)
    assert by[1] == 0.0
    torch.testing.assert_close(after, before + by.view(3, 1, 1))


def test_what_cannot_go_together_is_named() -> None:
    with pytest.raises(ConfigError, match=r"level_rate is 0.01.*returns Retrace.*returns='td'"):
        line_agent(level_rate=0.01, returns="retrace", buffer={"name": "nstep", "windows": True})

    @attrs.frozen
    class Plain:
        inner: Any = critics.registry.create("mlp")

        def build(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner.build(*args, **kwargs)

        def evaluate(self, *args: Any) -> Any:
            return self.inner.evaluate(*args)

        def loss(self, *args: Any) -> Any:
            return self.inner.loss(*args)

    with pytest.raises(ConfigError, match=r"critic Plain has no residual and no shift; allowed: level_rate=0"):
        line_agent(level_rate=0.01, critic=Plain())
