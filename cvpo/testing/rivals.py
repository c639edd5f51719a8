"""Other members of a family inside a trust region: what the result of a projection has to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.distributions import Categorical, Distribution, Gaussian
from cvpo.mstep.protocol import Projection
from cvpo.testing.drawing import require
from cvpo.testing.gaussians import ProjectionProblem

STEPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
BISECTIONS = 26


def rivals(
    projection: Projection, problem: ProjectionProblem, new: Distribution
) -> tuple[list[str], ProjectionProblem, Distribution]:
    """R distributions inside the bounds, stacked in front; with where each comes from, and the problem R times.

    Coordinates z are the change from π₀ in its own units: (L₀⁻¹(μ−μ₀), L₀⁻¹(L−L₀) lower) or the change of logits. From
    z* = z(new): π₀ itself, further out along z*, random neighbours, and steps up the gradient of the objective less its
    part along the gradients of the bounded terms. Each is drawn back towards π₀ until it is inside, by bisection.
    """
    old = problem.old
    z = _coordinates(old, new)
    length = max(float(z.norm()), 1e-3)
    starts = [("π₀ itself", torch.zeros_like(z))]
    starts += [("further from π₀", z * factor) for factor in (1.001, 1.05, 1.5, 4.0)]
    generator = torch.Generator().manual_seed(0)
    for step in STEPS:
        shift = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        starts.append(("a random neighbour", z + step * length * shift / shift.norm()))
    ascent = _tangent(projection, problem, z)
    if float(ascent.norm()) > 0.0:
        starts += [("along the gradient", z + step * length * ascent / ascent.norm()) for step in STEPS]
    words = [word for word, _ in starts]
    stacked = repeated(problem, len(words))
    return words, stacked, _drawn_back(projection, stacked.old, torch.stack([start for _, start in starts]))


def repeated(problem: ProjectionProblem, count: int) -> ProjectionProblem:
    """The same problem ``count`` times, in front."""

    def expand(tensor: Tensor) -> Tensor:
        return tensor.expand(count, *tensor.shape)

    old: Any = problem.old
    stack = Gaussian(expand(old.mean), expand(old.scale)) if old.kind == "gaussian" else Categorical(expand(old.logits))
    return ProjectionProblem(
        stack, None if problem.actions is None else expand(problem.actions), expand(problem.weights)
    )


def _coordinates(old: Any, new: Any) -> Tensor:
    if isinstance(old, Categorical):
        # Logits only matter up to a shift per state; an impossible category has no coordinate.
        change = torch.log_softmax(new.logits, -1) - torch.log_softmax(old.logits, -1)
        return torch.where(old.logits > -torch.inf, change, 0.0).clamp(min=-50.0)
    mean = _solve(old.scale, (new.mean - old.mean).unsqueeze(-1), old.is_diagonal)
    if old.is_diagonal:
        return torch.cat([mean, (new.scale / old.scale - 1.0).unsqueeze(-1)], -1)
    return torch.cat([mean, torch.linalg.solve_triangular(old.scale, new.scale - old.scale, upper=False)], -1)


def _solve(scale: Tensor, column: Tensor, diagonal: bool) -> Tensor:
    return column / scale.unsqueeze(-1) if diagonal else torch.linalg.solve_triangular(scale, column, upper=False)


def _distribution(old: Any, z: Tensor) -> Distribution:
    """Inverse of :func:`_coordinates`; the diagonal of the scale is kept positive."""
    if isinstance(old, Categorical):
        return Categorical(old.logits + z)
    if old.is_diagonal:
        return Gaussian(old.mean + old.scale * z[..., 0], old.scale * (1.0 + z[..., 1]).clamp(min=1e-3))
    change = z[..., 1:]
    kept = change.tril(-1) + torch.diag_embed(change.diagonal(dim1=-2, dim2=-1).clamp(min=1e-3 - 1.0))
    mean = old.mean + (old.scale @ z[..., :1]).squeeze(-1)
    return Gaussian(mean, old.scale + old.scale @ kept)


def _tangent(projection: Projection, problem: ProjectionProblem, z: Tensor) -> Tensor:
    """∇ objective less its projection on the span of the ∇ kl terms, by state or by batch as they are bounded."""
    with torch.enable_grad():
        z = z.detach().clone().requires_grad_()
        new = _distribution(problem.old, z)
        objective = projection.objective(problem.old, new, problem.actions, problem.weights)
        ascent = _gradient("objective", objective, z)
        terms = projection.kl(problem.old, new)
        normals = [_gradient(f"kl[{name!r}]", kl, z) for name, kl in terms.items()]
    batch = getattr(projection, "average", "batch") == "batch"
    axes = (z.ndim - _own(problem.old)) - (1 if batch else 0)
    basis: list[Tensor] = []
    for normal in normals:
        for other in basis:
            normal = normal - _inner(normal, other, axes) * other
        size = _inner(normal, normal, axes).sqrt()
        basis.append(normal / torch.where(size > 0, size, 1.0))
    for unit in basis:
        ascent = ascent - _inner(ascent, unit, axes) * unit
    return torch.nan_to_num(ascent)


def _gradient(words: str, value: Tensor, z: Tensor) -> Tensor:
    require(value.requires_grad, f"{words} has no gradient; allowed: differentiable in the new distribution")
    return torch.autograd.grad(value.sum(), z, retain_graph=True)[0]


def _own(old: Any) -> int:
    return 1 if isinstance(old, Categorical) else 2


def _inner(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """Σ a b over all but the first ``axes`` axes, kept."""
    dims = tuple(range(axes, a.ndim))
    return (a * b).sum(dims, keepdim=True)


def _drawn_back(projection: Projection, old: Any, z: Tensor) -> Distribution:
    """The largest bisected step t z that is inside the bounds, by state or by batch as they are bounded."""
    batch = getattr(projection, "average", "batch") == "batch"
    lead = z.ndim - _own(old)
    shape = z.shape[: lead - 1] + (1 if batch else z.shape[lead - 1],)
    low, high = torch.zeros(shape, dtype=z.dtype), torch.ones(shape, dtype=z.dtype)
    t = high
    for _ in range(BISECTIONS):
        terms = projection.kl(old, _distribution(old, t.reshape(shape + (1,) * _own(old)) * z))
        inside = torch.ones(shape, dtype=torch.bool)
        for name, kl in terms.items():
            inside = inside & ((kl.mean(-1, keepdim=True) if batch else kl) <= projection.bounds[name])
        low, high = torch.where(inside, t, low), torch.where(inside, high, t)
        t = 0.5 * (low + high)
    return _distribution(old, low.reshape(shape + (1,) * _own(old)) * z)
