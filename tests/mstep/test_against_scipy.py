"""Projections against SciPy's general constrained optimiser, with torch.distributions as the only mathematics.

``CVPO_PROBLEMS=200`` runs as many problems per family; the default is a short run.
"""

from __future__ import annotations

import math
import os

import attrs
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import distributions as td

from cvpo.distributions import Categorical, Gaussian
from cvpo.mstep.decoupled import Decoupled
from cvpo.mstep.full import Full

PROBLEMS = int(os.environ.get("CVPO_PROBLEMS", "4"))


@attrs.frozen
class Family:
    """Parameters of one family as a flat vector [size] per state, and its two sides as a user would write them down."""

    size: int
    make: object
    terms: object
    value: object


def normal(mean: torch.Tensor, factor: torch.Tensor) -> td.MultivariateNormal:
    return td.MultivariateNormal(mean, scale_tril=factor, validate_args=False)


def gaussian_family(d: int, cholesky: bool, decoupled: bool) -> Family:
    rows, columns = torch.tril_indices(d, d, -1)

    def make(x):
        factor = torch.diag_embed(x[:, d : 2 * d].exp())
        if cholesky:
            lower = torch.zeros_like(factor)
            lower[:, rows, columns] = x[:, 2 * d :]
            factor = factor + lower
        return x[:, :d], factor

    def terms(old, new):
        if not decoupled:
            return [td.kl_divergence(normal(*old), normal(*new))]
        moved = (normal(new[0], old[1]), normal(old[0], new[1]))
        return [td.kl_divergence(normal(*old), other) for other in moved]

    def value(old, new, actions, weights):
        pairs = [(new[0], old[1]), (old[0], new[1])] if decoupled else [new]
        logs = [normal(*pair).log_prob(actions.transpose(0, 1)).transpose(0, 1) for pair in pairs]
        return (weights * sum(logs)).sum(-1)

    return Family(2 * d + (len(rows) if cholesky else 0), make, terms, value)


def categorical_family(n: int) -> Family:
    def terms(old, new):
        return [td.kl_divergence(td.Categorical(logits=old), td.Categorical(logits=new))]

    def value(old, new, actions, weights):
        return (weights * new.log_softmax(-1)).sum(-1)

    return Family(n, lambda x: x, terms, value)


def flat(old, cholesky: bool) -> torch.Tensor:
    if old.kind == "categorical":
        return old.logits
    if not cholesky:
        return torch.cat([old.mean, old.scale.log()], -1)
    d = old.mean.shape[-1]
    rows, columns = torch.tril_indices(d, d, -1)
    diagonal = old.scale.diagonal(dim1=-2, dim2=-1).log()
    return torch.cat([old.mean, diagonal, old.scale[:, rows, columns]], -1)


def solve(family: Family, old, actions, weights, bounds: list[float], starts: list[np.ndarray]) -> float:
    """The best mean objective that SLSQP finds inside the bounds, from several starts; −∞ where it finds none."""
    anchor = family.make(old)

    def tape(function):
        """Values and their gradients, remembered for the last point: SLSQP asks for them one after the other."""
        memory = {}

        def call(x):
            if memory.get("x") != x.tobytes():
                point = torch.tensor(x).reshape(old.shape).requires_grad_()
                values = function(family.make(point))
                rows = [torch.autograd.grad(v, point, retain_graph=True)[0].reshape(-1) for v in values]
                memory.update(
                    x=x.tobytes(), values=torch.stack(values).detach().numpy(), rows=torch.stack(rows).numpy()
                )
            return memory["values"], memory["rows"]

        return call

    objective = tape(lambda new: [-family.value(anchor, new, actions, weights).mean()])
    slack = tape(lambda new: [1.0 - kl.mean() / b for kl, b in zip(family.terms(anchor, new), bounds, strict=True)])

    def descend(start):
        return minimize(
            lambda x: float(objective(x)[0][0]),
            start,
            jac=lambda x: objective(x)[1][0],
            method="SLSQP",
            constraints=[{"type": "ineq", "fun": lambda x: slack(x)[0], "jac": lambda x: slack(x)[1]}],
            options={"ftol": 1e-12, "maxiter": 100},
        )

    results = [descend(start) for start in starts]
    best = min(results, key=lambda result: result.fun + 1e3 * max(0.0, -float(slack(result.x)[0].min())))
    best = descend(best.x)
    return -best.fun if slack(best.x)[0].min() > -1e-7 else -math.inf


FAMILIES = ["decoupled-diagonal", "decoupled-cholesky", "full-diagonal", "full-cholesky", "full-categorical"]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_general_optimiser_does_better(name: str) -> None:
    rng = np.random.default_rng(FAMILIES.index(name))
    torch.manual_seed(FAMILIES.index(name))
    worst, over, solved = 0.0, 0.0, 0
    for _ in range(PROBLEMS):
        d, k, states = int(rng.integers(1, 5)), int(rng.integers(1, 9)), int(rng.integers(1, 3))
        average = ["batch", "state"][int(rng.integers(2))]
        states = 1 if average == "state" else states
        bounds = [float(10.0 ** rng.uniform(-3, -0.3)) for _ in range(2 if "decoupled" in name else 1)]
        cholesky = "cholesky" in name
        if "categorical" in name:
            d = max(d, 2) + 1
            old, actions, family = Categorical(torch.randn(states, d).double()), None, categorical_family(d)
            raw = torch.rand(states, d).double()
        else:
            scale = 10.0 ** torch.empty(states, d).double().uniform_(-1, 0.5)
            if cholesky:
                scale = torch.diag_embed(scale) + 0.5 * (scale[..., None] * torch.randn(states, d, d).double()).tril(-1)
            old = Gaussian(torch.randn(states, d).double(), scale)
            actions, family = old.sample(k), gaussian_family(d, cholesky, "decoupled" in name)
            raw = torch.rand(states, k).double()
        if rng.random() < 0.25:
            raw = (raw == raw.amax(-1, keepdim=True)).double()
        weights = raw / raw.sum(-1, keepdim=True)
        projection = Decoupled(*bounds, average) if "decoupled" in name else Full(bounds[0], average)
        new = projection.project(old, actions, weights)

        x0, x1 = flat(old, cholesky), flat(new, cholesky)
        spread = 0.3 * (x1 - x0).abs().max().clamp(min=1e-2)
        starts = [x0, x0 + spread * torch.randn_like(x0), x0 + 0.5 * spread * torch.randn_like(x0)]
        best = solve(family, x0, actions, weights, bounds, [s.reshape(-1).numpy() for s in starts])
        anchor, point = family.make(x0), family.make(x1)
        mine = float(family.value(anchor, point, actions, weights).mean())
        for kl, bound in zip(family.terms(anchor, point), bounds, strict=True):
            over = max(over, float(kl.mean()) / bound - 1.0)
        if best > -math.inf:
            solved += 1
            worst = max(worst, abs(best - mine) / (1.0 + abs(mine)))
    print(
        f"{name}: {solved} of {PROBLEMS} solved by SLSQP, largest difference {worst:.1e}, bound exceeded by {over:.1e}"
    )
    assert solved >= 0.95 * PROBLEMS
    assert worst <= 1e-6
    assert over <= 1e-6
