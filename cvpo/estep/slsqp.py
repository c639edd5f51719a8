"""Sequential least squares (SciPy's SLSQP) on the dual: the choice of the paper's own code, with exact gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
from torch import Tensor

from cvpo.estep import driver, newton
from cvpo.estep.problem import DualProblem
from cvpo.estep.quasi_newton import slsqp_each
from cvpo.estep.solution import DualSolution
from cvpo.estep.task import Minimum, Task
from cvpo.validators import number


@attrs.frozen
class Slsqp:
    """min_{η >= 0, λ >= 0} g(η, λ) by SciPy's SLSQP, then by Newton steps on the shared Hessian.

    SLSQP runs on the normalised dual of each problem in turn, in float64 on the CPU, with the analytic gradient.
    Alone it reports success well above 1e-6 on degenerate problems (its stopping test looks at changes of g), so its
    end is the start of at most ``polish`` damped Newton steps; they are counted in ``iterations`` too. ``tolerance``
    is the residual at which those stop, ``ftol`` and ``max_iter`` are SLSQP's own. Source: CVPO (arXiv 2201.11927),
    section 4.1; D. Kraft, A software package for sequential quadratic programming (1988).
    """

    summary: ClassVar[str] = "SciPy SLSQP on the dual with exact gradients, finished by Newton steps"
    accuracy: ClassVar[float] = 1e-6
    differentiable: ClassVar[bool] = True

    ftol: float = attrs.field(default=1e-9, validator=number(gt=0))
    max_iter: int = attrs.field(default=50, validator=number(ge=1, integer=True))
    polish: int = attrs.field(default=100, validator=number(ge=0, integer=True))
    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack; ``warm`` gives starting points. Never raises for numerical failure."""
        return driver.solve(problem, warm, self.minimise, self.accuracy)

    def minimise(self, task: Task, start: Tensor, cold: Callable[[], Tensor]) -> Minimum:
        """SLSQP on each active problem, then Newton on all of them together."""
        x, counts = slsqp_each(task, start, self.ftol, self.max_iter)
        end = newton.minimise(task, x, cold, self.tolerance, self.polish)
        return end._replace(iterations=end.iterations + counts)
