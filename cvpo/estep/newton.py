"""Newton on the dual: batched, projected, damped; any number of problems at once."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import attrs
import torch
from torch import Tensor

from cvpo.estep import driver, dual
from cvpo.estep.problem import DualProblem
from cvpo.estep.solution import DualSolution
from cvpo.estep.task import Minimum, Task, bottom, error_at, pushed
from cvpo.validators import number

FIRST_STRIDE, LEAST_STRIDE, MOST_STRIDE = 10.0, 1.2, 1e4
"""Largest factor by which one step lowers η: adapted, for kinks of the dual have width η and λ must follow them."""
CENTRED, LOST, SLOW = 0.5, 10.0, 1.0
LEAST_DAMPING, REJECTED_DAMPING, MOST_DAMPING = 1e-16, 1e-6, 1e8
NOISE = 1e-14
"""Relative change of g below which two points cannot be told apart by g."""


class State(NamedTuple):
    """P iterations under way: ``x`` = (η, λ) [P,S], the dual there, and what the next step needs, each [P].

    ``error``: the largest residual as graded. ``residual``: see :func:`_residual`. ``spread``: how far λ is from its optimum at this η, in units of η, which is the
    width of the dual's kinks. ``damping``, ``stride``: see :func:`step`.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor
    error: Tensor
    residual: Tensor
    spread: Tensor
    damping: Tensor
    stride: Tensor
    done: Tensor
    iterations: Tensor


def begin(task: Task, x: Tensor, tolerance: float) -> State:
    """The state at ``x`` [P,S]."""
    at = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, x)
    error = error_at(task, x, at.gradient)
    residual = _residual(task, x, at.gradient)
    done = ~task.active | _settled(task, at.value, at.gradient, error, residual, tolerance)
    return State(
        x=x,
        value=at.value,
        gradient=at.gradient,
        hessian=at.hessian,
        error=error,
        residual=residual,
        spread=_spread(task, x, at.gradient, at.hessian),
        damping=torch.full_like(error, LEAST_DAMPING),
        stride=torch.full_like(error, FIRST_STRIDE),
        done=done,
        iterations=torch.zeros_like(error, dtype=torch.int64),
    )


def step(task: Task, state: State, tolerance: float) -> State:
    """One damped, projected Newton step of every problem that is not done. Tensors in, tensors out; no host sync."""
    x, value, gradient, hessian, error, residual, spread, damping, stride, done, iterations = state
    eta = x[:, :1]
    fixed = pushed(task, x, gradient)
    right = _secular(gradient, task.epsilon)
    ridge = torch.diag_embed((damping / eta[:, 0]).unsqueeze(1).expand_as(x))
    matrix = hessian + ridge
    move = _solve(matrix, right, fixed, torch.zeros_like(x))
    remaining = eta[:, 0] * gradient[:, 0]
    eager = (residual < 0.1 * remaining) & (stride > 2)
    reach = torch.where((spread > CENTRED) & ~eager, SLOW, stride).unsqueeze(1)
    least = torch.cat([torch.maximum(eta / reach, bottom(task, x)[:, :1]), task.lower[:, 1:]], dim=1)
    size = FIRST_STRIDE * (eta + task.size[:, :1] + x[:, 1:].sum(1, keepdim=True))
    most = torch.cat([torch.maximum(eta * FIRST_STRIDE, least[:, :1]), torch.minimum(task.upper[:, 1:], size)], dim=1)
    goal = torch.where(fixed, x, torch.clamp(x + move, least, most))
    cut = fixed | ((goal != x + move) & _is_eta(x))
    move = _solve(matrix, right, cut, torch.where(cut, goal - x, 0.0))
    goal = torch.where(cut, goal, torch.clamp(x + move, least, most))
    cut = cut | (goal != x + move)
    move = _solve(matrix, right, cut, goal - x)
    trial = torch.where(cut, goal, torch.clamp(x + move, least, most))

    new = dual.evaluate(task.q, task.log_prior, task.limit, task.epsilon, trial)
    new_error = error_at(task, trial, new.gradient)
    new_residual = _residual(task, trial, new.gradient)
    new_spread = _spread(task, trial, new.gradient, new.hessian)
    noise = NOISE * (eta[:, 0] + task.size[:, 0] + (x[:, 1:] * (task.size[:, 1:] + task.limit.abs())).sum(1))
    drop = value - new.value
    nearer = (torch.maximum(new_error, new_residual) < torch.maximum(error, residual)) | (new_spread < 0.5 * spread)
    fine = torch.where(drop.abs() <= noise, nearer, drop > 0)
    lost = (trial[:, 0] < 0.7 * eta[:, 0]) & (new_spread > LOST) & (new_residual > residual)
    accept = fine & ~lost & ~done
    calmer, wilder = (damping * 0.1).clamp(min=LEAST_DAMPING), (damping * 30).clamp(min=REJECTED_DAMPING)
    longer = torch.where(spread > CENTRED, stride, stride * 3).clamp(max=MOST_STRIDE)
    take = accept.unsqueeze(1)
    state = State(
        x=torch.where(take, trial, x),
        value=torch.where(accept, new.value, value),
        gradient=torch.where(take, new.gradient, gradient),
        hessian=torch.where(take.unsqueeze(2), new.hessian, hessian),
        error=torch.where(accept, new_error, error),
        residual=torch.where(accept, new_residual, residual),
        spread=torch.where(accept, new_spread, spread),
        damping=torch.where(accept, calmer, torch.where(fine, damping, wilder)),
        stride=torch.where(accept, longer, stride.sqrt().clamp(min=LEAST_STRIDE)),
        done=done,
        iterations=iterations + (~done),
    )
    finished = _settled(task, state.value, state.gradient, state.error, state.residual, tolerance)
    finished = finished | (state.damping > MOST_DAMPING)
    return state._replace(done=done | finished)


def _settled(
    task: Task, value: Tensor, gradient: Tensor, error: Tensor, residual: Tensor, tolerance: float
) -> Tensor:
    """Solved to ``tolerance``, or proved infeasible. The least-violation form must also show a witness of either kind.

    It is homogeneous, so near 0 every error is small; g < 0 proves infeasibility there, weights without excess the
    contrary.
    """
    main = task.bound > -torch.inf
    witness = main | (value < 0) | (gradient >= -tolerance).all(1)
    return ((torch.maximum(error, residual) <= tolerance) & witness) | (value < task.bound)


def _is_eta(x: Tensor) -> Tensor:
    first = torch.zeros_like(x, dtype=torch.bool)
    first[:, 0] = True
    return first


def _residual(task: Task, x: Tensor, gradient: Tensor) -> Tensor:
    """The largest |d_m − E Q_c,m| that moving λ by up to η, the width of a kink, can act on [P]."""
    if x.shape[1] == 1:
        return torch.zeros_like(x[:, 0])
    room = torch.where(gradient > 0, x - task.lower, task.upper - x) / x[:, :1]
    return (gradient.abs() * room.clamp(max=1.0))[:, 1:].amax(1)


def _spread(task: Task, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return torch.zeros_like(x[:, 0])
    pinned = pushed(task, x, gradient) | _is_eta(x)
    ridge = torch.diag_embed((1e-10 / x[:, :1]).expand_as(x))
    move = _solve(hessian + ridge, gradient, pinned, torch.zeros_like(x))
    return (torch.clamp(x + move, task.lower, task.upper) - x)[:, 1:].abs().sum(1) / x[:, 0]


def _secular(gradient: Tensor, epsilon: Tensor) -> Tensor:
    """The gradient with its η entry, ε − KL, replaced by 2 KL (1 − √(KL/ε)).

    Both vanish together and agree to first order there, but 1/√KL is nearly linear in η where KL itself is like
    1/η² (as in the secular equation of trust-region methods): a few steps in place of many.
    """
    kl = (epsilon - gradient[:, 0]).clamp(min=0)
    secular = torch.where(kl > 0.01 * epsilon, 2 * kl * (1 - (kl / epsilon).sqrt()), gradient[:, 0])
    return torch.cat([secular.unsqueeze(1), gradient[:, 1:]], dim=1)


def _solve(matrix: Tensor, right: Tensor, pinned: Tensor, value: Tensor) -> Tensor:
    """The move [P,S] with matrix · move = −right in the free coordinates and move = ``value`` in the pinned ones."""
    eye = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    system = torch.where(pinned.unsqueeze(2), eye, matrix)
    return torch.linalg.solve_ex(system, torch.where(pinned, value, -right))[0]


def minimise(
    task: Task, start: Tensor, cold: Tensor, tolerance: float, max_iter: int, check_every: int | None = 1
) -> Minimum:
    """At most ``max_iter`` steps from ``start`` [P,S], or from the η of ``cold`` where η is too small to begin with.

    The host looks whether all are done every ``check_every`` steps, and never with None.
    """
    state = begin(task, start, tolerance)
    strayed = (state.spread > LOST) & (start[:, 0] < cold[:, 0]) & ~state.done
    if check_every is None or bool(strayed.any()):
        eta = torch.where(strayed, cold[:, 0], start[:, 0]).unsqueeze(1)
        state = begin(task, torch.cat([eta, start[:, 1:]], dim=1), tolerance)
    for count in range(max_iter):
        if check_every is not None and count % check_every == 0 and bool(state.done.all()):
            break
        state = step(task, state, tolerance)
    return Minimum(state.x, state.value, state.gradient, state.error, state.iterations)


@attrs.frozen
class Newton:
    """Projected, damped Newton."""

    summary: ClassVar[str] = "batched Newton on the dual, in torch"
    accuracy: ClassVar[float] = 1e-6

    tolerance: float = attrs.field(default=1e-8, validator=number(gt=0))
    max_iter: int = attrs.field(default=100, validator=number(ge=1, integer=True))
    check_every: int | None = attrs.field(default=1, validator=number(ge=1, integer=True, optional=True))

    def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
        """Solve."""
        return driver.solve(problem, warm, self.minimise, self.accuracy, self.check_every is not None)

    def minimise(self, task: Task, start: Tensor, cold: Tensor) -> Minimum:
        """See :func:`minimise`."""
        return minimise(task, start, cold, self.tolerance, self.max_iter, self.check_every)
