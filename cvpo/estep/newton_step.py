"""One damped, projected Newton step on the dual, for one problem in numbers or for a stack in tensors.

Vectors are tuples of components, (η, λ_1 … λ_M); see :mod:`cvpo.estep.lanes`. Nothing here waits for the device, so
with tensors it can be compiled and captured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cvpo.estep.lanes import Lanes, Number, Vector
from cvpo.estep.newton_point import Frame, Point, clip, floor, frame, pick, point_at, ridged
from cvpo.estep.passes import Pass

__all__ = ["Frame", "Propose", "State", "begin", "frame", "projected_newton", "step"]

GROW = 10.0
"""Largest factor by which a step raises η, or λ beyond its scale: where g falls for ever, that is noticed in time."""
FIRST_STRIDE, LEAST_STRIDE, MOST_STRIDE = 10.0, 1.2, 1e4
LEAST_DAMPING, REFUSED_DAMPING, MOST_DAMPING = 1e-16, 1e-6, 1e8
CENTRED, LOST = 0.5, 10.0
"""λ within half a kink of its optimum at this η may follow a falling η; ten kinks away the Hessian is blind to it."""
NOISE = 1e-14
"""Relative change of g below which g cannot tell two points apart."""

Propose = Callable[[Lanes, Frame, Point, Number, Vector, Vector], Vector]
"""``propose(lanes, frame, point, damping, least, most)``: the trial x of a step inside the box ``least`` … ``most``."""


class State(NamedTuple):
    """Iterations under way: see :func:`step` for ``damping`` and ``stride``."""

    point: Point
    damping: Number
    stride: Number
    done: Number
    iterations: Number


def begin(lanes: Lanes, data: Pass, frame: Frame, x: Vector, tolerance: float) -> State:
    """The state at ``x`` before the first step."""
    point = point_at(lanes, data, frame, x)
    zero = 0.0 * point.error
    done = (frame.active ^ True) | _settled(frame, point, tolerance)
    return State(point, zero + LEAST_DAMPING, zero + FIRST_STRIDE, done, zero)


def step(
    lanes: Lanes, data: Pass, frame: Frame, state: State, tolerance: float, propose: Propose | None = None
) -> State:
    """One step of every problem that is not done.

    The trial minimises the quadratic model of g, with ``damping``/η on its diagonal, over a box: the bounds, η
    lowered by at most the factor ``stride``, and not at all while λ is off centre. It is accepted if g falls, or, where
    g cannot tell, if the errors or the spread do; and, where η fell, if λ kept up. An accepted step lowers the damping
    and lengthens the stride; a refused one shortens the stride, and raises the damping if the model was to blame.
    """
    where = lanes.where
    point, damping, stride, done, iterations = state
    least, most = _box(lanes, frame, point, stride)
    goal = (propose or projected_newton)(lanes, frame, point, damping, least, most)
    trial = point_at(lanes, data, frame, goal, wanted=done ^ True)
    drop = point.value - trial.value
    before, after = lanes.maximum(point.error, point.residual), lanes.maximum(trial.error, trial.residual)
    nearer = (after < before) | (trial.spread < 0.5 * point.spread)
    better = where(abs(drop) <= _noise(frame, point), nearer, drop > 0)
    strayed = (trial.x[0] < 0.7 * point.x[0]) & (trial.spread > LOST) & (trial.residual > point.residual)
    accept = better & (strayed ^ True) & (done ^ True)
    calmer, wilder = lanes.at_least(0.1 * damping, LEAST_DAMPING), lanes.at_least(30.0 * damping, REFUSED_DAMPING)
    longer = where(point.spread > CENTRED, stride, lanes.at_most(3.0 * stride, MOST_STRIDE))
    point = pick(lanes, accept, trial, point)
    damping = where(accept, calmer, where(better, damping, wilder))
    return State(
        point=point,
        damping=damping,
        stride=where(accept, longer, lanes.at_least(lanes.sqrt(stride), LEAST_STRIDE)),
        done=done | _settled(frame, point, tolerance) | (damping > MOST_DAMPING),
        iterations=iterations + where(done, 0.0, 1.0),
    )


def projected_newton(lanes: Lanes, frame: Frame, point: Point, damping: Number, least: Vector, most: Vector) -> Vector:
    """The minimiser of the model on the free coordinates, cut to the box: η first, then λ, each time solved again.

    The kinks that bound a good move of λ are as wide as η ends up to be, so λ is solved for the η that was cut.
    """
    x, fixed = point.x, point.fixed
    right = tuple([-slope for slope in secular(lanes, frame, point.gradient)])
    matrix = ridged(point.hessian, damping / x[0])
    pinned, move = fixed, tuple([0.0 * at for at in x])
    for cut in range(3):
        move = lanes.solve(matrix, right, pinned, move)
        aim = tuple([lanes.where(at, a, a + b) for at, a, b in zip(fixed, x, move, strict=True)])
        goal = tuple(
            [
                lanes.where(at, a, clip(lanes, b, low, high))
                for at, a, b, low, high in zip(fixed, x, aim, least, most, strict=True)
            ]
        )
        if cut == 2 or len(x) == 1 or lanes.same(aim, goal):
            break
        # What was cut, and nothing that only rounds: the others are yet to be solved for.
        pinned = tuple(
            at | ((a != b) if cut or not i else at) for i, (at, a, b) in enumerate(zip(pinned, aim, goal, strict=True))
        )
        move = tuple(b - a for a, b in zip(x, goal, strict=True))
    return goal


def secular(lanes: Lanes, frame: Frame, gradient: Vector) -> Vector:
    """The gradient with ε − KL replaced by 2 KL (1 − √(KL/ε)), equal to first order where both vanish.

    1/√KL is nearly linear in η where KL is like 1/η² (the secular equation of trust-region methods): a few steps in
    place of many. Where KL is far below ε, the plain form moves faster.
    """
    kl = lanes.at_least(frame.epsilon - gradient[0], 0.0)
    bent = 2.0 * kl * (1.0 - lanes.sqrt(kl / frame.epsilon))
    return (lanes.where(kl > 0.01 * frame.epsilon, bent, gradient[0]), *gradient[1:])


def _box(lanes: Lanes, frame: Frame, point: Point, stride: Number) -> tuple[Vector, Vector]:
    x, eta = point.x, point.x[0]
    # λ off centre, but its violations small beside what is left to gain from η: η goes on all the same.
    eager = (point.residual < 0.1 * eta * point.gradient[0]) & (stride > 2.0)
    reach = lanes.where((point.spread > CENTRED) & (eager ^ True), 1.0, stride)
    low = lanes.maximum(eta / reach, floor(lanes, frame, x))
    room = GROW * (eta + frame.size[0] + sum(x[1:], 0.0))
    most = (lanes.maximum(GROW * eta, low), *(lanes.minimum(high, room) for high in frame.upper[1:]))
    return (low, *frame.lower[1:]), most


def _noise(frame: Frame, point: Point) -> Number:
    total = point.x[0] + frame.size[0]
    for lam, size, limit in zip(point.x[1:], frame.size[1:], frame.limit, strict=True):
        total = total + lam * (size + abs(limit))
    return NOISE * total


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
