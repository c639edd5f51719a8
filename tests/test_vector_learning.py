"""A population that learns: of environments of its own or one for all, and as its members would alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import cvpo
from cvpo.errors import ConfigError
from tests.fakes import Line
from tests.populations import check_equal, line, population


def test_members_learn_as_they_would_alone():
    vector, singles = population(1, members=2)
    vector.learn(80, [line(1, seed=p) for p in range(2)], warmup_steps=60, updates_per_step=0.2)
    for p, single in enumerate(singles):
        cvpo.learn(single, 80, line(1, seed=p), warmup_steps=60, updates_per_step=0.2)
        torch.testing.assert_close(vector.agents[p].store.state_dict(), single.store.state_dict(), rtol=1e-5, atol=1e-5)
    assert vector.steps == 80 and vector.updates == 4
    check_equal(vector, singles)


def test_one_environment_feeds_all_members_and_callbacks_see_them():
    vector, _ = population(1, members=2)
    seen: list[Any] = []

    def watch(loop: Any) -> bool:
        if loop.agent.updates:
            seen.append((loop.means.take(), loop.finished))
        return loop.agent.steps < 82

    cvpo.learn(vector, 200, line(1, num_envs=4), callback=watch, warmup_steps=70, updates_per_step=0.5)
    assert vector.steps == 82 and len(vector.agents[1].store) == 82
    metrics, finished = seen[-1]
    assert len(metrics["critic/loss"]) == 2 and len(finished) == 2
    with pytest.raises(ConfigError, match="4 parallel environments"):
        vector.learn(10, line(1, num_envs=2))


def test_a_population_learns_on_the_environment_that_it_was_made_with():
    env = line(1, num_envs=2)
    sizes = {"critic": {"name": "mlp", "hidden": (8,)}, "policy": {"name": "diagonal", "hidden": (8,)}}
    agent = cvpo.make_vector_agent(
        env.observation_space, env.action_space, seeds=(0, 1), env=env, cost_limits=1.0, **sizes
    )
    assert agent.learn(30).steps == 30 and agent.config.horizon == env.horizon
    single = cvpo.make_agent(env.observation_space, env.action_space, env=env, cost_limits=1.0, **sizes)
    assert single.num_envs == 2 and single.learn(30).steps == 30
    with pytest.raises(ConfigError, match=r"env is \[2\] environments for 3 seeds; allowed: as many for each"):
        cvpo.make_vector_agent(env.observation_space, env.action_space, seeds=(0, 1, 2), env=env, cost_limits=1.0)
    with pytest.raises(ConfigError, match=r"env is \[2, 4\] environments for 2 seeds"):
        uneven = [env, line(1, num_envs=4)]
        cvpo.make_vector_agent(env.observation_space, env.action_space, seeds=(0, 1), env=uneven, cost_limits=1.0)
    with pytest.raises(ConfigError, match=r"env is a SyncVectorEnv; allowed: .* cvpo.envs.make\(task, num_envs=n\)"):
        many = gymnasium.vector.SyncVectorEnv([Line, Line])
        cvpo.make_agent(env.observation_space, env.action_space, env=many, cost_limits=1.0)
    several = [Line(1), Line(1)]
    of_two = cvpo.make_agent(env.observation_space, env.action_space, env=several, cost_limits=1.0, horizon=20, **sizes)
    assert of_two.num_envs == 2


def test_groups_of_environments_are_one_and_resume():
    groups = cvpo.envs.Groups([line(1, seed=p) for p in range(2)])
    alone = [line(1, seed=p) for p in range(2)]
    np.testing.assert_array_equal(groups.reset(), np.concatenate([env.reset() for env in alone]))
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 4, 2)).astype(np.float32)
    for action in actions:
        ours = groups.step(action)
        theirs = [env.step(part) for env, part in zip(alone, (action[:2], action[2:]), strict=True)]
        np.testing.assert_array_equal(ours.obs, np.concatenate([step.obs for step in theirs]))
        np.testing.assert_array_equal(ours.cost, np.concatenate([step.cost for step in theirs]))
    other = cvpo.envs.Groups([line(1, seed=p) for p in range(2)])
    np.testing.assert_array_equal(other.load_state_dict(groups.state_dict()), ours.obs)
    np.testing.assert_array_equal(other.step(actions[0]).obs, groups.step(actions[0]).obs)
    with pytest.raises(ConfigError, match="cost_names"):
        cvpo.envs.Groups([line(1), line(2)])
    with pytest.raises(ConfigError, match="one environment is in two groups"):
        cvpo.envs.Groups([groups.groups[0]] * 2)


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parents[1] / "docs" / "composing.md").read_text()
    (example,) = re.findall(r"## Many seeds at once.*?```python\n(.*?)```", page, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(example, "docs/composing.md", "exec"), scope)  # noqa: S102 - the page is ours
    assert scope["metrics"]["estep/eta"].shape == (3,) and "cost_0" in capsys.readouterr().out
