"""The built-in task: run along a heading, fast enough for the reward and slow enough for the cost."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

# Documented limits on the costs of one episode of 100 steps, in the order of the task's cost keys.
COST_LIMITS: dict[str, tuple[float, ...]] = {
    "cvpo/Sprint-v0": (25.0,),
    "cvpo/SprintTwoCosts-v0": (25.0, 5.0),
    "cvpo/SprintDiscrete-v0": (25.0,),
}
COST_KEYS: dict[str, tuple[str, ...]] = {
    "cvpo/Sprint-v0": ("cost",),
    "cvpo/SprintTwoCosts-v0": ("cost", "cost_east"),
    "cvpo/SprintDiscrete-v0": ("cost",),
}


class Sprint(gymnasium.Env):
    """``v' = v + LAG (f − v)``, reward ``u·v'``, cost ``((‖v'‖ − FREE)₊ / (1 − FREE))²``.

    A point with velocity v in the plane starts at rest and is told a heading u, random in every episode. The action is
    the thrust f in [−1, 1]², scaled back onto the unit disk, so that 1 is the greatest speed. Speed up to FREE = 0.3
    costs nothing; at full speed a step costs 1. The best policy accelerates to one constant speed along u and keeps
    it: without a limit that speed is 1 (return 98, cost 95 in 100 steps); with the documented limit of 25 it is 0.65.

    Observation [4]: v, u. ``info["cost"]``, and with ``two_costs`` also ``info["cost_east"] = max(v'_x, 0)²``, which
    slows eastward headings only. With ``discrete`` the thrust is one of nine: none, or full along a compass point.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    LAG = 0.3
    FREE = 0.3

    def __init__(self, render_mode: str | None = None, two_costs: bool = False, discrete: bool = False) -> None:
        self.render_mode = render_mode
        self.two_costs = two_costs
        self.observation_space = Box(-1.0, 1.0, (4,), np.float32)
        self.action_space: Space[Any] = Discrete(9) if discrete else Box(-1.0, 1.0, (2,), np.float32)
        angles = [k * math.pi / 4 for k in range(8)]
        self._thrusts = [(0.0, 0.0), *((math.cos(a), math.sin(a)) for a in angles)] if discrete else None
        self._v = self._u = (0.0, 0.0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        angle = self.np_random.uniform(0.0, 2.0 * math.pi)
        self._v, self._u = (0.0, 0.0), (math.cos(angle), math.sin(angle))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        fx, fy = self._thrusts[action] if self._thrusts is not None else (float(action[0]), float(action[1]))
        size = math.hypot(fx, fy)
        if size > 1.0:
            fx, fy = fx / size, fy / size
        x = self._v[0] + self.LAG * (fx - self._v[0])
        y = self._v[1] + self.LAG * (fy - self._v[1])
        self._v = (x, y)
        info = {"cost": (max(math.hypot(x, y) - self.FREE, 0.0) / (1.0 - self.FREE)) ** 2}
        if self.two_costs:
            info["cost_east"] = max(x, 0.0) ** 2
        return self._observation(), self._u[0] * x + self._u[1] * y, False, False, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The plane of velocities: the free disk, the greatest speed, the heading (blue), v (green; red where it
        costs). RGB [160,160,3]."""
        if self.render_mode != "rgb_array":
            return None
        side = np.linspace(-1.15, 1.15, 160)
        x, y = side[None, :], -side[:, None]
        radius = np.hypot(x, y)
        frame = np.full((160, 160, 3), 255, dtype=np.uint8)
        frame[radius < self.FREE] = (225, 240, 225)
        frame[np.abs(radius - 1.0) < 0.012] = (120, 120, 120)
        ahead = self._u[0] * x + self._u[1] * y
        aside = np.abs(self._u[0] * y - self._u[1] * x)
        frame[(ahead > 0.0) & (radius < 1.0) & (aside < 0.012)] = (60, 90, 220)
        costs = math.hypot(*self._v) > self.FREE
        frame[np.hypot(x - self._v[0], y - self._v[1]) < 0.06] = (210, 50, 40) if costs else (40, 150, 60)
        return frame

    def _observation(self) -> np.ndarray:
        return np.array((*self._v, *self._u), dtype=np.float32)
