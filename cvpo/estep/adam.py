"""First-order dual steps: what the existing PyTorch implementations do, kept as a baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import attrs
import torch
from torch import Tensor

from cvpo.estep import driver, dual
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import Minimum, Task, end_at
from cvpo.estep.warm import check_warm, is_one_of
from cvpo.validators import number


class Moments(NamedTuple):
    """Adam's running means of ∇g and (∇g)² [P,S], in normalised units, and how many steps they have seen [P]."""

    first: Tensor
    second: Tensor
    seen: Tensor


@attrs.frozen
class Adam:
    """(η, λ) ← max(bound, (η, λ) − lr · m̂/(√v̂ + 1e-8)), with m̂, v̂ the running moments of ∇g: Adam on the dual.

    ``steps`` of them a call, starting from ``warm`` whatever its status was; ``warm.state`` carries the moments over.
    ``lr`` is in normalised units, the ranges of Q_r and Q_c (the implementations it stands for use the raw ones, and
    depend on the scale of the reward). It does not converge to a tolerance: the status is OK where the residual happens
    to be within the declared accuracy of 1e-2, else MAX_ITER, and an infeasible problem is not told from a slow one.
    Not differentiable: the solution carries no gradient. Source: Kingma & Ba (2015); the E-steps of FSRL, acme, tonic.
    """

    summary: ClassVar[str] = "one or n Adam steps on the dual: the baseline of existing implementations"
    accuracy: ClassVar[float] = 1e-2
    differentiable: ClassVar[bool] = False

    steps: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    lr: float = attrs.field(default=0.02, validator=number(gt=0))
    beta1: float = attrs.field(default=0.9, validator=number(ge=0, lt=1))
    beta2: float = attrs.field(default=0.999, validator=number(ge=0, lt=1))

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """``steps`` Adam steps on every problem of the stack."""
        check_warm(problem, warm)
        # From a checkpoint the moments come back as a plain tuple, from an early one with one number of steps for all.
        state = None if warm is None else warm.state
        kept = Moments(*state) if isinstance(state, (list, tuple)) and len(state) == len(Moments._fields) else None
        if kept is not None and not isinstance(kept.seen, Tensor):
            kept = kept._replace(seen=torch.full_like(kept.first[:, 0], kept.seen))
        resume = (Status.OK, Status.MAX_ITER)
        if warm is not None and kept is not None:
            # What failed starts anew, and what it had seen was not this problem.
            usable = is_one_of(warm.status.reshape(-1), resume)
            first, second = (torch.where(usable.unsqueeze(1), part, 0.0) for part in kept[:2])
            kept = Moments(first, second, torch.where(usable, kept.seen, 0.0))

        def minimise(task: Task, start: Tensor, cold: Callable[[], Tensor]) -> Minimum:
            return self._minimise(task, start, kept)

        with torch.no_grad():
            return driver.solve(problem, warm, minimise, self.accuracy, examine=False, resume=resume)

    def _minimise(self, task: Task, x: Tensor, moments: Moments | None) -> Minimum:
        nothing = torch.zeros_like(x)
        first, second, seen = moments or Moments(nothing, nothing, nothing[:, 0])
        for _ in range(self.steps):
            slope = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, x).gradient
            slope = torch.where(task.active.unsqueeze(1), slope, 0.0)
            seen = seen + 1
            first = torch.lerp(slope, first, self.beta1)
            second = torch.lerp(slope * slope, second, self.beta2)
            ahead, spread = (1 - beta ** seen.unsqueeze(1) for beta in (self.beta1, self.beta2))
            step = first / ahead / ((second / spread).sqrt() + 1e-8)
            x = torch.maximum(x - self.lr * step, task.lower)
        end = end_at(task, x, torch.full_like(task.epsilon, self.steps, dtype=torch.int64))
        return end._replace(state=Moments(first, second, seen))
