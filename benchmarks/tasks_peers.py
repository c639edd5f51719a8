"""Results of other libraries on the tasks of :mod:`benchmarks.tasks`: what they published, and one run of a peer."""

from __future__ import annotations

import csv
from pathlib import Path

import attrs
import numpy as np

from cvpo.plots import Curves, Group

#: FSRL 0.1.0's CVPO at its default configuration, cost limit 10, seeds 10 and 11, run on a 2-core CPU with torch 2.13;
#: ``test`` is the deterministic policy over 2 episodes. Within ``benchmarks/results``.
RUN_TASK = "SafetyCarCircle-v0"
RUN_FILE = Path("peers") / "fsrl_cvpo_SafetyCarCircle-v0.csv"
RUN_LABEL = "FSRL's CVPO, run"
RUN_COLUMNS = {
    "training/return": "train_reward",
    "training/cost_0": "train_cost",
    "evaluation/return": "test_reward",
    "evaluation/cost_0": "test_cost",
}

FSRL = "FSRL, figures of its benchmark (training, mean of 3 seeds, read off curves, ±5 %)"
OMNISAFE = "OmniSafe, its benchmark's tables (evaluation)"


@attrs.frozen
class Published:
    """A published result: mean return and episode cost (a number or a range) after ``steps``; None where not stated."""

    task: str
    algorithm: str
    source: str
    steps: float | None
    returned: float
    cost: str | None


PUBLISHED: tuple[Published, ...] = (
    Published("SafetyCarCircle-v0", "CVPO", FSRL, 0.2e6, 235, "6–10"),
    Published("SafetyCarCircle-v0", "CVPO", FSRL, 0.4e6, 330, "6–10"),
    Published("SafetyCarCircle-v0", "CVPO", FSRL, 1.5e6, 432, "6–10"),
    Published("SafetyCarCircle-v0", "TRPO-Lag", FSRL, 1.5e6, 430, "13"),
    Published("SafetyPointGoal1-v0", "CVPO", FSRL, 2e6, 20, "27–29"),
    Published("SafetyPointGoal1-v0", "CVPO", FSRL, 5e6, 24, "27–29"),
    Published("SafetyPointGoal1-v0", "TRPO-Lag", FSRL, None, 19, "32"),
    Published("SafetyPointGoal1-v0", "SAC-Lag", OMNISAFE, 3e6, 21.5, "19.2"),
    Published("SafetyPointGoal1-v0", "TD3-Lag", OMNISAFE, 3e6, 25.3, "28.0"),
    Published("SafetyPointGoal1-v0", "CPO", OMNISAFE, 10e6, 20.5, "28.8"),
    Published("SafetyPointCircle1-v0", "SAC-Lag", OMNISAFE, 3e6, 83.7, "12.8"),
    Published("SafetyHalfCheetahVelocity-v1", "CVPO", FSRL, 5e6, 1800, "23"),
    Published("SafetyHalfCheetahVelocity-v1", "DDPG-Lag", FSRL, 5e6, 2730, "27"),
    Published("SafetyHalfCheetahVelocity-v1", "SAC-Lag", OMNISAFE, 1e6, 2834, "0"),
    Published("SafetyHopperVelocity-v1", "CVPO", FSRL, 5e6, 1130, "17"),
    Published("SafetyHopperVelocity-v1", "TRPO-Lag", FSRL, 5e6, 1655, "28"),
    Published("SafetyHopperVelocity-v1", "SAC-Lag", OMNISAFE, 1e6, 963, "20"),
    Published("SafetyHopperVelocity-v1", "CPO", OMNISAFE, 10e6, 1714, "13.4"),
    Published("SafetyAntVelocity-v1", "CVPO", FSRL, 4.5e6, 2700, None),
    Published("SafetyAntVelocity-v1", "CVPO", FSRL, 12e6, 1720, "17"),
    Published("SafetyAntVelocity-v1", "TRPO-Lag", FSRL, None, 2850, "27"),
    Published("SafetyAntVelocity-v1", "SAC-Lag", OMNISAFE, 1e6, 1897, "5.7"),
    Published("SafetyAntVelocity-v1", "CPO", OMNISAFE, 10e6, 3099, "14.1"),
)


def published(task: str) -> list[Published]:
    """What was published on ``task``."""
    return [each for each in PUBLISHED if each.task == task]


def peer_run(results: Path, task: str) -> Group | None:
    """The peer's own run on ``task`` as curves to draw, None where ``results`` holds none."""
    path = results / RUN_FILE
    if task != RUN_TASK or not path.is_file():
        return None
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    runs = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row for row in rows if row["seed"] == seed]
        steps = np.array([float(row["env_steps"]) for row in own])
        columns = {name: np.array([float(row[column]) for row in own]) for name, column in RUN_COLUMNS.items()}
        runs.append(Curves({"seed": seed}, {name: (steps, values) for name, values in columns.items()}))
    return Group(RUN_LABEL, runs, (10.0,))
