"""The agent learns: near the best constrained return within the limit, which it breaks without the constraint.

One seed of ``python -m benchmarks.tasks sprint``; the best return is computed from the task's dynamics alone.
"""

from __future__ import annotations

import numpy as np
import pytest

from cvpo.evaluation import evaluate
from cvpo.run import configure
from cvpo.run.setting import build, setting
from cvpo.train import Loop
from tests.envs.best_return import best_return

TASK = "cvpo/Sprint-v0"
LIMIT = 25.0


def trained(steps: int | None = None, **options: object) -> tuple[float, float]:
    """Mean return and cost of 20 deterministic episodes after training as the task's preset says."""
    config = configure(task=TASK, seed=7, **options)
    with setting(config) as (env, eval_env):
        loop = Loop(build(config, env), env, config.schedule)
        loop.run(steps or config.steps)
        found = evaluate(loop.agent, eval_env, 20)
    return float(found.returns.mean()), float(np.mean(found.costs))


@pytest.mark.timeout(900)
def test_the_constrained_agent_is_near_the_best_within_the_limit():
    returned, cost = trained()
    assert cost <= 1.1 * LIMIT
    assert returned >= 0.9 * best_return(LIMIT)


@pytest.mark.timeout(900)
def test_without_the_constraint_the_agent_breaks_the_limit():
    """Costs are reported although nothing limits them."""
    returned, cost = trained(2_500, cost_limits=())
    assert cost >= 2.0 * LIMIT
    assert returned >= 1.1 * best_return(LIMIT)
