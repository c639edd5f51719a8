"""Sequential least squares (SciPy's SLSQP) on the dual: the choice of the paper's own code, with exact gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs
import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from cvpo.estep import driver, dual, newton
from cvpo.estep.problem import DualProblem
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
        host = Task._make(None if part is None else part.cpu() for part in task)
        x, counts = start.cpu().clone(), torch.zeros(len(start), dtype=torch.int64)
        for index in range(len(start)):
            if bool(host.active[index]):
                found, counts[index] = self._minimise_one(host, x[index], index)
                if bool(torch.isfinite(found).all()):
                    x[index] = found
        end = newton.minimise(task, x.to(start), cold, self.tolerance, self.polish)
        return end._replace(iterations=end.iterations + counts.to(start.device))

    def _minimise_one(self, task: Task, start: Tensor, index: int) -> tuple[Tensor, int]:
        one = task.take(slice(index, index + 1))

        def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
            x = torch.maximum(torch.from_numpy(point).unsqueeze(0), one.lower)
            at = dual.evaluate(one.q, one.log_prior, one.limit, one.epsilon, x)
            return float(at.value), at.gradient.squeeze(0).numpy()

        # A bound on λ keeps SLSQP's line search finite where the limits cannot be met and g falls for ever.
        upper = torch.minimum(one.upper, 1e4 * (1 + start)).squeeze(0)
        result = minimize(
            value_and_gradient,
            start.numpy(),
            jac=True,
            method="SLSQP",
            bounds=list(zip(one.lower.squeeze(0).tolist(), upper.tolist(), strict=True)),
            options={"ftol": self.ftol, "maxiter": self.max_iter},
        )
        found = torch.minimum(torch.maximum(torch.from_numpy(result.x), one.lower), one.upper)
        return found.squeeze(0), int(result.nit)
