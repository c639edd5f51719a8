"""Solver benchmark: speed against accuracy against failures, on named families of E-step problems.

    python -m benchmarks.solvers                                  # quick profile, under 10 minutes on 2 cores
    python -m benchmarks.solvers --profile full
    python -m benchmarks.solvers --solver my_package:MySolver     # yours beside the others

Every registered solver and the baselines (:mod:`benchmarks.contestants`) solve every case
(:mod:`benchmarks.solver_families`), cold, and warm from their own answer before the Q-values moved by 1 % of their
spread, at three tolerance levels. Each answer is graded from the problem alone by
:func:`cvpo.estep.kkt_residuals`; what is missing counts as an infinite error.
A case is solved at a level where the largest residual of every problem in its stack is within the level; ``primal`` is
the same for the residuals of the weights alone (KL, costs, simplex) and the gap, since an interior-point method leaves
weights and multipliers that agree with each other only to about the root of its accuracy.

One JSON line for each (solver, case, start, level): seconds of one ``solve`` of the whole stack, quartiles over
repeats, and the build and solve parts; iterations, dual evaluations, statuses, residuals. A solve over the time limit
is a failure, and so are, untried, the larger cases of its family. Then speed goals (:mod:`benchmarks.speed_goals`) and
peak memory (:mod:`benchmarks.memory`). The first line has versions, machine, threads and load. Contestants have one
thread, but torch has ``--threads`` from 2^17 Q-values on.
``python -m benchmarks.report`` turns the rows into tables and plots.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import cvpo
from benchmarks import memory, solver_measure, speed_goals
from benchmarks.contestants import contestants
from benchmarks.solver_families import cases
from benchmarks.solver_problems import MOVE, draw
from cvpo.run.versions import versions

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("cvxpy", "clarabel", "osqp")

#: Seconds: of repeats of one measurement, and the limit of one solve.
PROFILES = {"smoke": (0.01, 5.0), "quick": (0.06, 4.0), "full": (0.1, 20.0)}


def run(profile: str, extra: Iterable[str] = (), only: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of every contestant on every case of a profile."""
    budget, limit = PROFILES[profile]
    field = contestants(extra, only)
    for contestant in field:
        # Libraries that load on first use would count against a time limit, and not survive an interruption.
        contestant.solver.solve(draw(0, states=4, particles=4))
    beyond: dict[tuple[str, str, str], str] = {}
    for case in cases(profile):
        for start in ("cold", "warm"):
            for contestant in field:
                key = (contestant.name, repr(contestant.options), case.family + start)
                # Families are ordered by size only where the names say so; elsewhere every case is tried.
                if key in beyond and case.family in ("size", "costs", "stack"):
                    status = {"status": f"not tried: over the time limit at {beyond[key]}"}
                    yield from solver_measure.rows(contestant, case, start, status, case.make())
                    continue
                found = solver_measure.measure(contestant, case, start, budget, limit)
                if found[0]["status"] == "time limit":
                    beyond[key] = case.name
                yield from found


def describe_run(profile: str, command: str) -> dict[str, Any]:
    """The first line: what ran, on what, and how busy the machine was."""
    budget, limit = PROFILES[profile]
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "kind": "run",
        "profile": profile,
        "command": command,
        "budget_seconds": budget,
        "time_limit_seconds": limit,
        "moved_by": MOVE,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "versions": {**versions(), **packages},
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Run a profile and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="quick")
    parser.add_argument("--solver", action="append", default=[], metavar="MODULE:CLASS", help="a solver of your own")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these solvers, and neither goals nor memory")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch for large problems and stacks")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/solvers-PROFILE.jsonl")
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(arguments.threads)
    # As a run does; it serves every contestant.
    cvpo.keep_memory()
    words = ["python -m benchmarks.solvers", f"--profile {arguments.profile}", f"--threads {arguments.threads}"]
    words += [f"--solver {name}" for name in arguments.solver]
    words += [f"--only {' '.join(arguments.only)}"] if arguments.only else []
    target = arguments.output or RESULTS / f"solvers-{arguments.profile}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    header = describe_run(arguments.profile, " ".join(words))
    lines = []
    for row in run(arguments.profile, arguments.solver, arguments.only):
        lines.append(row)
        median = row.get("seconds", {}).get("median", math.nan)
        print(f"{row['family']:10} {row['case']:28} {row['start']} {row['solver']:14} {row['level']:g}", end=" ")
        print(f"{1e3 * median:9.3f} ms  {'solved' if row['solved'] else row['status']}", flush=True)
    if not arguments.only:
        for row in (*speed_goals.measure(arguments.profile), *memory.measure(arguments.profile)):
            lines.append(row)
            print(json.dumps(row), flush=True)
    header |= {"seconds": round(time.perf_counter() - began, 1), "load_after": os.getloadavg()[0]}
    # Only a finished run replaces an earlier one.
    target.write_text("".join(json.dumps(row) + "\n" for row in [header, *lines]))
    print(f"{len(lines)} rows in {header['seconds']} s: {target}")


if __name__ == "__main__":
    main()
