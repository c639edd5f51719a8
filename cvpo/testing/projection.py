"""The contract of a projection, to run on your own: ``check_projection(MyProjection(...))``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cvpo.distributions import Categorical, Gaussian
from cvpo.mstep.protocol import Projection
from cvpo.testing.drawing import fixed
from cvpo.testing.gaussians import ProjectionProblem, categoricals, gaussians, projection_problems
from cvpo.testing.projection_measures import size
from cvpo.testing.projection_properties import check_projection_kl, check_projection_problem

Pair = tuple[Any, Any]


def check_projection(projection: Projection, *, examples: int = 60, kinds: Iterable[str] | None = None) -> None:
    """Raise AssertionError, with a falsifying example, unless ``projection`` keeps its contract on drawn problems.

    Its KL terms: at least 0, at most 1e-12 between equals, and where they have a standard name (``joint``, ``mean``,
    ``cov``) equal to torch.distributions; terms of any name add up to KL(π₀ ‖ π) where only the mean or only the scale
    moves. Its result: same kind, shape and dtype; scale lower triangular with a positive diagonal; every bound met (to
    1e-6, and in float32 to the rounding of the result); no other member of the family inside the bounds with a higher
    objective; duplicated particles change nothing; a stack gives what each of its problems gives; inputs unchanged.
    ``joined``, if it has that, gives what ``kl`` and ``objective`` give, with the same derivatives.

    ``kinds`` defaults to the projection's own ``kinds``, or to both. ``examples`` of each are drawn, the same ones
    every time.
    """
    for _, check in projection_checks(projection, examples=examples, kinds=kinds):
        check()


def projection_checks(
    projection: Projection, *, examples: int = 60, kinds: Iterable[str] | None = None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_projection`: what each is about, and a call that raises AssertionError."""
    drawn = fixed(examples)

    def measure(pair: Pair) -> None:
        check_projection_kl(projection, *pair)

    def project(problem: ProjectionProblem) -> None:
        check_projection_problem(projection, problem)

    if kinds is None:
        kinds = getattr(projection, "kinds", ("gaussian", "categorical"))
    for kind in kinds:
        yield f"KL terms of {kind} policies", drawn(given(_pairs(kind))(measure))
        yield f"projections of {kind} policies", drawn(given(_problems(kind))(project))


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
    lean = near * noise(first.scale).tril(-1) / math.sqrt(size(first))
    scale = first.scale @ (lean + torch.diag_embed(stretch))
    return first, Gaussian(first.mean + near * (scale @ noise(first.mean).unsqueeze(-1)).squeeze(-1), scale)
