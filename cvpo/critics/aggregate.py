"""Size and aggregation of an ensemble, per signal: pessimism for reward and for cost point in opposite directions."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.errors import ConfigError, suggest
from cvpo.handover import require_tensor
from cvpo.validators import number

Aggregate = Callable[[Tensor], Tensor]
CostAggregate = str | Aggregate | tuple[str | Aggregate, ...]
"""One for all costs, or a tuple with one for each."""


def minimum(values: Tensor) -> Tensor:
    """``min_e Q_e``: [...,E,B,K] to [...,B,K]; pessimistic for a reward (clipped double Q, TD3)."""
    return values.amin(-3)


def maximum(values: Tensor) -> Tensor:
    """``max_e Q_e``: [...,E,B,K] to [...,B,K]; pessimistic for a cost."""
    return values.amax(-3)


def mean(values: Tensor) -> Tensor:
    """``mean_e Q_e``: [...,E,B,K] to [...,B,K]."""
    return values.mean(-3)


def upper_confidence_bound(factor: float) -> Aggregate:
    """``mean_e Q_e + factor · std_e Q_e`` (population standard deviation): [...,E,B,K] to [...,B,K]."""
    return functools.partial(_upper_confidence_bound, factor)


def _upper_confidence_bound(factor: float, values: Tensor) -> Tensor:
    std, centre = torch.std_mean(values, dim=-3, correction=0)
    return centre + factor * std


def resolve(spec: Any) -> Any:
    """An aggregation from ``"min"``, ``"max"``, ``"mean"``, ``"ucb"`` or ``"ucb:FACTOR"``; a callable is itself, and a
    tuple has one for each cost."""
    if callable(spec):
        return spec
    if isinstance(spec, tuple):
        return tuple(map(resolve, spec))
    if not isinstance(spec, str):
        raise ConfigError(f"aggregation is {spec!r}; allowed: min, max, mean, ucb, ucb:FACTOR, or a callable")
    name, _, factor = spec.partition(":")
    named = {"min": minimum, "max": maximum, "mean": mean}
    if name in named and not factor:
        return named[name]
    if name == "ucb":
        try:
            number = float(factor or 1.0)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise ConfigError(f"aggregation {spec!r}: FACTOR is {factor!r}; allowed: ucb:FACTOR, a finite number >= 0")
        return upper_confidence_bound(number)
    raise ConfigError(f"unknown aggregation {spec!r}; {suggest(name, [*named, 'ucb'])}, or a callable")


def check_count(spec: Any, signals: int) -> None:
    """Raises ConfigError where ``spec`` has not one aggregation for each cost."""
    if isinstance(spec, tuple) and len(spec) != signals - 1:
        raise ConfigError(f"cost has {len(spec)} aggregations; allowed: one for all, or one for each of {signals - 1}")


def sizes_of(members: int, cost_members: int | tuple[int, ...] | None, signals: int) -> tuple[int, ...]:
    """E of every signal. Raises ConfigError where ``cost_members`` has not one number for each cost."""
    if not isinstance(cost_members, tuple):
        return members, *[cost_members or members] * (signals - 1)
    if len(cost_members) != signals - 1:
        found = f"cost_members has {len(cost_members)} numbers"
        raise ConfigError(f"{found}; allowed: one for all, or one for each of {signals - 1}")
    return members, *cost_members


_positive = number(ge=1, integer=True, optional=True)


def check_members(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator for what :func:`sizes_of` takes."""
    for each in value if isinstance(value, tuple) else (value,):
        _positive(instance, attribute, each)


def check_aggregation(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator for what :func:`resolve` takes."""
    with _naming(instance, attribute):
        resolve(value)


def check_single(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validator for what :func:`resolve` takes, but for a tuple: there is one reward."""
    if isinstance(value, tuple):
        name = f"{type(instance).__name__}.{attribute.alias}"
        raise ConfigError(f"{name} is {value!r}; allowed: min, max, mean, ucb, ucb:FACTOR, or a callable")
    check_aggregation(instance, attribute, value)


@contextlib.contextmanager
def _naming(instance: Any, attribute: attrs.Attribute[Any]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{type(instance).__name__}.{attribute.alias}: {error}") from None


def by_signal(members: Sequence[Tensor], reward: Aggregate, cost: Aggregate | tuple[Aggregate, ...]) -> Tensor:
    """``reward`` over the members of the first signal [...,E,B,K], ``cost`` over those of each other: [...,S,B,K]."""
    costs = cost if isinstance(cost, tuple) else (cost,) * (len(members) - 1)
    found = []
    for aggregate, values in zip((reward, *costs), members, strict=True):
        found.append(aggregate(values))
        shape = (*values.shape[:-3], *values.shape[-2:])
        name = getattr(aggregate, "__name__", aggregate)
        require_tensor(f"what aggregation {name!r} gives for {list(values.shape)}", found[-1], shape)
    return torch.stack(found, dim=-3)
