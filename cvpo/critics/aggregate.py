"""Aggregation of an ensemble, per signal: pessimism for reward and for cost point in opposite directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.errors import ConfigError, suggest

Aggregate = Callable[[Tensor], Tensor]


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

    def aggregate(values: Tensor) -> Tensor:
        std, centre = torch.std_mean(values, dim=-3, correction=0)
        return centre + factor * std

    return aggregate


def resolve(spec: str | Aggregate) -> Aggregate:
    """An aggregation from ``"min"``, ``"max"``, ``"mean"``, ``"ucb"`` or ``"ucb:FACTOR"``; a callable is itself."""
    if callable(spec):
        return spec
    name, _, factor = spec.partition(":")
    named = {"min": minimum, "max": maximum, "mean": mean}
    if name in named and not factor:
        return named[name]
    if name == "ucb":
        try:
            number = float(factor or 1.0)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"aggregation {spec!r}: {factor!r} is not a finite number; allowed: ucb:FACTOR")
        return upper_confidence_bound(number)
    raise ConfigError(f"unknown aggregation {spec!r}; {suggest(name, [*named, 'ucb'])}, or a callable")


def check_aggregation(instance: Any, attribute: attrs.Attribute[Any], value: str | Aggregate) -> None:
    """Validator for what :func:`resolve` takes."""
    resolve(value)


def by_signal(members: tuple[Tensor, Tensor], reward: Aggregate, cost: Aggregate) -> Tensor:
    """``reward`` over the members of the reward [...,1,E,B,K], ``cost`` over those of the costs [...,M,E,B,K]: together
    [...,S,B,K]."""
    first, others = members
    return reward(first) if others.shape[-4] == 0 else torch.cat([reward(first), cost(others)], dim=-3)


def each_signal(members: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The members of every signal, [...,E,B,K], of those of the reward [...,1,E,B,K] and of the costs [...,M,E,B,K]."""
    first, others = members
    return (first.squeeze(-4), *others.unbind(-4))
