"""From where a minimisation ended to the solution as the caller gets it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cvpo.estep import dual
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import Minimum


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
        return Answer._make(
            torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(self, other, strict=True)
        )


def answer_at(scaled: Scaled, end: Minimum, status: Tensor) -> Answer:
    """The answers where a minimisation of the dual ended."""
    weights = end.weights
    if weights is None:
        # η = 0 marks rows that were not worked on.
        eta = torch.where(end.x[:, :1] > 0, end.x[:, :1], 1.0)
        weights = dual.softmax_weights(scaled.q, scaled.log_prior, torch.cat([eta, end.x[:, 1:]], dim=1))
    return Answer(status, *scaled.outward(end.x), weights, end.gradient[:, 1:], end.iterations)


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


def nothing(problem: DualProblem) -> DualSolution:
    """The solution of a stack of no problems."""
    numbers = problem.kl_epsilon
    codes = torch.zeros_like(numbers, dtype=torch.int64)
    limits, weights = torch.zeros_like(problem.cost_limit), torch.zeros_like(problem.q_reward)
    return DualSolution(numbers.clone(), limits, weights, codes, codes.clone(), numbers.clone())


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
