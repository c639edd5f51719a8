"""What all dual solvers share: scaling, warm start, the least-violation form, statuses, and the way back.

A dual solver is a function that minimises a :class:`Task`; see :data:`Minimise`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from cvpo.errors import ProblemError
from cvpo.estep.answer import Answer, answer_at, assemble, nothing
from cvpo.estep.implicit import attach
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.stacks import Many, lanes_for
from cvpo.estep.start import model_start
from cvpo.estep.task import INFEASIBLE_BELOW, Minimum, Task, cold_start, least_violation_task, main_task, value_at

Minimise = Callable[[Task, Tensor, Callable[[], Tensor]], Minimum]
"""``minimise(task, start, cold)``: from ``start`` [P,S]; ``cold()`` is a start that owes nothing to a warm one."""


def solve(
    problem: DualProblem,
    warm: DualSolution | None,
    minimise: Minimise,
    accuracy: float,
    *,
    sync: bool = True,
    examine: bool = True,
    resume: tuple[Status, ...] = (Status.OK,),
    end: Minimum | None = None,
) -> DualSolution:
    """Solve a stack through its dual. OK is what ends within ``accuracy``; the rest is examined for infeasibility.

    With ``sync`` the host reads which problems need what, and works on those; without, every problem takes every
    step, masked, and the host waits for nothing. ``resume``: the statuses of ``warm`` that give a starting point;
    ``end``: where the main minimisation ended, if that is known already.
    Differentiable where an input requires it: see :mod:`cvpo.estep.implicit`.
    """
    if not problem.kl_epsilon.numel():
        return attach(problem, nothing(problem))
    # NumPy would warn of infinities and NaN that are looked at afterwards.
    with torch.no_grad(), np.errstate(all="ignore"):
        lanes = lanes_for(problem.q_reward) if sync else Many
        scaled = scale(problem, lanes)
        task = main_task(scaled)

        def cold() -> Tensor:
            limit, epsilon, least = (lanes.split(part) for part in (task.limit, task.epsilon, task.lower[:, 0]))
            return lanes.join(model_start(lanes, task.q, task.log_prior, limit, epsilon, least), task.q)

        check_warm(problem, warm)
        if end is None:
            start = cold() if warm is None else _from_warm(scaled, warm, resume, task, cold, sync)
            if warm is not None and examine and sync and problem.costs:
                if bool((warm.status == Status.INFEASIBLE).any()):
                    task = task._replace(active=task.active & ~_still_infeasible(scaled, warm))
            end = minimise(task, start, cold)
        solved = task.active & (end.error <= accuracy)
        answer = answer_at(scaled, end, torch.where(solved, int(Status.OK), int(Status.MAX_ITER)))
        if examine and problem.costs:
            rest = scaled.finite & ~solved
            if not (sync and not bool(rest.any())):
                answer = _examine(scaled, rest, answer, end, warm, minimise, accuracy, sync)
        if examine and sync:
            answer = _begin_again(scaled, task, answer, minimise, accuracy)
        solution = assemble(problem, scaled, answer, end, sync)
    return attach(problem, solution)


def _examine(
    scaled: Scaled,
    rest: Tensor,
    answer: Answer,
    end: Minimum,
    warm: DualSolution | None,
    minimise: Minimise,
    accuracy: float,
    sync: bool,
) -> Answer:
    """``answer`` with the least-violation answers put where they prove, among ``rest`` [P], that no weights do.

    ``end`` is that of the main minimisation. Where it has g < 0, it proves infeasibility itself, and so does every
    point that a descent from it reaches: a second start, for violations far smaller than the largest cost.
    """
    task = least_violation_task(scaled)
    relaxed = scaled.without_reward()
    start = cold = cold_start(task, task.upper[:, 1:])
    if warm is not None:
        start = _from_warm(relaxed, warm, (Status.INFEASIBLE,), task, lambda: start, sync)
    total = answer.iterations
    for again in (False, True):
        if sync and not bool(rest.any()):
            break
        least = _minimise_some(task._replace(active=rest), start, cold, minimise, sync)
        proved = rest & (least.value < 0) & (least.error <= accuracy)
        total = total + torch.where(rest, least.iterations, 0)
        status = torch.full_like(answer.status, int(Status.INFEASIBLE))
        answer = answer_at(relaxed, least, status).where(proved, answer)
        if again or not sync:
            break
        rest = rest & ~proved & (end.value < INFEASIBLE_BELOW)
        fit = (task.upper[:, 1:] / end.x[:, 1:].clamp(min=1e-300)).amin(1, keepdim=True)
        start = cold = torch.minimum(torch.maximum(end.x * fit, task.lower), task.upper)
    return answer._replace(iterations=total)


def _begin_again(scaled: Scaled, task: Task, answer: Answer, minimise: Minimise, accuracy: float) -> Answer:
    """``answer`` with those put in that another start leads to, where there is neither an optimum nor a proof yet.

    From a model's start, or a warm one, η can end among kinks that λ does not see past. At λ = 0 and the η that belongs
    to it the dual is smooth; it is further off, and so not the first choice.
    """
    rest = task.active & (answer.status == Status.MAX_ITER)
    if not bool(rest.any()):
        return answer
    start = cold_start(task, torch.zeros_like(task.limit))
    end = _minimise_some(task._replace(active=rest), start, start, minimise, True)
    again = answer_at(scaled, end, torch.full_like(answer.status, int(Status.OK)))
    total = answer.iterations + torch.where(rest, end.iterations, 0)
    return again.where(rest & (end.error <= accuracy), answer)._replace(iterations=total)


def _minimise_some(task: Task, start: Tensor, cold: Tensor, minimise: Minimise, sync: bool) -> Minimum:
    """``minimise`` on the active problems only, if the host may know which; the rows of the others are zero."""
    if not sync:
        return minimise(task, start, lambda: cold)
    index = task.active.nonzero().squeeze(1)
    end = minimise(task.take(index), start[index], lambda: cold[index])
    return Minimum._make(None if part is None else _spread(part, index, len(start)) for part in end)


def check_warm(problem: DualProblem, warm: DualSolution | None) -> None:
    """Raises ProblemError for a ``warm`` of other shapes than the problem's."""
    if warm is None:
        return
    if warm.eta.shape != problem.kl_epsilon.shape or warm.lam.shape != problem.cost_limit.shape:
        found = f"eta {list(warm.eta.shape)} and lam {list(warm.lam.shape)}"
        allowed = f"{list(problem.kl_epsilon.shape)} and {list(problem.cost_limit.shape)}, as in the problem"
        raise ProblemError(f"warm has {found}; allowed: {allowed}")


def _from_warm(
    scaled: Scaled,
    warm: DualSolution,
    resume: tuple[Status, ...],
    task: Task,
    cold: Callable[[], Tensor],
    sync: bool,
) -> Tensor:
    """(η, λ) of an earlier solution in these units; a cold start where its status or its numbers are of no use."""
    x = scaled.inward(warm.eta.reshape(-1), warm.lam.reshape(scaled.limit.shape)).detach()
    status = warm.status.reshape(-1)
    usable = torch.isfinite(x).all(1) & reduce(torch.logical_or, [status == kind for kind in resume])
    x = torch.minimum(torch.maximum(x, task.lower), task.upper)
    return x if sync and bool(usable.all()) else torch.where(usable.unsqueeze(1), x, cold())


def _still_infeasible(scaled: Scaled, warm: DualSolution) -> Tensor:
    """Where the earlier certificate proves infeasibility again [P]: the main minimisation would only run away."""
    task = least_violation_task(scaled)
    x = _from_warm(scaled.without_reward(), warm, (Status.INFEASIBLE,), task, lambda: task.upper.clamp(max=1.0), True)
    clearly = value_at(task, x) < INFEASIBLE_BELOW * x.sum(1)
    return (warm.status.reshape(-1) == Status.INFEASIBLE) & clearly


def _spread(part: Tensor, index: Tensor, count: int) -> Tensor:
    full = torch.zeros((count, *part.shape[1:]), dtype=part.dtype, device=part.device)
    full[index] = part
    return full
