"""Newton on the dual: batched, projected, damped; any number of problems at once."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.estep import driver
from cvpo.estep.lanes import Lanes, Many, One
from cvpo.estep.newton_step import LOST, State, begin, frame, step
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution
from cvpo.estep.task import Minimum, Task
from cvpo.validators import number

def minimise(
    task: Task, start: Tensor, cold: Tensor, tolerance: float, max_iter: int, check_every: int | None = 1
) -> Minimum:
    """At most ``max_iter`` steps from ``start`` [P,S], or from the η of ``cold`` where η is too small to begin with.

    The host looks whether all are done every ``check_every`` steps, and never with None.
    """
    lanes = One if check_every is not None and len(start) == 1 else Many
    numbers = frame(lanes, task)
    x = lanes.split(start)
    state = begin(lanes, task, numbers, x, tolerance)
    strayed = (state.point.spread > LOST) & (state.done ^ True)
    if check_every is None or lanes.all(strayed ^ True) is False:
        eta = lanes.where(strayed, lanes.maximum(lanes.split(cold)[0], x[0]), x[0])
        state = begin(lanes, task, numbers, (eta, *x[1:]), tolerance)
    for count in range(max_iter):
        if check_every is not None and count % check_every == 0 and lanes.all(state.done):
            break
        state = step(lanes, task, numbers, state, tolerance)
    return _minimum(lanes, task, state)


def _minimum(lanes: Lanes, task: Task, state: State) -> Minimum:
    point = state.point
    numbers = lanes.join((point.value, point.error, state.iterations), task.q)
    return Minimum(
        x=lanes.join(point.x, task.q),
        value=numbers[:, 0],
        gradient=lanes.join(point.gradient, task.q),
        error=numbers[:, 1],
        iterations=numbers[:, 2].to(torch.int64),
    )


@attrs.frozen
class Newton:
    """Projected, damped Newton."""

    summary: ClassVar[str] = "batched Newton on the dual, in torch"
    accuracy: ClassVar[float] = 1e-6

    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))
    max_iter: int = attrs.field(default=100, validator=number(ge=1, integer=True))
    check_every: int | None = attrs.field(default=1, validator=number(ge=1, integer=True, optional=True))

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve."""
        return driver.solve(problem, warm, self.minimise, self.accuracy, self.check_every is not None)

    def minimise(self, task: Task, start: Tensor, cold: Tensor) -> Minimum:
        """See :func:`minimise`."""
        return minimise(task, start, cold, self.tolerance, self.max_iter, self.check_every)
