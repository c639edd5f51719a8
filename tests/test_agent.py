"""The agent: every number of costs, the trust region after every update, exact state, named options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cvpo
from cvpo.errors import ConfigError
from cvpo.types import Transition
from tests.fakes import line_agent


@pytest.mark.parametrize("costs", [0, 1, 2])
@pytest.mark.parametrize("estep", ["newton", "slsqp"])
def test_any_number_of_costs_trains_inside_the_trust_region(costs: int, estep: str):
    agent, env = line_agent(costs, estep=estep, num_envs=2)
    ratios, seen = [], []

    def watch(loop):
        if loop.agent.updates:
            metrics = loop.means.take()
            seen.append(metrics)
            ratios.append(max(value for name, value in metrics.items() if name.startswith("mstep/kl/")))

    cvpo.learn(agent, 300, env, callback=watch, warmup_steps=60, updates_per_step=0.5)
    assert agent.updates == 120 and len(ratios) == 120
    assert max(ratios) <= 1.0
    assert max(ratios) > 0.5  # the bound is at work
    for metrics in seen:
        assert all(np.isfinite(value) for value in metrics.values())
        assert sum(metrics[f"estep/{name}"] for name in ("ok", "infeasible")) == 1.0
    assert sum(name.startswith("estep/lam_") for name in seen[-1]) == costs


@pytest.mark.parametrize("policy", ["diagonal", "cholesky"])
def test_the_entropy_of_a_fresh_policy_is_that_of_its_initial_scale(policy: str):
    agent, env = line_agent(1, policy={"name": policy, "hidden": (16,), "scale_init": 0.3})
    cvpo.learn(agent, 60, env, warmup_steps=60, updates_per_step=0.0)
    expected = torch.distributions.Normal(0.0, 0.3).entropy() * agent.spec.action_size
    assert float(agent.update()["policy/entropy"]) == pytest.approx(float(expected), abs=0.05)


PARTS: list[dict] = [
    {},
    {"fit": "regression", "policy": {"name": "cholesky", "hidden": (16,)}, "buffer": {"name": "nstep", "steps": 3}},
    {"old_policy": "copy", "normalise_obs": True, "states": "replay", "limit": "q"},
    {"limit": {"name": "policy", "measure": "critic"}, "estep_critic": "online", "target_policy": "online"},
    {"estep": "adam", "returns": "retrace", "buffer": {"name": "prioritized", "steps": 3, "windows": True}},
    {"policy_average": 0.3},
]


@pytest.mark.parametrize("options", PARTS)
def test_state_round_trip_is_bit_identical_over_the_next_updates(tmp_path, options):
    agent, env = line_agent(2, **options)
    cvpo.learn(agent, 150, env, warmup_steps=40, updates_per_step=0.3)
    agent.save(tmp_path / "agent.safetensors")
    other = cvpo.load(tmp_path / "agent.safetensors")
    assert other.config == agent.config
    for _ in range(3):
        ours, theirs = agent.update(), other.update()
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name
    for net in agent.learner.networks:
        ours, theirs = (getattr(each.learner, net).parameters() for each in (agent, other))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("options", PARTS)
def test_an_agent_learns_on_an_accelerator_and_moves_to_the_host(tmp_path, options):
    agent, env = line_agent(2, device="cuda", **options)
    cvpo.learn(agent, 150, env, warmup_steps=40, updates_per_step=0.3)
    metrics = agent.update()
    assert all(torch.isfinite(value) and value.device.type == "cuda" for value in metrics.values())
    assert all(parameter.device.type == "cuda" for parameter in agent.learner.policy.parameters())
    agent.save(tmp_path / "agent.safetensors")
    host = cvpo.load(tmp_path / "agent.safetensors", device="cpu")
    obs = np.zeros(3, np.float32)
    np.testing.assert_allclose(host.predict(obs)[0], agent.predict(obs)[0], atol=1e-5)
    host.update()


def test_loading_without_the_replay_keeps_the_policy(tmp_path):
    agent, env = line_agent()
    cvpo.learn(agent, 60, env, warmup_steps=40)
    agent.save(tmp_path / "policy.safetensors", replay=False)
    obs = np.zeros(3, np.float32)
    other = cvpo.CVPO.load(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(other.predict(obs)[0], agent.predict(obs)[0])
    assert (tmp_path / "policy.safetensors").stat().st_size < 300_000


def test_actions_reach_the_environment_in_its_own_bounds():
    agent, env = line_agent()
    low, high = env.action_space.low, env.action_space.high
    action, state = agent.predict(np.zeros(3, np.float32), deterministic=True)
    assert state is None and action.shape == (2,)
    np.testing.assert_allclose(action, (low + high) / 2, atol=0.2)  # a fresh policy's mean is about 0
    batch, _ = agent.predict(np.zeros((4, 3), np.float32), deterministic=False)
    assert batch.shape == (4, 2) and (batch >= low).all() and (batch <= high).all()
    assert len(np.unique(batch[:, 0])) == 4


def test_old_policy_follows_as_named():
    agent, env = line_agent(old_policy="copy", old_period=2)
    cvpo.learn(agent, 40, env, warmup_steps=40)
    start = [p.clone() for p in agent.policy.parameters()]
    agent.update()
    assert all(torch.equal(a, b) for a, b in zip(agent.learner.old_policy.parameters(), start, strict=True))
    agent.update()
    for a, b in zip(agent.learner.old_policy.parameters(), agent.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    polyak, env = line_agent(old_tau=0.25)
    cvpo.learn(polyak, 40, env, warmup_steps=40)
    before = [p.clone() for p in polyak.learner.old_policy.parameters()]
    polyak.update()
    after = polyak.learner.old_policy.parameters()
    for old, new, current in zip(before, after, polyak.policy.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25 * (current - old))


def test_limits_follow_the_episodes_length():
    agent, _ = line_agent(1, gamma=0.9, limit={"name": "policy", "measure": "episode"})
    assert agent.constraint.limit.item() == pytest.approx(5.0 / 20 / 0.1)
    step = Transition(
        obs=torch.zeros(1, 3),
        action=torch.zeros(1, 2),
        signals=torch.tensor([[0.0], [2.0]]),
        next_obs=torch.zeros(1, 3),
        terminated=torch.tensor([False]),
        truncated=torch.tensor([False]),
    )
    for t in range(10):
        agent.observe(
            step
            if t < 9
            else cvpo.Transition(
                step.obs, step.action, step.signals, step.next_obs, torch.tensor([True]), step.truncated
            )
        )
    assert agent.constraint.limit.item() == pytest.approx(5.0 / 10 / 0.1)  # the mean length is 10 now
    assert agent.constraint.measured.item() == pytest.approx(20.0 / 10 / 0.1)


def test_an_infeasible_estep_is_counted_and_survived():
    agent, env = line_agent(1, limit="q", cost_limits=0.0, limit_kind="discounted")
    cvpo.learn(agent, 60, env, warmup_steps=40)
    with torch.no_grad():
        agent.learner.target_critic.mlp.head.bias[2:] = 10.0  # every action is unsafe in every state
    metrics = agent.update()
    assert metrics["estep/infeasible"] == 1.0 and metrics["estep/violation"] > 5.0
    assert max(v for k, v in metrics.items() if k.startswith("mstep/kl/")) <= 1.0


def test_targets_are_made_of_the_critic_that_was_chosen() -> None:
    changed = {}
    for choice in ("target", "online"):
        agent, _ = line_agent(1, td_critic=choice)
        agent.learn(60, warmup_steps=50)
        learner, obs = agent.learner, torch.zeros(4, agent.spec.obs_size)
        for name in ("critic", "target_critic"):
            before = learner._next_values(obs)
            agent.config.critic.shift(getattr(learner, name), torch.tensor([50.0, 50.0]))
            changed[choice, name] = bool((learner._next_values(obs) - before > 40.0).all())
    assert changed == {
        ("target", "critic"): False,
        ("target", "target_critic"): True,
        ("online", "critic"): True,
        ("online", "target_critic"): False,
    }
    with pytest.raises(ConfigError, match="level_rate is 0.01 and td_critic 'online'"):
        line_agent(1, td_critic="online", level_rate=0.01)


def test_a_state_is_a_copy_that_neither_agent_changes() -> None:
    agent, _ = line_agent(1, limit="q")
    agent.learn(60, warmup_steps=50)
    saved = agent.state_dict()
    others = [line_agent(1, limit="q")[0] for _ in range(2)]
    for other in others:
        other.load_state_dict(saved)
    expected = [agent.update() for _ in range(3)]
    agent.load_state_dict(saved)
    for each in (*others, agent):
        for before in expected:
            after = each.update()
            assert all(torch.equal(before[name], after[name]) for name in before)
