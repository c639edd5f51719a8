"""Peak memory of one solve, each in a process of its own.

    python -m benchmarks.memory newton one

What is measured: by how much the peak resident memory of the process (VmHWM, which includes torch's, SciPy's and
Clarabel's own allocations) exceeds what was resident right before the solve (VmRSS), in bytes, after a small solve that
loads libraries. Linux only: the peak is set back through ``/proc/self/clear_refs``. Pages that the process holds
already are used again without being counted, so a few hundred kilobytes are noise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import BASELINES
from benchmarks.contestants import at_level
from benchmarks.solver_problems import draw
from cvpo.estep import registry

#: B = 256, K = 64, M = 1 alone, and 64 problems of B = 64, K = 16.
PROBLEMS: dict[str, dict[str, Any]] = {
    "one": {"states": 256, "particles": 64},
    "stack": {"lead": (64,), "states": 64, "particles": 16},
}
LEVEL = 1e-6
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(profile: str) -> Iterator[dict[str, Any]]:
    """A row for each solver and problem; the smallest profile has none."""
    if profile == "smoke":
        return
    for name in [*registry.names(), *BASELINES]:
        for problem in PROBLEMS:
            yield in_process(name, problem)


def in_process(name: str, problem: str) -> dict[str, Any]:
    """The row of one solver on one problem, from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", name, problem]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment)
    row = {"kind": "memory", "solver": name, "problem": problem, "level": LEVEL}
    if done.returncode:
        return row | {"bytes": None, "error": done.stderr.strip().rsplit("\n", 1)[-1]}
    return row | json.loads(done.stdout)


def growth(name: str, problem: str) -> dict[str, Any]:
    """Bytes by which a solve in this process raises its peak, and the bytes of Q-values that it was given."""
    solver, case = at_level(name, LEVEL), draw(90, **PROBLEMS[problem])
    solver.solve(draw(91, states=4, particles=4))
    CLEAR.write_text("5")
    before = _kilobytes("VmRSS")
    solver.solve(case)
    peak = _kilobytes("VmHWM")
    data = case.q_reward.nbytes + case.q_cost.nbytes
    return {"bytes": 1024 * max(0, peak - before), "data_bytes": data}


def _kilobytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(growth(*sys.argv[1:])))
