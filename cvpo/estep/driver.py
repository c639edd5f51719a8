"""What all dual solvers share: scaling, warm start, the least-violation form, statuses, and the way back.

A dual solver is a function that minimises a :class:`Task`; see :data:`~cvpo.estep.examine.Minimise`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cvpo.estep.answer import answer_at, assemble, nothing
from cvpo.estep.examine import Minimise, begin_again, prove_infeasible
from cvpo.estep.implicit import attach
from cvpo.estep.passes import Stack
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.stacks import Many, lanes_for
from cvpo.estep.start import model_start
from cvpo.estep.task import Minimum, main_task
from cvpo.estep.warm import check_warm, from_warm, still_infeasible
from cvpo.estep.workspace import passes_over


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
    last_resort: int = 0,
) -> DualSolution:
    """Solve a stack through its dual. OK is what ends within ``accuracy``; the rest is examined for infeasibility.

    With ``sync`` the host reads which problems need what, and works on those; without, every problem takes every
    step, masked, and the host waits for nothing. ``resume``: the statuses of ``warm`` that give a starting point;
    ``end``: where the main minimisation ended, if that is known already.
    ``last_resort``: iterations of SLSQP to a third start for what two starts of ``minimise`` leave open, none below 50.
    Differentiable where an input requires it: see :mod:`cvpo.estep.implicit`.
    """
    check_warm(problem, warm)
    if not problem.kl_epsilon.numel():
        return attach(problem, nothing(problem))
    # NumPy would warn of infinities and NaN that are looked at afterwards.
    with torch.no_grad(), np.errstate(all="ignore"):
        lanes = lanes_for(problem.q_reward) if sync else Many
        scaled = scale(problem, lanes)
        task = main_task(scaled)

        def cold() -> Tensor:
            limit, epsilon, least = (lanes.split(part) for part in (task.limit, task.epsilon, task.lower[:, 0]))
            data = passes_over(task.q, task.log_prior) if sync else Stack(task.q, task.log_prior)
            return lanes.join(model_start(lanes, data, limit, epsilon, least), task.q)

        if end is None:
            start = cold() if warm is None else from_warm(scaled, warm, resume, task, cold, sync)
            if warm is not None and examine and sync and problem.costs:
                if bool((warm.status == Status.INFEASIBLE).any()):
                    task = task._replace(active=task.active & ~still_infeasible(scaled, warm))
            end = minimise(task, start, cold)
        solved = task.active & (end.error <= accuracy)
        answer = answer_at(scaled, end, torch.where(solved, int(Status.OK), int(Status.MAX_ITER)))
        if examine and problem.costs:
            rest = scaled.finite & ~solved
            if not (sync and not bool(rest.any())):
                answer = prove_infeasible(scaled, rest, answer, end, warm, minimise, accuracy, sync)
        if examine and sync:
            answer = begin_again(scaled, task, answer, minimise, accuracy, last_resort)
        solution = assemble(problem, scaled, answer, end, sync)
    return attach(problem, solution)
