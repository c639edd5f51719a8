"""The straight way through a solve: read, descend once, answer. It is all that most problems need.

One problem is followed in Python numbers, the common case of training; a stack in arrays, where compiled loops can go
over it as it lies (:mod:`cvpo.estep.fused`). What is not solved here is left to :mod:`cvpo.estep.driver`, which has the
other endings.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor

from cvpo.estep import dual, fused
from cvpo.estep.lanes import Lanes, Number, One, Vector
from cvpo.estep.newton_descent import Pace, descend, minimum
from cvpo.estep.newton_point import Frame, main_frame
from cvpo.estep.newton_step import State
from cvpo.estep.passes import Pass
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import shifted
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.stacks import Host
from cvpo.estep.start import model_start
from cvpo.estep.task import Minimum
from cvpo.estep.units import Units, units
from cvpo.estep.workspace import passes_over


class Straight(NamedTuple):
    """The ``solution``, None if all problems are left to the driver; ``left``: those that are, if only some; and the
    ``end`` of the descent for what is left, if there was one."""

    solution: DualSolution | None = None
    left: Tensor | None = None
    end: Minimum | None = None


def solve(problem: DualProblem, warm: DualSolution | None, pace: Pace, accuracy: float) -> Straight:
    """What one descent solves, and what it leaves."""
    problems, looped = problem.kl_epsilon.numel(), fused.fits(*_tensors(problem))
    if problems != 1 and not (problems and looped):
        return Straight()
    if warm is not None and Status.INFEASIBLE in warm.status.reshape(-1).tolist():
        # An earlier certificate of infeasibility may hold again, and the main minimisation would only run away.
        return Straight()
    if problems == 1:
        return _one(problem, warm, pace, accuracy, looped)
    # NumPy would warn of infinities and NaN, which are found all the same.
    with np.errstate(all="ignore"):
        data, found = _read(Host, problem, looped, warm is None)
        state = _descend(Host, data, found, warm, pace)
        solved = found.finite & (state.point.error <= accuracy)
        solution = _solution(problem, data, found, state)
        if solved.all():
            return Straight(solution)
        left = torch.from_numpy(np.flatnonzero(solved ^ True))
        end = minimum(Host, data, state)
        return Straight(solution, left, Minimum._make(None if part is None else part[left] for part in end))


def _one(problem: DualProblem, warm: DualSolution | None, pace: Pace, accuracy: float, looped: bool) -> Straight:
    """One problem in Python numbers."""
    # What autograd keeps of every tensor, its version and its views, is a good part of what so small operations cost.
    # Subclasses of Tensor are not made for that mode, and compiled loops do not need it.
    mode = torch.inference_mode if type(problem.q_reward) is Tensor else torch.no_grad
    with contextlib.nullcontext() if looped else mode():
        data, found = _read(One, problem, looped, warm is None)
        if not found.finite:
            return Straight()
        state = _descend(One, data, found, warm, pace)
    # Made out of that mode, an answer is of ordinary tensors.
    if state.point.error <= accuracy:
        return Straight(_solution(problem, data, found, state))
    end = minimum(One, data, state)
    # Those of loops are rounded to the problem's dtype.
    weights = None if looped or end.weights is None else end.weights.clone()
    return Straight(end=end._replace(weights=weights))


def taken(problem: DualProblem, warm: DualSolution | None, index: Tensor) -> tuple[DualProblem, DualSolution | None]:
    """The problems at ``index`` of a stack, leading dimensions flattened, and what starts them."""
    lead = problem.kl_epsilon.ndim

    def of(value: Any) -> Any:
        return None if value is None else value.flatten(0, lead - 1)[index]

    q_reward, q_cost, limit, epsilon, log_prior = map(of, _tensors(problem))
    some = DualProblem(q_reward, q_cost, limit, epsilon, log_prior)
    if warm is None:
        return some, None
    fields = attrs.asdict(warm, recurse=False) | {"state": None}
    return some, DualSolution(**{name: of(value) for name, value in fields.items()})


def put(solution: DualSolution, index: Tensor, some: DualSolution) -> None:
    """Writes the solutions of the problems at ``index`` where they belong."""
    lead = solution.eta.ndim
    for name, value in attrs.asdict(solution, recurse=False).items():
        if name != "state":
            value.flatten(0, lead - 1)[index] = getattr(some, name)


def _tensors(problem: DualProblem) -> tuple[Tensor | None, ...]:
    return problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior


def _read(lanes: Lanes, problem: DualProblem, looped: bool, cold: bool) -> tuple[Pass, Units]:
    """The problem as it is worked on, by compiled loops if ``looped``, and its units; ``cold``: for a cold start."""
    if looped:
        values = fused.values_of(problem.q_reward, problem.q_cost, problem.log_prior)
        shape = values.q_cost.shape[:2]
        limit, epsilon = fused.array(problem.cost_limit, shape), fused.array(problem.kl_epsilon, shape[:1])
        numbers, low, prior = fused.read(values, limit, epsilon, cold)
        found = units(lanes, problem.costs, lanes.split(numbers))
        return fused.Fused(values, low, found.unit, prior), found
    raw = shifted(problem)
    found = units(lanes, problem.costs, lanes.split(raw.numbers))
    return passes_over(raw.q, raw.log_prior, found.unit), found


def _descend(lanes: Lanes, data: Pass, found: Units, warm: DualSolution | None, pace: Pace) -> State:
    """Where the steps end."""
    frame = main_frame(found)

    def cold() -> Vector:
        return model_start(lanes, data, found.limit, found.epsilon, frame.lower[0])

    start = cold() if warm is None else _from_warm(lanes, found, frame, warm, cold)
    return descend(lanes, data, frame, start, cold, pace)


def _from_warm(lanes: Lanes, found: Units, frame: Frame, warm: DualSolution, cold: Callable[[], Vector]) -> Vector:
    """(η, λ) of an earlier solution in these units; a cold start where it was not solved."""
    problems, reward = warm.eta.numel(), found.unit[0]
    lam = lanes.split(warm.lam.reshape(problems, -1)) if len(found.limit) else ()
    good = lanes.split(warm.status.reshape(problems)) == int(Status.OK)
    x = [lanes.split(warm.eta.reshape(problems)) / reward]
    x += [a * b / reward for a, b in zip(lam, found.unit[1:], strict=True)]
    for each in x:
        good = good & (abs(each) < math.inf)
    x = [lanes.maximum(a, b) for a, b in zip(x, frame.lower, strict=True)]
    if lanes.all(good):
        return tuple(x)
    return tuple(lanes.where(good, a, b) for a, b in zip(x, cold(), strict=True))


def _solution(problem: DualProblem, data: Pass, found: Units, state: State) -> DualSolution:
    """The solution as the caller gets it."""
    point, unit, like = state.point, found.unit, problem.kl_epsilon

    def tensor(value: Number, shape: torch.Size = like.shape, dtype: type = np.float64) -> Tensor:
        made = torch.from_numpy(np.asarray(value, dtype).reshape(shape))
        return made if like.is_cpu else made.to(like.device)

    violation: Number = 0.0 * unit[0]
    for slope, by in zip(point.gradient[1:], unit[1:], strict=True):
        violation = violation + (abs(slope) - slope) * (0.5 * by)
    lam = np.array([a * unit[0] / b for a, b in zip(point.x[1:], unit[1:], strict=True)]).T
    if isinstance(data, fused.Fused):
        made = data.weights(dual.mix_of(point.x)) if point.weights is None else point.weights
        weights = made.to(problem.q_reward.dtype)
    else:
        weights = point.weights.to(problem.q_reward.dtype, copy=True)
    return DualSolution(
        eta=tensor(point.x[0] * unit[0]),
        lam=tensor(lam, problem.cost_limit.shape),
        weights=weights.reshape(problem.q_reward.shape),
        status=torch.full(like.shape, int(Status.OK), device=like.device),
        iterations=tensor(state.iterations, dtype=np.int64),
        violation=tensor(violation),
    )
