"""The agent: every number of costs, the trust region after every update, exact state, named options."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo.errors import ConfigError
from cvpo.types import Transition
from tests.fakes import SMALL, Line, line_agent


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


def test_learn_leaves_the_users_environment_open_and_goes_on():
    env = Line(1)
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, horizon=20, cost_limits=5.0, **SMALL)
    assert agent.learn(50, warmup_steps=10) is agent
    agent.learn(30)
    assert agent.steps == 80 and not env.closed
    assert agent.env is env
    low, high = env.action_space.low, env.action_space.high
    taken = np.stack(env.actions)
    assert (taken >= low).all() and (taken <= high).all()


def test_a_callback_stops_the_loop():
    agent, env = line_agent()
    cvpo.learn(agent, 100, env, callback=lambda loop: loop.agent.steps < 30, warmup_steps=100)
    assert agent.steps == 30


def test_updates_are_made_while_the_environment_takes_a_step(monkeypatch: pytest.MonkeyPatch):
    agent, env = line_agent()
    order = []

    def note(owner, name):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: order.append(name) or call(*args))

    note(env, "begin")
    note(env, "finish")
    note(agent, "update")
    agent.learn(3, env=env, warmup_steps=0, updates_per_step=1)
    # Nothing is stored when the first step is taken: its update is made in the second.
    assert order == ["begin", "finish", "begin", "update", "update", "finish", "begin", "update", "finish"]
    order.clear()
    agent.learn(1, env=env, warmup_steps=0, updates_per_step=1)
    assert order == ["begin", "update", "finish"]


def test_learning_rates_fall_over_the_updates_of_a_call_and_start_again_in_the_next():
    agent, env = line_agent()
    seen: list[tuple[float, ...]] = []
    groups = [agent.learner.critic_optimiser.param_groups[0], agent.learner.fit.optimizer.param_groups[0]]
    full = [group["lr"] for group in groups]

    def watch(loop):
        seen.append(tuple(group["lr"] / lr for group, lr in zip(groups, full, strict=True)))

    cvpo.learn(agent, 100, env, callback=watch, warmup_steps=60, updates_per_step=0.1, final_lr=0.2)
    np.testing.assert_allclose(seen[59], 1.0)
    np.testing.assert_allclose(seen[79], 0.6)
    np.testing.assert_allclose(seen[-1], 0.2)
    cvpo.learn(agent, 2, env, callback=watch, updates_per_step=0.0)
    np.testing.assert_allclose(seen[-1], 1.0)


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


@pytest.mark.parametrize("members", [0, 2])
def test_a_state_from_the_end_of_a_schedule_learns_at_the_rates_it_was_made_with(members: int) -> None:
    agents = [line_agent(1, seed=seed) for seed in range(members or 1)]
    agent, env = (cvpo.VectorAgent([each for each, _ in agents]), [own for _, own in agents]) if members else agents[0]
    saved = []

    def keep(loop: Any) -> None:
        saved.append(agent.state_dict())

    agent.learn(60, env=env, callback=keep, warmup_steps=40, final_lr=0.2)
    other = cvpo.VectorAgent([line_agent(1, seed=seed)[0] for seed in range(members)]) if members else line_agent(1)[0]
    other.load_state_dict(saved[-1])
    for optimiser in (other.learner.critic_optimiser, other.learner.fit.optimizer):
        assert optimiser.param_groups[0]["lr"] == 1e-3


def test_episodes_that_were_left_do_not_go_on() -> None:
    agent, _ = line_agent(1, buffer={"name": "nstep", "steps": 5})
    agent.learn(30, warmup_steps=30, callback=lambda loop: loop.agent.steps < 7)
    assert agent.steps == 7
    agent.learn(20, warmup_steps=30)
    windows = agent.store.at(torch.arange(10))
    left = agent.store.ring.data["next_obs"][6, 0]
    torch.testing.assert_close(windows.next_obs[2:7], left.expand(5, -1))
    assert [episode.length for episode in agent.constraint.statistics.episodes] == [20]


def test_every_call_of_learn_goes_on_to_other_episodes() -> None:
    env = gymnasium.make("cvpo/Sprint-v0")
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, cost_limits=25.0, **SMALL)
    seen = []
    for _ in range(4):
        agent.learn(100, lambda loop: seen.extend(each.obs.tolist() for each in loop.finished), warmup_steps=400)
    assert len(seen) == len({tuple(obs) for obs in seen}) == 4


@pytest.mark.parametrize("answer", [False, np.bool_(False)])
def test_a_callback_ends_the_call_with_any_kind_of_false(answer: Any) -> None:
    agent, _ = line_agent(1)
    agent.learn(60, warmup_steps=60, callback=lambda loop: answer if loop.agent.steps >= 10 else None)
    assert agent.steps == 10


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
