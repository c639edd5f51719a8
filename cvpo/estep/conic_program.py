"""One E-step problem as a conic program in CVXPY, and its solution by Clarabel."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from cvpo.estep.scaling import Scaled
from cvpo.extras import require


class ConicProgram:
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
        cp = require("cvxpy", "the cvxpy solver", "solvers")
        inside = self.prior > 0
        states, particles = inside.shape
        count = int(inside.sum())
        rows = np.repeat(np.arange(states), particles)[inside.ravel()]
        sums = sparse.csr_matrix((np.ones(count), (rows, np.arange(count))), shape=(states, count))
        w = cp.Variable(count)
        # w log(w/p) in two parts: with p inside the cone, priors of 1e-6 and less are lost on the conic solver.
        bound = (-cp.sum(cp.entr(w)) - np.log(self.prior[inside]) @ w) / states <= self.epsilon
        constraints: list[Any] = [sums @ w == 1, bound]
        objective = cp.Maximize(self.q[0, inside] @ w / states)
        cost = self.q[1:, inside] / states
        # Q_c >= 0 here: a negative limit is violated by all weights, and its λ_m is 1.
        certain = self.relaxed & (self.limit < 0)
        violation: Any = 0.0
        if self.relaxed:
            violation = cp.Variable(int((~certain).sum()), nonneg=True)
            objective = cp.Minimize((self.share[certain] @ cost[certain]) @ w + self.share[~certain] @ violation)
        if (~certain).any():
            constraints.append(cost[~certain] @ w - self.limit[~certain] <= violation)
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
        duals = np.concatenate([[float(bound.dual_value)], np.where(certain, self.share, 0.0)])
        if (~certain).any():
            duals[1:][~certain] = constraints[-1].dual_value
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
