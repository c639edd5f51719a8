"""Newton steps until all problems are done, or a fixed number of them."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from cvpo.estep.lanes import Lanes, Number, Vector
from cvpo.estep.newton_step import LOST, Frame, Propose, State, begin, projected_newton, step
from cvpo.estep.passes import Pass
from cvpo.estep.stacks import Many
from cvpo.estep.task import Minimum


@attrs.frozen
class Pace:
    """At most ``max_iter`` steps, to ``tolerance``; the host looks whether all are done every ``check_every`` steps."""

    tolerance: float
    max_iter: int
    check_every: int = 1
    propose: Propose = projected_newton


def descend(lanes: Lanes, data: Pass, frame: Frame, start: Vector, cold: Callable[[], Vector], pace: Pace) -> State:
    """Steps from ``start``, or from the η of ``cold()`` where that start has lost its way."""
    state = begin(lanes, data, frame, start, pace.tolerance)
    strayed = _strayed(state)
    if not lanes.all(strayed ^ True):
        state = begin(lanes, data, frame, _recentred(lanes, state, strayed, cold), pace.tolerance)
    for count in range(pace.max_iter):
        if count % pace.check_every == 0 and lanes.all(state.done):
            break
        state = step(lanes, data, frame, state, pace.tolerance, pace.propose)
    return state


def descend_masked(
    data: Pass, frame: Frame, start: Vector, cold: Callable[[], Vector], tolerance: float, budget: int
) -> State:
    """``budget`` steps of every problem, without a look from the host."""
    state = begin(Many, data, frame, start, tolerance)
    state = begin(Many, data, frame, _recentred(Many, state, _strayed(state), cold), tolerance)
    for _ in range(budget):
        state = step(Many, data, frame, state, tolerance)
    return state


def minimum(lanes: Lanes, data: Pass, state: State) -> Minimum:
    """The record of where the steps ended."""
    point = state.point
    numbers = lanes.join((point.value, point.error, state.iterations), data.like)
    return Minimum(
        x=lanes.join(point.x, data.like),
        value=numbers[:, 0],
        gradient=lanes.join(point.gradient, data.like),
        error=numbers[:, 1],
        # Where a loop's numbers overflow, so does the count.
        iterations=numbers[:, 2].nan_to_num(nan=0.0).to(torch.int64),
        weights=point.weights,
    )


def _strayed(state: State) -> Number:
    """Where a warm start lies among kinks narrower than its distance from the optimum, so that no step sees the way."""
    return (state.point.spread > LOST) & (state.done ^ True)


def _recentred(lanes: Lanes, state: State, strayed: Tensor | bool, cold: Callable[[], Vector]) -> Vector:
    x = state.point.x
    eta = lanes.where(strayed, lanes.maximum(cold()[0], x[0]), x[0])
    return (eta, *x[1:])
