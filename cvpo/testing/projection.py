"""The contract of a projection, to run on your own: ``check_projection(MyProjection(...))``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from cvpo.distributions import Categorical, Distribution, Gaussian, whiten
from cvpo.mstep.protocol import Projection
from cvpo.testing.gaussians import ProjectionProblem, categoricals, gaussians, projection_problems
from cvpo.testing.rivals import rivals

Pair = tuple[Any, Any]


def check_projection(projection: Projection, *, examples: int = 60, kinds: Iterable[str] | None = None) -> None:
    """Raise AssertionError, with a falsifying example, unless ``projection`` keeps its contract on drawn problems.

    Its KL terms: at least 0, at most 1e-12 between equals, and where they have a standard name (``joint``, ``mean``,
    ``cov``) equal to torch.distributions; terms of any name add up to KL(π₀ ‖ π) where only the mean or only the scale
    moves. Its result: same kind, shape and dtype; scale lower triangular with a positive diagonal; every bound met (to
    1e-6, and in float32 to the rounding of the result); no other member of the family inside the bounds with a higher
    objective; duplicated particles change nothing; a stack gives what each of its problems gives; inputs unchanged.

    ``kinds`` defaults to the projection's own ``kinds``, or to both. ``examples`` of each are drawn, the same ones
    every time.
    """
    for _, check in projection_checks(projection, examples=examples, kinds=kinds):
        check()


def projection_checks(
    projection: Projection, *, examples: int = 60, kinds: Iterable[str] | None = None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_projection`: what each is about, and a call that raises AssertionError."""
    fixed = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    def measure(pair: Pair) -> None:
        check_projection_kl(projection, *pair)

    def project(problem: ProjectionProblem) -> None:
        check_projection_problem(projection, problem)

    if kinds is None:
        kinds = getattr(projection, "kinds", ("gaussian", "categorical"))
    for kind in kinds:
        yield f"KL terms of {kind} policies", fixed(given(_pairs(kind))(measure))
        yield f"projections of {kind} policies", fixed(given(_problems(kind))(project))


def check_projection_kl(projection: Projection, old: Distribution, new: Distribution) -> None:
    """The KL terms of one pair of distributions of the same kind, in float64."""
    terms = projection.kl(old, new)
    _require(
        set(terms) == set(projection.bounds), f"kl has the terms {sorted(terms)}, bounds {sorted(projection.bounds)}"
    )
    size = _size(old)
    for name, value in terms.items():
        _require(
            value.shape == _batch(old), f"kl[{name!r}] has shape {tuple(value.shape)}; allowed: {tuple(_batch(old))}"
        )
        _require(bool((value >= 0).all()), f"kl[{name!r}] is {_least(value)}; a KL divergence is at least 0")
        if name in REFERENCES:
            _agree(f"kl[{name!r}]", value, REFERENCES[name](old, new), size)
    for name, value in projection.kl(old, old).items():
        _require(bool((value <= 1e-12).all()), f"kl[{name!r}] between equals is {float(value.max())}; allowed: 1e-12")
    if isinstance(old, Gaussian) and isinstance(new, Gaussian):
        for words, moved in (("mean", Gaussian(new.mean, old.scale)), ("scale", Gaussian(old.mean, new.scale))):
            total = torch.stack(list(projection.kl(old, moved).values())).sum(0)
            _agree(f"the sum of kl terms where only the {words} moves", total, _joint(old, moved), size)


def check_projection_problem(projection: Projection, problem: ProjectionProblem) -> None:
    """The projection of one problem."""
    old, actions, weights = problem.old, problem.actions, problem.weights
    before = [tensor.clone() for tensor in _tensors(problem)]
    new = projection.project(old, actions, weights)
    same = all(torch.equal(a, b) for a, b in zip(before, _tensors(problem), strict=True))
    _require(same, "project changed its inputs in place")
    _check_form(old, new)
    _check_bounds(projection, old, new)
    if _dtype(old) == torch.float64:
        _check_optimal(projection, problem, new)
        _check_invariances(projection, problem, new)


def _check_form(old: Distribution, new: Distribution) -> None:
    _require(type(new) is type(old), f"project returned a {type(new).__name__}; allowed: {type(old).__name__}")
    fields = ("mean", "scale") if isinstance(old, Gaussian) else ("logits",)
    for name in fields:
        was, now = getattr(old, name), getattr(new, name)
        _require(now.shape == was.shape, f"{name} has shape {tuple(now.shape)}; allowed: {tuple(was.shape)}")
        _require(now.dtype == was.dtype, f"{name} is {now.dtype}; allowed: the dtype of the old one, {was.dtype}")
    if isinstance(new, Gaussian):
        _require(bool(torch.isfinite(new.mean).all()), "mean is not finite")
        _require(bool(torch.isfinite(new.scale).all()), "scale is not finite")
        if not new.is_diagonal:
            _require(not bool(new.scale.triu(1).any()), "scale is not lower triangular, so LLᵀ is not what others read")
        diagonal = new.scale if new.is_diagonal else new.scale.diagonal(dim1=-2, dim2=-1)
        _require(bool((diagonal > 0).all()), f"the diagonal of scale reaches {_least(diagonal)}; allowed: > 0")
    else:
        _require(not bool(torch.isnan(new.logits).any()), "logits are NaN")


def _check_bounds(projection: Projection, old: Distribution, new: Distribution) -> None:
    """(√(2ε) + δ)²/2 with δ the length, in units of the old scale, that rounding to the result's dtype can add."""
    exact_old, exact_new = old.to(torch.float64), new.to(torch.float64)
    rounding = pooled(projection, _rounding(exact_old, _dtype(old)).square()).sqrt()
    for name, value in projection.kl(exact_old, exact_new).items():
        value = pooled(projection, value)
        bound = projection.bounds[name]
        allowed = 0.5 * (math.sqrt(2.0 * bound) + rounding).square() * (1.0 + 1e-6)
        worst = float((value - allowed).max())
        _require(worst <= 0.0, f"kl[{name!r}] is {float(value.max()):.9g}; allowed: {bound} (1 + 1e-6)")


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
    _require(
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
        _require(
            bool(torch.allclose(again, objective, rtol=1e-9, atol=1e-9)),
            "duplicated particles change the objective; a mean over K of weights that sum to 1 divides twice",
        )
    if weights.ndim > 2:
        for i in range(len(weights)):
            part = projection.project(_item(old, i), None if actions is None else actions[i], weights[i])
            _same(f"problem {i} of a stack, alone,", part, _item(new, i))


def pooled(projection: Projection, value: Tensor) -> Tensor:
    """``value`` [...,B] as the projection's ``average`` bounds it: the mean [...,1], or each state [...,B]."""
    return value.mean(-1, keepdim=True) if getattr(projection, "average", "batch") == "batch" else value


def _joint(old: Any, new: Any) -> Tensor:
    return td.kl_divergence(_reference(old), _reference(new))


REFERENCES: dict[str, Callable[[Any, Any], Tensor]] = {
    "joint": _joint,
    "mean": lambda old, new: _joint(old, Gaussian(new.mean, old.scale)),
    "cov": lambda old, new: _joint(old, Gaussian(old.mean, new.scale)),
}


def _reference(distribution: Distribution) -> td.Distribution:
    if isinstance(distribution, Categorical):
        return td.Categorical(logits=distribution.logits, validate_args=False)
    if distribution.is_diagonal:
        return td.Independent(td.Normal(distribution.mean, distribution.scale), 1)
    return td.MultivariateNormal(distribution.mean, scale_tril=distribution.scale)


@st.composite
def _problems(draw: st.DrawFn, kind: str) -> ProjectionProblem:
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float32]), label="dtype")
    old: Any = gaussians(dtype=dtype) if kind == "gaussian" else categoricals(dtype=dtype)
    return draw(projection_problems(old))


@st.composite
def _pairs(draw: st.DrawFn, kind: str) -> Pair:
    """Two distributions of one kind and shape; the second far from the first or near it."""
    first: Any = draw(gaussians() if kind == "gaussian" else categoricals())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed of the second"))
    near = draw(st.sampled_from([1.0, 1e-2]), label="distance")

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    if kind == "categorical":
        return first, Categorical(first.logits + near * noise(first.logits))
    stretch = (near * noise(first.mean)).exp()
    if first.is_diagonal:
        scale = first.scale * stretch
        return first, Gaussian(first.mean + near * scale * noise(first.mean), scale)
    lean = near * noise(first.scale).tril(-1) / math.sqrt(_size(first))
    scale = first.scale @ (lean + torch.diag_embed(stretch))
    return first, Gaussian(first.mean + near * (scale @ noise(first.mean).unsqueeze(-1)).squeeze(-1), scale)


def _rounding(old: Distribution, dtype: torch.dtype) -> Tensor:
    """Length [...,B] in the old scale of an error of 2 units in the last place of every parameter."""
    unit = 4.0 * torch.finfo(dtype).eps / 2.0
    if isinstance(old, Categorical):
        return unit * torch.where(old.logits.isfinite(), old.logits, 0.0).abs().amax(-1).clamp(min=1.0)
    if old.is_diagonal:
        return unit * (old.mean.abs() / old.scale).norm(dim=-1) + unit * math.sqrt(_size(old))
    identity = torch.eye(_size(old), dtype=torch.float64).expand_as(old.scale)
    inverse = whiten(old.scale, identity).mT.abs()
    by_mean = (inverse @ old.mean.abs().unsqueeze(-1)).squeeze(-1).norm(dim=-1)
    return unit * (by_mean + torch.linalg.matrix_norm(inverse @ old.scale.abs()))


def _agree(words: str, value: Tensor, reference: Tensor, size: int) -> None:
    worst = (value - reference).abs() - 1e-10 * reference.abs() - 1e-13 * size
    i = worst.argmax()
    found, expected = float(value.flatten()[i]), float(reference.flatten()[i])
    _require(float(worst.max()) <= 0.0, f"{words} is {found:.12g}; torch.distributions: {expected:.12g}")


def _same(words: str, found: Any, expected: Any) -> None:
    """KL between the results: a distance in the units that matter, whatever their scale."""
    distance = float(expected.kl(found).max())
    _require(distance <= 1e-12, f"{words} give another result, at KL {distance:.3g}; allowed: 1e-12")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _tensors(problem: ProjectionProblem) -> list[Tensor]:
    old = problem.old
    own = [old.mean, old.scale] if isinstance(old, Gaussian) else [old.logits]
    return [*own, problem.weights] + ([] if problem.actions is None else [problem.actions])


def _item(distribution: Any, i: int) -> Any:
    if isinstance(distribution, Gaussian):
        return Gaussian(distribution.mean[i], distribution.scale[i])
    return Categorical(distribution.logits[i])


def _batch(distribution: Distribution) -> torch.Size:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).shape[:-1]


def _size(distribution: Distribution) -> int:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).shape[-1]


def _dtype(distribution: Distribution) -> torch.dtype:
    return (distribution.mean if isinstance(distribution, Gaussian) else distribution.logits).dtype


def _least(value: Tensor) -> float:
    return float(value.min())
