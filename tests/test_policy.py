"""Policy networks: ranges, shapes, populations, and the stacks they are made of."""

from __future__ import annotations

import pytest
import torch

from cvpo import policy
from cvpo.errors import ConfigError
from cvpo.networks import StackedMLP

NAMES = ("diagonal", "cholesky")


def build(name: str, population: int = 1, seed: int = 0, **options):
    component = policy.registry.create(name, hidden=(16,), **options)
    return component.build(5, 3, population, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state_dependent", [True, False])
def test_starts_at_the_configured_distribution(name: str, state_dependent: bool):
    net = build(name, scale_init=0.3, state_dependent=state_dependent)
    pi = net(torch.randn(50, 5))
    assert pi.mean.abs().max() < 0.1
    covariance = pi.scale_tril() @ pi.scale_tril().mT
    torch.testing.assert_close(covariance, (0.09 * torch.eye(3)).expand(50, 3, 3), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_hold_for_extreme_parameters(name: str):
    net = build(name, scale_min=0.1, scale_max=0.8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e3)
    pi = net(10.0 * torch.randn(200, 5))
    diagonal = pi.scale if name == "diagonal" else pi.scale.diagonal(dim1=-2, dim2=-1)
    assert pi.mean.abs().max() <= 1.0
    assert diagonal.min() >= 0.1 - 1e-6 and diagonal.max() <= 0.8 + 1e-6
    assert diagonal.min() < 0.2 and diagonal.max() > 0.7  # both ends of the range are reached
    free = build(name, mean="free")
    with torch.no_grad():
        for parameter in free.parameters():
            parameter.mul_(1e3)
    assert free(10.0 * torch.randn(200, 5)).mean.abs().max() > 1.0


def test_cholesky_factor_is_lower_with_positive_diagonal_and_correlates():
    net = build("cholesky")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(30.0)
    scale = net(torch.randn(20, 5)).scale
    assert torch.equal(scale, scale.tril()) and (scale.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert scale.tril(-1).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str):
    net = build(name)
    pi = net(torch.randn(20, 5))
    pi.log_prob(torch.randn(20, 4, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", [*NAMES, "categorical"])
def test_a_population_is_single_networks_side_by_side(name: str):
    component = policy.registry.create(name, hidden=(16, 8))
    stacked = component.build(5, 3, 4, generator=torch.Generator().manual_seed(1))
    obs = torch.randn(4, 6, 5)
    together = stacked(obs)
    alone = component.build(5, 3)
    for p in range(4):
        with torch.no_grad():
            for ours, theirs in zip(alone.parameters(), stacked.parameters(), strict=True):
                ours.copy_(theirs[p : p + 1])
        torch.testing.assert_close(alone(obs[p]).mode, together.mode[p], rtol=1e-5, atol=1e-6)


def test_particles_equal_the_plain_network_on_joined_inputs():
    for hidden in ((), (8,), (8, 8)):
        mlp = StackedMLP(3, 7, hidden, 2, generator=torch.Generator().manual_seed(0))
        states, rows = torch.randn(1, 6, 5), torch.randn(1, 6, 4, 2)
        joined = torch.cat([states[:, :, None].expand(-1, -1, 4, -1), rows], -1).flatten(1, 2)
        expected = mlp(joined).unflatten(1, (6, 4))
        torch.testing.assert_close(mlp.particles(states, rows), expected, rtol=1e-5, atol=1e-6)


def test_same_seed_same_network():
    for ours, theirs in zip(build("diagonal").parameters(), build("diagonal").parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(build("diagonal").parameters()), next(build("diagonal", seed=1).parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_init": 2.0}, "scale_init is 2.0; allowed: between scale_min=0.02 and scale_max=1.0"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"hidden": (16, 0)}, "tuple of positive integers"),
        ({"mean": "tan"}, "did you mean 'tanh'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        policy.registry.create("diagonal", **options)
