"""Where a Newton iteration stands: the dual at one point, its errors, and the numbers that bound it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from cvpo.estep import dual
from cvpo.estep.lanes import Lanes, Matrix, Number, Vector
from cvpo.estep.passes import Pass
from cvpo.estep.task import INFEASIBLE_BELOW, Task, floors
from cvpo.estep.units import Units


class Frame(NamedTuple):
    """The numbers of a :class:`Task` by components; ``main``: not the least violation."""

    lower: Vector
    upper: Vector
    units: Vector
    size: Vector
    limit: Vector
    epsilon: Number
    slope: Number
    lift: Number
    bound: Number
    active: Number
    main: Number


class Point(NamedTuple):
    """A point, the dual there, and how far from the optimum it is.

    ``error``: the largest residual as graded. ``residual``: the largest |d_m − E Q_c,m| that moving λ by up to η,
    the width of the dual's kinks, can act on. ``spread``: how far λ is from its optimum at this η, in units of η.
    ``fixed``: the coordinates at a bound that the descent pushes against. ``weights`` [1,B,K] there, for one problem.
    """

    x: Vector
    value: Number
    gradient: Vector
    hessian: Matrix
    fixed: Vector
    error: Number
    residual: Number
    spread: Number
    weights: Any


def frame(lanes: Lanes, task: Task) -> Frame:
    """The frame of ``task``."""
    split = lanes.split
    return Frame(
        lower=split(task.lower),
        upper=split(task.upper),
        units=split(task.units),
        size=split(task.size),
        limit=split(task.limit),
        epsilon=split(task.epsilon),
        slope=split(task.slope),
        lift=split(task.lift),
        bound=split(task.bound),
        active=split(task.active),
        main=split(task.bound > -float("inf")),
    )


def main_frame(found: Units) -> Frame:
    """The frame of :func:`cvpo.estep.task.main_task`, from the units of the problem."""
    least, slope, lift = floors(found.graded[0], found.epsilon)
    return Frame(
        lower=(least, *(0.0 for _ in found.limit)),
        upper=tuple(math.inf for _ in found.unit),
        units=found.graded,
        size=found.size,
        limit=found.limit,
        epsilon=found.epsilon,
        slope=slope,
        lift=lift,
        bound=INFEASIBLE_BELOW,
        active=found.finite,
        main=True,
    )


def point_at(lanes: Lanes, data: Pass, frame: Frame, x: Vector, wanted: Number = True) -> Point:
    """The dual at ``x`` and its distances from the optimum, where they are ``wanted``: one pass over the data."""
    found = dual.evaluate_in(lanes, data, frame.limit, frame.epsilon, x, lanes.keeps_weights, wanted)
    value, gradient, hessian, weights = found
    where = lanes.where
    zero = 0.0 * x[0]
    fixed, product, excess, residual = [], zero, zero, zero
    for i, (slope, here) in enumerate(zip(gradient, x, strict=True)):
        lower = frame.lower[i] if i else floor(lanes, frame, x)
        uphill = slope > 0
        room = where(uphill, here - lower, frame.upper[i] - here)
        fixed.append(room <= 0)
        size = abs(slope)
        if i:
            # In the least-violation form λ may yet rise to its bound; else an excess is an error of its own.
            weight = where(uphill | frame.main, where(room > 0, here, 0.0), room)
            alone = where(uphill | (frame.main ^ True), 0.0, size / frame.units[i])
            residual = lanes.maximum(residual, size * lanes.at_most(room / x[0], 1.0))
        else:
            weight = where(room > 0, here, 0.0)
            alone = where(uphill, 0.0, size / frame.epsilon)
        product = product + size * weight
        excess = lanes.maximum(excess, alone)
    return Point(
        x=x,
        value=value,
        gradient=gradient,
        hessian=hessian,
        fixed=tuple(fixed),
        error=lanes.maximum(product / frame.units[0], excess),
        residual=residual,
        spread=_spread(lanes, frame, x, gradient, hessian, tuple(fixed)),
        weights=weights,
    )


def floor(lanes: Lanes, frame: Frame, x: Vector) -> Number:
    """The least η at ``x``; as :func:`cvpo.estep.task.bottom`."""
    total = 0.0 * x[0]
    for lam, size in zip(x[1:], frame.size[1:], strict=True):
        total = total + lam * size
    return lanes.maximum(frame.lower[0], lanes.minimum(frame.slope * total, frame.lift))


def ridged(matrix: Matrix, ridge: Number) -> Matrix:
    """``matrix`` with ``ridge`` added to its diagonal."""
    return tuple([(*row[:i], row[i] + ridge, *row[i + 1 :]) for i, row in enumerate(matrix)])


def clip(lanes: Lanes, value: Number, low: Number, high: Number) -> Number:
    """``value`` between ``low`` and ``high``."""
    return lanes.minimum(lanes.maximum(value, low), high)


def pick(lanes: Lanes, condition: Number, yes: Point, no: Point) -> Point:
    """``yes`` where the condition holds, else ``no``."""
    return Point._make(lanes.choose(condition, yes, no))


def _spread(lanes: Lanes, frame: Frame, x: Vector, gradient: Vector, hessian: Matrix, fixed: Vector) -> Number:
    """Σ_m |y_m|/η of the Newton move y of λ at this η; an error beyond rounding counts even where the Hessian is 0."""
    total = 0.0 * x[0]
    if len(x) == 1:
        return total
    move = lanes.solve(
        ridged(hessian, 1e-10 / x[0]),
        tuple([-slope for slope in gradient]),
        (fixed[0] | True, *fixed[1:]),
        tuple([0.0 * at for at in x]),
    )
    for at, by, low, high in zip(x[1:], move[1:], frame.lower[1:], frame.upper[1:], strict=True):
        total = total + abs(clip(lanes, at + by, low, high) - at)
    return total / x[0]
