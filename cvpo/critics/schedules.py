"""Schedules of the cost limits: what training aims at while it is still on its way to the limits themselves.

All in the units of ``limit_kind``, one value for each of the M costs; steps are those of the environments.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Protocol

import attrs
import numpy as np

from cvpo.errors import ConfigError
from cvpo.registry import Registry
from cvpo.validators import number

schedules = Registry(
    "limit schedule",
    {
        "constant": "cvpo.critics.schedules:Constant",
        "linear": "cvpo.critics.schedules:Linear",
        "exponential": "cvpo.critics.schedules:Exponential",
    },
)


class LimitSchedule(Protocol):
    """The limits that hold now, given those that hold in the end."""

    def limits(self, final: tuple[float, ...], step: int) -> tuple[float, ...]:
        """C(step) [M] for ``final`` C [M]; raises ConfigError where the number of costs does not fit."""
        ...


@attrs.frozen
class Constant:
    """``C(t) = C``: the limits hold from the first step on."""

    summary: ClassVar[str] = "the limits hold from the start"

    def limits(self, final: tuple[float, ...], step: int) -> tuple[float, ...]:
        """``final``; see :class:`LimitSchedule`."""
        return final


def _starts(value: Any) -> Any:
    several = value if isinstance(value, (list, tuple, np.ndarray)) else (value,)
    numbers = all(isinstance(each, Real) for each in several)
    return tuple(float(each) for each in several) if numbers else value


def _is_limit(value: Any) -> bool:
    return isinstance(value, float) and 0.0 <= value < float("inf")


def _check_starts(instance: Any, attribute: attrs.Attribute[Any], value: tuple[float, ...]) -> None:
    if not isinstance(value, tuple) or not value or not all(_is_limit(each) for each in value):
        name = type(instance).__name__
        raise ConfigError(f"{name}.start is {value!r}; allowed: finite numbers >= 0, one for each cost")


@attrs.frozen
class Linear:
    """``C(t) = C + (start − C) · max(0, 1 − t/steps)``: straight from ``start`` to the limit, there after ``steps``.

    ``start`` is one number, or one for each cost; above the limit it lets the policy learn the task first, below it is
    careful while the critics are poor.
    """

    start: float | tuple[float, ...] = attrs.field(converter=_starts, validator=_check_starts)
    steps: int = attrs.field(default=100_000, validator=number(ge=1, integer=True))

    summary: ClassVar[str] = "from a start to the limits in a straight line"

    def limits(self, final: tuple[float, ...], step: int) -> tuple[float, ...]:
        """See :class:`LimitSchedule`."""
        return _towards(final, self.start, max(0.0, 1.0 - step / self.steps))


@attrs.frozen
class Exponential:
    """``C(t) = C + (start − C) · 2^(−t/half_life)``: the distance to the limit halves every ``half_life`` steps.

    ``start`` is one number, or one for each cost. A limit of 0 is approached as any other.
    """

    start: float | tuple[float, ...] = attrs.field(converter=_starts, validator=_check_starts)
    half_life: float = attrs.field(default=20_000.0, validator=number(gt=0))

    summary: ClassVar[str] = "from a start to the limits, half of the rest in every half-life"

    def limits(self, final: tuple[float, ...], step: int) -> tuple[float, ...]:
        """See :class:`LimitSchedule`."""
        return _towards(final, self.start, 0.5 ** (step / self.half_life))


def _towards(final: tuple[float, ...], start: Any, share: float) -> tuple[float, ...]:
    """``share`` of the way back from ``final`` to ``start``."""
    if len(start) not in (1, len(final)):
        raise ConfigError(f"start has {len(start)} values; allowed: one, or one for each of {len(final)} costs")
    starts = start * len(final) if len(start) == 1 else start
    return tuple(c + share * (s - c) for c, s in zip(final, starts, strict=True))
