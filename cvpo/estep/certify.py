"""Grading: how far a solution is from optimal, from the problem alone.

Shape legend: ``...`` problems, ``M`` costs; R = mean_b range_k Q_r and C_m likewise over the prior's support (0 → 1).
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from cvpo.errors import ProblemError
from cvpo.estep import dual
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status, check_duals


@attrs.frozen(eq=False)
class Residuals:
    """Relative errors of a solution, each >= 0 and 0 at the optimum; every field is [...], ``cost`` is [...,M].

    ``kl`` = (KL − ε)₊/ε; ``cost`` = (E Q_c,m − d_m)₊/C_m; ``stationarity`` = mean_b ‖w − softmax((Q_r − λᵀQ_c)/η)‖₁;
    ``complementarity`` = max(η|ε − KL|, λ_m|d_m − E Q_c,m|)/R; ``gap`` = |g(η, λ) − E Q_r|/R; ``simplex`` = the
    largest |Σ_k w − 1|; ``sign`` = the largest of (−w)₊, (−η)₊/R and (−λ_m)₊ C_m/R.

    Where the status is INFEASIBLE they grade the least violation instead, in units of the largest C_m and with
    Q_r = 0: ``cost`` = (1 − λ_m)(E Q_c,m − d_m)₊ (a violation is right only at λ_m = 1), ``complementarity`` =
    max(η|ε − KL|, λ_m(d_m − E Q_c,m)₊), ``gap`` = |g + Σ_m (E Q_c,m − d_m)₊|, infinite without a witness g < 0, and
    ``sign`` holds (λ_m − 1)₊ too. An ε that no weights reach counts as KL_max + 1: the rest of it constrains nothing,
    and would only multiply the least η. A solution with NaN, or with status NONFINITE or BACKEND_ERROR, has infinite
    errors.
    """

    kl: Tensor
    cost: Tensor
    stationarity: Tensor
    complementarity: Tensor
    gap: Tensor
    simplex: Tensor
    sign: Tensor

    @property
    def max(self) -> Tensor:
        """The largest of all errors [...]."""
        parts = [self.kl, self.stationarity, self.complementarity, self.gap, self.simplex, self.sign]
        return torch.cat([torch.stack(parts, dim=-1), self.cost], dim=-1).amax(-1)


@torch.no_grad()
def kkt_residuals(problem: DualProblem, solution: DualSolution) -> Residuals:
    """KKT residuals of ``solution``, relative to R, C_m and ε, in float64 and from ``problem`` alone.

    Shapes and formulas: :class:`Residuals`. Nothing of the solver is trusted but η, λ, the weights, and the status,
    which chooses between the problem and its least-violation form. Raises ProblemError for a solution of other shapes.
    """
    check_duals(problem, solution, "solution")
    if solution.weights.shape != problem.q_reward.shape:
        found, allowed = list(solution.weights.shape), list(problem.q_reward.shape)
        raise ProblemError(f"solution has weights {found}; allowed: {allowed}, as q_reward")
    scaled = scale(problem)
    shape = problem.kl_epsilon.shape
    status = solution.status.reshape(-1)
    infeasible = status == Status.INFEASIBLE
    if problem.costs:
        relaxed = scaled.without_reward()
        scaled = Scaled._make(_choose(infeasible, b, a) for a, b in zip(scaled, relaxed, strict=True))
    eta = solution.eta.reshape(-1).to(torch.float64)
    x = scaled.inward(eta, solution.lam.reshape(eta.shape[0], problem.costs).to(torch.float64))
    weights = solution.weights.reshape(-1, *problem.q_reward.shape[-2:]).to(torch.float64)
    parts = _grade(scaled, x, weights, problem.log_p.reshape(weights.shape), infeasible)
    failed = (status == Status.NONFINITE) | (status == Status.BACKEND_ERROR)
    for name, part in parts.items():
        lost = failed.view(-1, *[1] * (part.ndim - 1)) | part.isnan()
        parts[name] = torch.where(lost, torch.inf, part).reshape(shape + part.shape[1:])
    return Residuals(**parts)


def point_error(
    gradient: Tensor, x: Tensor, lower: Tensor, upper: Tensor, epsilon: Tensor, scaled_range: Tensor
) -> Tensor:
    """The largest residual [P] of the softmax weights at ``x`` = (η, λ): what :func:`kkt_residuals` finds there.

    ``gradient``, ``x``, ``lower``, ``upper`` [P,S]; ``epsilon`` [P]; ``scaled_range`` = (R, C_1 … C_M) [P,S]. A
    coordinate at a bound that its gradient pushes against has error 0. An infinite upper bound is that of the
    problem itself, a finite one that of the least-violation form. The gap is at most the sum of the products.
    """
    slack, excess = gradient.clamp(min=0), (-gradient).clamp(min=0)
    unit = torch.cat([epsilon.unsqueeze(1), scaled_range[:, 1:]], dim=1)
    free = upper == torch.inf
    product = torch.where(x > lower, slack * x, 0.0) + excess * torch.where(free, x, upper - x)
    return torch.maximum(product.sum(1) / scaled_range[:, 0], torch.where(free, excess / unit, 0.0).amax(1))


def _choose(mask: Tensor, yes: Tensor | None, no: Tensor | None) -> Tensor | None:
    if yes is None or no is None:
        return None
    return torch.where(mask.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def _grade(scaled: Scaled, x: Tensor, weights: Tensor, log_p: Tensor, infeasible: Tensor) -> dict[str, Tensor]:
    eta, lam = x[:, :1].clamp(min=1e-30), x[:, 1:]
    reward = scaled.range_reward
    point = dual.evaluate(scaled.q, scaled.log_prior, scaled.limit, scaled.epsilon, torch.cat([eta, lam], dim=1))
    mean = (weights.unsqueeze(1) * scaled.q).sum(-1).mean(-1)
    kl = dual.kl(weights, log_p).mean(-1)
    slack = scaled.limit - mean[:, 1:]
    excess = (-slack).clamp(min=0)
    share = scaled.unit_cost / scaled.unit_reward.unsqueeze(1)
    infeasible_m = infeasible.unsqueeze(1)
    violation = (share * excess).sum(1)
    costs = torch.where(infeasible_m, lam * slack.clamp(min=0), lam * slack.abs())
    gap = torch.where(
        infeasible,
        torch.where(point.value < 0, (point.value + violation).abs(), torch.inf),
        (point.value - mean[:, 0]).abs(),
    )
    # λ <= 1 is of the caller's units, whatever those of the other costs are.
    beyond = torch.where(infeasible_m, lam / share - 1.0, 0.0)
    signs = torch.cat([-x / reward.unsqueeze(1), beyond], dim=1)
    return {
        "kl": (kl - scaled.epsilon).clamp(min=0) / scaled.epsilon,
        "cost": torch.where(infeasible_m, (share - lam).clamp(min=0) * excess, excess / scaled.range_cost),
        "stationarity": (weights - point.weights).abs().sum(-1).mean(-1),
        "complementarity": torch.cat([eta * (scaled.epsilon - kl).abs().unsqueeze(1), costs], dim=1).amax(1) / reward,
        "gap": gap / reward,
        "simplex": (weights.sum(-1) - 1).abs().amax(-1),
        "sign": torch.maximum(signs.amax(1), (-weights).amax((1, 2))).clamp(min=0),
    }
