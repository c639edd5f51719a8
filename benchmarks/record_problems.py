"""Record E-step problems of real training runs, for the family ``recorded`` of the solver benchmark.

    python -m benchmarks.record_problems

Trains two tasks as their presets say, briefly, one with the paper's limit as well, and keeps the problems that the
agent handed to its E-step solver at evenly spaced updates: Q-values in float32, limits and KL bounds. They are written
to ``benchmarks/data/recorded_problems.npz``: for each run, ``<run>:q`` [N,S,B,K], ``<run>:limit`` [N,M],
``<run>:epsilon`` [N]. The solver is wrapped, as any solver of your own could be, so the agent knows nothing of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
import torch

from benchmarks.solver_families import RECORDED
from cvpo.estep import DualProblem, DualSolution, registry
from cvpo.run import configure
from cvpo.run.setting import build, setting
from cvpo.train import Loop

#: Name: (task, steps, options). States are fewer than the presets' so that the file stays small.
RUNS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "Sprint": ("cvpo/Sprint-v0", 2_500, {"estep_batch": 64}),
    "Sprint, limit q": ("cvpo/Sprint-v0", 2_500, {"estep_batch": 64, "limit": "q", "states": "replay"}),
    "HopperVelocity": ("SafetyHopperVelocity-v1", 6_000, {"estep_batch": 64}),
}
KEPT = 20


@attrs.frozen
class Recorder:
    """``solver``, and every problem that it was given."""

    solver: Any = attrs.field(factory=lambda: registry.create("newton"))
    problems: list[DualProblem] = attrs.field(factory=list, eq=False)

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """The solver's answer."""
        self.problems.append(problem)
        return self.solver.solve(problem, warm)


def record(task: str, steps: int, options: dict[str, Any], kept: int) -> dict[str, np.ndarray]:
    """Problems at ``kept`` evenly spaced updates of one run."""
    config, recorder = configure(task=task, seed=0, steps=steps, **options), Recorder()
    with setting(config) as (env, _):
        agent = build(attrs.evolve(config, agent={**config.agent, "estep": recorder}), env)
        Loop(agent, env, config.schedule).run(steps)
    chosen = [recorder.problems[i] for i in np.linspace(0, len(recorder.problems) - 1, kept).round().astype(int)]
    q = [torch.cat([each.q_reward[None], each.q_cost]) for each in chosen]
    return {
        "q": torch.stack(q).float().numpy(),
        "limit": torch.stack([each.cost_limit for each in chosen]).numpy(),
        "epsilon": torch.stack([each.kl_epsilon for each in chosen]).numpy(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Train all runs and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=int, default=KEPT, help="problems of each run")
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    for name, (task, steps, options) in RUNS.items():
        found = record(task, steps, options, arguments.kept)
        arrays |= {f"{name}:{part}": values for part, values in found.items()}
        print(name, {part: values.shape for part, values in found.items()}, flush=True)
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, **arrays)
    print(f"{RECORDED.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
