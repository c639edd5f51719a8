"""One contestant on one case of the solver benchmark: seconds, what happened inside, and how good the answer is."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import torch

from benchmarks.contestants import Contestant
from benchmarks.measuring import Inside, TimeLimit, quartiles, threads_for, time_limit, timed
from benchmarks.solver_families import Case
from cvpo.errors import CvpoError
from cvpo.estep import DualProblem, DualSolution, Status, kkt_residuals

PARTS = ("kl", "cost", "stationarity", "complementarity", "gap", "simplex", "sign")
PRIMAL = ("kl", "cost", "gap", "simplex", "sign")


def measure(contestant: Contestant, case: Case, start: str, budget: float, limit: float) -> list[dict[str, Any]]:
    """The rows of one contestant on one case, one for each of its levels."""
    problem, before = case.pair()
    row: dict[str, Any] = {"status": "done"}
    try:
        with threads_for(problem):
            # What comes before a warm start is not what is timed, and may be many calls.
            with time_limit(10 * limit):
                warm = _answer_before(contestant, before) if start == "warm" else None
            row |= _measure(contestant.solver, problem, warm, budget, limit)
    except TimeLimit:
        row["status"] = "time limit"
    except (CvpoError, ArithmeticError, ValueError, RuntimeError) as error:
        row["status"] = f"error: {error}"[:200]
    return rows(contestant, case, start, row, problem)


def rows(
    contestant: Contestant, case: Case, start: str, found: dict[str, Any], problem: DualProblem
) -> list[dict[str, Any]]:
    """``found`` as one row for each level; without residuals, nothing is solved."""
    sizes = dict(zip("PMBK", (problem.kl_epsilon.numel(), *problem.q_cost.shape[-3:]), strict=True))
    worst = found.get("residuals", {})
    largest = max(worst.values(), default=math.inf)
    primal = max((worst[part] for part in PRIMAL if part in worst), default=math.inf)
    return [
        {
            "kind": "solve",
            "family": case.family,
            "case": case.name,
            **sizes,
            "solver": contestant.name,
            "options": contestant.options,
            "start": start,
            "level": level,
            "solved": largest <= level,
            "primal": primal <= level,
            **found,
        }
        for level in contestant.levels
    ]


def _answer_before(contestant: Contestant, before: DualProblem) -> DualSolution:
    answer = None
    for _ in range(contestant.calls_before):
        answer = contestant.solver.solve(before, answer)
    assert answer is not None
    return answer


def _measure(
    solver: Any, problem: DualProblem, warm: DualSolution | None, budget: float, limit: float
) -> dict[str, Any]:
    # Repeats come on top of one solve at its limit, and the watched one is slowed by counting.
    with time_limit(limit + 10 * budget):
        times, warmed_up = timed(lambda: solver.solve(problem, warm), budget)
    if min(times) > limit:
        raise TimeLimit
    inside = Inside()
    with time_limit(2 * limit):
        began = time.perf_counter()
        with inside.watch(solver):
            solution = solver.solve(problem, warm)
        watched = time.perf_counter() - began
    share = None if inside.solve_seconds is None else inside.solve_seconds / watched
    seconds = quartiles(times)
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "repeats": len(times),
        "warmed_up": warmed_up,
        "solve_seconds": None if share is None else float(f"{share * seconds['median']:.4g}"),
        "build_seconds": None if share is None else float(f"{(1 - share) * seconds['median']:.4g}"),
        "iterations": int(solution.iterations.max()),
        "evaluations": inside.evaluations,
        "statuses": dict(Counter(Status(code).name for code in solution.status.reshape(-1).tolist())),
        "residuals": worst_residuals(problem, solution),
    }


def worst_residuals(problem: DualProblem, solution: DualSolution) -> dict[str, float]:
    """The largest of each residual over the stack."""
    graded = kkt_residuals(problem, solution)
    parts = {part: getattr(graded, part).reshape(-1) for part in PARTS}
    return {part: float(f"{values.max():.3e}") if values.numel() else 0.0 for part, values in parts.items()}
