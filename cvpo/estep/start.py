"""Where a minimisation starts without an earlier solution: the optimum of a model that is read off once.

To second order in 1/η, log Σ_k p exp z is its mean under p plus half its variance: with C = mean_b Cov_p[(Q_r, Q_c)],
c̄ the prior's own costs and u = (1, −λ)::

    g ≈ η ε + λᵀ(d − c̄) + uᵀCu/(2η) + constant       at its least η = √(uᵀCu/2ε):   √(2ε uᵀCu) + λᵀ(d − c̄)

which is exact for Gaussian Q-values. The best λ_m for given others has a closed form.
"""

from __future__ import annotations

from cvpo.estep.lanes import Lanes, Number, Vector
from cvpo.estep.passes import Pass

SWEEPS = 3
"""Over the λ_m in turn; one alone is found in one."""
LEAST_ROOM = 0.05
"""Limits beyond the model's reach count as this close to its end, a share of √(2ε Var Q_c)²: λ stays finite."""


def model_start(lanes: Lanes, data: Pass, limit: Vector, epsilon: Number, least: Number) -> Vector:
    """(η, λ) by components, η at ``least`` or above."""
    count = 1 + len(limit)
    numbers = data.prior(lanes)
    mean, rest = numbers[:count], numbers[count:]
    matrix = [rest[i : i + count] for i in range(0, len(rest), count)]
    zero = 0.0 * least
    u = [zero + 1.0] + [zero] * (count - 1)
    for _ in range(1 if count == 2 else SWEEPS):
        for m in range(1, count):
            others = [u[j] if j != m else zero for j in range(count)]
            product = [_dot(row, others) for row in matrix]
            width, tilt = lanes.at_least(matrix[m][m], 1e-12), product[m]
            slack, reach = limit[m - 1] - mean[m], 2.0 * epsilon * width
            free = lanes.at_least(_dot(product, others) * width - tilt * tilt, 0.0)
            room = lanes.maximum(reach - slack * slack, LEAST_ROOM * reach)
            u[m] = lanes.at_most((slack * lanes.sqrt(free / room) - tilt) / width, 0.0)
    variance = lanes.at_least(_dot(u, [_dot(row, u) for row in matrix]), 0.0)
    return (lanes.maximum(lanes.sqrt(variance / (2.0 * epsilon)), least), *(-each for each in u[1:]))


def _dot(a: Vector | list[Number], b: Vector | list[Number]) -> Number:
    total = a[0] * b[0]
    for one, other in zip(a[1:], b[1:], strict=True):
        total = total + one * other
    return total
