"""The primal itself, as a conic program in CVXPY: a reference that shares nothing with the dual solvers."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cvpo.estep.answer import Answer, assemble
from cvpo.estep.certify import kkt_residuals
from cvpo.estep.extras import require
from cvpo.estep.implicit import attach
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.validators import number

CAUTIONS: tuple[dict[str, Any], ...] = ({}, {"max_step_fraction": 0.9}, {"equilibrate_enable": False})
"""Settings of Clarabel, tried in turn until the residuals are good: as they are; steps that keep further away from the
boundary; and the program as it was scaled here. On nearly degenerate programs one of them mostly gets through."""


@attrs.frozen
class Cvxpy:
    """max_w mean_b Σ_k w Q_r over the weights themselves, with the KL bound as exponential cones.

    CVXPY builds the normalised program; the interior-point solver Clarabel solves it, with gap and feasibility
    tolerances pinned to ``tolerance``. Where that has no solution, a second program minimises Σ_m (E Q_c,m − d_m)₊, in
    the caller's units. The weights are the conic solver's own, and (η, λ) its multipliers: objective and constraints
    are good to ``accuracy``, but weights and duals agree with each other only to about its square root, so ``graded``
    leaves out what compares the two. Hundreds of times slower than the dual solvers, on the CPU, without warm start.
    Where Clarabel fails, the status is BACKEND_ERROR. Raises DependencyError where cvxpy or clarabel is not installed.
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
            forms = [(scaled, Status.OK)]
            if problem.costs:
                forms.append((scaled.without_reward(), Status.INFEASIBLE))
            answer = _nothing(problem, scaled)
            good = ~scaled.finite
            for caution, (record, status) in itertools.product(CAUTIONS, forms):
                if bool(good.all()):
                    break
                found = self._attempt(problem, scaled, record, status, ~good, caution)
                better = self._good(problem, assemble(problem, scaled, found)) & ~good
                # Of what is not good enough, the first is kept.
                poor = (answer.status == Status.BACKEND_ERROR) & (found.status == status) & ~better
                total = answer.iterations + found.iterations
                answer = found.where(better | poor, answer)._replace(iterations=total)
                answer = answer._replace(status=torch.where(poor, int(Status.MAX_ITER), answer.status))
                good = good | better
            solution = assemble(problem, scaled, answer)
        return attach(problem, solution)

    def _good(self, problem: DualProblem, solution: DualSolution) -> Tensor:
        """Where the residuals that this solver answers for are within its accuracy [P]."""
        residuals = kkt_residuals(problem, solution)
        parts = [getattr(residuals, name).reshape(solution.status.numel(), -1) for name in self.graded]
        return (torch.cat(parts, dim=1) <= self.accuracy).all(1)

    def _attempt(
        self,
        problem: DualProblem,
        scaled: Scaled,
        record: Scaled,
        status: Status,
        wanted: Tensor,
        caution: dict[str, Any],
    ) -> Answer:
        """Answers to the ``wanted`` problems of ``record``, with ``status`` where there is one."""
        answer = _nothing(problem, scaled)
        prior, x = answer.weights.clone(), torch.ones_like(scaled.q[:, :, 0, 0])
        options = {"tol_gap_abs": self.tolerance, "tol_gap_rel": self.tolerance, "tol_feas": self.tolerance}
        for i in wanted.nonzero().squeeze(1).tolist():
            program = _Program(record.take(i), prior[i], relaxed=status == Status.INFEASIBLE)
            found = program.solve({**options, "max_iter": self.max_iter, **caution})
            if found is not None:
                duals, weights, answer.iterations[i] = found
                x[i], answer.weights[i], answer.status[i] = torch.from_numpy(duals), torch.from_numpy(weights), status
        eta, lam = record.outward(x)
        slack = scaled.limit - (answer.weights.unsqueeze(1) * scaled.q[:, 1:]).sum(-1).mean(-1)
        return answer._replace(eta=eta, lam=lam, slack=slack)


def _nothing(problem: DualProblem, scaled: Scaled) -> Answer:
    """P answers of status BACKEND_ERROR: the prior."""
    none = torch.zeros_like(scaled.epsilon, dtype=torch.int64)
    weights = problem.log_p.exp().reshape(scaled.q[:, 0].shape)
    return Answer(none + Status.BACKEND_ERROR, scaled.epsilon, scaled.limit, weights, scaled.limit, none)


class _Program:
    """One problem over the weights of the particles that have prior mass, as one long vector."""

    def __init__(self, record: Scaled, prior: Tensor, relaxed: bool) -> None:
        self.q = record.q.numpy(force=True)
        self.prior = prior.numpy(force=True)
        self.limit = record.limit.numpy(force=True)
        self.epsilon = float(record.epsilon)
        self.share = (record.unit_cost / record.unit_reward).numpy(force=True)
        self.relaxed = relaxed

    def solve(self, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int] | None:
        """(η, λ) [S], weights [B,K] and the iterations of Clarabel; None where there is no solution."""
        cp = require("cvxpy")
        inside = self.prior > 0
        states, particles = inside.shape
        count = int(inside.sum())
        rows = np.repeat(np.arange(states), particles)[inside.ravel()]
        sums = sparse.csr_matrix((np.ones(count), (rows, np.arange(count))), shape=(states, count))
        w = cp.Variable(count)
        cost = self.q[1:, inside] / states
        # w log(w/p) in two parts: with p inside the cone, priors of 1e-6 and less are lost on the conic solver.
        bound = (-cp.sum(cp.entr(w)) - np.log(self.prior[inside]) @ w) / states <= self.epsilon
        constraints: list[Any] = [sums @ w == 1, bound]
        objective = cp.Maximize(self.q[0, inside] @ w / states)
        # Q_c >= 0 here: a negative limit is violated by all weights, and its λ_m is 1.
        certain = self.relaxed & (self.limit < 0)
        limits = None
        if self.relaxed:
            violation = cp.Variable(len(self.limit), nonneg=True)
            objective = cp.Minimize((self.share * certain) @ cost @ w + (self.share * ~certain) @ violation)
        if (~certain).any():
            slack = cost[~certain] @ w - self.limit[~certain]
            limits = slack <= (violation[~certain] if self.relaxed else 0.0)
            constraints.append(limits)
        program = cp.Problem(objective, constraints)
        try:
            with warnings.catch_warnings():
                # "Solution may be inaccurate": it is graded here, whatever the backend thinks of it.
                warnings.simplefilter("ignore", UserWarning)
                program.solve(solver=cp.CLARABEL, **options)
        except cp.error.SolverError:
            return None
        if w.value is None or bound.dual_value is None:
            return None
        lam = np.where(certain, self.share, 0.0)
        if limits is not None:
            lam[~certain] = limits.dual_value
        duals = np.concatenate([np.atleast_1d(bound.dual_value), lam])
        weights = np.zeros_like(self.prior)
        weights[inside] = np.maximum(w.value, 0.0)
        total = weights.sum(-1, keepdims=True)
        if not (np.isfinite(duals).all() and (total > 0).all()):
            return None
        weights = weights / total
        return self._at_bounds(duals, weights), weights, int(program.solver_stats.num_iters)

    def _at_bounds(self, duals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Multipliers that an interior-point method leaves near their bounds, put there: 0 with slack, 1 violated."""
        mass = weights > 0
        kl = (weights[mass] * np.log(weights[mass] / self.prior[mass])).sum() / len(weights)
        slack = self.limit - (self.q[1:] * weights).sum((1, 2)) / len(weights)
        loose = np.concatenate([[self.epsilon - kl > 1e-3 * self.epsilon], slack > 1e-3])
        duals = np.where(loose & (duals < 1e-4), 0.0, np.maximum(duals, 0.0))
        if self.relaxed:
            near = (slack < -1e-3 * self.share.max() / self.share) & (duals[1:] > 0.999 * self.share)
            duals[1:] = np.where(near, self.share, duals[1:])
        return duals
