"""What the KL divergences share: φ(x) = eˣ − 1 − x and its argument, without cancellation, and the check of kinds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cvpo.errors import ProblemError

# φ(x)/x² = 1/2! + x/3! + … + x⁵/7!, highest first.
_SERIES = [1.0 / math.factorial(n) for n in range(7, 1, -1)]


def _phi(x: Tensor) -> Tensor:
    """φ in float64, whatever the dtype of ``x``: relative error below 1e-13."""
    x = x.double()
    series = x * _SERIES[0] + _SERIES[1]
    for coefficient in _SERIES[2:]:
        series = series * x + coefficient
    return torch.where(x.abs() < 1e-2, x * x * series, torch.expm1(x) - x)


class _Phi(torch.autograd.Function):
    """φ with its derivative eˣ − 1 given, so that autograd does not walk back through the series."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _phi(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * torch.expm1(x)


class _ScaleTerm(torch.autograd.Function):
    """φ(2 log(a/b)), with dφ/db = −2(a − b)(a + b)/b³ and dφ/da = −(b/a) dφ/db, which do not cancel."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        if a.dtype == torch.float32:
            # Unequal float32 numbers differ by at least 6e-8, relatively: float64 has the digits for the plain formula.
            x = 2.0 * (a.double() / b).log()
            return (torch.expm1(x) - x).float()
        return _phi(2.0 * log_ratio(a.double(), b.double())).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        ratio = a / b
        slope = 2.0 * grad * ((a - b) / b) * (ratio + 1.0) / b
        return (slope / ratio if ctx.needs_input_grad[0] else None), -slope


def phi(x: Tensor) -> Tensor:
    """φ(x) = eˣ − 1 − x, at least 0 and exact to relative precision (x² / 2 near 0, where the formula cancels)."""
    return _Phi.apply(x)


def scale_term(a: Tensor, b: Tensor) -> Tensor:
    """φ(2 log(a / b)) = (a/b)² − 1 − 2 log(a/b) for positive ``a``, ``b``: twice KL(N(0, a²) ‖ N(0, b²))."""
    return _ScaleTerm.apply(a, b)


def log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """log(a / b) for positive ``a`` and ``b``, exact to relative precision also where they nearly agree."""
    above = a > b
    excess = torch.where(above, a - b, b - a) / torch.where(above, b, a)
    size = torch.log1p(excess)
    return torch.where(above, size, -size)


def same_kind(first: Any, second: Any) -> None:
    """Raise ProblemError unless both are Gaussians with the same kind of scale, or both categorical, over as many
    dimensions or categories."""
    kinds = [(d.kind, getattr(d, "is_diagonal", None)) for d in (first, second)]
    if kinds[0] != kinds[1]:
        words = [kind + {True: " (diagonal)", False: " (Cholesky)", None: ""}[diag] for kind, diag in kinds]
        raise ProblemError(
            f"a KL divergence between a {words[0]} and a {words[1]} distribution; allowed: the same kind"
        )
    one, other = ((d.mean if d.kind == "gaussian" else d.logits).shape for d in (first, second))
    if one[-1:] != other[-1:] or any(a != b and 1 not in (a, b) for a, b in zip(one[::-1], other[::-1], strict=False)):
        raise ProblemError(
            f"a KL divergence between distributions of shapes {list(one)} and {list(other)}; "
            "allowed: the same last dimension, and batches that broadcast"
        )
