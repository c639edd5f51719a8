"""Named, seeded families of the problems of :mod:`benchmarks.solver_problems`.

Every case is a stack of problems and the same stack before its Q-values moved by 1 % of their spread, for warm starts.
What the names stand for:

``size``       one problem, M = 1, active: B and K swept
``costs``      M = 0 … 8 active costs
``limits``     inactive, active, nearly out of reach, and out of reach
``degenerate`` K = 1, constant reward, ties, KL bound slack, costs equal or proportional to the reward
``scaled``     Q_r or Q_c of 1e-6 and 1e6, offsets of 1e4 per state, heavy tails, one state dominating
``recorded``   Q-values from training runs (:mod:`benchmarks.record_problems`)
``stack``      P = 1 … 1024 problems of B = 64, K = 16 at once
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from benchmarks.solver_problems import draw, moved
from cvpo.estep import DualProblem

RECORDED = Path(__file__).parent / "data" / "recorded_problems.npz"


@attrs.frozen
class Case:
    """One stack of problems, built by ``make()``; ``infeasible``: limits are out of reach (None: not known)."""

    family: str
    name: str
    make: Callable[[], DualProblem] = attrs.field(eq=False)
    infeasible: bool | None = False

    def pair(self) -> tuple[DualProblem, DualProblem]:
        """The stack, and the stack before its Q-values moved."""
        problem = self.make()
        return problem, moved(problem, seed=1)


def cases(profile: str) -> Iterator[Case]:
    """The cases of a profile ("smoke", "quick" or "full"), small ones of a family before large ones."""
    for family, table in FAMILIES.items():
        if family == "recorded":
            yield from recorded({"smoke": 1, "quick": 3, "full": None}[profile])
            continue
        chosen = table(profile)
        # The first of a family is enough to see that everything runs.
        for name, options, infeasible in chosen[:1] if profile == "smoke" else chosen:
            yield Case(family, name, lambda options=options: draw(**options), infeasible)


def recorded(most: int | None = None) -> list[Case]:
    """``most`` problems of each training run, spread over it; what the limits allow is found by solving."""
    if not RECORDED.exists():
        return []
    found = []
    with np.load(RECORDED) as data:
        arrays = dict(data)
    for task in sorted({key.split(":")[0] for key in arrays}):
        q, d, epsilon = (arrays[f"{task}:{part}"] for part in ("q", "limit", "epsilon"))
        count = len(q) if most is None else min(most, len(q))
        for i in np.linspace(0, len(q) - 1, count).round().astype(int).tolist():
            values = torch.from_numpy(q[i]).double(), torch.from_numpy(d[i]), float(epsilon[i])
            found.append(Case("recorded", f"{task} {i}", lambda v=values: _from_array(*v), None))
    return found


def _from_array(q: Tensor, limit: Tensor, epsilon: float) -> DualProblem:
    return DualProblem(q[0], q[1:], limit, epsilon)


Table = list[tuple[str, dict[str, Any], bool]]


def _size(profile: str) -> Table:
    sizes = {
        "smoke": [(8, 4)],
        "quick": [(32, 4), (32, 64), (256, 16), (256, 64), (1024, 64)],
        "full": [(b, k) for b in (32, 128, 512, 2048, 4096) for k in (4, 16, 64, 256)],
    }
    return [(f"B={b} K={k}", dict(seed=10, states=b, particles=k), False) for b, k in sizes[profile]]


def _costs(profile: str) -> Table:
    counts = {"smoke": (0, 2), "quick": (0, 2, 4, 8), "full": range(9)}[profile]
    states = 8 if profile == "smoke" else 128
    return [
        (f"M={m}", dict(seed=20 + m, states=states, particles=32, costs=m, tightness=0.1 / max(m, 1)), False)
        for m in counts
    ]


def _limits(profile: str) -> Table:
    base: dict[str, Any] = dict(states=8, particles=6) if profile == "smoke" else dict(states=128, particles=32)
    # ε = 0.1 moves the mean cost by about 0.45 standard deviations, and the least cost lies 2 to 2.5 below the mean.
    kinds = [("inactive", -1.0, False), ("active", 0.1, False), ("tight", 0.17, False), ("infeasible", 0.6, True)]
    costs = (1, 3) if profile == "full" else (1,)
    return [
        (f"{name} M={m}", dict(seed=30, costs=m, tightness=tightness / (1 if infeasible else m), **base), infeasible)
        for m in costs
        for name, tightness, infeasible in kinds
    ]


def _degenerate(profile: str) -> Table:
    base: dict[str, Any] = dict(seed=40, states=8 if profile == "smoke" else 64, particles=16)

    def constant(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(q), c

    def ties(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return q.round(), c.round()

    def proportional(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return q, 2.0 * q.unsqueeze(-3).expand_as(c).clone()

    def equal(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return q, c[..., :1, :, :].expand_as(c).clone()

    return [
        ("one particle", {**base, "particles": 1, "tightness": -1.0}, False),
        ("constant reward", dict(base, change=constant), False),
        ("ties", dict(base, change=ties), False),
        ("cost proportional to reward", dict(base, change=proportional), False),
        ("three equal costs", dict(base, costs=3, change=equal), False),
        ("KL bound slack", dict(base, costs=0, epsilon=5.0), False),
        ("KL bound slack, cost active", dict(base, epsilon=5.0, tightness=0.3), False),
    ]


def _scaled(profile: str) -> Table:
    base: dict[str, Any] = dict(seed=50, states=8 if profile == "smoke" else 64, particles=16)

    def by(reward: float, cost: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return lambda q, c: (reward * q, cost * c)

    def offsets(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift = 1e4 * torch.randn(q.shape[:-1], generator=torch.Generator().manual_seed(5), dtype=q.dtype)
        return q + shift.unsqueeze(-1), c + shift[..., None, :, None]

    def tails(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return q**5, c**3

    def dominated(q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        share = torch.full((q.shape[-2], 1), 1e-3, dtype=q.dtype)
        share[0] = 1.0
        return q * share, c * share

    changes = {
        "Q_r 1e-6": by(1e-6, 1.0),
        "Q_r 1e6": by(1e6, 1.0),
        "Q_c 1e-6": by(1.0, 1e-6),
        "Q_c 1e6": by(1.0, 1e6),
        "offsets 1e4": offsets,
        "heavy tails": tails,
        "one state dominates": dominated,
    }
    return [(name, dict(base, change=change), False) for name, change in changes.items()]


def _stack(profile: str) -> Table:
    counts = {"smoke": (2,), "quick": (1, 16, 64), "full": (1, 4, 16, 64, 256, 1024)}[profile]
    states, particles = (8, 4) if profile == "smoke" else (64, 16)
    return [(f"P={p}", dict(seed=60, lead=(p,), states=states, particles=particles), False) for p in counts]


FAMILIES: dict[str, Any] = {
    "size": _size,
    "costs": _costs,
    "limits": _limits,
    "degenerate": _degenerate,
    "scaled": _scaled,
    "recorded": recorded,
    "stack": _stack,
}
