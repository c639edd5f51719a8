"""The properties of a projection: of its KL terms, and of its results."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cvpo.distributions import Categorical, Distribution, Gaussian
from cvpo.mstep.protocol import Projection
from cvpo.testing.gaussians import ProjectionProblem
from cvpo.testing.projection_joined import check_joined
from cvpo.testing.projection_measures import (
    REFERENCES,
    agree,
    batch,
    dtype,
    joint,
    least,
    likelihood,
    pooled,
    require,
    rounding_of,
    size,
)
from cvpo.testing.rivals import rivals


def check_projection_kl(projection: Projection, old: Distribution, new: Distribution) -> None:
    """The KL terms of one pair of distributions of the same kind, in float64."""
    terms = projection.kl(old, new)
    require(
        set(terms) == set(projection.bounds), f"kl has the terms {sorted(terms)}, bounds {sorted(projection.bounds)}"
    )
    dimensions = size(old)
    for name, value in terms.items():
        require(value.shape == batch(old), f"kl[{name!r}] has shape {tuple(value.shape)}; allowed: {tuple(batch(old))}")
        require(bool((value >= 0).all()), f"kl[{name!r}] is {least(value)}; a KL divergence is at least 0")
        if name in REFERENCES:
            agree(f"kl[{name!r}]", value, REFERENCES[name](old, new), dimensions)
    for name, value in projection.kl(old, old).items():
        require(bool((value <= 1e-12).all()), f"kl[{name!r}] between equals is {float(value.max())}; allowed: 1e-12")
    if isinstance(old, Gaussian) and isinstance(new, Gaussian):
        for words, moved in (("mean", Gaussian(new.mean, old.scale)), ("scale", Gaussian(old.mean, new.scale))):
            total = torch.stack(list(projection.kl(old, moved).values())).sum(0)
            agree(f"the sum of kl terms where only the {words} moves", total, joint(old, moved), dimensions)


def check_projection_problem(projection: Projection, problem: ProjectionProblem) -> None:
    """The projection of one problem."""
    old, actions, weights = problem.old, problem.actions, problem.weights
    before = [tensor.clone() for tensor in _tensors(problem)]
    new = projection.project(old, actions, weights)
    _check_unchanged("project", before, problem)
    _check_form(old, new)
    _check_bounds(projection, old, new)
    check_joined(projection, problem, new)
    _check_unchanged("joined", before, problem)
    if dtype(old) == torch.float64:
        _check_optimal(projection, problem, new)
        _check_invariances(projection, problem, new)
        _check_objective(projection, problem, new)


def _check_unchanged(words: str, before: list[Tensor], problem: ProjectionProblem) -> None:
    same = all(torch.equal(a, b) for a, b in zip(before, _tensors(problem), strict=True))
    require(same, f"{words} changed its inputs in place")


def _check_form(old: Distribution, new: Distribution) -> None:
    require(type(new) is type(old), f"project returned a {type(new).__name__}; allowed: {type(old).__name__}")
    fields = ("mean", "scale") if isinstance(old, Gaussian) else ("logits",)
    for name in fields:
        was, now = getattr(old, name), getattr(new, name)
        require(now.shape == was.shape, f"{name} has shape {tuple(now.shape)}; allowed: {tuple(was.shape)}")
        require(now.dtype == was.dtype, f"{name} is {now.dtype}; allowed: the dtype of the old one, {was.dtype}")
    if isinstance(new, Gaussian):
        require(bool(torch.isfinite(new.mean).all()), "mean is not finite")
        require(bool(torch.isfinite(new.scale).all()), "scale is not finite")
        if not new.is_diagonal:
            require(not bool(new.scale.triu(1).any()), "scale is not lower triangular, so LLᵀ is not what others read")
        diagonal = new.scale if new.is_diagonal else new.scale.diagonal(dim1=-2, dim2=-1)
        require(bool((diagonal > 0).all()), f"the diagonal of scale reaches {least(diagonal)}; allowed: > 0")
    else:
        require(not bool(torch.isnan(new.logits).any()), "logits are NaN")


def _check_bounds(projection: Projection, old: Distribution, new: Distribution) -> None:
    """(√(2ε) + δ)²/2 with δ the length, in units of the old scale, that rounding to the result's dtype can add."""
    exact_old, exact_new = old.to(torch.float64), new.to(torch.float64)
    rounding = pooled(projection, rounding_of(exact_old, dtype(old)).square()).sqrt()
    for name, value in projection.kl(exact_old, exact_new).items():
        value = pooled(projection, value)
        bound = projection.bounds[name]
        allowed = 0.5 * (math.sqrt(2.0 * bound) + rounding).square() * (1.0 + 1e-6)
        worst = float((value - allowed).max())
        require(worst <= 0.0, f"kl[{name!r}] is {float(value.max()):.9g}; allowed: {bound} (1 + 1e-6)")


def _check_optimal(projection: Projection, problem: ProjectionProblem, new: Distribution) -> None:
    found = projection.objective(problem.old, new, problem.actions, problem.weights)
    words, stacked, others = rivals(projection, problem, new)
    better = pooled(projection, projection.objective(stacked.old, others, stacked.actions, stacked.weights))
    found = pooled(projection, found).expand_as(better)
    inside = torch.ones_like(better, dtype=torch.bool)
    for name, kl in projection.kl(stacked.old, others).items():
        inside = inside & (pooled(projection, kl) <= projection.bounds[name])
    gain = torch.where(inside, better - found - 1e-6 * (1.0 + found.abs()), -math.inf).flatten(1)
    best = int(gain.amax(-1).argmax())
    at = int(gain[best].argmax())
    require(
        not bool((gain > 0).any()),
        f"objective {float(found[best].flatten()[at]):.9g}, but {float(better[best].flatten()[at]):.9g} is possible"
        f" inside the bounds ({words[best]})",
    )


def _check_invariances(projection: Projection, problem: ProjectionProblem, new: Distribution) -> None:
    old, actions, weights = problem.old, problem.actions, problem.weights
    objective = projection.objective(old, new, actions, weights)
    if actions is not None:
        twice, half = actions.repeat_interleave(2, dim=-2), (0.5 * weights).repeat_interleave(2, dim=-1)
        _same("duplicated particles", projection.project(old, twice, half), new)
        again = projection.objective(old, new, twice, half)
        require(
            bool(torch.allclose(again, objective, rtol=1e-9, atol=1e-9)),
            "duplicated particles change the objective; a mean over K of weights that sum to 1 divides twice",
        )
    if weights.ndim > 2:
        for i in range(len(weights)):
            part = projection.project(_item(old, i), None if actions is None else actions[i], weights[i])
            _same(f"problem {i} of a stack, alone,", part, _item(new, i))


def _check_objective(projection: Projection, problem: ProjectionProblem, new: Any) -> None:
    """What the mean alone or the scale alone gains is the likelihood's gain in a decoupled objective too."""
    old: Any = problem.old
    particles = (problem.actions, problem.weights)
    moved = {"the distribution": new}
    if isinstance(old, Gaussian):
        moved = {"the mean": Gaussian(new.mean, old.scale), "the scale": Gaussian(old.mean, new.scale)}
    start, expected_start = projection.objective(old, old, *particles), likelihood(old, *particles)
    for words, other in moved.items():
        gain = projection.objective(old, other, *particles) - start
        expected = likelihood(other, *particles) - expected_start
        wrong = (gain - expected).abs() - 1e-7 * (1.0 + expected_start.abs())
        # A category that was impossible and has weight gains without bound.
        at = int(torch.where(expected.isfinite(), wrong, -math.inf).argmax())
        require(
            not bool((wrong.flatten()[at] > 0) & expected.flatten()[at].isfinite()),
            f"where {words} moves, the objective gains {float(gain.flatten()[at]):.9g}; allowed: what the weighted"
            f" log-likelihood gains, {float(expected.flatten()[at]):.9g}",
        )


def _same(words: str, found: Any, expected: Any) -> None:
    """KL between the results: a distance in the units that matter, whatever their scale."""
    distance = float(expected.kl(found).max())
    require(distance <= 1e-12, f"{words} give another result, at KL {distance:.3g}; allowed: 1e-12")


def _tensors(problem: ProjectionProblem) -> list[Tensor]:
    old = problem.old
    own = [old.mean, old.scale] if isinstance(old, Gaussian) else [old.logits]
    return [*own, problem.weights] + ([] if problem.actions is None else [problem.actions])


def _item(distribution: Any, i: int) -> Any:
    if isinstance(distribution, Gaussian):
        return Gaussian(distribution.mean[i], distribution.scale[i])
    return Categorical(distribution.logits[i])
