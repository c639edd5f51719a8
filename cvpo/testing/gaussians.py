"""Hypothesis strategies for the M-step: distributions and weighted particles, with the edge cases drawn on purpose."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from cvpo.distributions import Categorical, Distribution, Gaussian

SIZES = (1, 2, 3, 6, 17, 64)


@attrs.frozen(eq=False)
class ProjectionProblem:
    """π₀ and the weighted particles that a projection takes; ``actions`` is ``None`` for a categorical π₀."""

    old: Distribution
    actions: Tensor | None
    weights: Tensor


@st.composite
def gaussians(
    draw: st.DrawFn,
    *,
    cholesky: bool | None = None,
    max_states: int = 3,
    sizes: tuple[int, ...] = SIZES,
    dtype: torch.dtype = torch.float64,
) -> Gaussian:
    """N(μ, LLᵀ) with 1 … ``max_states`` states and a leading axis now and then; ``cholesky=None`` draws either kind.

    Standard deviations lie in 1e-4 … 1e2, equal or spread over the whole range; Cholesky rows are correlated by a drawn
    amount; means are 0, of the size of the scale, or far larger.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed"))
    size = draw(st.sampled_from(sizes), label="D")
    # Many dimensions with many states cost time and show nothing that either does not show alone.
    lead = draw(st.sampled_from([(), (2,)]), label="lead") if size < 16 else ()
    shape = (*lead, draw(st.integers(1, max_states), label="B") if size < 16 else 1, size)
    low, high = draw(
        st.sampled_from([(0.0, 0.0), (-1.0, 1.0), (-4.0, 2.0), (-4.0, -4.0), (2.0, 2.0)]), label="log10 scale"
    )
    deviation = 10.0 ** (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64))
    ratio = draw(st.sampled_from([0.0, 1.0, 1e3]), label="|mean|/scale")
    mean = ratio * deviation * torch.randn(shape, generator=generator, dtype=torch.float64)
    if draw(st.booleans(), label="cholesky") if cholesky is None else cholesky:
        correlation = draw(st.sampled_from([0.0, 0.3, 0.9]), label="correlation")
        deviation = _factor(deviation, correlation, generator)
    return Gaussian(mean, deviation).to(dtype)


@st.composite
def categoricals(
    draw: st.DrawFn, *, max_states: int = 3, sizes: tuple[int, ...] = (2, 3, 6, 17), dtype: torch.dtype = torch.float64
) -> Categorical:
    """softmax(logits), from uniform to nearly deterministic; some with a category that is never drawn (logit −∞)."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed"))
    shape = (draw(st.integers(1, max_states), label="B"), draw(st.sampled_from(sizes), label="n"))
    spread = draw(st.sampled_from([0.0, 1.0, 20.0]), label="spread of logits")
    logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    if draw(st.booleans(), label="a category is impossible"):
        logits[0, 0] = -torch.inf
    return Categorical(logits.to(dtype))


@st.composite
def projection_problems(
    draw: st.DrawFn, old: st.SearchStrategy[Distribution], *, particles: tuple[int, ...] = (1, 2, 5, 16)
) -> ProjectionProblem:
    """π₀ drawn from ``old`` with weighted particles: uniform, random or one-hot weights, K = 1 and K < D included.

    Particles of a Gaussian are its samples, samples three times as wide, or one point K times.
    """
    distribution: Any = draw(old, label="old")
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed of particles"))
    kind = draw(st.sampled_from(["random", "one-hot", "uniform"]), label="weights")
    if distribution.kind == "categorical":
        logits = distribution.logits
        return ProjectionProblem(distribution, None, _weights(logits.shape, kind, logits, generator))
    mean = distribution.mean
    count = draw(st.sampled_from(particles), label="K")
    actions = distribution.to(torch.float64).sample(count, generator).to(mean.dtype)
    width = draw(st.sampled_from([1.0, 3.0, 0.0]), label="width of particles")
    centre = actions[..., :1, :] if width == 0.0 else mean.unsqueeze(-2)
    actions = centre + width * (actions - mean.unsqueeze(-2))
    return ProjectionProblem(distribution, actions, _weights((*mean.shape[:-1], count), kind, mean, generator))


def _weights(shape: tuple[int, ...], kind: str, like: Tensor, generator: torch.Generator) -> Tensor:
    draws = torch.rand(shape, generator=generator, dtype=torch.float64)
    if kind == "uniform":
        draws = torch.ones_like(draws)
    if kind == "one-hot":
        draws = (draws == draws.amax(-1, keepdim=True)).double()
    return (draws / draws.sum(-1, keepdim=True)).to(like.dtype)


def _factor(deviation: Tensor, correlation: float, generator: torch.Generator) -> Tensor:
    """Lower Cholesky factor with deviations ``deviation`` whose rows lean off the diagonal by ``correlation``."""
    size = deviation.shape[-1]
    lean = torch.randn((*deviation.shape, size), generator=generator, dtype=torch.float64).tril(-1)
    lean = correlation * lean / lean.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    rest = (1.0 - lean.square().sum(-1)).sqrt()
    return deviation.unsqueeze(-1) * (lean + torch.diag_embed(rest))
