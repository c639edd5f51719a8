"""A tiny environment for tests: a point on a line, M costs, truncating or terminating, per-dimension action bounds;
and a small agent on it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import cvpo
from cvpo.envs import make


class Line(gymnasium.Env[np.ndarray, np.ndarray]):
    """Reward for being right, costs for being too far right and for energy; episodes of ``horizon`` steps."""

    def __init__(self, costs: int = 1, horizon: int = 20, terminate_at: float | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32))
        self.costs, self.horizon, self.terminate_at = costs, horizon, terminate_at
        self.closed = False
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-0.1, 0.1))
        self.time = 0
        return self._obs(), {}

    def step(self, action: np.ndarray):
        self.actions.append(np.array(action))
        self.position += 0.1 * float(action[0])
        self.time += 1
        info: dict[str, float] = {}
        if self.costs:
            info["cost"] = float(self.position > 0.2)
        if self.costs > 1:
            info["cost_energy"] = float(action[1]) / 10.0
        terminated = self.terminate_at is not None and self.position > self.terminate_at
        return self._obs(), self.position, terminated, self.time >= self.horizon, info

    def close(self) -> None:
        self.closed = True

    def _obs(self) -> np.ndarray:
        return np.array([self.position, self.time / self.horizon, 1.0], np.float32)


COST_KEYS = {0: (), 1: ("cost",), 2: ("cost", "cost_energy")}

SMALL = dict(
    critic={"name": "mlp", "hidden": (16, 16)},
    policy={"name": "diagonal", "hidden": (16, 16)},
    batch_size=32,
    particles=8,
)


def line_agent(costs: int = 1, num_envs: int = 1, **options):
    env = make(lambda: Line(costs), num_envs=num_envs, seed=3, cost_keys=COST_KEYS[costs], horizon=20)
    given = {**SMALL, "cost_limits": (5.0, 4.0)[:costs], "seed": 1, **options}
    agent = cvpo.make_agent(env.observation_space, env.action_space, env=env, num_envs=num_envs, **given)
    return agent, env
