"""What is worth logging of an E-step, as tensors that stay on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution, Status

_NAMES = tuple(status.name.lower() for status in Status)


@torch.no_grad()
def expectation_metrics(problem: DualProblem, solution: DualSolution) -> dict[str, Tensor]:
    """Numbers [...] by name, one of each for every problem of a stack.

    ``eta``; ``kl``, mean_b KL(w_b ‖ p_b)/ε; ``iterations``; ``violation``; ``q_range``, mean_b (max_k Q_r − min_k Q_r);
    for each cost m ``lam_m``, ``cost_m`` = mean_b Σ_k w Q_c,m and its ``limit_m``; for each
    :class:`~cvpo.estep.Status` in lower case, 1 where it is the problem's and 0 elsewhere.
    """
    q, weights = problem.q_reward, solution.weights
    if problem.log_prior is None:
        cross = weights * -math.log(weights.shape[-1])
    else:
        # An action that the prior excludes has no weight: 0 · −∞ is 0 here.
        cross = torch.where(weights > 0, weights * problem.log_prior, 0.0)
    kl = (torch.xlogy(weights, weights) - cross).sum(-1).mean(-1)
    metrics = {
        "eta": solution.eta,
        "kl": kl / problem.kl_epsilon,
        "iterations": solution.iterations.float(),
        "violation": solution.violation,
        "q_range": (q.amax(-1) - q.amin(-1)).mean(-1),
    }
    codes = torch.arange(len(Status), device=q.device).reshape(-1, *(1 for _ in solution.status.shape))
    metrics.update(zip(_NAMES, (solution.status == codes).double().unbind(), strict=True))
    by_cost = (solution.lam.unbind(-1), problem.q_cost.unbind(-3), problem.cost_limit.unbind(-1))
    for m, (lam, cost, limit) in enumerate(zip(*by_cost, strict=True)):
        metrics[f"lam_{m}"] = lam
        metrics[f"cost_{m}"] = (weights * cost).sum(-1).mean(-1)
        metrics[f"limit_{m}"] = limit
    return metrics
