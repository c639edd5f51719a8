"""The best constrained return of cvpo/Sprint-v0, derived from the task's equations and not from any solver of cvpo.

Let s_t = u·v_t. From rest and with thrust at most 1, s_t <= r_t = 1 − (1 − LAG)^t, and the cost of a step is at least
c(s_t), c convex. Without the dynamics but with s_t <= r_t, the Lagrangian is separable and its maximiser is
s_t = min(r_t, s) with one speed s for all steps. That sequence also obeys the dynamics (accelerate fully, then keep the
speed), so it is the optimum: s is the root of Σ c(min(r_t, s)) = limit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from cvpo.envs.builtin import HORIZON
from cvpo.envs.sprint import Sprint


def speed_cost(speed: float) -> float:
    """Cost of a step that ends at ``speed``."""
    return (max(speed - Sprint.FREE, 0.0) / (1.0 - Sprint.FREE)) ** 2


def episode_sum(speed: float, of: Callable[[float], float]) -> float:
    """Σ_t of(s_t) for full acceleration to ``speed``."""
    return sum(of(min(1.0 - (1.0 - Sprint.LAG) ** t, speed)) for t in range(1, HORIZON + 1))


def best_speed(limit: float) -> float:
    """The speed to keep; 1 where the limit is not reached at full speed."""
    if episode_sum(1.0, speed_cost) <= limit:
        return 1.0
    return float(brentq(lambda speed: episode_sum(speed, speed_cost) - limit, Sprint.FREE, 1.0, xtol=1e-12))


def best_return(limit: float) -> float:
    """The greatest episode return with an episode cost of at most ``limit``."""
    return episode_sum(best_speed(limit), lambda speed: speed)


def conic_best_return(limits: tuple[float, ...], headings: int) -> float:
    """The same by a second-order cone program over velocities and thrusts in the plane, one run for each of equally
    spaced headings, costs averaged over them; ``limits`` for one or for two costs, infinite for none. Needs cvxpy."""
    import cvxpy as cp

    angles = (np.arange(headings) + 0.5) * 2 * np.pi / headings
    shape = (headings, HORIZON)
    x, y, fx, fy, speed = (cp.Variable(shape) for _ in range(5))
    constraints = [fx**2 + fy**2 <= 1]
    for velocity, thrust in ((x, fx), (y, fy)):
        constraints.append(velocity[:, 0] == Sprint.LAG * thrust[:, 0])
        constraints.append(velocity[:, 1:] == (1 - Sprint.LAG) * velocity[:, :-1] + Sprint.LAG * thrust[:, 1:])
    rows = [cp.reshape(each, (headings * HORIZON,), order="C") for each in (x, y, speed)]
    constraints.append(cp.norm(cp.vstack(rows[:2]), 2, axis=0) <= rows[2])
    costs = [
        cp.sum_squares(cp.pos((rows[2] - Sprint.FREE) / (1 - Sprint.FREE))) / headings,
        cp.sum_squares(cp.pos(rows[0])) / headings,
    ]
    constraints += [cost <= limit for cost, limit in zip(costs, limits, strict=False) if limit < np.inf]
    gain = cp.multiply(np.cos(angles)[:, None], x) + cp.multiply(np.sin(angles)[:, None], y)
    return float(cp.Problem(cp.Maximize(cp.sum(gain) / headings), constraints).solve(solver=cp.CLARABEL))
