"""The units of a normalised problem, from a few numbers of it: arithmetic on the host, or on a device for many."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cvpo.estep.lanes import Lanes, Number, Vector


class Units(NamedTuple):
    """By components: the units, and ranges, limits and ε in them; see :class:`cvpo.estep.scaling.Scaled`."""

    unit: Vector
    graded: Vector
    size: Vector
    limit: Vector
    epsilon: Number
    finite: Number


def units(lanes: Lanes, costs: int, numbers: Vector) -> Units:
    """The second half of :func:`cvpo.estep.scaling.scale`, from the numbers of :class:`cvpo.estep.scaling.Shifted`;
    where one is not finite, placeholders."""
    where = lanes.where
    epsilon, most = numbers[-2:]
    finite = epsilon > 0
    for number in numbers:
        finite = finite & (abs(number) < torch.inf)
    # Problems that are not finite keep units that can be divided by.
    width = tuple(where(finite, number, 0.0) for number in numbers[: 1 + costs])
    limit, shift = numbers[1 + costs : 1 + 2 * costs], numbers[1 + 2 * costs : 1 + 3 * costs]
    unit = [lanes.power_of_two(number) for number in width]
    # A constant cost has no scale of its own; it takes that of the others, so that violations stay comparable; where
    # all are constant, they take that of the largest of them.
    largest = 0.0 * width[0]
    for number, own in zip(width[1:], unit[1:], strict=True):
        largest = lanes.maximum(largest, where(number > 0, own, 0.0))
    level = 0.0 * width[0]
    for number in shift:
        level = lanes.maximum(level, where(finite, number, 0.0))
    largest = where(largest > 0, largest, lanes.power_of_two(level))
    unit[1:] = [where(number > 0, own, largest) for number, own in zip(width[1:], unit[1:], strict=True)]
    # A constant cost right on its limit: no λ could mend the rounding of the difference, or an excess too small to see.
    exact = tuple(
        where((number == 0) & (abs(bound) <= 3e-11 * by), 0.0, bound)
        for number, bound, by in zip(width[1:], limit, shift, strict=True)
    )
    return Units(
        unit=tuple(unit),
        graded=tuple(where(number > 0, number, 1.0) / by for number, by in zip(width, unit, strict=True)),
        size=tuple(number / by for number, by in zip(width, unit, strict=True)),
        limit=tuple(bound / by for bound, by in zip(exact, unit[1:], strict=True)),
        epsilon=where(finite, lanes.minimum(epsilon, most), 1.0),
        finite=finite,
    )


def in_units(q: Tensor, unit: Tensor) -> Tensor:
    """``q`` [P,S,B,K] in units [P,S], in place; as exact as a division by powers of two, and quicker."""
    return q.mul_(unit.reciprocal().unsqueeze(2).unsqueeze(3))
