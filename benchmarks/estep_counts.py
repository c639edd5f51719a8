"""E-step counts: drawn problems that a solver fails, its iterations, and its agreement with the conic reference.

    python -m benchmarks.estep_counts drawn newton --problems 10000
    python -m benchmarks.estep_counts agreement newton --problems 500
    python -m benchmarks.estep_counts iterations newton --problems 1000

``drawn`` solves problems of :func:`cvpo.testing.dual_problems`, which are mostly edge cases, and counts what ended
without an answer, with NaN, or with a residual or a witness that does not bear out the status. ``agreement`` compares
E Q_r, relative to R, or the least violation, relative to the largest C_m, with the primal solved as a conic program.
``iterations`` counts on problems as an agent meets them, cold and warm; warm is from the solution of the problem before
the Q-values, of size one, moved by 0.01. One JSON line a run is written to ``benchmarks/results/estep-counts.jsonl``,
in place of an earlier one of the same command.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from cvpo.estep import DualProblem, Status, kkt_residuals, registry
from cvpo.run.versions import versions
from cvpo.testing import dual_problems
from cvpo.testing.estep_grading import accuracy_for, claimed, each, require_witness, spans

PACKAGES = ("cvxpy", "clarabel", "osqp", "hypothesis")
TARGET = Path(__file__).parent / "results" / "estep-counts.jsonl"


def draw(count: int, use: Callable[[DualProblem], None], *, number: int = 0, **options: Any) -> None:
    """Hand ``count`` problems, drawn with the seed ``number``, to ``use``: the same ones every time, for one state of
    the source."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(dual_problems(**options))
    def drawn(problem: DualProblem) -> None:
        use(problem)

    drawn()


def count_drawn(name: str, problems: int) -> dict[str, Any]:
    """Statuses, failures, NaN and wrong statuses; ``failed`` quotes the first few."""
    solver = registry.create(name)
    statuses: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    iterations: list[float] = []
    worst: defaultdict[str, float] = defaultdict(float)
    failed: list[str] = []

    def use(problem: DualProblem) -> None:
        counts["draws"] += 1
        solution = solver.solve(problem)
        statuses.update(Status(code).name for code in solution.status.reshape(-1).tolist())
        iterations.extend(solution.iterations.reshape(-1).tolist())
        finite = all(bool(torch.isfinite(part).all()) for part in (solution.eta, solution.lam, solution.weights))
        solved = bool(claimed(solution).all())
        residuals, bound = kkt_residuals(problem, solution), accuracy_for(solver, problem)
        parts = [getattr(residuals, part).flatten() for part in getattr(solver, "graded", ("max",))]
        residual = float(torch.cat(parts).max())
        worst[str(problem.q_reward.dtype)] = max(worst[str(problem.q_reward.dtype)], residual)
        wrong = f"residual {residual}" if solved and residual > bound else ""
        try:
            for words, part, answer in each(problem, solution):
                require_witness(part, answer, bound, words)
        except AssertionError as error:
            wrong = str(error)
        counts["failures"] += not solved
        counts["nan"] += not finite
        counts["wrong"] += bool(wrong)
        if wrong or not (solved and finite):
            failed.append(f"{wrong} {solution.status.tolist()} {problem}")

    draw(problems, use)
    return {
        "problems": counts["draws"],
        "solved": sum(statuses.values()),
        "statuses": dict(statuses),
        "failures": counts["failures"],
        "nan": counts["nan"],
        "wrong": counts["wrong"],
        "worst_residual": dict(worst),
        "iterations": quantiles(iterations),
        "failed": failed[:3],
    }


def count_agreement(name: str, problems: int) -> dict[str, Any]:
    """Differences from the conic reference, and how many problems of each kind there were."""
    solver, reference = registry.create(name), registry.create("cvxpy")
    kinds: Counter[str] = Counter()
    rewards: list[float] = []
    violations: list[float] = []
    failed: list[str] = []
    furthest = {"difference": 0.0, "residual": 0.0, "reference": 0.0}

    def use(problem: DualProblem) -> None:
        ours, theirs = solver.solve(problem), reference.solve(problem)
        for (_, part, a), (_, _, b) in zip(each(problem, ours), each(problem, theirs), strict=True):
            kinds["draws"] += 1
            kinds[f"M = {part.costs}"] += 1
            kinds[f"K = {part.q_reward.shape[-1]}"] += 1
            kinds[f"{Status(int(a.status)).name}, reference {Status(int(b.status)).name}"] += 1
            size = spans(part)
            if a.status == b.status == Status.OK:
                # Both weights sum to one, so the offsets of the states drop out of the difference.
                q = part.q_reward - part.q_reward[..., :1]
                difference = float(((a.weights - b.weights) * q).sum(-1).mean().abs() / size[0])
                rewards.append(difference)
                if difference > furthest["difference"]:
                    residuals = (float(kkt_residuals(part, each).max) for each in (a, b))
                    furthest.update(zip(furthest, (difference, *residuals), strict=True))
            else:
                difference = float((a.violation - b.violation).abs() / size[1:].max())
                violations.append(difference)
            if not difference <= 1e-6:
                failed.append(f"{difference} {a} {b} {part}")

    draw(problems, use, stacks=False, dtypes=(torch.float64,))
    return {
        "problems": kinds.pop("draws"),
        "kinds": dict(sorted(kinds.items())),
        "reward": quantiles(rewards),
        "furthest": furthest,
        "violation": quantiles(violations),
        "beyond_1e-6": sum(not value <= 1e-6 for value in rewards + violations),
        "failed": failed[:3],
    }


def count_iterations(name: str, problems: int) -> dict[str, Any]:
    """Iterations on ordinary problems, cold and warm."""
    solver = registry.create(name)
    generator = torch.Generator().manual_seed(0)
    cold: list[float] = []
    warm: list[float] = []

    def use(problem: DualProblem) -> None:
        before = solver.solve(problem)
        q, c = (
            part + 0.01 * torch.randn(part.shape, generator=generator, dtype=part.dtype)
            for part in (problem.q_reward, problem.q_cost)
        )
        after = DualProblem(q, c, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
        cold.extend(before.iterations.reshape(-1).tolist())
        warm.extend(solver.solve(after, before).iterations.reshape(-1).tolist())

    draw(problems, use, ordinary=True)
    return {"problems": problems, "cold": quantiles(cold), "warm": quantiles(warm)}


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 90 %, 99 % and the largest."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}
    return {word: ordered[math.ceil(share * len(ordered)) - 1] for word, share in at.items()}


COUNTS = {"drawn": count_drawn, "agreement": count_agreement, "iterations": count_iterations}


def main(argv: Iterable[str] | None = None) -> None:
    """Count, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(COUNTS))
    parser.add_argument("solver", choices=registry.names())
    parser.add_argument("--problems", type=int, default=1000)
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)
    start = time.perf_counter()
    row = COUNTS[arguments.what](arguments.solver, arguments.problems)
    command = f"python -m benchmarks.estep_counts {arguments.what} {arguments.solver} --problems {arguments.problems}"
    packages = {package: version(package) for package in PACKAGES}
    seconds = round(time.perf_counter() - start, 1)
    row = {"command": command, "seconds": seconds, **row, "versions": {**versions(), **packages}}
    print(json.dumps(row, indent=1))
    lines = TARGET.read_text().splitlines() if TARGET.exists() else []
    kept = [line for line in lines if json.loads(line)["command"] != command]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text("\n".join([*kept, json.dumps(row)]) + "\n")


if __name__ == "__main__":
    main()
