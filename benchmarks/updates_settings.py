"""What both sides of the update benchmark share: sizes, hyper-parameters, data, and the conversation with a side.

Both environments import this file, so it needs NumPy only. A side is a process that answers one JSON line with another
until its input ends: ``{"do": "time", "updates": 50}`` is answered by ``{"seconds": 0.31}``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TASK = "SafetyCarCircle-v0"
#: The sizes of that task: observations, actions, steps of an episode.
OBS, ACTIONS, HORIZON = 8, 2, 300
#: Cost limits of an episode: of that task, and of the made-up data, whose own episodes cost about 150.
TASK_LIMIT, COST_LIMIT = 10.0, 90.0
#: The hyper-parameters are the peer's own.
GAMMA, N_STEP, CAPACITY = 0.98, 2, 100_000
ESTEP_KL, MSTEP_KL_MEAN, MSTEP_KL_COV = 0.02, 0.005, 0.0005
ACTOR_LR, CRITIC_LR, TAU = 5e-4, 1e-3, 0.05


@dataclass(frozen=True)
class Setting:
    """Sizes of an update: states B, particles K, hidden layers, critics for each signal, M-step iterations."""

    batch: int
    particles: int
    hidden: tuple[int, ...]
    members: int
    iterations: int


SETTINGS = {
    "defaults": Setting(batch=256, particles=16, hidden=(128, 128), members=1, iterations=1),
    "large": Setting(batch=256, particles=64, hidden=(256, 256), members=2, iterations=5),
}


def data(count: int = CAPACITY, seed: int = 0) -> dict[str, np.ndarray]:
    """``count`` transitions of a made-up task, whole episodes one after the other; arrays [count,...].

    States drift at random, two actions push two of their coordinates. Pushing along these coordinates earns reward, and
    pushing hard costs 1. So the Q-values differ between actions, and reward is against cost.
    """
    rng = np.random.default_rng(seed)
    episodes = -(-count // HORIZON)
    obs = np.empty((episodes, HORIZON + 1, OBS), np.float32)
    actions = rng.uniform(-1.0, 1.0, (episodes, HORIZON, ACTIONS)).astype(np.float32)
    obs[:, 0] = rng.normal(size=(episodes, OBS))
    for t in range(HORIZON):
        obs[:, t + 1] = 0.95 * obs[:, t] + 0.3 * rng.normal(size=(episodes, OBS))
        obs[:, t + 1, :ACTIONS] += 0.2 * actions[:, t]
    reward = (obs[:, :-1, :ACTIONS] * actions).sum(-1)
    cost = (np.abs(actions).sum(-1) > 1.0).astype(np.float32)
    ends = np.zeros((episodes, HORIZON), bool)
    ends[:, -1] = True
    arrays = {"obs": obs[:, :-1], "next_obs": obs[:, 1:], "action": actions, "reward": reward, "cost": cost}
    return {name: value.reshape(-1, *value.shape[2:])[:count] for name, value in (arrays | {"truncated": ends}).items()}


def serve(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests on standard input until it ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(handlers[request.pop("do")](**request)) + "\n")
        answers.flush()


def resident() -> int:
    """Bytes of this process in memory."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes of this process that were in memory, since :func:`forget_peak` where the kernel allows that."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let :func:`peak` start anew; without the right to, it stays that of the process, which can only be larger."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: the peak is all that there is, in KiB (bytes on macOS)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
