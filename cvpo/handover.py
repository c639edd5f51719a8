"""What agent, parts and environments hand to one another: said in words before arithmetic broadcasts over it.

What passes between parts in an update is looked at by shape and dtype alone: values would wait for a device.

Shape legend: ``B`` transitions, ``S`` signals, ``O`` observation size, ``D`` action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cvpo.errors import ConfigError, EnvError
from cvpo.types import Spec, Transition


def require_tensor(what: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Raises ConfigError unless ``value`` is a tensor of ``shape``, and of ``dtype`` where one is given."""
    if not isinstance(value, torch.Tensor):
        raise ConfigError(f"{what} is a {type(value).__name__}; allowed: a tensor of shape {list(shape)}")
    if value.shape != shape:
        raise ConfigError(f"{what} has shape {list(value.shape)}; allowed: {list(shape)}")
    if dtype is not None and value.dtype != dtype:
        raise ConfigError(f"{what} is {value.dtype}; allowed: {dtype}")


def require_pair(what: str, value: Any) -> tuple[Any, Any]:
    """``value``. Raises ConfigError unless it is a tuple of two."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise ConfigError(f"{what} is a {type(value).__name__}; allowed: a tuple of the two")
    return value


def require_methods(what: str, value: Any, methods: Iterable[str]) -> Any:
    """``value``. Raises ConfigError unless it has these methods."""
    missing = [name for name in methods if not callable(getattr(value, name, None))]
    if missing:
        raise ConfigError(
            f"{what} is a {type(value).__name__}, which has no {' and no '.join(missing)}; allowed: one that has"
        )
    return value


def require_network(what: str, value: Any) -> nn.Module:
    """``value``. Raises ConfigError unless it is a network."""
    if not isinstance(value, nn.Module):
        raise ConfigError(f"{what} is a {type(value).__name__}; allowed: a torch.nn.Module")
    return value


def require_members(obs: torch.Tensor, population: int) -> None:
    """Raises ConfigError unless ``obs`` has an axis of the ``population`` before those of states and values."""
    if population > 1 and (obs.ndim < 3 or obs.shape[0] != population):
        raise ConfigError(
            f"obs has shape {list(obs.shape)}; allowed: [{population}, ..., B, O], of each member its own"
        )


def as_rows(obs: Any, size: int, device: torch.device | None = None) -> torch.Tensor:
    """``obs`` as float32 [N,O] on ``device``, or where it is. Raises ConfigError for what is not N rows of ``size``."""
    try:
        rows = torch.as_tensor(obs, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"obs is {obs!r}: {error}; allowed: numbers [N, {size}]") from error
    if rows.ndim != 2 or rows.shape[-1] != size or not len(rows):
        raise ConfigError(f"obs has shape {list(rows.shape)}; allowed: [N, {size}], one row at least")
    return rows if device is None else rows.to(device)


def finite_rows(obs: Any, size: int, device: torch.device) -> torch.Tensor:
    """:func:`as_rows` on ``device``. Raises EnvError for values that are not finite."""
    rows = as_rows(obs, size)
    # Where it is on the host: a look at a device would wait for it.
    if rows.device.type == "cpu" and not bool(rows.isfinite().all()):
        raise EnvError(f"obs has non-finite values: {rows.tolist()}; allowed: finite values")
    return rows.to(device)


def check_step(transition: Any, spec: Spec, num_envs: int, step: int, *, discrete: bool) -> None:
    """Raises ConfigError for what is no Transition, and EnvError for one that is not of ``num_envs`` environments, or
    see :func:`check_values`."""
    if not isinstance(transition, Transition):
        raise ConfigError(f"transition is a {type(transition).__name__}; allowed: a cvpo.Transition")
    transition.check(spec, num_envs)
    check_values(transition, step, discrete=discrete)


def check_spaces(agent: Any, env: Any) -> None:
    """Raises ConfigError where the observations' size or the actions of agent and environment differ."""
    for what, ours, theirs in (
        ("observation size", agent.spec.obs_size, env.obs_size),
        # Of one size, they may differ in bounds, and the same action would do another thing.
        ("the action space", agent.door.space, env.action_space),
    ):
        if ours != theirs:
            raise ConfigError(f"the agent was made for {what} {ours}, the environment {env.task} has {theirs}")


def check_values(transition: Transition, step: int, *, discrete: bool) -> None:
    """Raises EnvError for values of a step that are not finite, and for discrete actions that are not one-hot."""
    for name in ("obs", "action", "signals", "next_obs"):
        # As replay will hold it: what is finite in float64 may not be.
        value = getattr(transition, name).float()
        # The sum is quick, and where it is not finite the values may be.
        if not math.isfinite(value.sum().item()) and not bool(value.isfinite().all()):
            raise EnvError(f"transition.{name} has a non-finite value at step {step}; allowed: finite values")
    action = transition.action
    if discrete and not bool(((action == 1).sum(-1) == 1).all() and ((action != 0).sum(-1) == 1).all()):
        raise EnvError(f"transition.action is {action.tolist()}; allowed: a 1 in each row, and else 0, as act gives")


def check_batch(batch: Any, spec: Spec, size: int) -> None:
    """Raises ConfigError unless ``batch`` is what a buffer promises to a sample of ``size``."""
    values, flags = torch.float32, torch.bool
    for name, shape, dtype in (
        ("obs", (size, spec.obs_size), values),
        ("action", (size, spec.action_size), values),
        ("signals", (spec.signals, size), values),
        ("next_obs", (size, spec.obs_size), values),
        ("terminated", (size,), flags),
        ("discount", (size,), values),
        ("weight", (size,), values),
    ):
        require_tensor(f"{name} of the buffer's sample", getattr(batch, name, None), shape, dtype)
