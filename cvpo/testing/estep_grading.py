"""What the E-step properties judge with, written without the library's own mathematics: witnesses, and agreement."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.estep import DualProblem, DualSolution, Status, kkt_residuals
from cvpo.testing.drawing import require

RESIDUALS = ("kl", "cost", "stationarity", "complementarity", "gap", "simplex", "sign")

ROUNDING = 1e-5
"""What rounding the weights to float32 may add to a residual."""


def accuracy_for(solver: Any, problem: DualProblem) -> float:
    """The accuracy that ``solver`` declares, with room for rounding where the weights are float32."""
    return solver.accuracy + (0.0 if problem.q_reward.dtype == torch.float64 else ROUNDING)


def claimed(solution: DualSolution) -> Tensor:
    """Where the solver says that it has the answer [...]."""
    return (solution.status == Status.OK) | (solution.status == Status.INFEASIBLE)


def require_residuals(solver: Any, problem: DualProblem, solution: DualSolution, words: str = "") -> None:
    """What ``solution`` calls solved is within ``solver.accuracy`` by :func:`cvpo.estep.kkt_residuals`."""
    residuals = kkt_residuals(problem, solution)
    bound, judged = accuracy_for(solver, problem), claimed(solution)
    for name in getattr(solver, "graded", RESIDUALS):
        value = getattr(residuals, name)
        mask = judged.unsqueeze(-1).expand_as(value) if value.ndim > judged.ndim else judged
        worst = value[mask].max().item() if bool(mask.any()) else 0.0
        found = f"the {name} residual is {worst:.3g}{words}; declared accuracy {bound:g}"
        require(worst <= bound, f"{found}\n{summary(solution)}")


def summary(solution: DualSolution) -> str:
    """The duals and the status, for an error."""
    return f"eta {solution.eta.tolist()}, lam {solution.lam.tolist()}, status {solution.status.tolist()}"


def each(problem: DualProblem, solution: DualSolution) -> list[tuple[str, DualProblem, DualSolution]]:
    """The problems of a stack with their solutions, one by one, each with words that say which it is."""
    lead = problem.kl_epsilon.ndim
    if lead == 0:
        return [("the problem", problem, solution)]

    def flat(part: Tensor) -> Tensor:
        return part.flatten(0, lead - 1)

    names = ("eta", "lam", "weights", "status", "iterations", "violation")
    answers = {name: flat(getattr(solution, name)) for name in names}
    q, c, d, e = map(flat, (problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon))
    prior = None if problem.log_prior is None else flat(problem.log_prior)
    return [
        (
            f"problem {i}",
            DualProblem(q[i], c[i], d[i], e[i], None if prior is None else prior[i]),
            DualSolution(**{name: part[i] for name, part in answers.items()}),
        )
        for i in range(len(q))
    ]


def spans(problem: DualProblem) -> Tensor:
    """(R, C_1 … C_M): mean_b range_k over the particles with prior mass, 0 replaced by 1."""
    q = torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3).double()
    outside = (problem.log_p == -torch.inf).unsqueeze(-3)
    high, low = q.masked_fill(outside, -torch.inf).amax(-1), q.masked_fill(outside, torch.inf).amin(-1)
    span = (high - low).mean(-1)
    return torch.where(span > 0, span, 1.0)


def expected(weights: Tensor, q: Tensor) -> Tensor:
    """mean_b Σ_k w Q [..., signals], the states' offsets taken out of the sum and put back."""
    q = q.double()
    low = q[..., :1]
    return (weights.double().unsqueeze(-3) * (q - low)).sum(-1).mean(-1) + low.squeeze(-1).mean(-1)


def least_violation_bound(problem: DualProblem, eta: Tensor, lam: Tensor) -> float:
    """−(η ε + λᵀd + η mean_b log Σ_k p exp(−λᵀQ_c/η)), written out for one problem.

    By weak duality no weights violate the limits by less in total, for any η > 0 and λ in [0, 1]^M.
    """
    log_p = problem.log_p
    cost = (lam.view(-1, 1, 1) * problem.q_cost.double()).sum(0)
    # Per state, the least cost is taken out first, so that large offsets do not round the sum.
    least = cost.masked_fill(log_p == -torch.inf, torch.inf).amin(-1, keepdim=True)
    soft = torch.logsumexp(log_p - (cost - least) / eta.clamp(min=1e-300), dim=-1)
    # No weights are further from the prior than on the unlikeliest particle: a larger ε bounds nothing.
    epsilon = torch.minimum(problem.kl_epsilon, -log_p.masked_fill(log_p == -torch.inf, 0.0).amin(-1).mean())
    return -float(eta * epsilon + (lam * problem.cost_limit).sum() - least.mean() + eta * soft.mean())


def require_witness(problem: DualProblem, solution: DualSolution, bound: float, words: str = "the problem") -> None:
    """OK: weights inside the KL ball and the limits. INFEASIBLE: (η, λ) that prove their violation to be the least.

    For one problem, to ``bound`` relative to ε, C_m and the largest C_m.
    """
    w, log_p = solution.weights.double(), problem.log_p
    require((w[log_p == -torch.inf] == 0).all(), f"{words}: weight on particles without prior mass")
    if solution.status not in (Status.OK, Status.INFEASIBLE):
        return
    kl = torch.where(w > 0, w * (w.log() - log_p), 0.0).sum(-1).mean().item()
    epsilon, size = problem.kl_epsilon.item(), spans(problem)
    # Rounding of the weights moves Σ w log(w/p) by as much, whatever ε is.
    slip = 1e-6 if solution.weights.dtype == torch.float32 else 1e-13
    require(kl <= epsilon * (1 + bound) + slip, f"{words}: KL {kl} exceeds kl_epsilon {epsilon}")
    excess = (expected(w, problem.q_cost) - problem.cost_limit).clamp(min=0)
    rounding = (problem.q_cost.double().abs().amax((-1, -2)) * slip).clamp(min=1e-300)
    if solution.status == Status.OK:
        good = (excess <= bound * size[1:] + rounding).all()
        require(good, f"{words}: OK, but the costs exceed the limits by {excess.tolist()}")
    told = abs(solution.violation.item() - excess.sum().item())
    require(
        told <= 2 * bound * size[1:].sum().item() + 1e-12 * problem.q_cost.double().abs().sum().item(),
        f"{words}: violation is {solution.violation.item()}, the weights violate the limits by {excess.sum().item()}",
    )
    if solution.status == Status.OK:
        return
    lam = solution.lam
    require(((lam >= 0) & (lam <= 1 + bound)).all(), f"{words}: INFEASIBLE, but λ is outside [0, 1]: {lam.tolist()}")
    proof, total = least_violation_bound(problem, solution.eta, lam), excess.sum().item()
    require(proof > 0, f"{words}: INFEASIBLE, but (η, λ) prove nothing: −g = {proof}")
    room = (bound * size[1:].max() + rounding.sum()).item()
    require(abs(total - proof) <= room, f"{words}: the weights violate the limits by {total}, (η, λ) prove {proof}")


def require_agreement(
    problem: DualProblem,
    a: DualSolution,
    b: DualSolution,
    bound: float,
    weights: bool = True,
    words: str = "two solutions of one problem",
) -> None:
    """Two answers to one problem, each within ``bound``/2 of the optimum, are as near to each other as that implies.

    A residual of δ moves the objective by up to δ(R + Σλ_m C_m + ηε), and, g being the conjugate of η·KL, the weights
    by √(2/η) times the root of that. Where one says OK and the other INFEASIBLE, the limits are within rounding of
    reach.
    """
    pair = {int(a.status), int(b.status)}
    if not pair <= {int(Status.OK), int(Status.INFEASIBLE)}:
        return
    size = spans(problem)
    excess = [(expected(s.weights, problem.q_cost) - problem.cost_limit).clamp(min=0).sum().item() for s in (a, b)]
    if int(Status.INFEASIBLE) in pair:
        slip = bound * size[1:].sum().item() + 1e-12 * problem.q_cost.double().abs().sum().item()
        need = slip + bound * size[1:].max().item()
        require(abs(excess[0] - excess[1]) <= need, f"{words}: total violations {excess[0]} and {excess[1]}")
        return
    steep = size[0] + (a.lam * size[1:]).sum() + a.eta * problem.kl_epsilon
    allowed = bound * steep.item() + 1e-7 * bound * problem.q_reward.double().abs().max().item()
    reward = [expected(s.weights, problem.q_reward.unsqueeze(-3)).item() for s in (a, b)]
    require(abs(reward[0] - reward[1]) <= allowed, f"{words}: objectives {reward[0]} and {reward[1]}")
    if weights:
        apart = (a.weights.double() - b.weights.double()).abs().sum(-1).mean().item()
        near = 2 * (2 * allowed / max(a.eta.item(), 1e-300)) ** 0.5 + bound
        require(apart <= near, f"{words}: weights {apart:.3g} apart, {near:.3g} allowed")
