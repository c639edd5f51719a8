"""A Gaussian policy's gradients by hand: those of autograd, and only where nothing else is to happen on the way."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cvpo.by_hand import by_hand
from cvpo.errors import ConfigError
from cvpo.policy import CholeskyPolicy, DiagonalPolicy, GaussianNet


def net(policy: DiagonalPolicy | CholeskyPolicy | None = None, population: int = 1) -> GaussianNet:
    policy = DiagonalPolicy(hidden=(8, 8)) if policy is None else policy
    return policy.build(3, 2, population, torch.Generator().manual_seed(0))


@given(
    hidden=st.lists(st.integers(1, 17), min_size=1, max_size=3),
    size=st.integers(1, 5),
    population=st.integers(1, 3),
    batch=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    tanh=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_it_is_the_network_and_has_its_gradients(
    hidden: list[int], size: int, population: int, batch: list[int], tanh: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = DiagonalPolicy(hidden=tuple(hidden), mean="tanh" if tanh else "free")
    policy = config.build(3, size, population, generator)
    for p in policy.parameters():
        p.data.add_(0.3 * torch.randn(p.shape, generator=generator))
    lead = (population, *batch) if population > 1 else tuple(batch)
    obs = torch.randn(*lead, 3, generator=generator)
    kept = obs.clone()
    by_mean, by_scale = torch.randn(2, *lead, size, generator=generator)
    expected = policy(obs)
    ((by_mean * expected.mean).sum() + (by_scale * expected.scale).sum()).backward()
    slopes = [p.grad for p in policy.parameters()]
    hand = by_hand(policy)
    assert hand is not None
    # A second time: what is kept of the first is not in the way.
    for _ in range(2):
        found = hand(obs)
        torch.testing.assert_close(found.mean, expected.mean.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.scale, expected.scale.detach(), rtol=1e-5, atol=1e-6)
        hand.backward(by_mean, by_scale)
        for p, slope in zip(policy.parameters(), slopes, strict=True):
            assert p.grad is not slope and p.grad.shape == p.shape
            torch.testing.assert_close(p.grad, slope, rtol=1e-4, atol=1e-5 * (1.0 + float(slope.abs().max())))
    assert torch.equal(obs, kept)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [200.0, float("inf"), float("nan")])
def test_far_from_0_it_is_the_network_still(value: float) -> None:
    policy, obs = net(), torch.randn(4, 3)
    policy.mlp.head.bias.data[..., 1:3] = torch.tensor([value, -value])
    found, expected = by_hand(policy)(obs), policy(obs)
    for ours, other in ((found.mean, expected.mean), (found.scale, expected.scale)):
        torch.testing.assert_close(ours, other.detach(), equal_nan=True)


def test_observations_of_another_population_are_named() -> None:
    with pytest.raises(ConfigError, match=r"\[2, \.\.\., B, O\]"):
        by_hand(net(population=2))(torch.randn(4, 3))


def test_it_sees_the_parameters_as_they_are() -> None:
    policy, obs = net(), torch.randn(4, 3)
    hand = by_hand(policy)
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        hand(obs)
        hand.backward(torch.ones(4, 2), torch.ones(4, 2))
        optimiser.step()
        torch.testing.assert_close(hand(obs).mean, policy(obs).mean.detach())


@pytest.mark.parametrize(
    "policy",
    [
        CholeskyPolicy(hidden=(8, 8)),
        *(DiagonalPolicy(hidden=(8, 8), activation=name) for name in ("tanh", "silu", "elu")),
        DiagonalPolicy(hidden=(8, 8), layer_norm=True),
        DiagonalPolicy(hidden=(8, 8), state_dependent=False),
    ],
)
def test_other_policies_are_left_to_autograd(policy: DiagonalPolicy | CholeskyPolicy) -> None:
    assert by_hand(net(policy)) is None


def other_kind(policy: GaussianNet) -> None:
    class Louder(GaussianNet):
        def forward(self, obs):
            return super().forward(2.0 * obs)

    policy.__class__ = Louder


def other_layer(policy: GaussianNet) -> None:
    policy.mlp.head = nn.Linear(8, 4)


def other_forward(policy: GaussianNet) -> None:
    policy.mlp.forward = lambda x: torch.zeros(1, x.shape[1], 4)


@pytest.mark.parametrize(
    "touch",
    [
        other_kind,
        other_layer,
        other_forward,
        lambda policy: policy.register_forward_hook(lambda *_: None),
        lambda policy: policy.mlp.register_forward_pre_hook(lambda *_: None),
        lambda policy: policy.mlp.layers[0].register_full_backward_hook(lambda *_: None),
        lambda policy: policy.mlp.head.weight.register_hook(lambda grad: None),
        lambda policy: policy.mlp.head.bias.register_post_accumulate_grad_hook(lambda p: None),
        lambda policy: policy.mlp.layers[1].requires_grad_(False),
        lambda policy: policy.double(),
        lambda policy: nn.utils.parametrizations.weight_norm(policy.mlp.head),
    ],
)
def test_where_something_is_watched_or_changed_it_is_left_to_autograd(touch) -> None:
    policy = net()
    assert by_hand(policy) is not None
    touch(policy)
    assert by_hand(policy) is None


def test_nor_where_products_are_to_be_rounded() -> None:
    with torch.autocast("cpu"):
        assert by_hand(net()) is None


def test_a_subclass_of_the_configuration_that_builds_the_same_network_has_it() -> None:
    @attrs.frozen
    class Mine(DiagonalPolicy):
        pass

    assert by_hand(net(Mine(hidden=(8,)))) is not None
