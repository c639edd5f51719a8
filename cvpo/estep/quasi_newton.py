"""SciPy's SLSQP on the dual of one problem: it learns the curvature from steps taken, not from where it is.

So it follows kinks that are narrower than a step, where the Hessian sees one side at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from cvpo.estep import dual
from cvpo.estep.task import Task


def slsqp(task: Task, start: Tensor, ftol: float, max_iter: int) -> tuple[Tensor, int]:
    """(η, λ) [S] from ``start`` [S], and the iterations; ``task`` is of one problem, and both on the host."""

    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.maximum(torch.from_numpy(point).unsqueeze(0), task.lower)
        at = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, x)
        return float(at.value), at.gradient.squeeze(0).numpy()

    # A bound on λ keeps SLSQP's line search finite where the limits cannot be met and g falls for ever.
    upper = torch.minimum(task.upper, 1e4 * (1 + start)).squeeze(0)
    result = minimize(
        value_and_gradient,
        start.numpy(),
        jac=True,
        method="SLSQP",
        bounds=list(zip(task.lower.squeeze(0).tolist(), upper.tolist(), strict=True)),
        options={"ftol": ftol, "maxiter": max_iter},
    )
    found = torch.minimum(torch.maximum(torch.from_numpy(result.x), task.lower), task.upper)
    return found.squeeze(0), int(result.nit)


def slsqp_each(task: Task, start: Tensor, ftol: float, max_iter: int) -> tuple[Tensor, Tensor]:
    """:func:`slsqp` on each active problem in turn: (η, λ) [P,S] and the iterations [P].

    Where a problem is not active, or nothing finite came out, the start.
    """
    index = task.active.nonzero().squeeze(1)
    host = Task._make(None if part is None else part.cpu() for part in task.take(index))
    x, counts = start[index].cpu(), torch.zeros(len(index), dtype=torch.int64)
    for i in range(len(index)):
        found, counts[i] = slsqp(host.take(slice(i, i + 1)), x[i], ftol, max_iter)
        if bool(torch.isfinite(found).all()):
            x[i] = found
    steps = torch.zeros_like(task.epsilon, dtype=torch.int64)
    return start.index_copy(0, index, x.to(start)), steps.index_copy(0, index, counts.to(steps.device))
