"""E-step solvers with one mistake each, of those that have been made. The contract catches every one."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.estep import DualProblem, DualSolution, Status, registry


@attrs.frozen
class Right:
    """Newton behind the shape that the wrong ones share, without a mistake: what is caught is the mistake."""

    accuracy: ClassVar[float] = 1e-6

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        return self.spoil(problem, registry.create("newton").solve(problem, warm))

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return solution


def softmax(problem: DualProblem, eta: Tensor, lam: Tensor) -> Tensor:
    penalty = (lam[..., None, None] * problem.q_cost.double()).sum(-3)
    z = (problem.q_reward.double() - penalty) / eta[..., None, None]
    return torch.softmax(z + problem.log_p, dim=-1).to(problem.q_reward.dtype)


class SignOfLambda(Right):
    """Rewards the cost: z = (Q_r + λᵀQ_c)/η."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return attrs.evolve(solution, weights=softmax(problem, solution.eta, -solution.lam))


class PenaltyTwice(Right):
    """Subtracts the penalty from a Q_r that it was subtracted from already: z = (Q_r − 2λᵀQ_c)/η."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return attrs.evolve(solution, weights=softmax(problem, solution.eta, 2 * solution.lam))


class LimitIgnored(Right):
    """Plain MPO: the costs are not looked at, and λ = 0."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        free = DualProblem(problem.q_reward, None, None, problem.kl_epsilon, problem.log_prior)
        return attrs.evolve(registry.create("newton").solve(free), lam=torch.zeros_like(problem.cost_limit))


class InputOverwritten(Right):
    """Computes the penalised reward in place, through an alias: the answer is right, and the caller's Q_r is not."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        penalty = (solution.lam[..., None, None] * problem.q_cost).sum(-3)
        problem.q_reward.detach().sub_(penalty.to(problem.q_reward.dtype))
        return solution


class WrongDirection(Right):
    """Bounds KL(p || w) in place of KL(w || p), by bisection on η."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        log_p = problem.log_p
        low, high = solution.eta * 1e-3, solution.eta * 1e3
        for _ in range(60):
            eta = (low * high).sqrt()
            log_w = softmax(problem, eta, solution.lam).double().clamp(min=1e-300).log()
            kl = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_w), 0.0).sum(-1).mean(-1)
            low, high = torch.where(kl > problem.kl_epsilon, eta, low), torch.where(kl > problem.kl_epsilon, high, eta)
        eta = torch.where(solution.status == Status.OK, eta, solution.eta)
        return attrs.evolve(solution, eta=eta, weights=softmax(problem, eta, solution.lam))


class MeanForLogMeanExp(Right):
    """Minimises ηε + λᵀd + η mean_b mean_k z: linear in η and λ, so both end at their bounds."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        span = (problem.q_reward.amax(-1) - problem.q_reward.amin(-1)).double().mean(-1)
        eta, lam = 1e-8 * torch.where(span > 0, span, 1.0), torch.zeros_like(solution.lam)
        ok = torch.full_like(solution.status, Status.OK)
        return attrs.evolve(solution, eta=eta, lam=lam, status=ok, weights=softmax(problem, eta, lam))


class NeverInfeasible(Right):
    """Calls the weights of least violation a solution."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        status = torch.where(solution.status == Status.INFEASIBLE, int(Status.OK), solution.status)
        return attrs.evolve(solution, status=status)


class NeverSure(Right):
    """Gives up on everything, which is honest and useless."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return attrs.evolve(solution, status=torch.full_like(solution.status, Status.MAX_ITER))


class QuietNaN(Right):
    """Clamps what it cannot read, and says OK."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        clean: Any = [part.nan_to_num(0.0, 0.0, 0.0) for part in (problem.q_reward, problem.q_cost, problem.cost_limit)]
        return registry.create("newton").solve(DualProblem(*clean, problem.kl_epsilon, problem.log_prior))


class OneAnswerForAll(Right):
    """Solves the first problem of a stack and repeats its duals for the others."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        if problem.kl_epsilon.ndim == 0:
            return solution
        eta, lam = solution.eta[:1].expand_as(solution.eta), solution.lam[:1].expand_as(solution.lam)
        return attrs.evolve(solution, eta=eta, lam=lam, weights=softmax(problem, eta, lam))


class StaleWarm(Right):
    """Takes the warm solution for the answer, whatever the problem is."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        return super().solve(problem) if warm is None else warm


class StaleDuals(Right):
    """Solves the problem, and returns the multipliers that it was started from."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        solution = super().solve(problem, warm)
        good = warm is not None and bool(torch.isfinite(warm.eta).all() and torch.isfinite(warm.lam).all())
        return attrs.evolve(solution, eta=warm.eta, lam=warm.lam) if warm is not None and good else solution


class NothingViolated(Right):
    """Says of an infeasible problem that nothing is violated."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return attrs.evolve(solution, violation=torch.zeros_like(solution.violation))


class FirstEpsilon(Right):
    """Bounds the KL of a whole stack by the first problem's ε."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        epsilon = problem.kl_epsilon
        one = epsilon.reshape(-1)[:1].expand(epsilon.numel()).reshape(epsilon.shape)
        return super().solve(attrs.evolve(problem, kl_epsilon=one), warm)


class QuietLimits(Right):
    """Weights of NaN, and OK, where a limit or ε is NaN."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        bad = ~torch.isfinite(problem.cost_limit).all(-1) | ~torch.isfinite(problem.kl_epsilon)
        weights = torch.where(bad[..., None, None], torch.nan, solution.weights)
        return attrs.evolve(solution, status=torch.where(bad, int(Status.OK), solution.status), weights=weights)


class OneUnit(Right):
    """One unit for all costs, beside which those in small units are not seen."""

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        if problem.costs < 2:
            return super().solve(problem, warm)
        width = (problem.q_cost.amax(-1) - problem.q_cost.amin(-1)).mean(-1)
        small = width < 1e-4 * width.amax(-1, keepdim=True)
        return super().solve(attrs.evolve(problem, cost_limit=problem.cost_limit.masked_fill(small, 1e9)), warm)


class PromisesLittle(NeverSure):
    """Gives up on everything, and has promised no more than a thousandth."""

    accuracy: ClassVar[float] = 1e-3


class CountsDown(Right):
    """Iterations below 0."""

    def spoil(self, problem: DualProblem, solution: DualSolution) -> DualSolution:
        return attrs.evolve(solution, iterations=-1 - solution.iterations)


WRONG = (
    FirstEpsilon,
    QuietLimits,
    OneUnit,
    PromisesLittle,
    CountsDown,
    StaleWarm,
    StaleDuals,
    NothingViolated,
    SignOfLambda,
    LimitIgnored,
    PenaltyTwice,
    InputOverwritten,
    WrongDirection,
    MeanForLogMeanExp,
    NeverInfeasible,
    NeverSure,
    QuietNaN,
    OneAnswerForAll,
)
