"""The agent learns: near the best constrained return within the limit, which it breaks without the constraint.

A short version of ``python -m benchmarks.learning sprint``; the best return is computed from the task's dynamics alone.
"""

from __future__ import annotations

from typing import Any

import pytest

import cvpo
from cvpo.envs import make
from cvpo.run import configure
from tests.envs.best_return import best_return

TASK = "cvpo/Sprint-v0"
LIMIT = 25.0


def trained(steps: int, cost_limits: tuple[float, ...], keys: tuple[str, ...]) -> dict[str, float]:
    config = configure(task=TASK, seed=7, cost_limits=cost_limits, cost_keys=keys)
    env = make(TASK, seed=7, cost_keys=keys)
    options: dict[str, Any] = dict(config.agent)
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, seed=7, **options)
    cvpo.learn(
        agent,
        steps,
        env,
        warmup_steps=config.schedule.warmup_steps,
        updates_per_step=config.schedule.updates_per_step,
    )
    return cvpo.evaluate(agent, make(TASK, num_envs=10, cost_keys=("cost",)), 20, seed=11).summary()


@pytest.mark.timeout(600)
def test_the_constrained_agent_is_near_the_best_within_the_limit():
    score = trained(5_000, (LIMIT,), ("cost",))
    assert score["cost_0"] <= 1.1 * LIMIT
    assert score["return"] >= 0.85 * best_return(LIMIT)


@pytest.mark.timeout(600)
def test_without_the_constraint_the_limit_is_broken():
    score = trained(2_500, (), ())
    assert score["cost_0"] >= 2.0 * LIMIT
    assert score["return"] >= 1.1 * best_return(LIMIT)
