"""``learn``: its loop, its callbacks, its environments, and what a second call goes on from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from tests.fakes import SMALL, Line, line_agent


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


def test_the_loop_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "composing.md").read_text()
    (example,) = re.findall(r"## A loop of your own.*?```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(example, "docs/composing.md", "exec"), scope)  # noqa: S102 - the page is ours
    agent, again = scope["agent"], scope["again"]
    assert (agent.steps, agent.updates) == (600, 30) and capsys.readouterr().out.count("return and costs") == 6
    expected, found = agent.update(), again.update()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
