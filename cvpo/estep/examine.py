"""What the main minimisation left open: proofs that the limits are out of reach, and another start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvpo.estep.answer import Answer, answer_at
from cvpo.estep.scaling import Scaled
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import INFEASIBLE_BELOW, Minimum, Task, cold_start, end_at, least_violation_task
from cvpo.estep.warm import from_warm

Minimise = Callable[[Task, Tensor, Callable[[], Tensor]], Minimum]
"""``minimise(task, start, cold)``: from ``start`` [P,S]; ``cold()`` is a start that owes nothing to a warm one."""

LEAST_RESORT = 50
"""Fewer steps are a wish to be quick, and as few of SLSQP's lead nowhere."""
FINER = 1e-3
"""Of the least η, where a violation is to be proved that is smaller than η·ε."""


def prove_infeasible(
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
        start = from_warm(relaxed, warm, (Status.INFEASIBLE,), task, lambda: start, sync)
    total, status = answer.iterations, torch.full_like(answer.status, int(Status.INFEASIBLE))
    left_open, first = rest, None
    for again in (False, True):
        if sync and not bool(rest.any()):
            break
        least = _minimise_some(task._replace(active=rest), start, cold, minimise, sync)
        first = first or least
        proved = rest & (least.value < 0) & (least.error <= accuracy)
        left_open = left_open & ~proved
        total = total + torch.where(rest, least.iterations, 0)
        answer = answer_at(relaxed, least, status).where(proved, answer)
        if again or not sync:
            break
        rest = rest & ~proved & (end.value < INFEASIBLE_BELOW)
        fit = (task.upper[:, 1:] / end.x[:, 1:].clamp(min=1e-300)).amin(1, keepdim=True)
        start = cold = torch.minimum(torch.maximum(end.x * fit, task.lower), task.upper)
    if sync and first is not None and bool(left_open.any()):
        # At its floor η·ε hides violations that are smaller; they show in the same λ at a smaller η.
        fine = task._replace(lower=FINER * task.lower, slope=FINER * task.slope)
        least = end_at(fine, torch.cat([fine.lower[:, :1], first.x[:, 1:]], dim=1), first.iterations)
        proved = left_open & (least.value < 0) & (least.error <= accuracy)
        answer = answer_at(relaxed, least, status).where(proved, answer)
    return answer._replace(iterations=total)


def begin_again(
    scaled: Scaled, task: Task, answer: Answer, minimise: Minimise, accuracy: float, last_resort: int
) -> Answer:
    """``answer`` with those put in that another start leads to, where there is neither an optimum nor a proof yet.

    From a model's start, or a warm one, η can end among kinks that λ does not see past. At λ = 0 and the η that belongs
    to it the dual is smooth; it is further off, and so not the first choice. Under priors that all but exclude most
    actions there are kinks across η as well, and no Hessian sees along them: the last start is found without one, in at
    most ``last_resort`` iterations of SLSQP.
    """
    for steps in (0, last_resort) if last_resort >= LEAST_RESORT else (0,):
        rest = task.active & (answer.status == Status.MAX_ITER)
        if not bool(rest.any()):
            break
        some = task._replace(active=rest)
        start, counts = _smooth_start(some, steps)
        end = _minimise_some(some, start, start, minimise, True)
        again = answer_at(scaled, end, torch.full_like(answer.status, int(Status.OK)))
        total = answer.iterations + torch.where(rest, end.iterations + counts, 0)
        answer = again.where(rest & (end.error <= accuracy), answer)._replace(iterations=total)
    return answer


def _smooth_start(task: Task, steps: int) -> tuple[Tensor, Tensor]:
    """λ = 0 and its η, and where at most ``steps`` of SLSQP lead from there; how many they were [P]."""
    start = cold_start(task, torch.zeros_like(task.limit))
    if not steps:
        return start, torch.zeros_like(task.epsilon, dtype=torch.int64)
    # SciPy takes a while to be imported, and hardly a problem comes here.
    from cvpo.estep.quasi_newton import slsqp_each

    return slsqp_each(task, start, 1e-14, steps)


def _minimise_some(task: Task, start: Tensor, cold: Tensor, minimise: Minimise, sync: bool) -> Minimum:
    """``minimise`` on the active problems only, if the host may know which; the rows of the others are zero."""
    if not sync:
        return minimise(task, start, lambda: cold)
    index = task.active.nonzero().squeeze(1)
    # A solver's own state is of the main minimisation, and of any form.
    end = minimise(task.take(index), start[index], lambda: cold[index])._replace(state=None)
    return Minimum._make(None if part is None else _spread(part, index, len(start)) for part in end)


def _spread(part: Tensor, index: Tensor, count: int) -> Tensor:
    full = torch.zeros((count, *part.shape[1:]), dtype=part.dtype, device=part.device)
    full[index] = part
    return full
