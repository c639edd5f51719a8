"""Several environments stepped together: the interface of Serial and Workers, and what both check and divide alike."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from gymnasium import Space

from cvpo.envs.spaces import ActionDoor
from cvpo.errors import EnvError

#: What training loops go on in, by identity: a wrapper does not hide the instance below it.
_TRAINED: set[int] = set()


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
    _begun: np.ndarray

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

    def parts(self) -> tuple[object, ...]:
        """What nobody else may step or reset while a training loop goes on here: this, and what it steps."""
        return (self,)

    @property
    def trained(self) -> bool:
        """Whether a training loop goes on in any part of it."""
        return any(id(part) in _TRAINED for part in self.parts())

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """A training loop goes on in it meanwhile."""
        added = {id(part) for part in self.parts()} - _TRAINED
        _TRAINED.update(added)
        try:
            yield
        finally:
            _TRAINED.difference_update(added)

    def begin(self, actions: np.ndarray) -> None:
        """Begin :meth:`step`, whose result :meth:`finish` returns. What has processes of its own takes the step in the
        meantime; else it is taken in :meth:`finish`."""
        self._begun = actions

    def finish(self) -> Step:
        """The result of the step that :meth:`begin` began; raises what :meth:`step` raises."""
        return self.step(self._begun)

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
