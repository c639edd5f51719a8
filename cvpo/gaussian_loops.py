"""Loops of :mod:`cvpo.by_hand` that Numba compiles; importing this module needs Numba.

Shapes: P members of a population with B states each, D action dimensions; all arrays float32.
"""

from __future__ import annotations

import math

import numpy as np

from cvpo.compiled import compiled

_loop = compiled(nogil=True)


@_loop
def squash(
    out: np.ndarray,
    tanh: bool,
    low: float,
    width: float,
    offset: float,
    mean: np.ndarray,
    share: np.ndarray,
    scale: np.ndarray,
) -> None:
    """``mean``, ``share`` and ``scale`` [P,B,D] of a network's output ``out`` = (m, r) [P,B,2D]: μ = tanh(m) or m,
    s = 1/(1 + exp(−r − ``offset``)), σ = exp(``low`` + ``width``·s)."""
    members, states, size = mean.shape
    for p in range(members):
        for b in range(states):
            row = out[p, b]
            for d in range(size):
                mean[p, b, d] = math.tanh(np.float64(row[d])) if tanh else row[d]
                share[p, b, d] = 1.0 / (1.0 + math.exp(-(np.float64(row[size + d]) + offset)))
                scale[p, b, d] = math.exp(low + width * np.float64(share[p, b, d]))


@_loop
def unsquash(
    by_mean: np.ndarray,
    by_scale: np.ndarray,
    tanh: bool,
    width: float,
    mean: np.ndarray,
    share: np.ndarray,
    scale: np.ndarray,
    slope: np.ndarray,
) -> None:
    """``slope`` [P,B,2D] by (m, r), from those by μ and σ [P,B,D] of :func:`squash`."""
    members, states, size = mean.shape
    for p in range(members):
        for b in range(states):
            row = slope[p, b]
            for d in range(size):
                at, between = mean[p, b, d], share[p, b, d]
                row[d] = by_mean[p, b, d] * (np.float32(1.0) - at * at) if tanh else by_mean[p, b, d]
                by_share = by_scale[p, b, d] * scale[p, b, d] * np.float32(width)
                row[size + d] = by_share * between * (np.float32(1.0) - between)
