"""Population benchmark: updates per second of P agents in one batched update, against P agents one after the other.

    python -m benchmarks.population

For P = 1, 2, 4, 8, 16, with 2×64 networks, 256 states, 16 particles, 17-dimensional observations, 6-dimensional actions
and one cost: rounds of both kinds in turn, the same agents on the same replay. One JSON line for each P goes to
``benchmarks/results/population.jsonl``: agent updates per second by the median of the rounds, their ratio round by
round (tenth percentile, median, ninetieth), the largest difference of a policy's parameter after the updates, versions,
threads, and the load of the machine, which should be near 0. Freed memory stays with the process, as in every run of
the library (:func:`cvpo.keep_memory`): else memory that comes and goes takes a third of the time of 8. ``--cpu-time``
counts the processor's time of all threads instead of the clock's, for a machine with other work on it; such rows say
so.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import cvpo
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "population.jsonl"
OBS, ACT, STEPS = 17, 6, 500
OPTIONS: dict[str, Any] = dict(
    critic={"name": "mlp", "hidden": (64, 64)},
    policy={"name": "diagonal", "hidden": (64, 64)},
    cost_limits=40.0,
    horizon=100,
    batch_size=256,
    particles=16,
)


def agents(count: int) -> list[cvpo.CVPO]:
    """Agents of different seeds, with replay of their own."""
    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,)), gymnasium.spaces.Box(-1.0, 1.0, (ACT,))
    made = [cvpo.make_agent(*spaces, seed=seed, **OPTIONS) for seed in range(count)]
    for seed, agent in enumerate(made):
        generator = torch.Generator().manual_seed(seed)
        for step in range(STEPS):
            obs, action, signals, next_obs = (
                torch.rand(shape, generator=generator) for shape in ((1, OBS), (1, ACT), (2, 1), (1, OBS))
            )
            end = torch.tensor([step % 100 == 99])
            agent.observe(cvpo.Transition(obs, 2.0 * action - 1.0, signals, next_obs, torch.tensor([False]), end))
    return made


def seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    """Mean time of one call."""
    began = clock()
    for _ in range(repeats):
        call()
    return (clock() - began) / repeats


def measure(count: int, rounds: int, repeats: int, cpu_time: bool) -> dict[str, Any]:
    """The row of one P."""
    clock = time.process_time if cpu_time else time.perf_counter
    singles = agents(count)
    vector = cvpo.VectorAgent(copy.deepcopy(singles))

    def one_by_one() -> None:
        for agent in singles:
            agent.update()

    seconds(vector.update, repeats, clock), seconds(one_by_one, repeats, clock)
    both = np.array(
        [(seconds(vector.update, repeats, clock), seconds(one_by_one, repeats, clock)) for _ in range(rounds)]
    )
    pairs = zip(vector.agents, singles, strict=True)
    difference = max(
        float((ours - theirs).detach().abs().max())
        for agent, single in pairs
        for ours, theirs in zip(agent.policy.parameters(), single.policy.parameters(), strict=True)
    )
    ratio = both[:, 1] / both[:, 0]
    return {
        "population": count,
        "updates_per_second": round(float(count / np.median(both[:, 0])), 2),
        "updates_per_second_alone": round(float(count / np.median(both[:, 1])), 2),
        "ratio": dict(zip(("p10", "median", "p90"), np.percentile(ratio, (10, 50, 90)).round(3).tolist(), strict=True)),
        "difference": difference,
        "updates": (rounds + 1) * repeats,
        "rounds": rounds,
        "clock": "processor" if cpu_time else "wall",
        "command": "python -m benchmarks.population" + (" --cpu-time" if cpu_time else ""),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": versions(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Measure every P and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5, help="updates in a row of each kind")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args(None if argv is None else list(argv))
    cvpo.keep_memory()
    rows = []
    for count in arguments.population:
        rows.append(measure(count, arguments.rounds, arguments.repeats, arguments.cpu_time))
        print({key: value for key, value in rows[-1].items() if key not in ("versions", "command")}, flush=True)
    arguments.target.parent.mkdir(exist_ok=True)
    arguments.target.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
