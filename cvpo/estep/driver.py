"""What all dual solvers share: scaling, warm start, the least-violation form, statuses, and the way back.

A dual solver is a function that minimises a :class:`Task`; see :data:`Minimise`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from cvpo.errors import ProblemError
from cvpo.estep import dual
from cvpo.estep.implicit import attach
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import INFEASIBLE_BELOW, Minimum, Task, cold_start, least_violation_task, main_task, value_at

Minimise = Callable[[Task, Tensor, Callable[[], Tensor]], Minimum]
"""``minimise(task, start, cold)``: from ``start`` [P,S]; ``cold()`` is a start that owes nothing to a warm one."""


class Answer(NamedTuple):
    """Answers to P problems: duals in the caller's units, weights in float64, ``slack`` d − E Q_c in scaled units."""

    status: Tensor
    eta: Tensor
    lam: Tensor
    weights: Tensor
    slack: Tensor
    iterations: Tensor

    def where(self, mask: Tensor, other: Answer) -> Answer:
        """These answers where ``mask`` [P] holds, else ``other``'s."""
        return Answer(
            *(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(self, other, strict=True))
        )


def solve(
    problem: DualProblem,
    warm: DualSolution | None,
    minimise: Minimise,
    accuracy: float,
    *,
    sync: bool = True,
    examine: bool = True,
    resume: tuple[Status, ...] = (Status.OK,),
) -> DualSolution:
    """Solve a stack through its dual. OK is what ends within ``accuracy``; the rest is examined for infeasibility.

    With ``sync`` the host reads which problems need what, and works on those; without, every problem takes every
    step, masked, and the host waits for nothing. ``resume``: the statuses of ``warm`` that give a starting point.
    Differentiable where an input requires it: see :mod:`cvpo.estep.implicit`.
    """
    with torch.no_grad():
        scaled = scale(problem)
        task = main_task(scaled)

        def cold() -> Tensor:
            return cold_start(task, torch.zeros_like(task.limit))

        if warm is None:
            start = cold()
        else:
            _check_warm(problem, warm)
            start = _from_warm(scaled, warm, resume, task, cold, sync)
            if examine and sync and problem.costs and bool((warm.status == Status.INFEASIBLE).any()):
                task = task._replace(active=task.active & ~_still_infeasible(scaled, warm))
        end = minimise(task, start, cold)
        solved = task.active & (end.error <= accuracy)
        answer = _answer(scaled, end, torch.where(solved, int(Status.OK), int(Status.MAX_ITER)))
        if examine and problem.costs:
            rest = scaled.finite & ~solved
            if not (sync and not bool(rest.any())):
                answer = _examine(scaled, rest, answer, end, warm, minimise, accuracy, sync)
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
        answer = _answer(relaxed, least, status).where(proved, answer)
        if again or not sync:
            break
        rest = rest & ~proved & (end.value < INFEASIBLE_BELOW)
        fit = (task.upper[:, 1:] / end.x[:, 1:].clamp(min=1e-300)).amin(1, keepdim=True)
        start = cold = torch.minimum(torch.maximum(end.x * fit, task.lower), task.upper)
    return answer._replace(iterations=total)


def _minimise_some(task: Task, start: Tensor, cold: Tensor, minimise: Minimise, sync: bool) -> Minimum:
    """``minimise`` on the active problems only, if the host may know which; the rows of the others are zero."""
    if not sync:
        return minimise(task, start, lambda: cold)
    index = task.active.nonzero().squeeze(1)
    end = minimise(task.take(index), start[index], lambda: cold[index])
    return Minimum(*(None if part is None else _spread(part, index, len(start)) for part in end))


def _check_warm(problem: DualProblem, warm: DualSolution) -> None:
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


def _answer(scaled: Scaled, end: Minimum, status: Tensor) -> Answer:
    weights = end.weights
    if weights is None:
        # η = 0 marks rows that were not worked on.
        eta = torch.where(end.x[:, :1] > 0, end.x[:, :1], 1.0)
        weights = dual.softmax_weights(scaled.q, scaled.log_prior, torch.cat([eta, end.x[:, 1:]], dim=1))
    return Answer(status, *scaled.outward(end.x), weights, end.gradient[:, 1:], end.iterations)


def _spread(part: Tensor, index: Tensor, count: int) -> Tensor:
    full = torch.zeros((count, *part.shape[1:]), dtype=part.dtype, device=part.device)
    full[index] = part
    return full


def assemble(
    problem: DualProblem, scaled: Scaled, answer: Answer, end: Minimum | None = None, sync: bool = True
) -> DualSolution:
    """The solution as the caller gets it; ``end`` may add the solver's state and where its backend broke down."""
    if not (sync and bool(scaled.finite.all())):
        answer = answer.where(scaled.finite, _lost(problem, answer, Status.NONFINITE))
    if end is not None and end.failed is not None:
        broken = end.failed & (answer.status == Status.MAX_ITER)
        answer = answer._replace(status=torch.where(broken, int(Status.BACKEND_ERROR), answer.status))
    broken = answer.status == Status.BACKEND_ERROR
    if sync and bool(broken.any()):
        answer = answer.where(~broken, _lost(problem, answer, Status.BACKEND_ERROR))
    excess = (-answer.slack).clamp(min=0)
    violation = torch.where(excess > 0, excess * scaled.unit_cost, 0.0).sum(1)
    shape = problem.kl_epsilon.shape
    return DualSolution(
        eta=answer.eta.reshape(shape),
        lam=answer.lam.reshape(problem.cost_limit.shape),
        weights=answer.weights.to(problem.q_reward.dtype).reshape(problem.q_reward.shape),
        status=answer.status.reshape(shape),
        iterations=answer.iterations.reshape(shape),
        violation=violation.reshape(shape),
        state=None if end is None else end.state,
    )


def _lost(problem: DualProblem, answer: Answer, status: Status) -> Answer:
    """The answers where there is none: the prior (uniform where that cannot be read either) and placeholders."""
    prior = problem.log_p.exp()
    return Answer(
        status=torch.full_like(answer.status, int(status)),
        eta=torch.ones_like(answer.eta),
        lam=torch.zeros_like(answer.lam),
        weights=torch.where(prior.isnan(), 1.0 / prior.shape[-1], prior).reshape(answer.weights.shape),
        slack=torch.zeros_like(answer.slack),
        iterations=torch.zeros_like(answer.iterations),
    )
