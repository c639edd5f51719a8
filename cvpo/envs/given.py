"""What is read off an environment that is given with an agent: one, or several in a list."""

from __future__ import annotations

from typing import Any

from cvpo.envs.vector import VectorEnv
from cvpo.errors import ConfigError


def horizon_of(env: Any) -> int | None:
    """The episode length of an environment, or of the first of several, if it says so."""
    first = env[0] if isinstance(env, (list, tuple)) and env else env
    if isinstance(first, VectorEnv):
        return first.horizon
    return getattr(getattr(first, "spec", None), "max_episode_steps", None)


def count_of(env: Any) -> int:
    """How many environments it is; where there is none, one is to come."""
    if isinstance(env, (list, tuple)):
        return sum(map(count_of, env))
    return env.num_envs if isinstance(env, VectorEnv) else 1


def share_of(env: Any, members: int) -> int:
    """How many of the environments feed each of so many members. Raises ConfigError where they are not as many."""
    if env is None:
        return 1
    counts = list(map(count_of, env)) if isinstance(env, (list, tuple)) else [count_of(env)]
    if len(set(counts)) != 1 or sum(counts) % members:
        raise ConfigError(f"env is {counts} environments for {members} seeds; allowed: as many for each")
    return sum(counts) // members
