"""CVPO on a known process: the library's E-step, projection and limits, with critics that are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cvpo import estep, mstep
from cvpo.critics import CostLimit
from cvpo.distributions import Categorical
from cvpo.estep import DualProblem, Status
from tests.cmdp.model import Cmdp


def iterate(
    cmdp: Cmdp,
    limits: np.ndarray,
    limit: CostLimit,
    rounds: int,
    start: np.ndarray | None = None,
    average: float = 0.0,
) -> np.ndarray:
    """``rounds`` of CVPO from the policy ``start`` (None: uniform); the returns [rounds,S] of the policy after each,
    or of the mean policy over that share of the rounds if there is an ``average``.

    Every state is one of the E-step's, whatever the start; every action is a particle, with log π_old as the prior, so
    that nothing is sampled.
    """
    solver = estep.registry.create("newton")
    projection = mstep.registry.create("full", kl=0.05)
    old = Categorical(torch.from_numpy(np.log(np.ones(cmdp.signals.shape[1:]) if start is None else start)))
    d = torch.from_numpy(limits)
    solution: Any = None
    trace, mean = [], old.log_probs
    for count in range(1, rounds + 1):
        policy = old.log_probs.exp()
        q = torch.from_numpy(cmdp.q_values(policy.numpy()))
        own = torch.from_numpy(cmdp.returns(policy.numpy())[1:])
        threshold = limit.threshold(q[1:], policy, d, own, cmdp.gamma)
        solution = solver.solve(DualProblem(q[0], q[1:], threshold, 0.1, old.log_probs), warm=solution)
        assert int(solution.status) in (Status.OK, Status.INFEASIBLE)
        old = projection.project(old, None, solution.weights)
        mean = mean + (old.log_probs - mean) / max(1.0, average * count)
        trace.append(cmdp.returns(torch.softmax(mean, -1).numpy()))
    return np.array(trace)
