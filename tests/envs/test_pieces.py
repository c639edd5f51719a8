"""The piecewise-linear encoding of observations, and agents whose networks see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

import cvpo
from cvpo.envs.pieces import PiecewiseEncoding
from cvpo.errors import ConfigError

LOW, HIGH = np.array([-np.inf, 0.0, -2.0, 0.0]), np.array([np.inf, 1.0, 6.0, np.inf])
SPACE = Box(LOW.astype(np.float32), HIGH.astype(np.float32))
BOUNDED, FREE = [1, 2], [0, 3]
SMALL = {
    "policy": {"name": "diagonal", "hidden": (8,)},
    "critic": {"name": "mlp", "hidden": (8,)},
    "batch_size": 16,
    "cost_limits": 1.0,
    "horizon": 20,
}


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 12), st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2), st.floats(-1e3, 1e3))
def test_pieces_fill_one_after_the_other_and_lose_nothing(pieces: int, shares: list[float], free: float) -> None:
    encoding = PiecewiseEncoding(SPACE, pieces)
    inside = LOW[BOUNDED] + np.array(shares) * (HIGH - LOW)[BOUNDED]
    obs = torch.tensor([[free, *inside, -free]], dtype=torch.float32)
    seen = encoding(obs)
    assert seen.shape == (1, encoding.size) == (1, 2 + 2 * pieces)
    torch.testing.assert_close(seen[:, :2], obs[:, FREE])
    parts = seen[0, 2:].reshape(pieces, 2)
    assert ((parts >= 0) & (parts <= 1)).all()
    # A piece begins when the one before is full.
    assert ((parts[1:] == 0) | (parts[:-1] == 1)).all()
    torch.testing.assert_close(parts.sum(0) / pieces, torch.tensor(shares), atol=1e-5, rtol=0.0)


def test_numbers_outside_their_bounds_count_as_on_the_edge() -> None:
    encoding = PiecewiseEncoding(SPACE, 4)
    outside = torch.tensor([[0.0, 7.0, -9.0, 0.0]])
    torch.testing.assert_close(encoding(outside), encoding(torch.tensor([[0.0, 1.0, -2.0, 0.0]])))


def test_axes_before_the_last_are_kept() -> None:
    encoding = PiecewiseEncoding(SPACE, 3)
    obs = torch.rand(2, 5, 4)
    torch.testing.assert_close(encoding(obs)[1, 3], encoding(obs[1, 3]))


def test_a_dict_is_encoded_in_the_order_of_its_flat_vector() -> None:
    space = Dict(far=Box(-np.inf, np.inf, (2,)), near=Box(0.0, 1.0, (1,)), which=Discrete(3))
    encoding = PiecewiseEncoding(space, 2)
    seen = encoding(torch.tensor([[5.0, -5.0, 0.75, 0.0, 1.0, 0.0]]))
    torch.testing.assert_close(seen, torch.tensor([[5.0, -5.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.0, 1.0, 0.0]]))


def test_a_space_without_bounds_is_refused() -> None:
    space = Box(-np.inf, np.inf, (3,))
    with pytest.raises(ConfigError, match="obs_pieces is 4 and no number"):
        cvpo.make_agent(space, Box(-1.0, 1.0, (1,)), obs_pieces=4, **SMALL)
    with pytest.raises(ConfigError, match="obs_pieces"):
        cvpo.make_agent(SPACE, Box(-1.0, 1.0, (1,)), obs_pieces=0, **SMALL)


def transition(seed: int) -> cvpo.Transition:
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=rng)  # noqa: E731
    no = torch.zeros(2, dtype=torch.bool)
    return cvpo.Transition(draw(2, 4), draw(2, 1), draw(2, 2), draw(2, 4), no, no)


@pytest.mark.parametrize("normalise", [False, True])
def test_networks_see_pieces_and_replay_keeps_observations(normalise: bool, tmp_path) -> None:
    options = {"obs_pieces": 3, "normalise_obs": normalise, **SMALL}
    agent = cvpo.make_agent(SPACE, Box(-1.0, 1.0, (1,)), num_envs=2, **options)
    for step in range(20):
        agent.observe(transition(step))
    assert agent.store.ring.data["obs"].shape[-1] == 4
    assert agent.policy.mlp.layers[0].weight.shape[-2] == 2 + 2 * 3
    assert agent.learner.critic.mlp.layers[0].weight.shape[-2] == 2 + 2 * 3 + 1
    batch, states = agent.draw()
    assert batch.obs.shape[-1] == batch.next_obs.shape[-1] == states.shape[-1] == agent.inputs.size == 8
    assert all(torch.isfinite(value).all() for value in agent.update().values())
    agent.save(tmp_path / "agent")
    again = cvpo.load(tmp_path / "agent")
    obs = torch.rand(3, 4)
    torch.testing.assert_close(again.act(obs, deterministic=True), agent.act(obs, deterministic=True))


@pytest.mark.parametrize("normalise", [False, True])
def test_a_population_sees_what_its_members_see(normalise: bool) -> None:
    options = {"obs_pieces": 3, "normalise_obs": normalise, **SMALL}
    single = [cvpo.make_agent(SPACE, Box(-1.0, 1.0, (1,)), num_envs=2, seed=seed, **options) for seed in (0, 1)]
    together = cvpo.make_vector_agent(SPACE, Box(-1.0, 1.0, (1,)), seeds=[0, 1], num_envs=2, **options)
    for agent in (*single, *together.agents):
        for step in range(20):
            agent.take(transition(step))
    for agent in single:
        agent.update()
    together.update()
    obs = torch.rand(4, 4)
    alone = torch.cat([agent.act(own, deterministic=True) for agent, own in zip(single, obs.split(2), strict=True)])
    torch.testing.assert_close(together.act(obs, deterministic=True), alone, atol=1e-5, rtol=1e-4)
