"""Properties that compare E-step solutions: with a reference, of equivalent problems, and from other starts."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import attrs
import torch

from cvpo.errors import DependencyError
from cvpo.estep import DualProblem, Status, registry
from cvpo.testing.estep_grading import ROUNDING, accuracy_for, each, require_agreement, require_residuals


def check_reference(solver: Any, problem: DualProblem) -> None:
    """E Q_r, or the least violation, is that of the conic solver on the primal, or else of another dual solver."""
    other = next(other for other in references() if type(other) is not type(solver))
    bound = accuracy_for(solver, problem) + other.accuracy
    require_agreement(problem, solver.solve(problem), other.solve(problem), bound, weights=False)


def check_stack(solver: Any, problem: DualProblem) -> None:
    """Every problem of a stack has the answer that it has alone."""
    if problem.kl_epsilon.ndim:
        for words, part, answer in each(problem, solver.solve(problem)):
            require_agreement(part, answer, solver.solve(part), 2 * accuracy_for(solver, problem), words=words)


def check_invariances(solver: Any, problem: DualProblem) -> None:
    """The answer to an equivalent problem is the equivalent answer."""
    base = solver.solve(problem)
    if not bool((base.status == Status.OK).all()):
        return
    q, c, d, p = problem.q_reward, problem.q_cost, problem.cost_limit, problem.log_prior
    shift = (q[..., :1] - q[..., -1:]).double() * 0.5
    moved = (c[..., :1] - c[..., -1:]).double() * 0.5
    order = torch.arange(q.shape[-1] - 1, -1, -1, device=q.device)
    flipped = None if p is None else p[..., order]
    epsilon, bound = problem.kl_epsilon, 2 * accuracy_for(solver, problem)
    # Doubling is exact; shifts round, so they are made in float64, and the limit moves by the shift's own mean.
    equivalent = {
        "Q_r doubled": (DualProblem(2 * q, c, d, epsilon, p), None),
        "Q_c and d doubled": (DualProblem(q, 2 * c, 2 * d, epsilon, p), None),
        "Q_r shifted per state": (DualProblem(q.double() + shift, c.double(), d, epsilon, p), None),
        "Q_c and d shifted": (DualProblem(q.double(), c.double() + moved, d + moved.mean((-1, -2)), epsilon, p), None),
        "particles in reverse": (DualProblem(q[..., order], c[..., order], d, epsilon, flipped), order),
    }
    for words, (other, back) in equivalent.items():
        found = solver.solve(other)
        found = attrs.evolve(found, weights=found.weights if back is None else found.weights[..., back])
        for (_, part, a), (_, _, b) in zip(each(problem, base), each(problem, found), strict=True):
            # Shifts round the costs: a limit that was just reachable may not be so any more.
            if b.status == Status.OK or "shifted" not in words:
                require_agreement(part, a, b, bound, words=words)


def check_float32(solver: Any, problem: DualProblem) -> None:
    """A float32 problem has the answer of the same values in float64."""
    low = _cast(problem, torch.float32)
    same = _cast(low, torch.float64)
    found, exact = solver.solve(low), solver.solve(same)
    for (words, part, a), (_, _, b) in zip(each(same, exact), each(same, found), strict=True):
        require_agreement(part, a, b, 2 * solver.accuracy + ROUNDING, words=f"{words} in float32")


def check_warm(solver: Any, problem: DualProblem) -> None:
    """Any warm start gives the answer of a cold one: its own solution, that of another problem, one far off, one that
    failed; and duals and weights that belong together."""
    cold = solver.solve(problem)
    other = DualProblem(-problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
    ok, lost = (torch.full_like(cold.status, int(status)) for status in (Status.OK, Status.NONFINITE))
    starts = {
        "its own solution": cold,
        "the solution of another problem": solver.solve(other),
        "a start far off": attrs.evolve(cold, eta=cold.eta * 30 + 1e-3, lam=cold.lam * 0.1, status=ok),
        "a failed start": attrs.evolve(cold, eta=cold.eta * torch.nan, lam=cold.lam * torch.inf, status=lost),
    }
    for words, warm in starts.items():
        found = solver.solve(problem, warm)
        for (_, part, a), (_, _, b) in zip(each(problem, cold), each(problem, found), strict=True):
            require_agreement(part, a, b, 2 * accuracy_for(solver, problem), words=f"from {words}")
        require_residuals(solver, problem, found, f", from {words}")


@functools.cache
def references() -> list[Any]:
    """What solutions are compared with, the most independent first: the conic solver, if it is installed."""
    found = []
    for name in ("cvxpy", "newton", "slsqp"):
        with contextlib.suppress(DependencyError):
            found.append(registry.create(name))
    return found


def _cast(problem: DualProblem, dtype: torch.dtype) -> DualProblem:
    prior = problem.log_prior
    q, c = problem.q_reward.to(dtype), problem.q_cost.to(dtype)
    return DualProblem(q, c, problem.cost_limit, problem.kl_epsilon, None if prior is None else prior.to(dtype))
