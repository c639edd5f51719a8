"""Where an environment comes from: a registered name, a function, or the user's own instance."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from cvpo.envs.builtin import register
from cvpo.envs.compat import array_defaults
from cvpo.envs.conventions import FiveTuple, adapt, making
from cvpo.envs.packages import package_of
from cvpo.errors import ConfigError, EnvError

Task = str | Callable[..., gymnasium.Env] | gymnasium.Env


@attrs.frozen
class Source:
    """``task`` (a Gymnasium id, also ``"module:id"``; a function that returns a ``gymnasium.Env``; or an instance),
    ``horizon`` in steps (None: the task's own), and ``options`` for the constructor."""

    task: Task
    horizon: int | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def owned(self) -> bool:
        """Whether :meth:`open` makes the environment, and closing it is therefore ours."""
        return not isinstance(self.task, gymnasium.Env)

    @property
    def name(self) -> str:
        """The task in messages."""
        if isinstance(self.task, str):
            return self.task
        if isinstance(self.task, gymnasium.Env):
            return self.task.spec.id if self.task.spec is not None else type(self.task.unwrapped).__name__
        return getattr(self.task, "__name__", repr(self.task))

    def open(self) -> tuple[gymnasium.Env, int]:
        """The environment, stepping with five-tuples, and its horizon.

        Raises ConfigError for an unknown task or option, DependencyError for a missing package, EnvError where no
        horizon is known.
        """
        if isinstance(self.task, str):
            return self._registered(self.task)
        if isinstance(self.task, gymnasium.Env):
            if self.options:
                raise ConfigError(f"options {sorted(self.options)} cannot reach an environment that exists already")
            env = self.task
        else:
            env = self.task(**self.options)
            if not isinstance(env, gymnasium.Env):
                raise EnvError(f"task {self.name!r} returned a {type(env).__name__}; allowed: a gymnasium.Env")
        own = env.spec.max_episode_steps if env.spec is not None else None
        if self.horizon is not None and own is not None and self.horizon > own:
            raise EnvError(f"horizon is {self.horizon}, but {self.name!r} ends its episodes after {own} steps")
        horizon = self._require(own if self.horizon is None else self.horizon)
        return _limited(adapt(env, owned=self.owned), horizon if horizon != own else None), horizon

    def _registered(self, task: str) -> tuple[gymnasium.Env, int]:
        spec = copy.deepcopy(find_spec(task))
        horizon = self._require(spec.max_episode_steps if self.horizon is None else self.horizon)
        # Gymnasium's wrappers take five-tuples only, so they go outside ours; the adapter itself checks and orders.
        spec.max_episode_steps = None
        spec.order_enforce = False
        if "max_episode_steps" in self.options:
            raise ConfigError("max_episode_steps is called horizon here; pass horizon=<steps>")
        try:
            with making(str(spec.entry_point).partition(".")[0]):
                env = gymnasium.make(spec, disable_env_checker=True, **self.options)
        except Exception as error:  # noqa: BLE001 - whatever a constructor raises is about this task and its options
            options = f" with {dict(self.options)}" if self.options else ""
            raise ConfigError(f"task {task!r} cannot be made{options}: {type(error).__name__}: {error}") from error
        return _limited(adapt(env, horizon), horizon), horizon

    def _require(self, horizon: int | None) -> int:
        if horizon is None:
            raise EnvError(
                f"task {self.name!r} has no horizon: its spec has no max_episode_steps; give one in steps, horizon=T"
            )
        if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
            raise ConfigError(f"horizon is {horizon!r}; allowed: a positive number of steps")
        return int(horizon)


def _limited(env: gymnasium.Env, horizon: int | None) -> gymnasium.Env:
    return FiveTuple(env) if horizon is None else TimeLimit(FiveTuple(env), horizon)


def find_spec(task: str) -> Any:
    """The Gymnasium spec of ``task``, importing the package that registers it. Raises ConfigError, DependencyError."""
    module, _, name = task.rpartition(":")
    if module:
        try:
            with array_defaults(module):
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - whatever the user's module raises
            raise ConfigError(
                f"task {task!r}: {module!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    register()
    registry = gymnasium.registry
    if name not in registry:
        package = package_of(name)
        if package is not None:
            package.load(name)
    if name not in registry:
        close = difflib.get_close_matches(name, registry, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ConfigError(f"unknown task {name!r}; {hint}tasks of other packages are written 'package:name-v0'")
    return registry[name]
