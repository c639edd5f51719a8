"""The terms of :mod:`cvpo.mstep.diagonal` and their derivatives in compiled loops, on a host: one pass over memory for
each, where torch's operations on so few numbers take longer to call than to do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpo.compiled import loops, readable
from cvpo.distributions import Gaussian
from cvpo.handover import require_tensor
from cvpo.mstep.diagonal import Moments, moments_of

_LOOPS = "cvpo.mstep.diagonal_loops"


def looped_moments(mean0: Tensor, scale0: Tensor, actions: Tensor, weights: Tensor) -> Moments:
    """:func:`~cvpo.mstep.diagonal.moments_of` of float32, without gradients: in loops where they can be."""
    given, lead = (mean0, scale0, actions, weights), mean0.shape[:-1]
    kernels = loops(_LOOPS)
    if kernels is None or not readable(*given) or any(part.dtype != torch.float32 for part in given):
        return moments_of(*given)
    # Loops would read beyond what does not fit.
    fits = actions.shape == (*weights.shape, mean0.shape[-1]) and weights.shape[:-1] == lead
    if not fits or scale0.shape != mean0.shape:
        return moments_of(*given)
    shapes = mean0.shape, mean0.shape, (*lead, 1), lead
    first, second, total, rest = (torch.empty(shape, dtype=torch.float32) for shape in shapes)
    found = _stack(first, 2), _stack(second, 2), _stack(total.squeeze(-1), 1), _stack(rest, 1)
    kernels.moments(_stack(mean0, 2), _stack(scale0, 2), _stack(actions, 3), _stack(weights, 2), *found)
    return Moments(mean0, scale0, total, first, second, rest)


def looped_terms(given: Moments) -> LoopedTerms | None:
    """None without Numba, and of what loops cannot read, or would read beyond."""
    kernels, shape = loops(_LOOPS), given.mean0.shape
    if kernels is None or not readable(*given):
        return None
    shapes = shape, shape, (*shape[:-1], 1), shape, shape, shape[:-1]
    return LoopedTerms(kernels, given) if all(a.shape == b for a, b in zip(given, shapes, strict=True)) else None


class LoopedTerms:
    """KL_μ, KL_Σ and the likelihood [...,3,B], and the derivatives of what they add up to."""

    def __init__(self, kernels: Any, given: Moments) -> None:
        self._kernels, self._shape = kernels, given.mean0.shape
        self._lead = self._shape[:-2]
        mean0, scale0, total, first, second, rest = given
        by_dimension = (_stack(part, 2) for part in (mean0, scale0, first, second))
        self._given = (*by_dimension, _stack(total.squeeze(-1), 1))
        self._rest = _stack(rest, 1)

    def __call__(self, new: Gaussian) -> Tensor:
        """The terms at ``new``, whose memory is read again by :meth:`slopes`. Raises ConfigError for another shape than
        that of the old policy."""
        for name, part in (("mean", new.mean), ("scale", new.scale)):
            require_tensor(f"the new policy's {name}", part, self._shape)
        self._at = _stack(new.mean, 2), _stack(new.scale, 2)
        members, states, _ = self._at[0].shape
        found = np.empty((members, 3, states), np.float32)
        self._kernels.values(*self._at, *self._given, self._rest, found)
        return torch.from_numpy(found).reshape(*self._lead, 3, states)

    def slopes(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives by μ and σ [...,B,D] of Σ_j ``factors_j`` mean_b values_j there; ``factors`` [...,3]."""
        require_tensor("factors of the terms", factors, (*self._lead, 3))
        found = np.empty((2, *self._at[0].shape), np.float32)
        self._kernels.slopes(*self._at, *self._given, _stack(factors, 1), *found)
        by_mean, by_scale = torch.from_numpy(found).reshape(2, *self._lead, *found.shape[2:])
        return by_mean, by_scale


def _stack(value: Tensor, inner: int) -> np.ndarray:
    """``value`` [...] as it lies, the axes before the last ``inner`` in one."""
    outer = value.ndim - inner
    return np.ascontiguousarray(value.numpy()).reshape(math.prod(value.shape[:outer]), *value.shape[outer:])
