"""One problem alone, in Python numbers from end to end: the common case of training, with the fewest tensor operations.

The host reads the problem once for its units, and once for each pass over the data; tensors are made again for the
answer. What is not solved here is left to :mod:`cvpo.estep.driver`, which has the other endings.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from cvpo.estep.lanes import One, Vector
from cvpo.estep.newton_descent import Pace, descend, minimum
from cvpo.estep.newton_point import Frame, Point, main_frame
from cvpo.estep.newton_step import State
from cvpo.estep.passes import Pass
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import shifted
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.start import model_start
from cvpo.estep.task import Minimum
from cvpo.estep.units import Units, units
from cvpo.estep.workspace import passes_over


def fits(problem: DualProblem, warm: DualSolution | None) -> bool:
    """Whether :func:`solve` is worth a try: not where an earlier certificate of infeasibility may hold again."""
    return problem.kl_epsilon.numel() == 1 and not (warm is not None and warm.status.item() == Status.INFEASIBLE)


@torch.no_grad()
def solve(
    problem: DualProblem, warm: DualSolution | None, pace: Pace, accuracy: float
) -> tuple[DualSolution | None, Minimum | None]:
    """The solution if the problem is finite and solved within ``accuracy``; and the end of the minimisation, if any."""
    # What autograd keeps of every tensor, its version and its views, is a good part of what so small operations cost.
    # Subclasses of Tensor are not made for that mode.
    inference = torch.inference_mode() if type(problem.q_reward) is torch.Tensor else torch.no_grad()
    # NumPy would warn of infinities and NaN, which are found all the same.
    with inference, np.errstate(all="ignore"):
        data, found, state = _descend(problem, warm, pace)
    if state is None:
        return None, None
    if not state.point.error <= accuracy:
        # A copy, like that in the solution, is an ordinary tensor again.
        end = minimum(One, data, state)
        return None, end._replace(weights=state.point.weights.clone())
    return _solution(problem, found, state.point, round(state.iterations)), None


def _descend(problem: DualProblem, warm: DualSolution | None, pace: Pace) -> tuple[Pass, Units, State | None]:
    """The problem as it is worked on, its units, and where the steps ended, None if it is not finite."""
    raw = shifted(problem)
    found = units(One, problem.costs, One.split(raw.numbers))
    data = passes_over(raw.q, raw.log_prior, found.unit)
    if not found.finite:
        return data, found, None
    frame = main_frame(found)

    def cold() -> Vector:
        return model_start(One, data, found.limit, found.epsilon, frame.lower[0])

    start = None if warm is None else _from_warm(found, frame, warm)
    return data, found, descend(One, data, frame, start or cold(), cold, pace)


def _from_warm(found: Units, frame: Frame, warm: DualSolution) -> Vector | None:
    """(η, λ) of an earlier solution in these units, if it was solved."""
    if warm.status.item() != Status.OK:
        return None
    reward = found.unit[0]
    x = (warm.eta.item() / reward, *(a * b / reward for a, b in zip(_flat(warm.lam), found.unit[1:], strict=True)))
    if not all(map(math.isfinite, x)):
        return None
    return tuple(map(max, x, frame.lower))


def _flat(lam: torch.Tensor) -> list[float]:
    numbers: list[float] = lam.reshape(-1).tolist()
    return numbers


def _solution(problem: DualProblem, found: Units, point: Point, iterations: int) -> DualSolution:
    unit, shape = found.unit, problem.kl_epsilon.shape
    lam = [a * unit[0] / b for a, b in zip(point.x[1:], unit[1:], strict=True)]
    violation = sum((max(-slope, 0.0) * by for slope, by in zip(point.gradient[1:], unit[1:], strict=True)), 0.0)
    device = problem.kl_epsilon.device

    def full(value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.full(shape, value, dtype=dtype, device=device)

    return DualSolution(
        eta=full(point.x[0] * unit[0]),
        lam=torch.tensor(lam, dtype=torch.float64, device=device).view(problem.cost_limit.shape),
        weights=point.weights.to(problem.q_reward.dtype, copy=True).reshape(problem.q_reward.shape),
        status=full(Status.OK, torch.int64),
        iterations=full(iterations, torch.int64),
        violation=full(violation),
    )
