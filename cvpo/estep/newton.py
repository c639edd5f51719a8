"""Newton's method on the dual: batched, projected, damped."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.compiled import switched_off
from cvpo.estep import direct, driver
from cvpo.estep.implicit import attach
from cvpo.estep.lanes import Lanes, One
from cvpo.estep.newton_descent import Pace, descend, descend_masked, minimum
from cvpo.estep.newton_step import Propose, frame, projected_newton
from cvpo.estep.passes import Stack
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution
from cvpo.estep.stacks import Many, lanes_for
from cvpo.estep.task import Minimum, Task
from cvpo.estep.warm import check_warm
from cvpo.estep.workspace import passes_over
from cvpo.extras import require
from cvpo.validators import number, one_of


@attrs.frozen
class Newton:
    """min_{η >= 0, λ >= 0} g(η, λ) by Newton steps y = −(∇²g + damping/η · I)⁻¹∇g, projected on the bounds.

    Any number of problems [...] at once, each with its own status and iteration count. Near η = 0 the dual is almost
    piecewise linear, with kinks as wide as η: η falls only while λ keeps up. Where g cannot tell two points apart in
    float64, the step is accepted on the gradient.

    ``tolerance`` is the residual at which a problem is done, ``max_iter`` the most steps (each one pass over the data;
    as many again may go to the least violation, and from two other starts to what has neither optimum nor proof by
    then, the second of which as many iterations of SLSQP may find, if they are 50 or more).
    ``check_every=n`` looks every n steps whether all are done. With None the host never waits: every problem takes
    ``budget`` masked steps, and as many again for the least violation. ``passes``: what goes over the data on a CPU,
    ``numba``'s compiled loops, ``torch``, or, by ``auto``, the former where Numba is installed; DependencyError where
    ``numba`` is not. Never raises for values; see
    :class:`cvpo.estep.Status`. Source: CVPO (arXiv 2201.11927), section 4.1; D. Bertsekas, Projected Newton methods
    (1982); the secular form of the step in η is that of trust regions (Moré & Sorensen 1983).
    """

    summary: ClassVar[str] = "batched, projected, damped Newton on the dual, in torch"
    accuracy: ClassVar[float] = 1e-6
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))
    max_iter: int = attrs.field(default=150, validator=number(ge=1, integer=True))
    check_every: int | None = attrs.field(default=1, validator=number(ge=1, integer=True, optional=True))
    budget: int = attrs.field(default=20, validator=number(ge=1, integer=True))
    passes: str = attrs.field(default="auto", validator=one_of(("auto", "numba", "torch")))

    def __attrs_post_init__(self) -> None:
        if self.passes == "numba":
            require("numba", "Newton(passes='numba')", "fast")

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack; ``warm`` gives starting points."""
        check_warm(problem, warm)
        if self.passes == "torch":
            with switched_off():
                return self._solve(problem, warm)
        return self._solve(problem, warm)

    def _solve(self, problem: DualProblem, warm: DualSolution | None) -> DualSolution:
        if self.check_every is None:
            return self._drive(problem, warm, None)
        pace = Pace(self.tolerance, self.max_iter, self.check_every)
        solution, left, end = direct.solve(problem, warm, pace, self.accuracy)
        if solution is None:
            return self._drive(problem, warm, end)
        if left is not None:
            with torch.no_grad():
                direct.put(solution, left, self._drive(*direct.taken(problem, warm, left), end))
        return attach(problem, solution)

    def _drive(self, problem: DualProblem, warm: DualSolution | None, end: Minimum | None) -> DualSolution:
        sync = self.check_every is not None
        return driver.solve(problem, warm, self.minimise, self.accuracy, sync=sync, end=end, last_resort=self.max_iter)

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
    lanes: Lanes = One if len(start) == 1 else lanes_for(task.q)
    data = passes_over(task.q, task.log_prior)
    pace = Pace(tolerance, max_iter, check_every, propose)
    state = descend(lanes, data, frame(lanes, task), lanes.split(start), lambda: lanes.split(cold()), pace)
    return minimum(lanes, data, state)


def minimise_masked(task: Task, start: Tensor, cold: Callable[[], Tensor], tolerance: float, budget: int) -> Minimum:
    """``budget`` steps of every problem, without a look from the host: tensors in, tensors out, for ``fullgraph``."""
    data = Stack(task.q, task.log_prior)
    state = descend_masked(data, frame(Many, task), Many.split(start), lambda: Many.split(cold()), tolerance, budget)
    return minimum(Many, data, state)
