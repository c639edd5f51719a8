"""Newton's method on the dual: batched, projected, damped."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.estep import driver
from cvpo.estep.lanes import Lanes, Many, One
from cvpo.estep.newton_step import LOST, Propose, State, begin, frame, projected_newton, step
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution
from cvpo.estep.task import Minimum, Task
from cvpo.validators import number


@attrs.frozen
class Newton:
    """min_{η >= 0, λ >= 0} g(η, λ) by Newton steps y = −(∇²g + damping/η · I)⁻¹∇g, projected on the bounds.

    Any number of problems [...] at once, each with its own status and iteration count. Near η = 0 the dual is almost
    piecewise linear, with kinks as wide as η: η falls only while λ keeps up. Where g cannot tell two points apart in
    float64, the step is accepted on the gradient.

    ``tolerance`` is the residual at which a problem is done, ``max_iter`` the most steps (each one pass over the data;
    infeasible problems may take as many again for the least violation). ``check_every=n`` looks every n steps whether
    all are done. With None the host never waits: every problem takes ``budget`` masked steps, and as many again for the
    least violation. Never raises for values; see :class:`cvpo.estep.Status`. Source: CVPO (arXiv 2201.11927), section
    4.1; D. Bertsekas, Projected Newton methods (1982); the secular form of the step in η is that of trust regions
    (Moré & Sorensen 1983).
    """

    summary: ClassVar[str] = "batched, projected, damped Newton on the dual, in torch"
    accuracy: ClassVar[float] = 1e-6
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))
    max_iter: int = attrs.field(default=150, validator=number(ge=1, integer=True))
    check_every: int | None = attrs.field(default=1, validator=number(ge=1, integer=True, optional=True))
    budget: int = attrs.field(default=20, validator=number(ge=1, integer=True))

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack; ``warm`` gives starting points."""
        return driver.solve(problem, warm, self.minimise, self.accuracy, sync=self.check_every is not None)

    def minimise(self, task: Task, start: Tensor, cold: Callable[[], Tensor]) -> Minimum:
        """See :func:`minimise` and, for ``check_every=None``, :func:`minimise_masked`."""
        if self.check_every is None:
            return minimise_masked(task, start, cold, self.tolerance, self.budget)
        return minimise(task, start, cold, self.tolerance, self.max_iter, self.check_every)


def minimise(
    task: Task,
    start: Tensor,
    cold: Callable[[], Tensor],
    tolerance: float,
    max_iter: int,
    check_every: int = 1,
    propose: Propose = projected_newton,
) -> Minimum:
    """At most ``max_iter`` steps from ``start`` [P,S], or from the η of ``cold()`` where that start has lost its way.

    The host looks whether all are done every ``check_every`` steps; one problem alone is followed in Python numbers.
    """
    lanes: Lanes = One if len(start) == 1 else Many
    numbers = frame(lanes, task)
    state = begin(lanes, task, numbers, lanes.split(start), tolerance)
    strayed = _strayed(state)
    if not lanes.all(strayed ^ True):
        state = begin(lanes, task, numbers, _recentred(lanes, state, strayed, cold), tolerance)
    for count in range(max_iter):
        if count % check_every == 0 and lanes.all(state.done):
            break
        state = step(lanes, task, numbers, state, tolerance, propose)
    return _minimum(lanes, task, state)


def minimise_masked(task: Task, start: Tensor, cold: Callable[[], Tensor], tolerance: float, budget: int) -> Minimum:
    """``budget`` steps of every problem, without a look from the host: tensors in, tensors out, for ``fullgraph``."""
    numbers = frame(Many, task)
    state = begin(Many, task, numbers, Many.split(start), tolerance)
    state = begin(Many, task, numbers, _recentred(Many, state, _strayed(state), cold), tolerance)
    for _ in range(budget):
        state = step(Many, task, numbers, state, tolerance)
    return _minimum(Many, task, state)


def _strayed(state: State) -> Tensor | bool:
    """Where a warm start lies among kinks narrower than its distance from the optimum, so that no step sees the way."""
    return (state.point.spread > LOST) & (state.done ^ True)


def _recentred(lanes: Lanes, state: State, strayed: Tensor | bool, cold: Callable[[], Tensor]) -> tuple:
    x = state.point.x
    eta = lanes.where(strayed, lanes.maximum(lanes.split(cold())[0], x[0]), x[0])
    return (eta, *x[1:])


def _minimum(lanes: Lanes, task: Task, state: State) -> Minimum:
    point = state.point
    numbers = lanes.join((point.value, point.error, state.iterations), task.q)
    return Minimum(
        x=lanes.join(point.x, task.q),
        value=numbers[:, 0],
        gradient=lanes.join(point.gradient, task.q),
        error=numbers[:, 1],
        iterations=numbers[:, 2].to(torch.int64),
        weights=point.weights,
    )
