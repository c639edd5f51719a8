"""Spaces at the environment door: observations become flat vectors, the policy's actions the environment's."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple, utils

from cvpo.errors import EnvError


def flat_size(space: Space[Any]) -> int:
    """O, the size of a flattened observation. Raises EnvError for a space that has no flat vector."""
    try:
        size = int(utils.flatdim(space))
    except (NotImplementedError, ValueError, TypeError, AttributeError) as error:
        raise EnvError(f"observation space {space} is not supported; allowed: one that flattens to a vector") from error
    if not size:
        raise EnvError(f"observation space {space} has no numbers in it; allowed: at least one")
    return size


def vector_of(space: Space[Any], obs: Any) -> np.ndarray:
    """One observation as float32 [O]. Raises what :mod:`gymnasium` raises, and ValueError where that would take what is
    no observation of ``space`` for another one."""
    if isinstance(space, Box):
        # NumPy warns of a tensor that it is to copy.
        values = np.array(np.asarray(obs), dtype=np.float32)
        if values.shape != space.shape:
            # A flat vector, and axes of length 1 more or less, leave the numbers in their places.
            found, wanted = ([size for size in shape if size != 1] for shape in (values.shape, space.shape))
            if found not in (wanted, [np.prod(space.shape)]):
                raise ValueError(f"it has shape {list(values.shape)}; allowed: {list(space.shape)}")
        return values.reshape(-1)
    if isinstance(space, Discrete):
        given = np.asarray(obs)
        if given.size != 1:
            raise ValueError(f"{given.size} numbers for one")
        if not space.start <= given.item() < space.start + space.n:
            raise ValueError(f"it is {given.item()}; allowed: {space.start} to {space.start + space.n - 1}")
    if isinstance(space, Dict):
        return np.concatenate([vector_of(part, obs[name]) for name, part in space.spaces.items()])
    if isinstance(space, Tuple):
        return np.concatenate([vector_of(part, own) for part, own in zip(space.spaces, obs, strict=True)])
    if isinstance(space, MultiDiscrete) and not space.contains(np.asarray(obs)):
        raise ValueError(f"it is {obs!r}; allowed: {space}")
    return np.asarray(utils.flatten(space, obs), dtype=np.float32)


def flatten(space: Space[Any], obs: Any) -> tuple[np.ndarray, bool]:
    """Observations [N,O] float32 from one observation (then True) or, of a Box, a batch of them (then False).

    Raises EnvError for what is no observation of ``space``.
    """
    if isinstance(space, Box) and np.ndim(obs) == len(space.shape) + 1:
        if not len(obs):
            raise EnvError("there are no observations in the batch; allowed: at least one")
        return np.asarray(obs, dtype=np.float32).reshape(len(obs), -1), False
    try:
        flat = vector_of(space, obs)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise EnvError(
            f"the observation {obs!r} does not fit {space} ({error}); allowed: one observation of it, or a batch of "
            "them where it is a Box"
        ) from error
    return flat[None], True


class ActionDoor:
    """``a_env = low + (clip(a, −1, 1) + 1)/2 · (high − low)`` per dimension; for Discrete spaces, argmax of a one-hot.

    ``size`` D is the policy's action size (the number of actions where ``discrete``); ``uniform_log_prob`` that of the
    actions of :meth:`sample`. Raises EnvError for spaces other than a bounded Box or a Discrete.
    """

    def __init__(self, space: Space[Any]) -> None:
        self.space = space
        self.discrete = isinstance(space, Discrete)
        if isinstance(space, Discrete):
            self.size = int(space.n)
            self.start = int(space.start)
            self.uniform_log_prob = -np.log(self.size)
        elif isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise EnvError(f"action space {space} is unbounded; allowed: a Box with finite bounds, or Discrete")
            self.shape = space.shape
            self.size = int(np.prod(space.shape))
            if not self.size:
                raise EnvError(f"action space {space} has no dimension; allowed: at least one")
            self.low = space.low.reshape(-1).astype(np.float64)
            self.uniform_log_prob = -self.size * np.log(2.0)
            self.half = (space.high.reshape(-1).astype(np.float64) - self.low) / 2.0
        else:
            raise EnvError(
                f"action space {space} is not supported; allowed: a Box of floats with finite bounds, or Discrete"
            )

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """The environment's actions for the policy's actions [N,D]."""
        if self.discrete:
            return actions.argmax(-1) + self.start
        scaled = self.low + (np.minimum(np.maximum(actions, -1.0), 1.0) + 1.0) * self.half
        return scaled.reshape(-1, *self.shape).astype(self.space.dtype)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Uniformly random actions of the policy's own scale [count,D]: the warm-up, and the random baseline."""
        if self.discrete:
            return np.eye(self.size, dtype=np.float32)[rng.integers(self.size, size=count)]
        return rng.uniform(-1.0, 1.0, (count, self.size)).astype(np.float32)
