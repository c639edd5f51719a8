"""One damped, projected Newton step on the dual, for one problem in numbers or for a stack in tensors.

Vectors are tuples of components, (η, λ_1 … λ_M); see :mod:`cvpo.estep.lanes`. Nothing here waits for the device, so
:func:`step` with tensors can be compiled and captured.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cvpo.estep import dual
from cvpo.estep.lanes import Lanes, Matrix, Number, Vector, largest
from cvpo.estep.task import Task

GROW, FIRST_STRIDE, LEAST_STRIDE, MOST_STRIDE = 10.0, 10.0, 1.2, 1e4
LEAST_DAMPING, REJECTED_DAMPING, MOST_DAMPING = 1e-16, 1e-6, 1e8
CENTRED, LOST = 0.5, 10.0
"""λ within half a kink of its optimum at this η may follow a falling η; ten kinks away the Hessian is blind to it."""
NOISE = 1e-14
"""Relative change of g below which g cannot tell two points apart."""


class Frame(NamedTuple):
    """The numbers of a :class:`Task` by components: bounds, units, sizes, ε, |d|, and whether it is the main form."""

    lower: Vector
    upper: Vector
    units: Vector
    size: Vector
    limit: Vector
    epsilon: Number
    slope: Number
    lift: Number
    bound: Number
    main: Number


class Point(NamedTuple):
    """A point, the dual there, and how far from the optimum it is.

    ``error``: the largest residual as graded. ``residual``: the largest |d_m − E Q_c,m| that moving λ by up to η,
    the width of the dual's kinks, can act on. ``spread``: how far λ is from its optimum at this η, in units of η.
    ``fixed``: the coordinates at a bound that the descent pushes against.
    """

    x: Vector
    value: Number
    gradient: Vector
    hessian: Matrix
    fixed: Vector
    error: Number
    residual: Number
    spread: Number


class State(NamedTuple):
    """Iterations under way: see :func:`step` for ``damping`` and ``stride``."""

    point: Point
    damping: Number
    stride: Number
    done: Number
    iterations: Number


def frame(lanes: Lanes, task: Task) -> Frame:
    """The frame of ``task``."""
    split = lanes.split
    return Frame(
        lower=split(task.lower),
        upper=split(task.upper),
        units=split(task.units),
        size=split(task.size),
        limit=split(task.limit.abs()),
        epsilon=split(task.epsilon),
        slope=split(task.slope),
        lift=split(task.lift),
        bound=split(task.bound),
        main=split(task.bound > -float("inf")),
    )


def point_at(lanes: Lanes, task: Task, frame: Frame, x: Vector) -> Point:
    """The dual at ``x`` and its distances from the optimum: one pass over the data."""
    at = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, lanes.join(x, task.q))
    value, gradient, hessian = lanes.split(at.value), lanes.split(at.gradient), lanes.split(at.hessian)
    where, maximum, minimum = lanes.where, lanes.maximum, lanes.minimum
    lower = (floor(lanes, frame, x), *frame.lower[1:])
    fixed, products, excesses, residuals = [], [], [], [0.0 * value]
    for i, (slope, at_x) in enumerate(zip(gradient, x, strict=True)):
        uphill = slope > 0
        room = where(uphill, at_x - lower[i], frame.upper[i] - at_x)
        fixed.append(room <= 0)
        bounded = frame.main ^ True if i else frame.main ^ frame.main
        # Downhill, λ may rise to its bound in the least-violation form; else the excess is a violation of its own.
        weight = where(uphill, where(room > 0, at_x, 0.0 * at_x), where(bounded, room, at_x))
        products.append(abs(slope) * weight)
        unit = frame.units[i] if i else frame.epsilon
        excesses.append(where(uphill | bounded, 0.0 * slope, -slope / unit))
        if i:
            residuals.append(abs(slope) * minimum(room / x[0], 1.0 + 0.0 * slope))
    error = maximum(sum(products) / frame.units[0], largest(lanes, excesses))
    return Point(
        x=x,
        value=value,
        gradient=gradient,
        hessian=hessian,
        fixed=tuple(fixed),
        error=error,
        residual=largest(lanes, residuals),
        spread=_spread(lanes, frame, x, gradient, hessian, fixed),
    )


def floor(lanes: Lanes, frame: Frame, x: Vector) -> Number:
    """The least η at ``x``; as :func:`cvpo.estep.task.bottom`."""
    lift = frame.slope * sum((lam * size for lam, size in zip(x[1:], frame.size[1:], strict=True)), 0.0 * x[0])
    return lanes.maximum(frame.lower[0], lanes.minimum(lift, frame.lift))


def _spread(lanes: Lanes, frame: Frame, x: Vector, gradient: Vector, hessian: Matrix, fixed: list[Number]) -> Number:
    zero = 0.0 * x[0]
    if len(x) == 1:
        return zero
    pinned = (fixed[0] | True, *fixed[1:])
    matrix = _ridged(hessian, 1e-10 / x[0])
    move = lanes.solve(matrix, tuple(-slope for slope in gradient), pinned, tuple(zero for _ in x))
    total = zero
    for i in range(1, len(x)):
        total = total + abs(_clip(lanes, x[i] + move[i], frame.lower[i], frame.upper[i]) - x[i])
    return total / x[0]


def _ridged(matrix: Matrix, ridge: Number) -> Matrix:
    return tuple(
        tuple(entry + ridge if i == j else entry for j, entry in enumerate(row)) for i, row in enumerate(matrix)
    )


def _clip(lanes: Lanes, value: Number, low: Number, high: Number) -> Number:
    return lanes.minimum(lanes.maximum(value, low), high)
