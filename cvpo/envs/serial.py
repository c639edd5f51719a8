"""Environments stepped one after another in this process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvpo.envs.adapter import Adapter
from cvpo.envs.source import Source
from cvpo.envs.vector import Step, VectorEnv, check_actions, split_state
from cvpo.errors import EnvError


class Serial(VectorEnv):
    """Environments stepped one after another in this process, numbered from ``first``."""

    def __init__(self, sources: Sequence[Source], cost_keys: tuple[str, ...], seed: int = 0, first: int = 0) -> None:
        self.num_envs, self.seed, self.cost_names = len(sources), seed, cost_keys
        self._adapters: list[Adapter] = []
        try:
            for index, source in enumerate(sources, first):
                self._adapters.append(Adapter(source, cost_keys, seed, index))
        except BaseException:
            self.close()
            raise
        model = self._adapters[0]
        self.task, self.horizon, self.door, self.obs_size = model.name, model.horizon, model.door, model.obs_size
        self.observation_space, self.action_space = model.env.observation_space, model.env.action_space
        for adapter in self._adapters:
            if (adapter.obs_size, adapter.horizon) != (self.obs_size, self.horizon) or (
                adapter.env.action_space != self.action_space
            ):
                raise EnvError(
                    f"environment {adapter.index} of task {self.task!r} has another space or horizon than the first"
                )
        self._obs = np.full((self.num_envs, self.obs_size), np.nan, dtype=np.float32)

    def parts(self) -> tuple[object, ...]:
        return (self, *(adapter.env.unwrapped for adapter in self._adapters))

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self.seed = seed
        for adapter in self._open():
            adapter.seed = self.seed
        self._obs = np.stack([adapter.reset(None if seed is None else 0) for adapter in self._open()])
        return self._obs.copy()

    def step(self, actions: np.ndarray) -> Step:
        actions = check_actions(actions, self.num_envs, self.action_size)
        count, costs = self.num_envs, len(self.cost_names)
        next_obs = np.empty((count, self.obs_size), dtype=np.float32)
        reward, cost = np.empty(count), np.empty((count, costs))
        terminated, truncated = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        resets: dict[int, np.ndarray] = {}
        for n, (adapter, env_action) in enumerate(zip(self._open(), self.door.to_env(actions), strict=True)):
            next_obs[n], reward[n], cost[n], over, cut = adapter.step(actions[n], env_action)
            if over or cut:
                terminated[n], truncated[n] = over, cut
                resets[n] = adapter.reset()
        obs = next_obs.copy()
        for n, first in resets.items():
            obs[n] = first
        self._obs = obs
        return Step(obs.copy(), next_obs, reward, cost, terminated, truncated)

    def state_dict(self) -> dict[str, np.ndarray]:
        adapters = self._open()
        return {
            "seed": np.array([adapter.seed for adapter in adapters], dtype=np.int64),
            "episode": np.array([adapter.episode for adapter in adapters], dtype=np.int64),
            "steps": np.array([adapter.steps for adapter in adapters], dtype=np.int64),
            "actions": np.concatenate([adapter.actions[: adapter.steps] for adapter in adapters]),
            "obs": self._obs.copy(),
            "totals": np.array([adapter.totals for adapter in adapters]),
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> np.ndarray:
        parts = split_state(state, [1] * self.num_envs)
        for n, (adapter, part) in enumerate(zip(self._open(), parts, strict=True)):
            adapter.seed = self.seed = int(part["seed"][0])
            episode, saved = int(part["episode"][0]), part["obs"][0]
            if episode < 0:
                adapter.episode = episode
                continue
            try:
                obs = adapter.replay(episode, part["actions"])
                same = np.array_equal(obs, saved) and np.array_equal(adapter.totals, part["totals"][0])
                problem = "it does not repeat itself" if not same else ""
            except (EnvError, ValueError) as error:
                problem = f"playing it again fails: {error}"
            if problem:
                message = (
                    f"episode {episode} of environment {adapter.index} of task {self.task!r} cannot be resumed after "
                    f"{len(part['actions'])} steps: {problem}; the environment is not determined by its reset seed "
                    "and the actions"
                )
                if strict:
                    raise EnvError(message)
                warnings.warn(f"{message}; its next episode begins instead", stacklevel=2)
                obs = adapter.reset(episode + 1)
            self._obs[n] = obs
        return self._obs.copy()

    def render_frame(self, index: int = 0) -> np.ndarray:
        return self._open()[index].render()

    def close(self) -> None:
        for adapter in self._adapters:
            adapter.close()
        self._adapters = []

    def _open(self) -> list[Adapter]:
        if not self._adapters:
            raise EnvError(f"the environments of task {self.task!r} are closed")
        return self._adapters
