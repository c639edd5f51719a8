"""Small environments, each with one property under test; importable by worker processes."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Toy(gymnasium.Env):
    """The observation is a random walk driven by the action; the info and the end of the episode as asked."""

    def __init__(
        self,
        info: dict[str, Any] | None = None,
        observation_space: Any = None,
        action_space: Any = None,
        end_after: int | None = None,
    ) -> None:
        self.info = {"cost": 0.5} if info is None else info
        self.observation_space = observation_space or Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = action_space or Box(-1.0, 1.0, (2,), np.float32)
        self.end_after = end_after
        self.actions: list[Any] = []
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self.state = self.np_random.normal(size=3)
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        self.count += 1
        self.state = self.state + 0.1 * np.sum(action) + 0.01 * self.np_random.normal(size=3)
        return self.observation(), float(self.state[0]), self.count == self.end_after, False, dict(self.info)

    def observation(self) -> Any:
        return self.state.copy()

    def close(self) -> None:
        self.closed = True


class SixTuple(Toy):
    """Safety-Gymnasium's convention."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, 2.0, terminated, truncated, info


class Faulty(Toy):
    """On step ``at``, ``what`` becomes ``value``."""

    def __init__(self, what: str, value: float, at: int = 2) -> None:
        super().__init__()
        self.what, self.value, self.at = what, value, at

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count == self.at:
            if self.what == "observation":
                obs[1] = self.value
            elif self.what == "reward":
                reward = self.value
            else:
                info["cost"] = self.value
        return obs, reward, terminated, truncated, info


class Forgetful(Toy):
    """Not determined by seed and actions: it draws from a generator that nothing seeds."""

    def step(self, action: Any) -> Any:
        self.state = self.state + np.random.default_rng().normal(size=3)
        return super().step(action)


class Dying(Toy):
    """On its third step it takes the process with it, raises, or hangs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def step(self, action: Any) -> Any:
        if self.count == 2 and self.how == "exit":
            os._exit(7)
        if self.count == 2 and self.how == "raise":
            raise ZeroDivisionError("a bug in the environment")
        if self.count == 2 and self.how == "hang":
            time.sleep(3600)
        return super().step(action)


def walk() -> gymnasium.Env:
    """A function that makes an environment."""
    return Toy(end_after=7)
