"""Existing E-step practices as solvers with the library's contract, so that one benchmark grades all.

``fd-slsqp-loose``   SLSQP with finite differences, ftol 1e-3, 10 iterations: the code published with the paper
``fd-slsqp``         the same to a tight tolerance
``analytic-slsqp``   SLSQP with the gradient in NumPy: what a careful user would write
``adam-step``        one Adam step on (η, λ) at learning rate 0.02 in raw units: FSRL, without its aliasing of Q_r
``newton-torch``     the library's own Newton with passes in torch and NumPy, as it runs without Numba

But for the last, they work in the caller's units, on each problem of a stack in turn, know no infeasible problems, and
report OK where their optimiser reports success; an Adam step always does. Sources: liuzuxin/cvpo-safe-rl and
liuzuxin/FSRL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from scipy.optimize import minimize

from benchmarks.numpy_dual import NumpyDual
from cvpo.estep import DualProblem, DualSolution, Status
from cvpo.estep.newton import Newton

MOST = 1e5
"""The largest η and λ of the published code."""


@attrs.frozen
class Slsqp:
    """min g by SLSQP from (η, λ) = (1, 0), or from ``warm``; ``gradient`` chooses exact or finite differences."""

    summary: ClassVar[str] = "SciPy SLSQP on the raw dual, as existing code calls it"
    accuracy: ClassVar[float] = 1e-2

    gradient: bool = False
    ftol: float = 1e-3
    max_iter: int = 10
    least: float = 1e-6

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Every problem of the stack in turn."""
        starts = _starts(problem, warm)
        return _assemble(problem, [self._solve_one(NumpyDual(problem, i), x) for i, x in enumerate(starts)])

    def _solve_one(self, dual: NumpyDual, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, int]:
        bounds = [(self.least, MOST)] * len(start)
        result = minimize(
            dual.value_and_gradient if self.gradient else dual.value,
            np.maximum(start, self.least),
            jac=self.gradient,
            method="SLSQP",
            bounds=bounds,
            options={"ftol": self.ftol, "maxiter": self.max_iter},
        )
        return result.x, dual.weights(result.x), bool(result.success), int(result.nit)


@attrs.frozen
class AdamStep:
    """One Adam step on (η, λ), from (1, 0) or from ``warm`` with its moments; then η, λ cut to [1.2e-6, 20]."""

    summary: ClassVar[str] = "one Adam step on the raw dual by autograd, as FSRL takes it"
    accuracy: ClassVar[float] = 1e-2

    lr: float = 0.02

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Every problem of the stack in turn; ``state`` carries Adam's moments and counts."""
        starts = _starts(problem, warm)
        states = warm.state if warm is not None else [None] * len(starts)
        ends = [self._step(problem, i, x, state) for i, (x, state) in enumerate(zip(starts, states, strict=True))]
        return attrs.evolve(_assemble(problem, [end[0] for end in ends]), state=[end[1] for end in ends])

    def _step(self, problem: DualProblem, index: int, start: np.ndarray, state: Any) -> tuple[tuple, Any]:
        states, particles = problem.q_reward.shape[-2:]
        q = problem.q_reward.reshape(-1, states, particles)[index]
        epsilon = problem.kl_epsilon.reshape(-1)[index]
        x = torch.tensor(start, requires_grad=True)
        with torch.enable_grad():
            combined, value = q, x[0] * epsilon
            for m in range(problem.costs):
                combined = combined - x[1 + m] * problem.q_cost.reshape(-1, problem.costs, states, particles)[index, m]
                value = value + x[1 + m] * problem.cost_limit.reshape(-1, problem.costs)[index, m]
            tilted = combined / x[0] + problem.log_p.reshape(-1, states, particles)[index]
            value = value + x[0] * torch.logsumexp(tilted, -1).mean()
            slope = torch.autograd.grad(value, x)[0].numpy()
        # Written out: an optimiser object made anew, or filled from the state, would cost more than the step.
        first, second, seen = state or (np.zeros_like(start), np.zeros_like(start), 0)
        first, second, seen = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2, seen + 1
        step = first / (1 - 0.9**seen) / (np.sqrt(second / (1 - 0.999**seen)) + 1e-8)
        end = np.clip(start - self.lr * step, 10 * np.finfo(np.float32).eps, 20.0)
        return (end, NumpyDual(problem, index).weights(end), True, 1), (first, second, seen)


BASELINES: dict[str, Callable[..., Any]] = {
    "adam-step": AdamStep,
    "analytic-slsqp": Slsqp,
    "fd-slsqp": Slsqp,
    "fd-slsqp-loose": Slsqp,
    "newton-torch": functools.partial(Newton, passes="torch"),
}


def _starts(problem: DualProblem, warm: DualSolution | None) -> np.ndarray:
    """(η, λ) [P,S] to start from."""
    count, costs = problem.kl_epsilon.numel(), problem.costs
    if warm is None:
        return np.tile(np.eye(1, 1 + costs), (count, 1))
    return np.concatenate([warm.eta.reshape(count, 1).numpy(), warm.lam.reshape(count, costs).numpy()], axis=1)


def _assemble(problem: DualProblem, ends: list[tuple[np.ndarray, np.ndarray, bool, int]]) -> DualSolution:
    shape, q = problem.kl_epsilon.shape, problem.q_reward
    duals, weights = (torch.from_numpy(np.stack(part)) for part in list(zip(*ends, strict=True))[:2])
    weights = weights.to(q.dtype).reshape(q.shape)
    excess = (weights.unsqueeze(-3) * problem.q_cost).sum(-1).mean(-1) - problem.cost_limit
    return DualSolution(
        eta=duals[:, 0].reshape(shape),
        lam=duals[:, 1:].reshape(problem.cost_limit.shape),
        weights=weights,
        status=torch.tensor([Status.OK if end[2] else Status.MAX_ITER for end in ends]).reshape(shape),
        iterations=torch.tensor([end[3] for end in ends]).reshape(shape),
        violation=excess.clamp(min=0).sum(-1),
    )
