"""The primal itself, as a conic program in CVXPY: a reference that shares nothing with the dual solvers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from cvpo.estep import driver, implicit
from cvpo.estep.driver import Answer
from cvpo.estep.extras import require
from cvpo.estep.problem import DualProblem
from cvpo.estep.scaling import Scaled, scale
from cvpo.estep.solution import DualSolution, Status
from cvpo.validators import number


@attrs.frozen
class Cvxpy:
    """max_w mean_b Σ_k w Q_r over the weights themselves, with the KL bound as exponential cones.

    CVXPY builds the normalised program; the interior-point solver Clarabel solves it, with gap and feasibility
    tolerances pinned to ``tolerance``. An infeasible program is followed by one that minimises Σ_m (E Q_c,m − d_m)₊ in
    the caller's units. The weights are the conic solver's own, and (η, λ) its multipliers: the objective and the
    constraints are met to ``accuracy``, but weights and duals agree with each other only to about its square root, so
    :attr:`graded` leaves out what compares the two. Hundreds of times slower than the dual solvers, on the CPU, no warm
    start. Raises DependencyError where cvxpy or clarabel is not installed. Source: Agrawal et al. (2018), Goulart &
    Chen, Clarabel (2024).
    """

    summary: ClassVar[str] = "the primal as a conic program, by CVXPY and Clarabel: an independent reference"
    accuracy: ClassVar[float] = 1e-6
    graded: ClassVar[tuple[str, ...]] = ("kl", "cost", "gap", "simplex", "sign")
    differentiable: ClassVar[bool] = True

    tolerance: float = attrs.field(default=1e-10, validator=number(gt=0))
    max_iter: int = attrs.field(default=200, validator=number(ge=1, integer=True))

    def __attrs_post_init__(self) -> None:
        require("clarabel")
        require("cvxpy")

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve every problem of the stack in turn; ``warm`` is not used: interior points start in the middle."""
        with torch.no_grad():
            scaled = scale(problem)
            parts = [self._solve_one(_Program.of(scaled, problem, i)) for i in range(len(scaled.epsilon))]
            answer = Answer(*(torch.stack(part).to(problem.q_reward.device) for part in zip(*parts, strict=True)))
            solution = driver.assemble(problem, scaled, answer)
        return implicit.attach(problem, solution)
