"""The quantile critic against direct sums, and against the distribution of returns that it is to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpo.critics.quantile import QuantileCritic, quantile_huber, tail_weights
from cvpo.types import Batch
from tests.fakes import line_agent


@pytest.mark.parametrize("level", [1.0, 0.5, 0.3, 0.05])
def test_the_tail_is_the_mean_of_the_worst_share(level: float) -> None:
    """Against an integral of the quantile function on a fine grid."""
    z = np.sort(np.random.default_rng(0).normal(size=10))
    tau = (np.arange(200_000) + 0.5) / 200_000
    quantile = z[np.minimum((tau * 10).astype(int), 9)]
    expected = quantile[tau >= 1.0 - level].mean()
    assert float(tail_weights(10, level).double() @ torch.from_numpy(z)) == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    z, samples = torch.randn(4, generator=generator), 2.0 * torch.randn(3, generator=generator)
    levels, kappa = torch.tensor([0.125, 0.375, 0.625, 0.875]), 0.5
    total = 0.0
    for zi, tau in zip(z.tolist(), levels.tolist(), strict=True):
        for y in samples.tolist():
            u = y - zi
            huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(tau - (u < 0)) * huber / kappa / 3
    assert float(quantile_huber(z, samples, levels, kappa)) == pytest.approx(total, rel=1e-5)


def evaluated(critic: QuantileCritic, returns: torch.Tensor, steps: int = 1_200) -> tuple[object, torch.Tensor]:
    """The critic after learning that the return of every signal is one of ``returns`` [A]: network, and Q [S,1,1]."""
    net = critic.build(1, 1, 2, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-2)
    one = torch.ones(1)
    batch = Batch(one[None], one[None], torch.zeros(2, 1), one[None], one < 0, one, one, one.long())
    target = returns[:, None, None].expand(-1, 2, 1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 5e-2 * (1.0 - step / steps)
        loss, _ = critic.loss(net, batch, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return net, critic.evaluate(net, batch.obs, batch.action[:, None])


def test_it_learns_the_quantiles_their_mean_and_their_tail() -> None:
    """A skewed distribution: many small returns, few large ones."""
    returns = torch.linspace(0.0, 1.0, 200) ** 4 * 10.0
    critic = QuantileCritic(hidden=(), members=1, quantiles=20, cost_level=0.2, huber=0.02)
    net, q = evaluated(critic, returns)
    z = net(torch.ones(1, 1), torch.ones(1, 1, 1))[0, 0, 0].detach()  # type: ignore[operator]
    torch.testing.assert_close(z, torch.quantile(returns, net.levels), rtol=0.05, atol=0.05)  # type: ignore[union-attr]
    assert q[0].item() == pytest.approx(returns.mean().item(), rel=0.03)
    assert q[1].item() == pytest.approx(returns[160:].mean().item(), rel=0.03)
    assert q[1].item() > 2.0 * q[0].item()


def test_samples_of_the_next_return_are_the_quantiles_of_every_action() -> None:
    critic = QuantileCritic(hidden=(8,), members=3, cost_members=2, quantiles=4, reward="min", cost="max")
    net = critic.build(3, 2, 3, generator=torch.Generator().manual_seed(0))
    for parameter in net.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    obs, actions = torch.randn(5, 3), torch.rand(5, 2, 2)
    z = net(obs, actions)  # [G,B,K,N]
    samples = critic.bootstrap(net, obs, actions)
    assert samples.shape == (8, 3, 5)
    pooled = torch.stack([z[:3].amin(0), z[3:5].amax(0), z[5:].amax(0)])
    torch.testing.assert_close(samples, pooled.flatten(-2).permute(2, 0, 1))


@pytest.mark.parametrize("costs", [0, 2])
def test_an_agent_trains_with_it(costs: int) -> None:
    agent, _ = line_agent(
        costs, critic={"name": "quantile", "hidden": (16,), "cost_level": 0.25}, target_particles=2, limit="q"
    )
    agent.learn(60, warmup_steps=40)
    metrics = agent.update()
    assert all(torch.isfinite(value).all() for value in metrics.values())
    assert f"critic/target_cost_{costs}" not in metrics and "critic/target_reward" in metrics
