"""Derivatives of a solution with respect to its problem, by the implicit function theorem.

On the coordinates x_F of (η, λ) that are free at the optimum, ∇_F g(x, θ) = 0, so with θ = (Q_r, Q_c, d, ε, log p)::

    dx_F = −(∇²_FF g)⁻¹ d_θ(∇_F g),        w = softmax_k((Q_r − λᵀQ_c)/η + log p)

Coordinates at a bound stay there. Valid where the active set is stable; first derivatives only.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from cvpo.estep import dual
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.estep.task import Task, least_violation_task, main_task, pushed

RIDGE = 1e-13
"""Added to the Hessian's diagonal, in its own scale 1/η: collinear costs have no derivative of their own."""


def attach(problem: DualProblem, solution: DualSolution) -> DualSolution:
    """``solution`` with η, λ and weights differentiable with respect to the tensors of ``problem`` that require it.

    Values do not change. Entries that are neither OK nor INFEASIBLE get zero derivatives; INFEASIBLE ones are
    those of the least-violation problem, which does not depend on Q_r, and zero where all weights are as good.
    """
    inputs = (problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, problem.log_prior)
    if not (torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in inputs)):
        return solution
    scaled = scale(_readable(problem, (solution.status == Status.OK) | (solution.status == Status.INFEASIBLE)))
    status = solution.status.reshape(-1)
    eta, lam, weights = _derivatives(scaled, main_task(scaled), solution, status == Status.OK)
    if problem.costs:
        relaxed = scaled.without_reward()
        varied = (status == Status.INFEASIBLE) & ~scaled.constant
        least = _derivatives(relaxed, least_violation_task(scaled), solution, varied)
        eta, lam, weights = eta + least[0], lam + least[1], weights + least[2]
    return attrs.evolve(
        solution,
        eta=solution.eta + eta.reshape(solution.eta.shape),
        lam=solution.lam + lam.reshape(solution.lam.shape),
        weights=solution.weights + weights.reshape(solution.weights.shape).to(solution.weights.dtype),
    )


def _readable(problem: DualProblem, solved: Tensor) -> DualProblem:
    """``problem`` with harmless numbers where it is not ``solved``: in a backward pass, zero times NaN is NaN."""
    state = solved[..., None, None]
    prior = problem.log_prior
    return DualProblem(
        torch.where(state, problem.q_reward, 0.0),
        torch.where(state.unsqueeze(-1), problem.q_cost, 0.0),
        torch.where(solved.unsqueeze(-1), problem.cost_limit, 0.0),
        torch.where(solved, problem.kl_epsilon, 1.0),
        None if prior is None else torch.where(state, prior, 0.0),
    )


def _derivatives(scaled: Scaled, task: Task, solution: DualSolution, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros [P], [P,M], [P,B,K] that carry the derivatives of the ``wanted`` problems."""
    x = scaled.inward(solution.eta.reshape(-1), solution.lam.reshape(scaled.limit.shape)).detach()
    x = torch.maximum(torch.where(wanted.unsqueeze(1), x, 1.0), task.lower)
    at = dual.evaluate(scaled.q, scaled.log_prior, scaled.limit, scaled.epsilon, x)
    fixed = pushed(task, x, at.gradient) | ~wanted.unsqueeze(1)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    matrix = torch.where(fixed.unsqueeze(2), eye, at.hessian.detach() + RIDGE / x[:, :1, None] * eye)
    right = torch.where(fixed, 0.0, at.gradient - at.gradient.detach())
    moved = x - torch.linalg.solve_ex(matrix, right)[0]
    weights = dual.softmax_weights(scaled.q, scaled.log_prior, moved)
    eta, lam = scaled.outward(moved - x)
    return eta, lam, torch.where(wanted.view(-1, 1, 1), weights - weights.detach(), 0.0)
