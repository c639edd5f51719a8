"""Loops for the terms of :mod:`cvpo.mstep.diagonal` that Numba compiles; importing this module needs Numba.

Shapes: P members of a population with B states each; μ, σ, Σ w x and Σ w x² [P,B,D], Σ w [P,B], all in float32.
"""

from __future__ import annotations

import math

import numpy as np

from cvpo.compiled import compiled

SUMS = {"nsz", "contract", "reassoc", "arcp"}
"""What the compiler may do with sums, so that it can use all lanes: infinities and NaN keep their meaning."""

_loop = compiled(nogil=True)


@compiled(fastmath=SUMS, nogil=True)
def moments(
    mean0: np.ndarray,
    scale0: np.ndarray,
    actions: np.ndarray,
    weights: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    total: np.ndarray,
    rest: np.ndarray,
) -> None:
    """``first`` Σ w x, ``second`` Σ w x², ``total`` Σ w and the ``rest`` [P,B] of the likelihood, of ``actions``
    [P,B,K,D] with ``weights`` [P,B,K]."""
    members, states, count, size = actions.shape
    for p in range(members):
        for b in range(states):
            row, sum_w = weights[p, b], 0.0
            for k in range(count):
                sum_w += row[k]
            volume, spread = 0.5 * size * math.log(2.0 * math.pi), 0.0
            for d in range(size):
                centre, over = np.float64(mean0[p, b, d]), 1.0 / np.float64(scale0[p, b, d])
                sum_x, sum_xx = 0.0, 0.0
                for k in range(count):
                    x = (np.float64(actions[p, b, k, d]) - centre) * over
                    sum_x += row[k] * x
                    sum_xx += row[k] * x * x
                first[p, b, d], second[p, b, d] = sum_x, sum_xx
                volume -= math.log(over)
                spread += sum_xx
            total[p, b], rest[p, b] = sum_w, 0.5 * spread + 2.0 * volume * sum_w


@_loop
def values(
    mean: np.ndarray,
    scale: np.ndarray,
    mean0: np.ndarray,
    scale0: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    total: np.ndarray,
    rest: np.ndarray,
    found: np.ndarray,
) -> None:
    """``found`` [P,3,B]: KL_μ, KL_Σ and the likelihood; in float64 on the way, where eʸ − 1 = (σ₀ − σ)(σ₀ + σ)/σ² has
    all its digits, and y from it where it is small."""
    members, states, size = mean.shape
    for p in range(members):
        for b in range(states):
            by_mean, by_scale, by_likelihood = 0.0, 0.0, 0.0
            for d in range(size):
                old, new = np.float64(scale0[p, b, d]), np.float64(scale[p, b, d])
                v = (np.float64(mean[p, b, d]) - mean0[p, b, d]) / old
                growth = (old - new) * (old + new) / (new * new)
                y = math.log1p(growth) if growth > -0.5 else 2.0 * math.log(old / new)
                by_mean += v * v
                by_scale += growth - y
                by_likelihood += v * (2.0 * first[p, b, d] - v * total[p, b]) + y * total[p, b]
                by_likelihood -= (growth + 1.0) * second[p, b, d]
            found[p, 0, b] = 0.5 * by_mean
            found[p, 1, b] = 0.5 * by_scale
            found[p, 2, b] = 0.5 * by_likelihood - rest[p, b]


@_loop
def slopes(
    mean: np.ndarray,
    scale: np.ndarray,
    mean0: np.ndarray,
    scale0: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    total: np.ndarray,
    factors: np.ndarray,
    by_mean: np.ndarray,
    by_scale: np.ndarray,
) -> None:
    """The derivatives [P,B,D] by μ and σ of Σ_j ``factors_j`` mean_b values_j; ``factors`` [P,3]."""
    members, states, size = mean.shape
    for p in range(members):
        to_mean, to_scale, to_likelihood = factors[p, 0] / states, factors[p, 1] / states, factors[p, 2] / states
        for b in range(states):
            for d in range(size):
                old, new = np.float64(scale0[p, b, d]), np.float64(scale[p, b, d])
                v, growth = (np.float64(mean[p, b, d]) - mean0[p, b, d]) / old, (old - new) * (old + new) / (new * new)
                pull = v * total[p, b] - first[p, b, d]
                by_mean[p, b, d] = (to_mean * v - to_likelihood * pull) / old
                push = to_likelihood * ((growth + 1.0) * second[p, b, d] - total[p, b])
                by_scale[p, b, d] = (push - to_scale * growth) / new
