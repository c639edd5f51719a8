"""What SafetyPointCircle1-v0 allows: returns of hand-written controllers that know where the robot is.

    python -m benchmarks.point_circle

A controller drives forward with full force along a superellipse around the centre, (|x|/a)ⁿ + (|y|/b)ⁿ = 1, and steers
by its distance from it; its seven numbers are searched by the cross-entropy method, once for the best return with an
episode cost of at most 25 and once for the best return at any cost. No optimum is proved by this: it says what can be
reached, and how fast the robot is. One JSON line each goes to ``benchmarks/results/point-circle.jsonl``: the numbers,
return, cost and the median speed over episodes that were not searched on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

import cvpo
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "point-circle.jsonl"
TASK, LIMIT = "SafetyPointCircle1-v0", 25.0
#: What a unit of cost above the limit takes off the score: enough that no return pays for it.
PENALTY = 10.0


@attrs.frozen
class Controller:
    """Force 1, and a turn that heads for the tangent, ``inward`` times its distance from the path towards it."""

    a: float
    b: float
    power: float
    inward: float
    turn: float
    damping: float
    most: float

    def act(self, x: float, y: float, heading: float, spin: float) -> np.ndarray:
        """The policy's action [1,2]."""
        angle = np.arctan2(y, x)
        radius = ((abs(np.cos(angle)) / self.a) ** self.power + (abs(np.sin(angle)) / self.b) ** self.power) ** (
            -1.0 / self.power
        )
        inward = np.clip(self.inward * (np.hypot(x, y) - radius), -self.most, self.most)
        error = (angle + np.pi / 2 + inward - heading + np.pi) % (2.0 * np.pi) - np.pi
        turn = np.clip(self.turn * error - self.damping * spin, -1.0, 1.0)
        return np.array([[1.0, turn]], dtype=np.float32)


LOW = Controller(a=0.6, b=0.6, power=2.0, inward=0.5, turn=1.0, damping=0.0, most=0.3)
HIGH = Controller(a=1.5, b=1.8, power=8.0, inward=5.0, turn=8.0, damping=1.0, most=1.5)


def episode(env: Any, controller: Controller) -> tuple[float, float, float]:
    """Return, cost and median speed of the episode that has begun; the next has begun afterwards."""
    rewards, costs, speeds = 0.0, 0.0, []
    task = env._adapters[0].env.unwrapped.task
    for _ in range(env.horizon):
        x, y, _ = task.agent.pos
        heading = np.arctan2(task.agent.mat[1, 0], task.agent.mat[0, 0])
        speeds.append(float(np.hypot(*task.agent.vel[:2])))
        step = env.step(controller.act(x, y, heading, float(task.data.qvel[2])))
        rewards, costs = rewards + float(step.reward[0]), costs + float(step.cost[0, 0])
    return rewards, costs, float(np.median(speeds))


def search(env: Any, limit: float, rounds: int, draws: int, rng: np.random.Generator) -> Controller:
    """Each round draws around the best quarter of the one before; of the last one's best, that with the best mean."""
    low, high = (np.array(attrs.astuple(each)) for each in (LOW, HIGH))
    mean, deviation = (low + high) / 2.0, (high - low) / 3.0
    for _ in range(rounds):
        found = np.clip(rng.normal(mean, deviation, (draws, len(low))), low, high)
        best = found[np.argsort([score(env, numbers, limit, 1) for numbers in found])[-draws // 4 :]]
        mean, deviation = best.mean(0), best.std(0) + 0.01 * (high - low)
    finalists = [mean, *best]
    return _made(finalists[int(np.argmax([score(env, numbers, limit, 5) for numbers in finalists]))])


def score(env: Any, numbers: np.ndarray, limit: float, episodes: int) -> float:
    """Mean return of as many episodes, less what the mean cost is over ``limit``, dearly."""
    rewards, costs, _ = np.mean([episode(env, _made(numbers)) for _ in range(episodes)], 0)
    return float(rewards - PENALTY * max(costs - limit, 0.0))


def _made(numbers: np.ndarray) -> Controller:
    return Controller(*(float(number) for number in numbers))


def measure(name: str, limit: float, rounds: int, draws: int, episodes: int) -> dict[str, Any]:
    """The row of one search."""
    env = cvpo.envs.make(TASK, seed=0)
    env.reset()
    controller = search(env, limit, rounds, draws, np.random.default_rng(0))
    returns, costs, speeds = np.array([episode(env, controller) for _ in range(episodes)]).T
    return {
        "search": name,
        "task": TASK,
        "controller": attrs.asdict(controller),
        "return": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std()), 2),
        "cost": round(float(costs.mean()), 2),
        "speed": round(float(speeds.mean()), 3),
        "episodes": episodes,
        "searched": rounds * draws,
        "command": "python -m benchmarks.point_circle",
        "versions": versions(),
    }


def main(argv: Iterable[str] | None = None) -> None:
    """Search twice and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=20)
    arguments = parser.parse_args(None if argv is None else list(argv))
    sizes = (arguments.rounds, arguments.draws, arguments.episodes)
    rows = [measure(name, limit, *sizes) for name, limit in (("within the limit", LIMIT), ("any cost", np.inf))]
    TARGET.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print({key: row[key] for key in ("search", "return", "cost", "speed", "controller")})


if __name__ == "__main__":
    main()
