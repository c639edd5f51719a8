"""E-step: the convex program over sampled actions, solved through its dual in the temperature η and multipliers λ."""

from __future__ import annotations

from cvpo.estep.certify import Residuals, kkt_residuals
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution, Status
from cvpo.registry import Registry

registry = Registry(
    "E-step solver",
    {
        "newton": "cvpo.estep.newton:Newton",
        "slsqp": "cvpo.estep.slsqp:Slsqp",
        "osqp": "cvpo.estep.sqp:Osqp",
        "cvxpy": "cvpo.estep.conic:Cvxpy",
        "adam": "cvpo.estep.adam:Adam",
    },
    group="cvpo.estep",
)

__all__ = ["DualProblem", "DualSolution", "Residuals", "Status", "kkt_residuals", "registry"]
