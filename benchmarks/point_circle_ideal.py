"""What SafetyPointCircle1-v0 could hold at the most: the best drives found of two robots that know where they are.

    python -m benchmarks.point_circle_ideal

The robot of the task pushes along its heading only, and turns at 3 rad/s at the most. Here it has the same mass,
damping and force, but pushes in every direction at once, u with |u| <= 1:

    dx/dt = v        m dv/dt = F u − c v        reward 0.1 (x v_y − y v_x) / (|x| (1 + ||x| − 1.5|)) a step of 0.02 s

so that whatever it can drive, this one can. In the rows with ``turns`` the direction starts at a heading as the task
draws it, or at its opposite, and changes by 3 rad/s at the most: the robot of the task, but for its centre of mass,
which lies 2 cm off its axis. All 500 thrusts of an episode are improved by Adam from circles of four speeds, for each
of many starts as the task draws them; the best of the four counts. Boundaries, |x_1| = 1.125 and the rate of turning,
are kept by penalties on what lies beyond. Local optima are all that is claimed. Rows go to
``benchmarks/results/point-circle-ideal.jsonl``; ``model_error`` is the largest difference of speeds, in m/s, from
MuJoCo's on a straight drive at full force; ``turning`` the largest rate in the drives that count, in rad/s.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import cvpo
from benchmarks.point_circle import TASK
from cvpo.run.versions import versions

TARGET = Path(__file__).parent / "results" / "point-circle-ideal.jsonl"
STEPS, SECONDS = 500, 0.02
MASS, DAMPING, FORCE = 0.00518879, 0.01, 0.015
"""Of the package's point.xml: sphere and arrow of density 1; a joint's damping; gear 0.3 times 0.05."""
WALL, RADIUS, PLACED = 1.125, 1.5, 0.8
SPEEDS = (0.9, 1.05, 1.2, 1.3)
KEPT = 0.003
"""How far inside of the boundary the penalty begins."""
SPIN = 3.0
"""rad/s: at full turn 2.993 in MuJoCo after two steps, and 2.999 in the end."""


def responses() -> tuple[Tensor, Tensor]:
    """Positions and velocities [T,T] after each step for a unit of thrust in each: the equations are linear."""
    decay = math.exp(-DAMPING / MASS * SECONDS)
    glide, gain = (1.0 - decay) * MASS / DAMPING, (1.0 - decay) * FORCE / DAMPING
    push = (SECONDS - glide) * FORCE / DAMPING
    position, velocity = (torch.zeros(STEPS, STEPS, dtype=torch.float64) for _ in range(2))
    x, v = (torch.zeros(STEPS, dtype=torch.float64) for _ in range(2))
    for step in range(STEPS):
        x, v = x + glide * v, decay * v
        x[step] += push
        v[step] += gain
        position[step], velocity[step] = x, v
    return position, velocity


def drives(starts: int, rounds: int, bounded: bool, turns: bool) -> dict[str, Any]:
    """Return, cost and median speed of the best drives from as many random ``starts``; ``turns`` bounds the turning."""
    generator = torch.Generator().manual_seed(0)
    count = len(SPEEDS)
    at = PLACED * (2.0 * torch.rand(starts, 1, 2, generator=generator, dtype=torch.float64) - 1.0)
    at = at.expand(-1, count, -1).reshape(-1, 1, 2)
    angle = torch.atan2(at[..., 1], at[..., 0]) + math.pi / 2 + 0.5
    time = SECONDS * torch.arange(STEPS, dtype=torch.float64)
    phase = angle + torch.tensor(SPEEDS).repeat(starts).unsqueeze(1) * time
    heading = math.tau * torch.rand(starts, 1, generator=generator, dtype=torch.float64)
    heading = heading.expand(-1, count).reshape(-1, 1)
    # Forward or backward, whichever needs less of a turn.
    heading = heading + math.pi * ((phase[:, :1] - heading) / math.pi).round()
    phase.requires_grad_()
    size = torch.full_like(phase, 3.0, requires_grad=True)
    position, velocity = responses()
    optimiser = torch.optim.Adam([phase, size], lr=0.05)
    for done in range(rounds):
        for group in optimiser.param_groups:
            group["lr"] = 0.001 + 0.05 * (1.0 - done / rounds)
        thrust = size.tanh().unsqueeze(-1) * torch.stack([phase.cos(), phase.sin()], -1)
        x, v = at + position @ thrust, velocity @ thrust
        radius = x.norm(dim=-1)
        turning = x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]
        reward = (0.1 * turning / radius / (1.0 + (radius - RADIUS).abs())).sum(1)
        beyond = (x[..., 0].abs() - WALL + KEPT).clamp(min=0.0).sum(1)
        rate = torch.cat([heading, phase], 1).diff(dim=1).abs() / SECONDS
        faster = (rate - 0.98 * SPIN).clamp(min=0.0)
        faster = SECONDS * (faster + faster.square()).sum(1)
        optimiser.zero_grad()
        # Growing, for at first the turn from the heading to the circle is one of a step.
        (30.0 * bounded * beyond + turns * (0.3 + 3.0 * done / rounds) * faster - reward).sum().backward()
        optimiser.step()
    cost = (x[..., 0].abs() > WALL).double().sum(1)
    most = rate.amax(1).detach()
    score = reward - 10.0 * bounded * cost - 1e6 * (most - SPIN).clamp(min=0.0) * turns
    best = score.view(starts, count).argmax(1) + count * torch.arange(starts)
    returns = reward.detach()[best]
    return {
        "return": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std()), 2),
        "cost": round(float(cost[best].mean()), 2),
        "speed": round(float(v.detach()[best].norm(dim=-1).median()), 3),
        **({"turning": round(float(most[best].max()), 3)} if turns else {}),
        "starts": starts,
        "rounds": rounds,
    }


def model_error() -> float:
    """The largest difference of speeds from MuJoCo's, straight ahead at full force for 200 steps."""
    env = cvpo.envs.make(TASK, seed=0)
    env.reset()
    task = env._adapters[0].env.unwrapped.task
    seen = []
    for _ in range(200):
        env.step(np.array([[1.0, 0.0]], dtype=np.float32))
        seen.append(float(np.hypot(*task.agent.vel[:2])))
    return float(np.abs(responses()[1].sum(1)[:200].numpy() - seen).max())


def main(argv: Iterable[str] | None = None) -> None:
    """Improve the drives with and without the boundary, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4000)
    arguments = parser.parse_args(None if argv is None else list(argv))
    common = {
        "task": TASK,
        "model_error": float(f"{model_error():.2g}"),
        "command": "python -m benchmarks.point_circle_ideal",
        "versions": versions(),
    }
    rows = [
        {"drives": name, "turns": turns, **drives(arguments.starts, arguments.rounds, bounded, turns), **common}
        for turns in (True, False)
        for name, bounded in (("at no cost", True), ("any cost", False))
    ]
    TARGET.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print({key: value for key, value in row.items() if key != "versions"})


if __name__ == "__main__":
    main()
