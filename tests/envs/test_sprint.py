"""The built-in task: its best constrained return by two independent routes, and that the limit binds."""

from __future__ import annotations

import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from cvpo.envs import COST_KEYS, COST_LIMITS, make
from cvpo.envs.builtin import HORIZON
from tests.envs.best_return import best_return, best_speed, conic_best_return, episode_sum, speed_cost

LIMIT = COST_LIMITS["cvpo/Sprint-v0"][0]


def keep_speed(speed: float, task: str = "cvpo/Sprint-v0") -> tuple[float, np.ndarray]:
    """Return and costs of one episode of: full thrust until ``speed`` can be reached, then that."""
    env = make(task, seed=2, cost_keys=COST_KEYS[task])
    obs, total, costs = env.reset(), 0.0, np.zeros(len(env.cost_names))
    for _ in range(HORIZON):
        v, u = obs[0, :2], obs[0, 2:]
        thrust = (speed * u - 0.7 * v) / 0.3
        step = env.step((thrust / max(1.0, np.linalg.norm(thrust)))[None])
        obs, total, costs = step.obs, total + step.reward[0], costs + step.cost[0]
    assert step.truncated[0] and not step.terminated[0]
    return total, costs


def test_best_policy_attains_the_computed_optimum():
    total, costs = keep_speed(best_speed(LIMIT))
    assert total == pytest.approx(best_return(LIMIT), rel=1e-5) and costs[0] == pytest.approx(LIMIT, rel=1e-4)


def test_unconstrained_optimum_breaks_the_limit():
    total, costs = keep_speed(1.0)
    assert total == pytest.approx(best_return(np.inf)) and total > 1.4 * best_return(LIMIT)
    assert costs[0] == pytest.approx(episode_sum(1.0, speed_cost)) and costs[0] > 3.5 * LIMIT
    # Running where it costs nothing is far from enough.
    assert keep_speed(0.3)[0] < 0.5 * best_return(LIMIT) and keep_speed(0.3)[1][0] < 1e-9


@pytest.mark.parametrize("limit", [5.0, 25.0, 60.0])
def test_optimum_agrees_with_a_conic_program(limit):
    pytest.importorskip("cvxpy")
    assert conic_best_return((limit,), headings=2) == pytest.approx(best_return(limit), rel=1e-6)


def test_both_limits_of_the_two_cost_variant_bind():
    pytest.importorskip("cvxpy")
    speed, east = COST_LIMITS["cvpo/SprintTwoCosts-v0"]
    best = conic_best_return((speed, east), headings=8)
    assert best < 0.99 * conic_best_return((speed, np.inf), headings=8)
    assert best < 0.9 * conic_best_return((np.inf, east), headings=8)


def test_random_actions_are_far_from_the_optimum_and_cost_little():
    env = make("cvpo/Sprint-v0", 10)
    env.reset()
    rng = np.random.default_rng(0)
    steps = [env.step(env.door.sample(10, rng)) for _ in range(HORIZON)]
    assert abs(np.mean([step.reward.sum() for step in steps])) < 2.0
    assert sum(step.cost.sum() for step in steps) / 10 < LIMIT


@pytest.mark.parametrize("task", list(COST_LIMITS))
def test_registered_with_gymnasium(task):
    env = gymnasium.make(task, render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec.max_episode_steps == HORIZON
    assert len(COST_LIMITS[task]) == len(COST_KEYS[task])
    _, info = env.reset(seed=0)
    *_, info = env.step(env.action_space.sample())
    assert set(COST_KEYS[task]) == set(info)
    assert env.render().shape == (160, 160, 3)


def test_import_of_the_environments_does_not_import_torch():
    code = "import sys, cvpo.envs; cvpo.envs.make('cvpo/Sprint-v0'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_tens_of_thousands_of_steps_a_second():
    env = make("cvpo/Sprint-v0")
    env.reset()
    actions = np.zeros((1, 2), dtype=np.float32)
    began = time.process_time()
    for _ in range(5000):
        env.step(actions)
    # Processor time, so that a busy machine does not fail the test; 35 thousand where it was measured.
    assert 5000 / (time.process_time() - began) > 5_000
