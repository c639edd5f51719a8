"""Several environments stepped together: the common interface, and the one that runs them in this process."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from gymnasium import Space

from cvpo.envs.adapter import Adapter
from cvpo.envs.source import Source
from cvpo.envs.spaces import ActionDoor
from cvpo.errors import EnvError


@attrs.frozen
class Step:
    """One step of N environments.

    ``next_obs`` [N,O] float32 is the observation that ended the step; ``obs`` [N,O] the one to act on, which is that
    of a reset where the episode is over. ``reward`` [N], ``cost`` [N,M] float64; ``terminated``, ``truncated`` [N].
    """

    obs: np.ndarray
    next_obs: np.ndarray
    reward: np.ndarray
    cost: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class VectorEnv(abc.ABC):
    """N environments of one task. Actions are the policy's own, [N,D] in [−1, 1] (one-hot where ``discrete``).

    ``observation_space`` and ``action_space`` are the environment's; ``obs_size`` O, ``action_size`` D, ``door`` maps
    actions between the two. ``cost_names`` [M]. ``horizon`` is the greatest episode length in steps.
    """

    task: str
    num_envs: int
    seed: int
    horizon: int
    cost_names: tuple[str, ...]
    observation_space: Space[Any]
    action_space: Space[Any]
    obs_size: int
    door: ActionDoor

    @property
    def action_size(self) -> int:
        return self.door.size

    @property
    def discrete(self) -> bool:
        return self.door.discrete

    @abc.abstractmethod
    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin the next episode everywhere; with ``seed``, episode 0 of that seed. Observations [N,O]."""

    @abc.abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Take one step everywhere; environments whose episode ends begin the next. Raises EnvError."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, np.ndarray]:
        """What the episodes in progress are determined by: their numbers, and the actions taken since their seeded
        resets. Plain arrays; may be taken at any moment between steps."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> np.ndarray:
        """Play the episodes of ``state`` again, up to where they were; the observations [N,O] there.

        The result is compared bit for bit with the saved one. Where an environment does not repeat itself, EnvError;
        with ``strict=False`` a warning, and that environment begins its next episode.
        """

    @abc.abstractmethod
    def render_frame(self, index: int = 0) -> np.ndarray:
        """A picture of environment ``index``, RGB [height,width,3] uint8. Raises EnvError where it cannot draw."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what was made here, not what was passed in; may be repeated."""

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def check_actions(actions: Any, num_envs: int, size: int) -> np.ndarray:
    """Actions [N,D] as float32. Raises EnvError for another shape or values that are not finite."""
    actions = np.asarray(actions, dtype=np.float32)
    if actions.shape != (num_envs, size):
        raise EnvError(f"actions have shape {list(actions.shape)}; allowed: [{num_envs}, {size}], one row for each env")
    if not np.isfinite(actions).all():
        raise EnvError(f"actions of environment {np.flatnonzero(~np.isfinite(actions).all(1))[0]} are not finite")
    return actions


def split_state(state: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The state of consecutive groups of environments. Raises EnvError where it is of another number of them."""
    names = ("seed", "episode", "steps", "actions", "obs", "totals")
    if any(name not in state for name in names):
        raise EnvError(f"the state has the entries {sorted(state)}; allowed: {', '.join(names)}")
    arrays = {name: np.asarray(state[name]) for name in names}
    if len(arrays["steps"]) != sum(sizes):
        raise EnvError(f"the state is of {len(arrays['steps'])} environments; there are {sum(sizes)}")
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.concatenate([[0], np.cumsum(arrays["steps"])])
    parts = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        part = {name: array[low:high] for name, array in arrays.items() if name != "actions"}
        parts.append({**part, "actions": arrays["actions"][rows[low] : rows[high]]})
    return parts
