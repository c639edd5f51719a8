"""Episode statistics on the host: realised sums, discounted sums and lengths, and what the critic predicted."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from cvpo.critics.limits import to_q_scale


@attrs.frozen
class Episode:
    """A finished episode: undiscounted and discounted sums of the S signals, length, its first step, and how it ended:
    the observation that ended it, and whether that was a termination."""

    total: np.ndarray
    discounted: np.ndarray
    length: int
    obs: np.ndarray
    action: np.ndarray
    last: np.ndarray
    terminated: bool


class EpisodeStatistics:
    """Running sums of N environments, the newest ``keep_episodes`` finished episodes and ``keep_steps`` steps.

    ``discounted`` sums are ``Σ_t γᵗ x_t`` from the episode's start, what Q at the first step predicts.
    """

    def __init__(
        self,
        num_envs: int,
        obs_size: int,
        action_size: int,
        signals: int,
        gamma: float,
        *,
        keep_episodes: int,
        keep_steps: int,
    ):
        self.gamma = gamma
        self.steps = np.zeros((max(keep_steps // num_envs, 1), num_envs, signals))
        self.step_count = 0
        self.running: dict[str, np.ndarray] = {
            "total": np.zeros((num_envs, signals)),
            "discounted": np.zeros((num_envs, signals)),
            "length": np.zeros(num_envs, dtype=np.int64),
            "obs": np.zeros((num_envs, obs_size), dtype=np.float32),
            "action": np.zeros((num_envs, action_size), dtype=np.float32),
        }
        self.episodes: deque[Episode] = deque(maxlen=keep_episodes)
        self.count = 0

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        signals: np.ndarray,
        next_obs: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> list[Episode]:
        """Take one step of all environments (``signals`` [S,N]); the episodes that it finished."""
        run = self.running
        fresh = run["length"] == 0
        if fresh.any():
            run["obs"][fresh], run["action"][fresh] = obs[fresh], action[fresh]
        step = signals.T
        self.steps[self.step_count % len(self.steps)] = step
        self.step_count += 1
        run["discounted"] += np.power(self.gamma, run["length"])[:, None] * step
        run["total"] += step
        run["length"] += 1
        done = terminated | truncated
        if not done.any():
            return []
        finished = [
            Episode(
                run["total"][n].copy(),
                run["discounted"][n].copy(),
                int(run["length"][n]),
                run["obs"][n].copy(),
                run["action"][n].copy(),
                next_obs[n].copy(),
                bool(terminated[n]),
            )
            for n in np.flatnonzero(done)
        ]
        for name in ("total", "discounted", "length"):
            run[name][done] = 0
        self.episodes.extend(finished)
        self.count += len(finished)
        return finished

    def interrupt(self) -> None:
        """Forget unfinished episodes: the next step of every environment is a first one."""
        for name in ("total", "discounted", "length"):
            self.running[name][:] = 0

    def lengths(self) -> list[int]:
        """Lengths of the newest episodes, none before the first has ended."""
        return [episode.length for episode in self.episodes]

    def measured_cost(
        self, kind: str, horizon: Sequence[float], *, terminates: bool, ends: bool = False
    ) -> np.ndarray | None:
        """J_c [M] of the newest episodes in the scale of Q; None before the first, with ``"steps"`` before a step.

        ``kind="discounted"``: the mean realised discounted sum, over 1 − mean γᵀ of the episodes' own lengths where
        they are truncated: Q goes on there, at the same cost per step as far as is known. With ``ends`` it does not
        after a termination: for a limit that is a discounted sum itself, where others are converted as if all episodes
        were truncated, and what is held against them has to be too. ``"episode"``: the mean
        episode sum, converted with ``horizon`` as a cost limit is; ``"steps"``: the mean cost of the newest steps,
        converted as a limit per step is. All estimate the behaviour policy's cost.
        """
        if not (self.step_count if kind == "steps" else self.episodes):
            return None
        if kind == "discounted":
            onward = [
                0.0 if terminates or (ends and episode.terminated) else self.gamma**episode.length
                for episode in self.episodes
            ]
            seen = 1.0 - np.mean(onward)
            return np.mean([episode.discounted[1:] for episode in self.episodes], axis=0) / seen
        if kind == "steps":
            unit, costs = "step", self.steps[: self.step_count, :, 1:].mean((0, 1))
        else:
            unit, costs = "episode", np.mean([episode.total[1:] for episode in self.episodes], axis=0)
        return np.array([to_q_scale(c, unit, self.gamma, horizon, terminates=terminates) for c in costs])

    def state_dict(self) -> dict[str, Any]:
        return {
            "running": {name: value.copy() for name, value in self.running.items()},
            "episodes": [attrs.asdict(episode) for episode in self.episodes],
            "count": self.count,
            "steps": self.steps.copy(),
            "step_count": self.step_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in self.running.items():
            value[...] = state["running"][name]
        self.episodes.clear()
        self.episodes.extend(Episode(**episode) for episode in state["episodes"])
        self.count, self.step_count = int(state["count"]), int(state["step_count"])
        self.steps[...] = state["steps"]
