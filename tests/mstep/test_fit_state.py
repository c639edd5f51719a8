"""The state of a fit: multipliers, exact resume, one state for each member of a population."""

from __future__ import annotations

import copy

import attrs
import pytest
import torch

from cvpo import mstep
from cvpo.distributions import Gaussian
from cvpo.errors import CheckpointError
from tests.mstep.helpers import Net, Table, problem


def test_multipliers_rise_outside_the_bounds_and_are_clipped_where_they_are_stored() -> None:
    torch.manual_seed(0)
    policy, projection, obs = Net("diagonal"), mstep.registry.create("decoupled"), torch.randn(32, 3)
    fit = mstep.fits.create("likelihood", lr=0.1, iterations=4, multiplier_lr=0.5, multiplier_max=1.2)
    state = fit.build(policy, projection)
    old, old_params, actions, weights = problem(policy, obs)
    stats = fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
    assert state.alpha.tolist() == pytest.approx([1.2, 1.2])
    assert float(stats["alpha/mean"]) == pytest.approx(1.2)
    # A policy that stays inside lets them fall, to 0 and not below.
    still = attrs.evolve(fit, lr=1e-9)
    held = still.build(policy, projection)
    held.alpha.fill_(0.7)
    old, old_params, actions, weights = problem(policy, obs)
    still.fit(held, policy, projection, obs, old, old_params, actions, weights)
    assert (held.alpha == 0.0).all()


def test_multipliers_are_kept_or_reset() -> None:
    torch.manual_seed(0)
    projection, obs = mstep.registry.create("decoupled"), torch.randn(32, 3)
    for choice in ("keep", "reset"):
        policy = Net("diagonal")
        fit = mstep.fits.create("likelihood", lr=1e-9, iterations=1, multiplier_lr=0.1, multipliers=choice)
        state = fit.build(policy, projection)
        state.alpha.fill_(5.0)
        old, old_params, actions, weights = problem(policy, obs)
        fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
        assert state.alpha.tolist() == pytest.approx([4.9, 4.9] if choice == "keep" else [0.0, 0.0])


@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_a_resumed_fit_is_the_same_bit_for_bit(fit_name: str) -> None:
    torch.manual_seed(0)
    policy, projection, obs = Net("cholesky"), mstep.registry.create("decoupled"), torch.randn(32, 3)
    fit = mstep.fits.create(fit_name, iterations=2)
    state = fit.build(policy, projection)

    def update(policy, state):
        torch.manual_seed(1)
        old, old_params, actions, weights = problem(policy, obs)
        fit.fit(state, policy, projection, obs, old, old_params, actions, weights)
        return [p.detach().clone() for p in policy.parameters()]

    update(policy, state)
    other = copy.deepcopy(policy)
    resumed = fit.build(other, projection)
    resumed.load_state_dict(state.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(update(policy, state), update(other, resumed), strict=True))
    assert torch.equal(state.alpha, resumed.alpha)


def test_a_state_of_something_else_is_refused() -> None:
    policy = Net("diagonal")
    fit = mstep.fits.create("likelihood")
    full, decoupled = (fit.build(policy, mstep.registry.create(name)) for name in ("full", "decoupled"))
    with pytest.raises(CheckpointError, match="does not fit"):
        full.load_state_dict(decoupled.state_dict())
    other = mstep.fits.create("likelihood").build(Table(2, 2), mstep.registry.create("full"))
    with pytest.raises(CheckpointError, match="optimiser state"):
        full.load_state_dict(other.state_dict())


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("fit_name", mstep.fits.names())
def test_a_population_is_its_members_trained_alone(fit_name: str, clip: float | None) -> None:
    torch.manual_seed(0)
    projection, obs = mstep.registry.create("decoupled"), torch.randn(3, 5, 1)
    fit = mstep.fits.create(fit_name, iterations=3, lr=0.02, max_grad_norm=clip)
    population = Table(3, 5, 2)
    with torch.no_grad():
        population.mean.copy_(torch.randn(3, 5, 2))
    members = [Table(5, 2) for _ in range(3)]
    for i, member in enumerate(members):
        member.load_state_dict({name: value[i] for name, value in population.state_dict().items()})
    old, old_params, actions, weights = problem(population, obs)
    state = fit.build(population, projection, population=(3,))
    assert state.alpha.shape == (3, 2)
    fit.fit(state, population, projection, obs, old, old_params, actions, weights)
    for i, member in enumerate(members):
        alone = fit.build(member, projection)
        own = Gaussian(old.mean[i], old.scale[i])
        params = [p[i] for p in old_params]
        fit.fit(alone, member, projection, obs[i], own, params, actions[i], weights[i])
        assert torch.allclose(member.mean, population.mean[i], atol=1e-6)
        assert torch.allclose(member.log, population.log[i], atol=1e-6)
        assert torch.allclose(alone.alpha, state.alpha[i], atol=1e-5)
