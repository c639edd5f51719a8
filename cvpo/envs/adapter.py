"""One environment behind one convention for observations, costs and actions, checked at every step."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from cvpo.envs.source import Source
from cvpo.envs.spaces import ActionDoor, flat_size, vector_of
from cvpo.errors import ConfigError, EnvError

LARGEST = float(np.finfo(np.float32).max)


class Adapter:
    """An environment that is reset by episode number and gives float32 vectors, a reward and M costs.

    Episode ``e`` of environment ``index`` starts from the seed ``SeedSequence([seed, index, e])``, so that it can be
    played again. ``cost_keys`` name the entries of ``info`` that are costs; the Safety-Gymnasium six-tuple's cost is
    ``"cost"``. The actions of the running episode are kept: they are its state.

    Raises EnvError, naming task, environment, episode and step, for a missing cost and for observations, rewards or
    costs that are not finite numbers.
    """

    def __init__(self, source: Source, cost_keys: tuple[str, ...], seed: int, index: int) -> None:
        self.env, self.horizon = source.open()
        self.name, self.owned, self.cost_keys = source.name, source.owned, cost_keys
        self.seed, self.index = seed, index
        self.episode, self.steps = -1, 0
        self.door = ActionDoor(self.env.action_space)
        self.obs_size = flat_size(self.env.observation_space)
        self.actions = np.zeros((self.horizon, self.door.size), dtype=np.float32)
        self.totals = [0.0] * (1 + len(cost_keys))
        self._flatten = functools.partial(vector_of, self.env.observation_space)

    def reset(self, episode: int | None = None) -> np.ndarray:
        """Begin ``episode`` (None: the next); the observation [O]."""
        self.episode = self.episode + 1 if episode is None else episode
        self.steps = 0
        self.totals = [0.0] * len(self.totals)
        result = self.env.reset(seed=episode_seed(self.seed, self.index, self.episode))
        if not isinstance(result, tuple) or len(result) != 2:
            found = type(result).__name__
            raise EnvError(f"{self._where()}: reset returned a {found}; allowed: observation, info, as in Gymnasium")
        return self._vector(result[0])

    def step(self, action: np.ndarray, env_action: Any) -> tuple[np.ndarray, float, list[float], bool, bool]:
        """Take ``env_action``, the environment's form of the policy's ``action`` [D].

        The observation [O], reward, M costs, terminated, truncated.
        """
        if self.episode < 0:
            raise EnvError(f"task {self.name!r}, environment {self.index}: a step before the first reset()")
        if self.steps == self.horizon:
            raise EnvError(f"{self._where()}: the episode went on past its horizon of {self.horizon} steps")
        self.actions[self.steps] = action
        self.steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(env_action)
        except EnvError as error:
            raise EnvError(f"{self._where()}: {error}") from error
        reward = self._number("reward", reward)
        if not isinstance(info, dict):
            raise EnvError(f"{self._where()}: step returned info of type {type(info).__name__}; allowed: a dict")
        try:
            costs = [self._number(key, info[key]) for key in self.cost_keys]
        except KeyError as error:
            raise self._missing(error.args[0], info) from None
        self.totals[0] += reward
        for m, cost in enumerate(costs, 1):
            self.totals[m] += cost
        ends = [self._flag(name, end) for name, end in (("terminated", terminated), ("truncated", truncated))]
        return self._vector(obs), reward, costs, ends[0], ends[1]

    def replay(self, episode: int, actions: np.ndarray) -> np.ndarray:
        """Play ``actions`` [steps,D] from the start of ``episode``; the observation [O] they lead to."""
        obs = self.reset(episode)
        for action, env_action in zip(actions, self.door.to_env(actions), strict=True):
            obs, *_ = self.step(action, env_action)
        return obs

    def render(self) -> np.ndarray:
        """RGB [height,width,3] uint8. Raises EnvError where the environment cannot draw."""
        try:
            frame: Any = self.env.render()
        except EnvError:
            raise
        except Exception as error:  # noqa: BLE001 - drawing fails in as many ways as there are backends
            raise EnvError(f"task {self.name!r} cannot be drawn: {type(error).__name__}: {error}") from error
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise EnvError(f"task {self.name!r} draws no picture; make it with render_mode='rgb_array'")
        return frame

    def close(self) -> None:
        """Close the environment, unless it is the user's own instance."""
        if self.owned:
            self.env.close()

    def _missing(self, key: str, info: dict[str, Any]) -> EnvError:
        found = ", ".join(map(repr, sorted(map(str, info)))) or "none"
        return EnvError(
            f"{self._where()}: there is no cost {key!r} in info (found: {found}); name the entries that are costs, "
            "cost_keys=('...',), or cost_keys=() for a task without costs"
        )

    def _number(self, what: str, value: Any) -> float:
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError("text is no number, also where it reads like one")
            number = float(value)
        except (TypeError, ValueError) as error:
            raise EnvError(f"{self._where()}: {what} is {value!r}; allowed: a finite number") from error
        # What is finite in double precision alone is not where it will be stored.
        if not abs(number) <= LARGEST:
            raise EnvError(f"{self._where()}: {what} is {number}; allowed: a finite number, also in float32")
        return number

    def _vector(self, obs: Any) -> np.ndarray:
        try:
            vector = self._flatten(obs)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise EnvError(f"{self._where()}: the observation is not of the observation space: {error}") from error
        if vector.shape != (self.obs_size,):
            raise EnvError(f"{self._where()}: the observation has {vector.size} numbers; allowed: {self.obs_size}")
        if not np.isfinite(vector).all():
            bad = np.flatnonzero(~np.isfinite(vector))
            raise EnvError(
                f"{self._where()}: the observation is not finite: entry {bad[0]} is {vector[bad[0]]}"
                + (f", and {bad.size - 1} more" if bad.size > 1 else "")
            )
        return vector

    def _flag(self, name: str, value: Any) -> bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        given = np.asarray(value)
        if given.size != 1 or given.item() not in (0, 1):
            raise EnvError(f"{self._where()}: {name} is {value!r}; allowed: one true or false")
        return bool(value)

    def _where(self) -> str:
        return f"task {self.name!r}, environment {self.index}, episode {self.episode}, step {self.steps}"


def episode_seed(seed: int, index: int, episode: int) -> int:
    """The reset seed of an episode: one 32-bit word of ``SeedSequence([seed, index, episode])``."""
    return int(np.random.SeedSequence([seed, index, episode]).generate_state(1)[0])


def check_cost_keys(cost_keys: Any) -> tuple[str, ...]:
    """``cost_keys`` as a tuple; None means ``("cost",)``. Raises ConfigError for anything but distinct names."""
    if cost_keys is None:
        return ("cost",)
    keys = (cost_keys,) if isinstance(cost_keys, str) or not isinstance(cost_keys, Iterable) else tuple(cost_keys)
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise ConfigError(f"cost_keys is {cost_keys!r}; allowed: distinct names of entries of info")
    return keys
