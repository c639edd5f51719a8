"""What an E-step solver returns: duals, weights, and one status per problem."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.errors import ProblemError
from cvpo.estep.problem import DualProblem


class Status(IntEnum):
    """How one problem ended; :attr:`message` says it in words."""

    OK = 0
    MAX_ITER = 1
    INFEASIBLE = 2
    NONFINITE = 3
    BACKEND_ERROR = 4

    @property
    def message(self) -> str:
        """One sentence that can be printed alone."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "solved: the weights meet the KL bound and the cost limits, to the solver's accuracy",
    Status.MAX_ITER: "not solved to the solver's accuracy within its iterations; the weights are its last ones",
    Status.INFEASIBLE: "no weights inside the KL bound meet the cost limits; these have the least total violation",
    Status.NONFINITE: "the problem has non-finite values, kl_epsilon <= 0 or a state without prior mass; "
    "the weights are the prior",
    Status.BACKEND_ERROR: "the solver's backend failed on this problem; the weights are the prior",
}


@attrs.frozen(eq=False)
class DualSolution:
    """Duals (η, λ) and weights w = softmax_k((Q_r − λᵀQ_c)/η + log p) of a stack of E-step problems.

    ``eta`` [...] and ``lam`` [...,M] are float64, in the units of Q_r and Q_r/Q_c,m; ``weights`` [...,B,K] has the
    problem's dtype; ``status`` [...] holds :class:`Status` codes; ``iterations`` [...] counts the solver's own;
    ``violation`` [...] is Σ_m (mean_b Σ_k w Q_c,m − d_m)₊, in the units of Q_c. Where the status is INFEASIBLE,
    (η, λ) solve the dual with Q_r = 0 and λ in [0, 1]^M, and −g(η, λ) certifies the violation from below.
    Where it is NONFINITE or BACKEND_ERROR, η = 1 and λ = 0 are placeholders. ``state`` is the solver's own.
    """

    eta: Tensor
    lam: Tensor
    weights: Tensor
    status: Tensor
    iterations: Tensor
    violation: Tensor
    state: Any = None

    def to(self, device: torch.device) -> DualSolution:
        """The same on ``device``, the solver's own state included."""
        fields = attrs.asdict(self, recurse=False)
        return DualSolution(**{name: _moved(value, device) for name, value in fields.items()})


def check_duals(problem: DualProblem, solution: DualSolution, name: str) -> None:
    """Raises ProblemError where η and λ of the ``solution`` called ``name`` are not of the problem's shapes."""
    if solution.eta.shape != problem.kl_epsilon.shape or solution.lam.shape != problem.cost_limit.shape:
        found = f"eta {list(solution.eta.shape)} and lam {list(solution.lam.shape)}"
        allowed = f"{list(problem.kl_epsilon.shape)} and {list(problem.cost_limit.shape)}, as in the problem"
        raise ProblemError(f"{name} has {found}; allowed: {allowed}")


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        parts = [_moved(each, device) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
