"""Environment benchmark: whole episodes of Safety-Gymnasium's tasks as training sees them, and as the package has them.

    python -m benchmarks.environments

For each task, episodes of uniformly random actions in turns: ``cvpo.envs.make(task)`` and
``safety_gymnasium.make(task)``, each with its reset, from the same seeds with the same actions, on one thread; tasks
whose episodes end at the horizon and nowhere else. One JSON line a task goes to
``benchmarks/results/environments.jsonl``: milliseconds of a step (quartiles over the episodes, resets included), the
package's time over ours within each pair, and how far returns and episode costs of the two are apart, which must be 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cvpo
from benchmarks.updates_sides import quartiles
from cvpo.envs.adapter import episode_seed
from cvpo.envs.compat import array_defaults
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "environments.jsonl"
TASKS = ("SafetyPointCircle1-v0", "SafetyPointGoal1-v0", "SafetyHalfCheetahVelocity-v1")
SEED = 0


class Ours:
    """One environment as training steps it; after the last step of an episode the next has begun."""

    def __init__(self, task: str) -> None:
        self.env = cvpo.envs.make(task, seed=SEED)
        self.env.reset()

    def episode(self, number: int, actions: np.ndarray) -> tuple[float, float]:
        """Return and cost of episode ``number``, the next, for the policy's ``actions``."""
        steps = [self.env.step(action[None]) for action in actions]
        return sum(float(step.reward[0]) for step in steps), sum(float(step.cost[0, 0]) for step in steps)


class Package:
    """The same task from the package's own ``make``."""

    def __init__(self, task: str) -> None:
        with array_defaults("safety_gymnasium"):
            self.env = importlib.import_module("safety_gymnasium").make(task)

    def episode(self, number: int, actions: np.ndarray) -> tuple[float, float]:
        """Return and cost of episode ``number``, for the environment's own ``actions``."""
        self.env.reset(seed=episode_seed(SEED, 0, number))
        steps = [self.env.step(action) for action in actions]
        return sum(float(step[1]) for step in steps), sum(float(step[2]) for step in steps)


def measure(task: str, pairs: int) -> dict[str, Any]:
    """The row of one task."""
    ours = Ours(task)
    env, sides = ours.env, {"ours": ours, "package": Package(task)}
    rng = np.random.default_rng(SEED)
    ms: dict[str, list[float]] = {name: [] for name in sides}
    apart = np.zeros(2)
    for number in range(pairs):
        actions = rng.uniform(-1.0, 1.0, (env.horizon, env.action_size)).astype(np.float32)
        sums = {}
        for name in sorted(sides, reverse=bool(number % 2)):
            began = time.perf_counter()
            sums[name] = sides[name].episode(number, actions if name == "ours" else env.door.to_env(actions))
            ms[name].append(1e3 * (time.perf_counter() - began) / env.horizon)
        apart = np.maximum(apart, np.abs(np.subtract(sums["ours"], sums["package"])))
    return {
        "task": task,
        "steps": env.horizon,
        "pairs": pairs,
        **{f"{name}_ms": quartiles(values) for name, values in ms.items()},
        "ratio": quartiles(theirs / own for own, theirs in zip(ms["ours"], ms["package"], strict=True)),
        "return_apart": float(apart[0]),
        "cost_apart": float(apart[1]),
        "command": "python -m benchmarks.environments",
        "load": os.getloadavg()[0],
        "versions": versions(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Measure every task and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)
    rows = [measure(task, arguments.pairs) for task in TASKS]
    TARGET.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print({key: row[key] for key in ("task", "ours_ms", "package_ms", "ratio", "return_apart", "cost_apart")})


if __name__ == "__main__":
    main()
