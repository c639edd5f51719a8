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


def begin(lanes: Lanes, task: Task, frame: Frame, x: Vector, tolerance: float) -> State:
    """The state at ``x`` before the first step."""
    point = point_at(lanes, task, frame, x)
    zero = 0.0 * point.value
    done = (lanes.split(task.active) ^ True) | _settled(frame, point, tolerance)
    return State(point, zero + LEAST_DAMPING, zero + FIRST_STRIDE, done, zero)


def step(lanes: Lanes, task: Task, frame: Frame, state: State, tolerance: float) -> State:
    """One step of every problem that is not done.

    The move solves (∇²g + damping/η · I) y = −r on the free coordinates, where r is the gradient in secular form. η
    falls by at most the factor ``stride``, and not at all while λ is further than half a kink from its optimum at
    this η. The trial is accepted if g falls, or, where g cannot tell, if the errors or the spread do; and, where η
    fell, if λ kept up. An accepted step lowers the damping and lengthens the stride, a refused one does the opposite
    to that which caused it.
    """
    where = lanes.where
    point, damping, stride, done, iterations = state
    x, eta = point.x, point.x[0]
    trial = point_at(lanes, task, frame, _proposal(lanes, frame, point, damping, stride))
    noise = NOISE * (eta + frame.size[0] + sum((x[i] * (frame.size[i] + frame.limit[i - 1]) for i in range(1, len(x))), 0.0))
    drop = point.value - trial.value
    before, after = lanes.maximum(point.error, point.residual), lanes.maximum(trial.error, trial.residual)
    nearer = (after < before) | (trial.spread < 0.5 * point.spread)
    better = where(abs(drop) <= noise, nearer, drop > 0)
    strayed = (trial.x[0] < 0.7 * eta) & (trial.spread > LOST) & (trial.residual > point.residual)
    accept = better & (strayed ^ True) & (done ^ True)
    calmer, wilder = lanes.at_least(0.1 * damping, LEAST_DAMPING), lanes.at_least(30.0 * damping, REJECTED_DAMPING)
    longer = where(point.spread > CENTRED, stride, lanes.at_most(3.0 * stride, MOST_STRIDE))
    point = _pick(lanes, accept, trial, point)
    damping = where(accept, calmer, where(better, damping, wilder))
    return State(
        point=point,
        damping=damping,
        stride=where(accept, longer, lanes.at_least(lanes.sqrt(stride), LEAST_STRIDE)),
        done=done | _settled(frame, point, tolerance) | (damping > MOST_DAMPING),
        iterations=iterations + where(done, 0.0, 1.0),
    )


def _proposal(lanes: Lanes, frame: Frame, point: Point, damping: Number, stride: Number) -> Vector:
    x, gradient, eta = point.x, point.gradient, point.x[0]
    zero = 0.0 * eta
    right = (-_secular(lanes, frame, gradient[0]), *(-slope for slope in gradient[1:]))
    matrix = _ridged(point.hessian, damping / eta)
    # λ off centre, but its violations small beside what is left to gain from η: go on all the same.
    eager = (point.residual < 0.1 * eta * gradient[0]) & (stride > 2.0)
    reach = lanes.where((point.spread > CENTRED) & (eager ^ True), 1.0, stride)
    least = (lanes.maximum(eta / reach, floor(lanes, frame, x)), *frame.lower[1:])
    room = GROW * (eta + frame.size[0] + sum(x[1:], zero))
    most = (lanes.maximum(GROW * eta, least[0]), *(lanes.minimum(high, room) for high in frame.upper[1:]))
    pinned, move = point.fixed, tuple(zero for _ in x)
    # η is cut first: the kinks that bound a good move of λ are as wide as it ends up to be. Then λ is cut to its bounds.
    for cut in range(3):
        move = lanes.solve(matrix, right, pinned, move)
        goal = tuple(_clip(lanes, a + b, low, high) for a, b, low, high in zip(x, move, least, most, strict=True))
        goal = tuple(lanes.where(at, a, b) for at, a, b in zip(point.fixed, x, goal, strict=True))
        moved = tuple(b - a for a, b in zip(x, goal, strict=True))
        if cut == 2 or len(x) == 1:
            return goal
        hit = tuple(at | ((a != b) if cut or not i else at) for i, (at, a, b) in enumerate(zip(pinned, moved, move, strict=True)))
        move = tuple(lanes.where(at, a, 0.0) for at, a in zip(hit, moved, strict=True))
        pinned = hit
    return goal


def _secular(lanes: Lanes, frame: Frame, slope: Number) -> Number:
    """ε − KL, or 2 KL (1 − √(KL/ε)), equal to first order where both vanish.

    1/√KL is nearly linear in η where KL is like 1/η² (the secular equation of trust-region methods): a few steps in
    place of many. Where KL is far below ε, the plain form moves faster.
    """
    kl = lanes.at_least(frame.epsilon - slope, 0.0)
    return lanes.where(kl > 0.01 * frame.epsilon, 2.0 * kl * (1.0 - lanes.sqrt(kl / frame.epsilon)), slope)


def _settled(frame: Frame, point: Point, tolerance: float) -> Number:
    """Solved to ``tolerance``, or proved infeasible. The least-violation form must also show a witness of either kind.

    It is homogeneous, so near 0 every error is small; g < 0 proves infeasibility there, weights without excess the
    contrary.
    """
    witness = point.gradient[0] >= -tolerance
    for slope in point.gradient[1:]:
        witness = witness & (slope >= -tolerance)
    small = (point.error <= tolerance) & (point.residual <= tolerance)
    return (small & (frame.main | (point.value < 0) | witness)) | (point.value < frame.bound)


def _pick(lanes: Lanes, condition: Number, yes: Point, no: Point) -> Point:
    def pick(a: Vector, b: Vector) -> Vector:
        return tuple(lanes.where(condition, p, q) for p, q in zip(a, b, strict=True))

    return Point(
        x=pick(yes.x, no.x),
        value=lanes.where(condition, yes.value, no.value),
        gradient=pick(yes.gradient, no.gradient),
        hessian=tuple(pick(a, b) for a, b in zip(yes.hessian, no.hessian, strict=True)),
        fixed=pick(yes.fixed, no.fixed),
        error=lanes.where(condition, yes.error, no.error),
        residual=lanes.where(condition, yes.residual, no.residual),
        spread=lanes.where(condition, yes.spread, no.spread),
    )


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
    where = lanes.where
    never = frame.main ^ frame.main
    lower = (floor(lanes, frame, x), *frame.lower[1:])
    fixed, products, excesses, residuals = [], [], [], [0.0 * value]
    for i, (slope, at_x) in enumerate(zip(gradient, x, strict=True)):
        uphill = slope > 0
        room = where(uphill, at_x - lower[i], frame.upper[i] - at_x)
        fixed.append(room <= 0)
        bounded = frame.main ^ True if i else never
        # Downhill, λ may rise to its bound in the least-violation form; else the excess is a violation of its own.
        weight = where(uphill, where(room > 0, at_x, 0.0), where(bounded, room, at_x))
        products.append(abs(slope) * weight)
        unit = frame.units[i] if i else frame.epsilon
        excesses.append(where(uphill | bounded, 0.0, -slope / unit))
        if i:
            residuals.append(abs(slope) * lanes.at_most(room / x[0], 1.0))
    error = lanes.maximum(sum(products) / frame.units[0], largest(lanes, excesses))
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
