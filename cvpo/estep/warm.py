"""Starting points from earlier solutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from cvpo.errors import ProblemError
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled
from cvpo.estep.solution import DualSolution, Status, check_duals
from cvpo.estep.task import INFEASIBLE_BELOW, Task, least_violation_task, value_at


def check_warm(problem: DualProblem, warm: DualSolution | None) -> None:
    """Raises ProblemError for a ``problem`` that is none, and for a ``warm`` that is no solution, or one of other
    shapes than the problem's."""
    if not isinstance(problem, DualProblem):
        raise ProblemError(f"problem is a {type(problem).__name__}; allowed: a cvpo.estep.DualProblem")
    if warm is None:
        return
    if not hasattr(warm, "eta"):
        raise ProblemError(f"warm is of type {type(warm).__name__}; allowed: a DualSolution, or None")
    check_duals(problem, warm, "warm")


def is_one_of(status: Tensor, kinds: tuple[Status, ...]) -> Tensor:
    """Where ``status`` is one of ``kinds``, without numbers from the host."""
    return reduce(torch.logical_or, [status == kind for kind in kinds])


def from_warm(
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
    usable = torch.isfinite(x).all(1) & is_one_of(status, resume)
    x = torch.minimum(torch.maximum(x, task.lower), task.upper)
    return x if sync and bool(usable.all()) else torch.where(usable.unsqueeze(1), x, cold())


def still_infeasible(scaled: Scaled, warm: DualSolution) -> Tensor:
    """Where the earlier certificate proves infeasibility again [P]: the main minimisation would only run away."""
    task = least_violation_task(scaled)
    x = from_warm(scaled.without_reward(), warm, (Status.INFEASIBLE,), task, lambda: task.upper.clamp(max=1.0), True)
    clearly = value_at(task, x) < INFEASIBLE_BELOW * x.sum(1)
    return (warm.status.reshape(-1) == Status.INFEASIBLE) & clearly
