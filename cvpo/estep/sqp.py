"""Sequential quadratic programming on the dual, with OSQP for the subproblem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cvpo.estep import driver, newton
from cvpo.estep.lanes import Lanes, Number, One, Vector
from cvpo.estep.newton_point import Frame, Point, ridged
from cvpo.estep.newton_step import secular
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution
from cvpo.estep.task import Minimum, Task
from cvpo.extras import require
from cvpo.validators import number


@attrs.frozen
class Osqp:
    """min_{η >= 0, λ >= 0} g(η, λ) by quadratic programs: min_y ∇gᵀy + ½yᵀ(∇²g + damping/η · I)y, x + y in its bounds.

    Each subproblem is solved by OSQP to ``qp_tolerance``, then exactly on the coordinates that it leaves free; damping,
    the acceptance of steps and the pace of η are those of :class:`cvpo.estep.newton.Newton`, which differs in the
    subproblem: it projects, OSQP solves it whole.
    Problems of a stack are solved in turn, on the CPU. Where OSQP fails with an error the status is BACKEND_ERROR.
    ``tolerance`` is the residual at which a problem is done, ``max_iter`` the most subproblems. What they leave above
    ``accuracy``, where λ lies within η of a bound, is finished by at most ``polish`` steps of Newton; from two other
    starts as well where there is neither optimum nor proof by then, the second of which SLSQP finds. Raises
    DependencyError where osqp is not installed. Source: Stellato et al., OSQP (2020).
    """

    summary: ClassVar[str] = "sequential quadratic programming on the dual, subproblems by OSQP"
    accuracy: ClassVar[float] = 1e-6
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))
    max_iter: int = attrs.field(default=200, validator=number(ge=1, integer=True))
    qp_tolerance: float = attrs.field(default=1e-9, validator=number(gt=0))
    polish: int = attrs.field(default=100, validator=number(ge=0, integer=True))

    def __attrs_post_init__(self) -> None:
        require("osqp", "the osqp solver", "solvers")

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack; ``warm`` gives starting points."""
        return driver.solve(problem, warm, self.minimise, self.accuracy, last_resort=self.max_iter)

    def minimise(self, task: Task, start: Tensor, cold: Callable[[], Tensor]) -> Minimum:
        """One problem after the other."""
        host = Task._make(None if part is None else part.cpu() for part in task)
        ends = [
            self._minimise_one(host.take(slice(i, i + 1)), start[i : i + 1].cpu(), i, cold) for i in range(len(start))
        ]

        def together(parts: Any) -> Any:
            # Compiled passes do not keep the weights of every point.
            return None if any(part is None for part in parts) else torch.cat(parts).to(start.device)

        return Minimum(*map(together, zip(*(end[:7] for end in ends), strict=True)))

    def _minimise_one(self, task: Task, start: Tensor, index: int, cold: Callable[[], Tensor]) -> Minimum:
        broken = False

        def propose(lanes: Lanes, frame: Frame, point: Point, damping: Number, least: Vector, most: Vector) -> Vector:
            nonlocal broken
            if broken:
                return point.x
            bent = secular(lanes, frame, point.gradient)
            found = self._quadratic_program(point, bent, damping, least, most)
            broken = found is None
            return point.x if found is None else found

        def here() -> Tensor:
            return cold()[index : index + 1].cpu()

        end = newton.minimise(task, start, here, self.tolerance, self.max_iter, propose=propose)
        if not broken and not bool((end.error <= self.accuracy) | (end.value < task.bound)):
            # A kink of width η at bounds 1/η away in its units, which OSQP's relative accuracy does not resolve.
            last = newton.minimise(task, end.x, here, self.tolerance, self.polish)
            end = last._replace(iterations=end.iterations + last.iterations)
        return end._replace(failed=torch.tensor([broken]) & (end.error > self.accuracy))

    def _quadratic_program(
        self, point: Point, gradient: Vector, damping: float, least: Vector, most: Vector
    ) -> Vector | None:
        """The trial point; None where OSQP fails. In units of η, where the Hessian's entries are near 1.

        OSQP's first-order accuracy is not enough near η = 0, so its answer is kept for what it says about the bounds,
        and the coordinates between them are solved for directly (OSQP's own polish does this too, but prints).
        """
        x = np.array(point.x)
        matrix = x[0] * np.array(ridged(point.hessian, damping / x[0]))
        low, high = (np.array(least) - x) / x[0], (np.array(most) - x) / x[0]
        osqp = require("osqp", "the osqp solver", "solvers")
        solver = osqp.OSQP()
        try:
            solver.setup(
                sparse.triu(sparse.csc_matrix(matrix), format="csc"),
                np.array(gradient),
                sparse.identity(len(x), format="csc"),
                low,
                high,
                verbose=False,
                polishing=False,
                eps_abs=self.qp_tolerance,
                eps_rel=self.qp_tolerance,
            )
            result = solver.solve(raise_error=False)
        except (ValueError, RuntimeError, osqp.OSQPException):
            return None
        found, force = np.clip(result.x, low, high), result.y
        if not np.isfinite(found).all():
            return None
        pinned = (np.abs(found - low) < np.maximum(-force, 0)) | (np.abs(found - high) < np.maximum(force, 0))
        value = np.where(force < 0, low, high)
        right = tuple(-np.array(gradient))
        direct = One.solve(tuple(map(tuple, matrix)), right, tuple(pinned), tuple(np.where(pinned, value, 0.0)))
        between = np.clip(x + x[0] * np.array(direct), least, most)
        # At a bound exactly: what is left of it by rounding would count as free in the next step.
        return tuple(np.where(pinned, np.where(force < 0, least, most), between).tolist())
