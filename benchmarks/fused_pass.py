"""One Newton iteration against one fused pass over the data: how far from what a machine must spend at the least.

The pass reads Q_r and Q_c once for z = (Q_r − λᵀQ_c)/η and its largest value, takes exp once, and reduces it to what a
Newton iteration needs: per state Σ e, and per problem the mean of the first and second moments of (z, Q_c). The one
that counts is the library's own, where Numba compiles it; beside it the same in torch, eagerly and, where a C++
compiler is at hand, compiled to one or two loops by ``torch.compile``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cvpo.estep import DualProblem, dual
from cvpo.estep.fused import Fused
from cvpo.estep.lanes import Lanes, One, Vector
from cvpo.estep.newton_step import begin, frame, step
from cvpo.estep.passes import Pass
from cvpo.estep.scaling import scale
from cvpo.estep.stacks import lanes_for
from cvpo.estep.task import Task, cold_start, main_task
from cvpo.estep.workspace import passes_over


def fused_pass(q: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Value, first and second moments of one-cost problems: ``q`` [P,2,B,K], ``x`` = (η, λ) [P,2]; each [P]."""
    eta, lam = x[:, 0].view(-1, 1, 1), x[:, 1].view(-1, 1, 1)
    cost = q[:, 1]
    z = (q[:, 0] - lam * cost) / eta
    top = z.amax(-1, keepdim=True)
    shifted = z - top
    mass = shifted.exp()
    total = mass.sum(-1)
    a, b = (mass * shifted).sum(-1) / total, (mass * cost).sum(-1) / total
    second = (mass * shifted * shifted).sum(-1), (mass * shifted * cost).sum(-1), (mass * cost * cost).sum(-1)
    aa, ab, bb = (part / total for part in second)
    value = total.log() + top.squeeze(-1)
    return tuple(part.mean(-1) for part in (value, a, b, aa - a * a, ab - a * b, bb - b * b))


def calls(problem: DualProblem) -> tuple[dict[str, Callable[[], Any]], str]:
    """Calls to be timed beside each other: an iteration and passes at the cold start; and a note on the compiler."""
    task = main_task(scale(problem))
    start = cold_start(task, torch.zeros_like(task.limit))
    lanes: Lanes = One if len(start) == 1 else lanes_for(task.q)
    data = passes_over(task.q, task.log_prior)
    x = lanes.split(start)
    found: dict[str, Callable[[], Any]] = {
        "newton iteration": _iteration(lanes, task, data, x),
        "eager pass": lambda: fused_pass(task.q, start),
    }
    if isinstance(data, Fused):
        found["fused pass"] = lambda: data.moments(lanes, dual.mix_of(x), False, True)
    try:
        compiled = torch.compile(fused_pass, dynamic=False)
        compiled(task.q, start)
    except Exception as error:  # noqa: BLE001 - whatever a missing or broken compiler raises
        return found, f"torch.compile: {type(error).__name__}"
    found["torch.compile"] = lambda: compiled(task.q, start)
    return found, "fused pass: compiled by Numba" if isinstance(data, Fused) else "without Numba"


def _iteration(lanes: Lanes, task: Task, data: Pass, x: Vector) -> Callable[[], Any]:
    numbers = frame(lanes, task)
    state = begin(lanes, data, numbers, x, 1e-9)
    return lambda: step(lanes, data, numbers, state, 1e-9)
