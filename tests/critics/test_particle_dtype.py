"""Q-values of particles with products in bfloat16: close where they are used, exact where they are not."""

from __future__ import annotations

import attrs
import pytest
import torch

import cvpo
from cvpo.critics.mlp import MLPCritic
from cvpo.critics.network import EnsembleNet
from cvpo.envs import make
from cvpo.errors import ConfigError
from cvpo.types import Batch

OBS, ACT, SIGNALS = 5, 3, 2
FULL = MLPCritic(hidden=(64, 64), cost="max")
HALF = MLPCritic(hidden=(64, 64), cost="max", particle_dtype="bfloat16")


def nets(full: MLPCritic = FULL, half: MLPCritic = HALF, population: int = 1) -> tuple[EnsembleNet, EnsembleNet]:
    """The same parameters for both, with a head that is not near 0."""
    made = [
        each.build(OBS, ACT, SIGNALS, population, generator=torch.Generator().manual_seed(0)) for each in (full, half)
    ]
    for net in made:
        net.mlp.head.weight.data.mul_(100.0)
    return made[0], made[1]


def inputs(*lead: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*lead, 32, OBS, generator=generator), torch.randn(*lead, 32, 16, ACT, generator=generator)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_differences_between_particles_survive_whatever_the_level(level: float, layer_norm: bool) -> None:
    """bfloat16 has eight bits: rounded to it, values of 10 000 would differ by 64."""
    options = dict(hidden=(64, 64), cost="max", layer_norm=layer_norm)
    critic, half = MLPCritic(**options), MLPCritic(**options, particle_dtype="bfloat16")
    full_net, half_net = nets(critic, half)
    for net in (full_net, half_net):
        net.shift(torch.full((SIGNALS,), level))
    obs, actions = inputs()
    with torch.no_grad():
        right, found = critic.evaluate(full_net, obs, actions), half.evaluate(half_net, obs, actions)
    error, spread = found - right, right.std(-1).mean()
    assert found.dtype == torch.float32
    assert 0 < error.square().mean().sqrt() < 0.02 * spread and error.abs().amax() < 0.1 * spread


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_without_products_between_hidden_layers_nothing_changes(hidden: tuple[int, ...]) -> None:
    critic, half = MLPCritic(hidden=hidden), MLPCritic(hidden=hidden, particle_dtype="bfloat16")
    full_net, half_net = nets(critic, half)
    with torch.no_grad():
        assert torch.equal(half.evaluate(half_net, *inputs()), critic.evaluate(full_net, *inputs()))


def test_losses_and_single_actions_are_in_float32() -> None:
    full_net, half_net = nets()
    obs, actions = inputs()
    single = actions[:, :1]
    with torch.no_grad():
        assert torch.equal(HALF.evaluate(half_net, obs, single), FULL.evaluate(full_net, obs, single))
    batch = Batch(
        obs=obs,
        action=actions[:, 0],
        signals=torch.zeros(SIGNALS, 32),
        next_obs=obs,
        terminated=torch.zeros(32, dtype=torch.bool),
        discount=torch.ones(32),
        weight=torch.ones(32),
        index=torch.arange(32),
    )
    losses = [
        critic.loss(net, batch, torch.ones(SIGNALS, 32))[0] for critic, net in ((FULL, full_net), (HALF, half_net))
    ]
    assert torch.equal(*losses)
    # Several actions too, where a gradient is wanted.
    assert torch.equal(HALF.evaluate(half_net, obs, actions), FULL.evaluate(full_net, obs, actions))


def test_members_of_a_population_are_what_they_are_alone() -> None:
    _, net = nets(population=2)
    obs, actions = inputs(2)
    alone = HALF.build(OBS, ACT, SIGNALS)
    with torch.no_grad():
        together = HALF.evaluate(net, obs, actions)
        for p in range(2):
            own = slice(p * net.each, (p + 1) * net.each)
            alone.load_state_dict({name: value[own] for name, value in net.state_dict().items()})
            torch.testing.assert_close(HALF.evaluate(alone, obs[p], actions[p]), together[p], rtol=1e-4, atol=1e-4)


def test_an_agent_takes_it_by_name_and_others_are_named() -> None:
    env = make("cvpo/Sprint-v0", num_envs=1, seed=0)
    spaces = env.observation_space, env.action_space
    critic = {"name": "mlp", "hidden": (16, 16), "particle_dtype": "bfloat16"}
    agent = cvpo.make_agent(*spaces, env=env, cost_limits=25.0, batch_size=16, critic=critic)
    agent.learn(220, env=env, warmup_steps=200, updates_per_step=0.2)
    assert agent.updates > 0
    obs, actions = torch.randn(8, agent.spec.obs_size), torch.randn(8, 4, agent.spec.action_size)
    full = attrs.evolve(agent.config.critic, particle_dtype="float32").build(agent.spec.obs_size, 2, SIGNALS)
    full.load_state_dict(agent.learner.critic.state_dict())
    with torch.no_grad():
        assert not torch.equal(agent.learner.critic(obs, actions), full(obs, actions))
    with pytest.raises(ConfigError, match="particle_dtype is 'float16'; .* allowed: bfloat16, float32"):
        MLPCritic(particle_dtype="float16")
