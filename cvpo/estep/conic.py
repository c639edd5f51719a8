"""The primal itself, as a conic program in CVXPY: a reference that shares nothing with the dual solvers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cvpo.estep import driver
from cvpo.estep.certify import kkt_residuals
from cvpo.estep.driver import Answer
from cvpo.estep.extras import require
from cvpo.estep.implicit import attach
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.validators import number


@attrs.frozen
class Cvxpy:
    """max_w mean_b Σ_k w Q_r over the weights themselves, with the KL bound as exponential cones.

    CVXPY builds the normalised program; the interior-point solver Clarabel solves it, with gap and feasibility
    tolerances pinned to ``tolerance``. Where that has no solution, a second program minimises Σ_m (E Q_c,m − d_m)₊ in
    the caller's units. The weights are the conic solver's own, and (η, λ) its multipliers: objective and constraints are
    good to ``accuracy``, but weights and duals agree with each other only to about its square root, so ``graded`` leaves
    out what compares the two. Hundreds of times slower than the dual solvers, on the CPU, without warm start. Where
    Clarabel fails, the status is BACKEND_ERROR. Raises DependencyError where cvxpy or clarabel is not installed.
    Source: Agrawal et al., CVXPY (2018); Goulart & Chen, Clarabel (2024).
    """

    summary: ClassVar[str] = "the primal as a conic program, by CVXPY and Clarabel: an independent reference"
    accuracy: ClassVar[float] = 1e-6
    graded: ClassVar[tuple[str, ...]] = ("kl", "cost", "gap", "simplex", "sign")
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-10, validator=number(gt=0))
    max_iter: int = attrs.field(default=200, validator=number(ge=1, integer=True))

    def __attrs_post_init__(self) -> None:
        require("clarabel")
        require("cvxpy")

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack in turn; ``warm`` is not used: an interior-point method starts inside."""
        with torch.no_grad():
            scaled = scale(problem)
            first = self._attempt(problem, scaled, scaled, Status.OK, scaled.finite)
            solution = driver.assemble(problem, scaled, first)
            good = self._good(problem, solution)
            rest = scaled.finite & ~good
            if problem.costs and bool(rest.any()):
                second = self._attempt(problem, scaled, scaled.without_reward(), Status.INFEASIBLE, rest)
                proved = self._good(problem, driver.assemble(problem, scaled, second)) & rest
                first, good = second.where(proved, first), good | proved
            failed = torch.where(first.eta.isnan(), int(Status.BACKEND_ERROR), int(Status.MAX_ITER))
            status = torch.where(good, first.status, failed)
            solution = driver.assemble(problem, scaled, first._replace(status=status))
        return attach(problem, solution)

    def _good(self, problem: DualProblem, solution: DualSolution) -> Tensor:
        """Where the residuals that this solver answers for are within its accuracy [P]."""
        residuals = kkt_residuals(problem, solution)
        parts = [getattr(residuals, name).reshape(solution.status.numel(), -1) for name in self.graded]
        return (torch.cat(parts, dim=1) <= self.accuracy).all(1)

    def _attempt(
        self, problem: DualProblem, scaled: Scaled, record: Scaled, status: Status, wanted: Tensor
    ) -> Answer:
        """Answers to the ``wanted`` problems of ``record``, η = NaN where there is none."""
        prior = problem.log_p.exp().reshape(scaled.q[:, 0].shape)
        x = torch.full_like(scaled.q[:, :, 0, 0], torch.nan)
        weights = prior.clone()
        iterations = torch.zeros_like(scaled.epsilon, dtype=torch.int64)
        for i in wanted.nonzero().squeeze(1).tolist():
            one = record.take(i)
            program = _Program(one, prior[i], relaxed=status == Status.INFEASIBLE)
            found = program.solve(self.tolerance, self.max_iter)
            if found is not None:
                duals, w, iterations[i] = found
                x[i], weights[i] = torch.from_numpy(duals), torch.from_numpy(w)
        eta, lam = record.outward(x)
        slack = scaled.limit - (weights.unsqueeze(1) * scaled.q[:, 1:]).sum(-1).mean(-1)
        return Answer(torch.full_like(iterations, int(status)), eta, lam, weights, slack, iterations)


class _Program:
    """One problem over the weights of the particles that have prior mass, as one long vector."""

    def __init__(self, record: Scaled, prior: Tensor, relaxed: bool) -> None:
        self.q = record.q.numpy(force=True)
        self.prior = prior.numpy(force=True)
        self.limit = record.limit.numpy(force=True)
        self.epsilon = float(record.epsilon)
        self.share = (record.unit_cost / record.unit_reward).numpy(force=True)
        self.relaxed = relaxed

    def solve(self, tolerance: float, max_iter: int) -> tuple[np.ndarray, np.ndarray, int] | None:
        """(η, λ) [S], weights [B,K] and the iterations; None where there is no solution."""
        cp = require("cvxpy")
        inside = self.prior > 0
        states, particles = inside.shape
        count = int(inside.sum())
        rows = np.repeat(np.arange(states), particles)[inside.ravel()]
        sums = sparse.csr_matrix((np.ones(count), (rows, np.arange(count))), shape=(states, count))
        w = cp.Variable(count)
        excess = self.q[1:, inside] @ w / states - self.limit if len(self.limit) else None
        bound = cp.sum(cp.rel_entr(w, self.prior[inside])) / states <= self.epsilon
        constraints: list[Any] = [sums @ w == 1, bound]
        objective = cp.Maximize(self.q[0, inside] @ w / states)
        limits = None
        if self.relaxed:
            violation = cp.Variable(len(self.limit), nonneg=True)
            limits = excess <= violation
            objective = cp.Minimize(self.share @ violation)
        elif excess is not None:
            limits = excess <= 0
        if limits is not None:
            constraints.append(limits)
        program = cp.Problem(objective, constraints)
        options = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance, "max_iter": max_iter}
        try:
            with warnings.catch_warnings():
                # "Solution may be inaccurate": it is graded here, whatever the backend thinks of it.
                warnings.simplefilter("ignore", UserWarning)
                program.solve(solver=cp.CLARABEL, **options)
        except cp.error.SolverError:
            return None
        if w.value is None or bound.dual_value is None:
            return None
        duals = np.concatenate([np.atleast_1d(bound.dual_value), np.zeros(0) if limits is None else limits.dual_value])
        weights = np.zeros_like(self.prior)
        weights[inside] = np.maximum(w.value, 0.0)
        total = weights.sum(-1, keepdims=True)
        if not (np.isfinite(duals).all() and (total > 0).all()):
            return None
        return self._at_bounds(duals), weights / total, int(program.solver_stats.num_iters)

    def _at_bounds(self, duals: np.ndarray) -> np.ndarray:
        """Multipliers at the bounds that an interior-point method only comes near to."""
        duals = np.where(duals < 1e-9, 0.0, duals)
        if self.relaxed:
            near = duals[1:] > (1 - 1e-6) * self.share
            duals[1:] = np.where(near, self.share, duals[1:])
        return duals
