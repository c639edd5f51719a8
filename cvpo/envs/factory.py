"""One way to make environments for everybody: names, functions and instances become a VectorEnv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from cvpo.envs.adapter import check_cost_keys
from cvpo.envs.serial import Serial
from cvpo.envs.source import Source, Task
from cvpo.envs.vector import VectorEnv
from cvpo.envs.workers import Workers
from cvpo.errors import ConfigError


def make(
    task: Task | Sequence[gymnasium.Env],
    num_envs: int = 1,
    *,
    seed: int = 0,
    workers: int = 0,
    cost_keys: Sequence[str] | None = None,
    horizon: int | None = None,
    **options: Any,
) -> VectorEnv:
    """``num_envs`` environments of ``task``, in this process or divided among ``workers`` processes.

    ``task``: a Gymnasium id (``"cvpo/Sprint-v0"``, ``"SafetyPointGoal1-v0"``, ``"my_package:Mine-v0"``), a function
    that returns a ``gymnasium.Env`` (called once for each), or one or several instances, which stay yours to close.
    ``cost_keys``: the entries of ``info`` that are costs, in order; None means ``info["cost"]`` or the cost of the
    Safety-Gymnasium six-tuple, ``()`` a task without costs. ``horizon``: episode length in steps, where the task's
    own is missing or too long. Episode e of environment n is reset with a seed drawn from ``(seed, n, e)``.
    ``options`` go to the task's constructor (``render_mode="rgb_array"``, ...).

    Raises ConfigError for an unknown task or a value not allowed, DependencyError for a missing package, EnvError for
    a space that is not supported and for a missing horizon.
    """
    for name, value, least in (("num_envs", num_envs, 1), ("seed", seed, 0), ("workers", workers, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(f"{name} is {value!r}; allowed: an integer >= {least}")
    keys = check_cost_keys(cost_keys)
    tasks: list[Any] = list(task) if isinstance(task, (list, tuple)) else [task] * num_envs
    sources = [Source(each, horizon, options) for each in tasks]
    num_envs = len(sources)
    for source in sources:
        if isinstance(source.task, gymnasium.vector.VectorEnv):
            raise ConfigError(
                f"task is a {type(source.task).__name__}, which is many at once; allowed: make(task, num_envs=...), or "
                "a list of single gymnasium.Env"
            )
        if not (isinstance(source.task, (str, gymnasium.Env)) or callable(source.task)):
            raise ConfigError(
                f"task is a {type(source.task).__name__}; allowed: a name, a function that returns a gymnasium.Env, or "
                "one or several gymnasium.Env"
            )
    if not sources or (not sources[0].owned and len({id(source.task) for source in sources}) < num_envs):
        raise ConfigError(f"num_envs is {num_envs}, which needs as many environments; pass a function that makes them")
    if workers > num_envs:
        raise ConfigError(f"workers is {workers}; allowed: 0 (in this process) to num_envs, which is {num_envs}")
    return Workers(sources, keys, seed, workers) if workers else Serial(sources, keys, seed)


def as_vector(env: Any, *, seed: int = 0, costs: int | None = None, horizon: int | None = None) -> VectorEnv:
    """``env`` itself where it is a VectorEnv, else :func:`make` of one or several instances.

    ``costs`` M, where it is known: 0 reads no cost, 1 is ``info["cost"]``; several need their names, by
    :func:`make`. ``horizon`` as for :func:`make`. Raises ConfigError.
    """
    if isinstance(env, VectorEnv):
        return env
    if costs is not None and costs > 1:
        raise ConfigError(f"the {costs} costs of an environment need names; pass cvpo.envs.make(env, cost_keys=(...))")
    return make(env, seed=seed, cost_keys=() if costs == 0 else None, horizon=horizon)
