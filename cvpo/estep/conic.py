"""The primal itself, as a conic program in CVXPY: a reference that shares nothing with the dual solvers."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, NamedTuple

import attrs
import torch
from torch import Tensor

from cvpo.estep.answer import Answer, assemble
from cvpo.estep.certify import kkt_residuals
from cvpo.estep.conic_program import ConicProgram
from cvpo.estep.implicit import attach
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import least_violation_task, main_task
from cvpo.estep.warm import check_warm
from cvpo.extras import require
from cvpo.validators import number

CAUTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"max_step_fraction": 0.8},
    {"max_step_fraction": 0.5, "equilibrate_enable": False},
)
"""Settings of Clarabel, tried in turn until the residuals are good: its own; shorter steps, which keep away from the
boundary; shorter still, on the program as it was scaled here. One in a hundred edge cases needs more than the first."""


@attrs.frozen
class Cvxpy:
    """max_w mean_b Σ_k w Q_r over the weights themselves, with the KL bound as exponential cones.

    CVXPY builds the normalised program; the interior-point solver Clarabel solves it, with gap and feasibility
    tolerances pinned to ``tolerance``. Where that has no solution, a second program minimises Σ_m (E Q_c,m − d_m)₊, in
    the caller's units. The weights are the conic solver's own, and (η, λ) its multipliers: objective and constraints
    are good to ``accuracy``, but weights and duals agree with each other only to about the root of ``tolerance``, and
    not where the bound is slack, so ``graded`` leaves out stationarity. Derivatives are those of the softmax at (η, λ):
    wrong where the bound is slack. Hundreds of times slower than the dual solvers, on the CPU, without warm start.
    Where Clarabel fails, the status is BACKEND_ERROR. Raises DependencyError where cvxpy or clarabel is not installed.
    Source: Agrawal et al., CVXPY (2018); Goulart & Chen, Clarabel (2024).
    """

    summary: ClassVar[str] = "the primal as a conic program, by CVXPY and Clarabel: an independent reference"
    accuracy: ClassVar[float] = 1e-6
    graded: ClassVar[tuple[str, ...]] = ("kl", "cost", "complementarity", "gap", "simplex", "sign")
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-12, validator=number(gt=0))
    max_iter: int = attrs.field(default=200, validator=number(ge=1, integer=True))

    def __attrs_post_init__(self) -> None:
        for package in ("clarabel", "cvxpy"):
            require(package, "the cvxpy solver", "solvers")

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack in turn; ``warm`` is not used: an interior-point method starts inside."""
        check_warm(problem, warm)
        with torch.no_grad():
            scaled = scale(problem)
            main = main_task(scaled)
            forms = [_Form(scaled, main.lower, main.upper, Status.OK)]
            if problem.costs:
                least = least_violation_task(scaled)
                forms.append(_Form(scaled.without_reward(), least.lower, least.upper, Status.INFEASIBLE))
            answer = _nothing(problem, scaled)
            good = ~scaled.finite
            for caution, form in itertools.product(CAUTIONS, forms):
                if bool(good.all()):
                    break
                found = self._attempt(problem, scaled, form, ~good, caution)
                better = self._good(problem, scaled, found) & ~good
                # Of what is not good enough, the first is kept.
                poor = (answer.status == Status.BACKEND_ERROR) & (found.status == form.status) & ~better
                total = answer.iterations + found.iterations
                answer = found.where(better | poor, answer)._replace(iterations=total)
                answer = answer._replace(status=torch.where(poor, int(Status.MAX_ITER), answer.status))
                good = good | better
            solution = assemble(problem, scaled, answer)
        return attach(problem, solution)

    def _good(self, problem: DualProblem, scaled: Scaled, found: Answer) -> Tensor:
        """Where the residuals that this solver answers for are within its accuracy [P], before weights are rounded."""
        solution = assemble(problem, scaled, found)
        weights = found.weights.reshape(solution.weights.shape)
        residuals = kkt_residuals(problem, attrs.evolve(solution, weights=weights))
        parts = [getattr(residuals, name).reshape(solution.status.numel(), -1) for name in self.graded]
        return (torch.cat(parts, dim=1) <= self.accuracy).all(1)

    def _attempt(
        self, problem: DualProblem, scaled: Scaled, form: _Form, wanted: Tensor, caution: dict[str, Any]
    ) -> Answer:
        """Answers to the ``wanted`` problems in one form, with its status where there is one."""
        answer = _nothing(problem, scaled)
        prior, x = answer.weights.clone(), torch.ones_like(scaled.q[:, :, 0, 0])
        options = {"tol_gap_abs": self.tolerance, "tol_gap_rel": self.tolerance, "tol_feas": self.tolerance}
        for i in wanted.nonzero().squeeze(1).tolist():
            program = ConicProgram(form.record.take(i), prior[i], relaxed=form.status == Status.INFEASIBLE)
            found = program.solve({**options, "max_iter": self.max_iter, **caution})
            if found is not None:
                duals, weights, answer.iterations[i] = found
                x[i], answer.weights[i] = torch.from_numpy(duals), torch.from_numpy(weights)
                answer.status[i] = form.status
        # Multipliers of costs in far smaller units than others are lost in the conic solver's tolerance.
        eta, lam = form.record.outward(torch.minimum(torch.maximum(x, form.lower), form.upper))
        slack = scaled.limit - (answer.weights.unsqueeze(1) * scaled.q[:, 1:]).sum(-1).mean(-1)
        return answer._replace(eta=eta, lam=lam, slack=slack)


class _Form(NamedTuple):
    """The problems in a form to be solved: their ``record``, bounds of (η, λ) in it, and what a solution is called."""

    record: Scaled
    lower: Tensor
    upper: Tensor
    status: Status


def _nothing(problem: DualProblem, scaled: Scaled) -> Answer:
    """P answers of status BACKEND_ERROR: the prior."""
    none = torch.zeros_like(scaled.epsilon, dtype=torch.int64)
    weights = problem.log_p.exp().reshape(scaled.q[:, 0].shape)
    return Answer(none + Status.BACKEND_ERROR, scaled.epsilon, scaled.limit, weights, scaled.limit, none)
