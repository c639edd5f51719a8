"""The agent learns: near the best constrained return within the limit, which it breaks without the constraint.

A short version of ``python -m benchmarks.learning sprint``, on the episodes of training itself; the best return is
computed from the task's dynamics alone.
"""

from __future__ import annotations

import numpy as np
import pytest

import cvpo
from cvpo.envs import make
from cvpo.run import configure
from tests.envs.best_return import best_return

TASK = "cvpo/Sprint-v0"
LIMIT = 25.0


def newest_episodes(steps: int, count: int, *, constrained: bool) -> np.ndarray:
    """Mean sums of the last ``count`` episodes of training: the return and, where it is constrained, the cost."""
    options = {} if constrained else {"cost_limits": ()}
    config = configure(task=TASK, **options)
    env = make(TASK, seed=7, cost_keys=("cost",) if constrained else ())
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, seed=7, **config.agent)
    episodes: list[np.ndarray] = []
    cvpo.learn(
        agent,
        steps,
        env,
        callback=lambda loop: episodes.extend(episode.total for episode in loop.finished),
        warmup_steps=config.schedule.warmup_steps,
        updates_per_step=config.schedule.updates_per_step,
    )
    return np.mean(episodes[-count:], axis=0)


@pytest.mark.timeout(900)
def test_the_constrained_agent_is_near_the_best_within_the_limit():
    returned, cost = newest_episodes(5_000, 20, constrained=True)
    assert cost <= 1.1 * LIMIT
    assert returned >= 0.85 * best_return(LIMIT)


@pytest.mark.timeout(900)
def test_without_the_constraint_the_agent_is_faster_than_the_limit_allows():
    """The return alone says so: no policy within the limit reaches it."""
    (returned,) = newest_episodes(2_500, 5, constrained=False)
    assert returned >= 1.1 * best_return(LIMIT)
