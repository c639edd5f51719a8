"""Properties of one E-step solution: each is for one problem, raises AssertionError in words, and returns nothing."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from cvpo.estep import DualProblem, Status
from cvpo.testing.drawing import require
from cvpo.testing.estep_grading import accuracy_for, claimed, each, require_residuals, require_witness, summary


def check_form(solver: Any, problem: DualProblem) -> None:
    """Shapes, dtypes, status codes, and weights that are finite and sum to one whatever the status is."""
    solution = solver.solve(problem)
    lead = problem.kl_epsilon.shape
    shapes = {
        "eta": lead, "lam": problem.cost_limit.shape, "weights": problem.q_reward.shape,
        "status": lead, "iterations": lead, "violation": lead,
    }  # fmt: skip
    for name, shape in shapes.items():
        found = getattr(solution, name).shape
        require(found == shape, f"{name} has shape {list(found)}; expected {list(shape)}")
    require(solution.weights.dtype == problem.q_reward.dtype, f"weights are {solution.weights.dtype}")
    require(solution.eta.dtype == solution.lam.dtype == torch.float64, "eta and lam are not float64")
    counted = solution.iterations
    require(not counted.is_floating_point() and bool((counted >= 0).all()), f"iterations are {counted.tolist()}")
    known = torch.isin(solution.status, torch.tensor(list(Status))).all()
    require(known, f"status {solution.status.tolist()} is no cvpo.estep.Status")
    total = solution.weights.double().sum(-1)
    proper = (solution.weights >= 0) & torch.isfinite(solution.weights)
    require(proper.all(), "weights are negative or not finite")
    require(((total - 1).abs() <= 1e-5).all(), f"weights sum to {total.tolist()}")
    for name in ("eta", "lam", "violation"):
        require(torch.isfinite(getattr(solution, name)).all(), f"{name} is not finite")


def check_inputs(solver: Any, problem: DualProblem) -> None:
    """No tensor of the problem is written to."""
    names = ("q_reward", "q_cost", "cost_limit", "kl_epsilon", "log_prior")
    before = {name: None if (part := getattr(problem, name)) is None else part.clone() for name in names}
    solver.solve(problem)
    for name, part in before.items():
        now = getattr(problem, name)
        require(part is None or torch.equal(part, now), f"{name} was overwritten: {part} became {now}")


def check_residuals(solver: Any, problem: DualProblem) -> None:
    """OK and INFEASIBLE are within ``solver.accuracy`` by :func:`cvpo.estep.kkt_residuals`."""
    require_residuals(solver, problem, solver.solve(problem))


def check_witness(solver: Any, problem: DualProblem) -> None:
    """OK: weights inside the KL ball and the limits. INFEASIBLE: (η, λ) that prove their violation to be the least."""
    for words, part, answer in each(problem, solver.solve(problem)):
        require_witness(part, answer, accuracy_for(solver, problem), words)


def check_answers(solver: Any, problem: DualProblem) -> None:
    """OK or INFEASIBLE on ordinary problems, unless the solver promises no more than a percent."""
    solution = solver.solve(problem)
    if solver.accuracy < 1e-2:
        require(claimed(solution).all(), f"no answer to an ordinary problem\n{summary(solution)}")


def check_nonfinite(solver: Any, problem: DualProblem) -> None:
    """A NaN or an infinity costs its own problem the solution (NONFINITE, weights = prior), and no other one."""
    good = solver.solve(problem)
    names = ("q_reward", "q_cost") if problem.costs else ("q_reward",)
    spoils = list(itertools.product(names, (torch.nan, torch.inf, -torch.inf)))
    spoils += [(name, torch.nan) for name in ("cost_limit", "kl_epsilon") if getattr(problem, name).numel()]

    def copies(part: torch.Tensor) -> torch.Tensor:
        return torch.stack([part] * (1 + len(spoils)))

    # The first copy stays as it is; each of the others has one value spoilt.
    parts = {name: copies(getattr(problem, name)) for name in ("q_reward", "q_cost", "cost_limit", "kl_epsilon")}
    for i, (name, value) in enumerate(spoils, start=1):
        parts[name][i].view(-1)[parts[name][i].numel() // 2] = value
    prior = problem.log_prior
    bad = DualProblem(**parts, log_prior=None if prior is None else copies(prior))
    found = solver.solve(bad)
    whole = [torch.isfinite(parts[name]).reshape(*bad.kl_epsilon.shape, -1).all(-1) for name in parts]
    hit = ~torch.stack(whole).all(0)
    words = f"with {[f'{name} = {value}' for name, value in spoils]} in turn"
    require((found.status[hit] == Status.NONFINITE).all(), f"status {found.status.tolist()} {words}")
    off = (found.weights.double() - bad.log_p.exp())[hit].abs().max()
    require(off <= 1e-6, f"the weights of a NONFINITE problem are not the prior, {words}")
    for name in ("eta", "lam", "weights", "violation"):
        require(torch.isfinite(getattr(found, name)).all(), f"{name} is not finite {words}")
    same = (found.status == good.status) | hit
    require(same.all(), f"the status of problems without such values changed to {found.status.tolist()} {words}")
