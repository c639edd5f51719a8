"""The properties of an E-step solver, each for one problem: they raise AssertionError in words, and return nothing."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import torch
from torch import Tensor

from cvpo.errors import DependencyError
from cvpo.estep import DualProblem, DualSolution, Status, kkt_residuals, registry

RESIDUALS = ("kl", "cost", "stationarity", "complementarity", "gap", "simplex", "sign")
ROUNDING = 1e-5
"""What rounding the weights to float32 may add to a residual."""


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
    require({int(code) for code in solution.status.reshape(-1)} <= set(map(int, Status)), f"status {solution.status}")
    total = solution.weights.double().sum(-1)
    require(bool(torch.isfinite(solution.weights).all()), "weights are not finite")
    require(bool(((total - 1).abs() <= 1e-5).all()), f"weights sum to {total.tolist()}")
    require(bool(torch.isfinite(torch.cat([solution.eta.reshape(-1), solution.lam.reshape(-1)])).all()), "NaN in duals")


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
    solution = solver.solve(problem)
    residuals = kkt_residuals(problem, solution)
    bound = _accuracy(solver, problem)
    claimed = _claimed(solution)
    for name in getattr(solver, "graded", RESIDUALS):
        value = getattr(residuals, name)
        mask = claimed.unsqueeze(-1).expand_as(value) if value.ndim > claimed.ndim else claimed
        worst = value[mask].max().item() if bool(mask.any()) else 0.0
        require(worst <= bound, f"the {name} residual is {worst:.3g}; declared accuracy {bound:g}\n{_words(solution)}")


def check_witness(solver: Any, problem: DualProblem) -> None:
    """OK: weights inside the KL ball and the limits. INFEASIBLE: (η, λ) with −g > 0, no more than their violation."""
    solution = solver.solve(problem)
    bound = _accuracy(solver, problem)
    for index, part, answer in each(problem, solution):
        w, log_p = answer.weights.double(), part.log_p
        mass = w > 0
        kl = torch.where(mass, w * (w.log() - log_p), 0.0).sum(-1).mean().item()
        epsilon, size = part.kl_epsilon.item(), spans(part)
        # Rounding of the weights moves Σ w log(w/p) by as much, whatever ε is.
        slip = 1e-6 if w.dtype != answer.weights.dtype else 1e-13
        excess = (_mean(w, part.q_cost) - part.cost_limit).clamp(min=0)
        scale = (part.q_cost.double().abs().amax((-1, -2)) * slip).clamp(min=1e-300)
        require(bool((w[log_p == -torch.inf] == 0).all()), f"{index}: weight on particles without prior mass")
        if answer.status in (Status.OK, Status.INFEASIBLE):
            require(kl <= epsilon * (1 + bound) + slip, f"{index}: KL {kl} exceeds kl_epsilon {epsilon}")
        if answer.status == Status.OK:
            good = excess <= bound * size[1:] + scale
            require(bool(good.all()), f"{index}: OK, but the costs exceed the limits by {excess.tolist()}")
        if answer.status == Status.INFEASIBLE:
            proof = -dual_value(part, answer.eta, answer.lam)
            room = (bound * size[1:].max() + scale.sum()).item()
            require(proof > 0, f"{index}: INFEASIBLE, but (η, λ) prove nothing: −g = {proof}")
            require(bool(((answer.lam >= 0) & (answer.lam <= 1 + bound)).all()), f"{index}: λ outside [0, 1]")
            require(
                abs(excess.sum().item() - proof) <= room,
                f"{index}: the weights violate the limits by {excess.sum().item()}, (η, λ) prove only {proof}",
            )


def check_answers(solver: Any, problem: DualProblem) -> None:
    """OK or INFEASIBLE on ordinary problems, unless the solver promises no more than a percent or so."""
    solution = solver.solve(problem)
    if solver.accuracy <= 1e-4:
        require(bool(_claimed(solution).all()), f"no answer to an ordinary problem\n{_words(solution)}")


def check_reference(solver: Any, problem: DualProblem) -> None:
    """E Q_r, or the least violation, is that of the conic solver on the primal (of ``newton``, if it is missing)."""
    other = reference()
    if type(other) is type(solver):
        return
    _agree(problem, solver.solve(problem), other.solve(problem), _accuracy(solver, problem) + other.accuracy, False)


def check_stack(solver: Any, problem: DualProblem) -> None:
    """Every problem of a stack has the answer that it has alone."""
    if problem.kl_epsilon.ndim == 0:
        return
    solution = solver.solve(problem)
    for _, part, answer in each(problem, solution):
        _agree(part, answer, solver.solve(part), 2 * _accuracy(solver, problem))


def check_invariances(solver: Any, problem: DualProblem) -> None:
    """The answer to an equivalent problem is the equivalent answer."""
    base = solver.solve(problem)
    if not bool((base.status == Status.OK).all()):
        return
    q, c, d, p = problem.q_reward, problem.q_cost, problem.cost_limit, problem.log_prior
    shift = (q[..., :1] - q[..., -1:]) * 0.5
    moved = (c[..., :1] - c[..., -1:]) * 0.5
    order = torch.arange(q.shape[-1] - 1, -1, -1, device=q.device)
    flipped = None if p is None else p[..., order]
    epsilon, bound = problem.kl_epsilon, 2 * _accuracy(solver, problem)
    # Doubling is exact; shifts round, so they are compared in float64 with the problem that has the shifted values.
    equivalent = {
        "Q_r doubled": (DualProblem(2 * q, c, d, epsilon, p), None),
        "Q_c and d doubled": (DualProblem(q, 2 * c, 2 * d, epsilon, p), None),
        "Q_r shifted per state": (DualProblem(q.double() + shift.double(), c.double(), d, epsilon, p), None),
        "Q_c and d shifted": (
            DualProblem(q.double(), c.double() + moved.double(), d + moved.double().mean((-1, -2)), epsilon, p),
            None,
        ),
        "particles in reverse": (DualProblem(q[..., order], c[..., order], d, epsilon, flipped), order),
    }
    for words, (other, back) in equivalent.items():
        found = solver.solve(other)
        weights = found.weights if back is None else found.weights[..., back]
        for (_, part, a), (_, _, b) in zip(
            each(problem, base), each(problem, attrs.evolve(found, weights=weights)), strict=True
        ):
            # Shifts round the costs: a limit that was just reachable may not be so any more.
            if b.status == Status.OK or "shifted" not in words:
                _agree(part, a, attrs.evolve(b, lam=a.lam, eta=a.eta), bound, words=words)


def check_float32(solver: Any, problem: DualProblem) -> None:
    """A float32 problem has the answer of the same values in float64."""
    low = _cast(problem, torch.float32)
    same = _cast(low, torch.float64)
    found, exact = solver.solve(low), solver.solve(same)
    for (_, part, a), (_, _, b) in zip(each(same, exact), each(same, found), strict=True):
        _agree(part, a, b, 2 * solver.accuracy + ROUNDING)


def check_nonfinite(solver: Any, problem: DualProblem) -> None:
    """A NaN or an infinity costs its own problem the solution (status NONFINITE, weights = prior), and no other one."""
    good = solver.solve(problem)
    for name, value in (("q_reward", torch.nan), ("q_reward", torch.inf), ("q_cost", torch.nan), ("q_cost", -torch.inf)):
        if name == "q_cost" and problem.costs == 0:
            continue
        parts = {field: getattr(problem, field) for field in ("q_reward", "q_cost", "cost_limit", "kl_epsilon")}
        stacked = {field: torch.stack([part, part]) for field, part in parts.items()}
        stacked[name].reshape(-1)[stacked[name].numel() // 2] = value
        prior = problem.log_prior
        bad = DualProblem(*stacked.values(), None if prior is None else torch.stack([prior, prior]))
        found = solver.solve(bad)
        hit = ~torch.isfinite(stacked[name]).flatten(problem.kl_epsilon.ndim + 1).all(-1)
        require(bool((found.status[hit] == Status.NONFINITE).all()), f"{name} = {value} has status {found.status}")
        off = (found.weights.double() - bad.log_p.exp())[hit].abs().max().item()
        require(off <= 1e-6, f"{name} = {value}: the weights are not the prior")
        for part in (found.eta, found.lam, found.weights, found.violation):
            require(bool(torch.isfinite(part).all()), f"{name} = {value} leaves non-finite values in the solution")
        same = found.status[0] == good.status
        require(bool(same.all()), f"{name} = {value} in one problem changed the status of others")


def check_warm(solver: Any, problem: DualProblem) -> None:
    """Any warm start gives the answer of a cold one: its own solution, one far off, one that failed."""
    cold = solver.solve(problem)
    far = attrs.evolve(cold, eta=cold.eta * 30 + 1e-3, lam=cold.lam * 0.1, status=torch.full_like(cold.status, Status.OK))
    failed = attrs.evolve(
        cold,
        eta=cold.eta * torch.nan,
        lam=cold.lam * torch.inf,
        status=torch.full_like(cold.status, Status.NONFINITE),
    )
    for words, warm in (("its own solution", cold), ("a start far off", far), ("a failed start", failed)):
        found = solver.solve(problem, warm)
        for (_, part, a), (_, _, b) in zip(each(problem, cold), each(problem, found), strict=True):
            _agree(part, a, b, 2 * _accuracy(solver, problem), words=f"from {words}")


def each(problem: DualProblem, solution: DualSolution) -> list[tuple[str, DualProblem, DualSolution]]:
    """The problems of a stack with their solutions, one by one, each with words that say which it is."""
    if problem.kl_epsilon.ndim == 0:
        return [("the problem", problem, solution)]
    count = problem.kl_epsilon.numel()
    flat = {
        name: None if (part := getattr(problem, name)) is None else part.reshape(count, *part.shape[problem.kl_epsilon.ndim :])
        for name in ("q_reward", "q_cost", "cost_limit", "kl_epsilon", "log_prior")
    }
    answers = {
        name: getattr(solution, name).reshape(count, *getattr(solution, name).shape[problem.kl_epsilon.ndim :])
        for name in ("eta", "lam", "weights", "status", "iterations", "violation")
    }
    return [
        (
            f"problem {i}",
            DualProblem(*(None if part is None else part[i] for part in flat.values())),
            DualSolution(**{name: part[i] for name, part in answers.items()}),
        )
        for i in range(count)
    ]


def spans(problem: DualProblem) -> Tensor:
    """(R, C_1 … C_M): mean_b range_k over the particles with prior mass, 0 replaced by 1."""
    q = torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3).double()
    outside = (problem.log_p == -torch.inf).unsqueeze(-3)
    high, low = q.masked_fill(outside, -torch.inf).amax(-1), q.masked_fill(outside, torch.inf).amin(-1)
    span = (high - low).mean(-1)
    return torch.where(span > 0, span, 1.0)


def dual_value(problem: DualProblem, eta: Tensor, lam: Tensor) -> float:
    """η ε + λᵀd + η mean_b log Σ_k p exp(−λᵀQ_c/η), written out: the dual of least violation, for one problem."""
    cost = (lam.view(-1, 1, 1) * problem.q_cost.double()).sum(0)
    # Per state, the least cost is taken out first, so that large offsets do not round the sum.
    least = cost.masked_fill(problem.log_p == -torch.inf, torch.inf).amin(-1, keepdim=True)
    soft = torch.logsumexp(problem.log_p - (cost - least) / eta, dim=-1)
    offset = (lam * problem.cost_limit).sum() - least.mean()
    return float(eta * problem.kl_epsilon + offset + eta * soft.mean())


@functools.cache
def reference() -> Any:
    """The conic solver on the primal, or ``newton`` where CVXPY is not installed."""
    try:
        return registry.create("cvxpy")
    except DependencyError:
        return registry.create("newton")


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with ``message`` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _agree(
    problem: DualProblem,
    a: DualSolution,
    b: DualSolution,
    bound: float,
    weights: bool = True,
    words: str = "two solutions of one problem",
) -> None:
    """Two answers to one problem, each within ``bound``/2 of the optimum, are as near to each other as that implies.

    A residual of δ moves the objective by up to δ(R + Σλ_m C_m + ηε), and, g being the conjugate of η·KL, the weights by
    √(2/η) times the root of that. Where one says OK and the other INFEASIBLE, the limits are within rounding of reach.
    """
    pair = {int(a.status), int(b.status)}
    if not pair <= {int(Status.OK), int(Status.INFEASIBLE)}:
        return
    size = spans(problem)
    excess = [(_mean(s.weights.double(), problem.q_cost) - problem.cost_limit).clamp(min=0).sum().item() for s in (a, b)]
    largest = size[1:].max().item() if problem.costs else 1.0
    slip = bound * size[1:].sum().item() + 1e-12 * problem.q_cost.double().abs().sum().item()
    if len(pair) == 2 or Status.INFEASIBLE in pair:
        need = slip + bound * largest
        require(abs(excess[0] - excess[1]) <= need, f"{words}: total violations {excess[0]} and {excess[1]}")
        return
    steep = size[0] + (a.lam * size[1:]).sum() + a.eta * problem.kl_epsilon
    allowed = bound * steep.item() + 1e-7 * bound * problem.q_reward.double().abs().max().item()
    reward = [_mean(s.weights.double(), problem.q_reward.unsqueeze(-3)).item() for s in (a, b)]
    require(abs(reward[0] - reward[1]) <= allowed, f"{words}: objectives {reward[0]} and {reward[1]}")
    if weights:
        apart = (a.weights.double() - b.weights.double()).abs().sum(-1).mean().item()
        near = 2 * (2 * allowed / max(a.eta.item(), 1e-300)) ** 0.5 + bound
        require(apart <= near, f"{words}: weights {apart:.3g} apart, {near:.3g} allowed")


def _mean(weights: Tensor, q: Tensor) -> Tensor:
    """mean_b Σ_k w Q, the states' offsets taken out of the sum and put back: [..., signals]."""
    q = q.double()
    low = q[..., :1]
    return (weights.unsqueeze(-3) * (q - low)).sum(-1).mean(-1) + low.squeeze(-1).mean(-1)


def _claimed(solution: DualSolution) -> Tensor:
    return (solution.status == Status.OK) | (solution.status == Status.INFEASIBLE)


def _accuracy(solver: Any, problem: DualProblem) -> float:
    return solver.accuracy + (0.0 if problem.q_reward.dtype == torch.float64 else ROUNDING)


def _cast(problem: DualProblem, dtype: torch.dtype) -> DualProblem:
    prior = problem.log_prior
    return DualProblem(
        problem.q_reward.to(dtype),
        problem.q_cost.to(dtype),
        problem.cost_limit,
        problem.kl_epsilon,
        None if prior is None else prior.to(dtype),
    )


def _words(solution: DualSolution) -> str:
    return f"eta {solution.eta.tolist()}, lam {solution.lam.tolist()}, status {solution.status.tolist()}"
