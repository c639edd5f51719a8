"""Evaluation: episodes of its own, never those of a training loop that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import cvpo
from cvpo.envs import Groups, make
from cvpo.errors import ConfigError
from tests.fakes import SMALL, line_agent


def test_evaluation_is_on_other_episodes_than_training() -> None:
    env, evaluated = gymnasium.make("cvpo/Sprint-v0"), make("cvpo/Sprint-v0")
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, cost_limits=25.0, **SMALL)
    firsts: list[Any] = []
    agent.learn(200, lambda loop: firsts.extend(each.obs for each in loop.finished), warmup_steps=200)
    # The default seed is the agent's too: with it, the first of these would be the first of those.
    np.testing.assert_array_equal(evaluated.reset(seed=agent.seed)[0], firsts[0])
    cvpo.evaluate(agent, evaluated, 1)
    first = evaluated.reset(seed=evaluated.seed)[0]
    assert len(firsts) == 2 and not any(np.array_equal(first, own) for own in firsts)


def evaluating(env: Any) -> Callable[[Any], None]:
    """A callback that evaluates on ``env``."""

    def evaluate(loop: Any) -> None:
        cvpo.evaluate(None, env, 1)

    return evaluate


def test_the_environment_of_a_loop_is_not_evaluated_on() -> None:
    agent, env = line_agent(1)
    with pytest.raises(ConfigError, match="being trained on"):
        agent.learn(60, env=env, warmup_steps=60, callback=evaluating(env))
    assert cvpo.evaluate(agent, env, 1).returns.shape == (1,)


def test_nor_is_the_instance_below_it_by_whatever_wrapper() -> None:
    env = gymnasium.make("cvpo/Sprint-v0")
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, cost_limits=25.0, **SMALL)
    for same in (env, gymnasium.wrappers.TimeLimit(env.unwrapped, 50)):
        with pytest.raises(ConfigError, match="being trained on"):
            agent.learn(60, warmup_steps=60, callback=evaluating(same))
    agent.learn(60, warmup_steps=60, callback=evaluating(gymnasium.make("cvpo/Sprint-v0")))


def test_nor_are_those_of_a_population() -> None:
    envs = [make("cvpo/Sprint-v0", seed=seed) for seed in (0, 1)]
    spaces = envs[0].observation_space, envs[0].action_space
    vector = cvpo.make_vector_agent(*spaces, seeds=(0, 1), cost_limits=25.0, horizon=100, **SMALL)
    for same in (envs[1], Groups(envs[:1])):
        with pytest.raises(ConfigError, match="being trained on"):
            vector.learn(60, envs, warmup_steps=60, callback=evaluating(same))
    assert cvpo.evaluate(vector.member(0), envs[0], 1).returns.shape == (1,)


def test_groups_play_episodes_that_differ() -> None:
    groups = Groups([make("cvpo/Sprint-v0", num_envs=2) for _ in range(2)])
    returns = cvpo.evaluate(None, groups, 4, seed=3).returns
    assert len(set(returns.tolist())) == 4
    np.testing.assert_array_equal(returns, cvpo.evaluate(None, groups, 4, seed=3).returns)
