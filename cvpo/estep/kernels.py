"""Loops over the data of a stack of problems that Numba compiles; importing this module needs Numba.

What they are for is said in :mod:`cvpo.estep.fused`, and the mathematics is that of :mod:`cvpo.estep.passes`. A row of
K particles is worked on while it lies in the nearest cache; values are the caller's own, less the least of their row as
they are read. Loops release the interpreter's lock, so that threads may share the items of a stack. The numbers of an
item depend neither on which thread took it nor on where arrays lie: no loop both adds up and writes.

Shapes: ``q_reward`` [P,B,K] and ``q_cost`` [P,M,B,K] in float32 or float64, ``log_prior`` [P,B,K] or None, ``low``
[P,S,B] the least value of each row, ``scale`` [P,S] one over the units, ``mix`` [P,S] with z/log 2 = mixᵀ(Q_r, Q_c) in
these units. Sums are over C parts of the states of each problem; an item is one part. None is a type of its own, for
which loops are compiled apart, without a test of it inside them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

from cvpo.compiled import compiled

SUMS = {"nsz", "contract", "reassoc", "arcp"}
"""What the compiler may do with sums, so that it can use all lanes: infinities and NaN keep their meaning."""
ROUND = 1.5 * 2.0**52
"""Added to a number of less than 2^51, it leaves the nearest integer in the last bits."""
GAP = 64
"""Numbers left free on both sides of every row to work in, so that a loop never has to allow for another array next to
it: where it had, it would add in another order."""
PER_LN2 = 1.0 / math.log(2.0)
LARGE = 1e100
"""Masses of states, each between 1 and K, are multiplied up to here before a logarithm is taken."""
LOWEST = -1022.0
"""Below this 2^t counts as 0: its exponent has no room in a normal float64."""
(C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13) = (
    math.log(2.0) ** power / math.factorial(power) for power in range(14)
)
"""2^r = Σ C_i r^i, within 4e-18 for |r| <= 1/2."""


_intrinsic: Any = extending.intrinsic
_inlined = compiled(fastmath=SUMS, forceinline=True)
_loop = compiled(fastmath=SUMS, nogil=True)


@_intrinsic
def _bits(context: Any, value: Any) -> Any:
    """The bits of a float64, as an integer."""
    return types.int64(types.float64), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(64))


@_intrinsic
def _from_bits(context: Any, value: Any) -> Any:
    """The float64 of these bits."""
    return types.float64(types.int64), lambda _, builder, __, args: builder.bitcast(args[0], ir.DoubleType())


def _choice(name: str) -> Any:
    """LLVM's ``name`` of two numbers, neither NaN: only as its own instruction is it taken in all lanes."""

    def lower(_: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        call = builder.module.declare_intrinsic(f"llvm.{name}", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(call, args, fastmath=("nnan", "nsz"))

    def typed(context: Any, a: Any, b: Any) -> Any:
        return a(a, a), lower

    return _intrinsic(typed)


_larger, _smaller = _choice("maxnum"), _choice("minnum")


@compiled(fastmath={"nsz", "contract"})
def _exp2(t: float) -> float:
    """2^t for t <= 0, to two units in the last place: arithmetic that fills all lanes, as calls of exp2 do not."""
    inside = t if t > LOWEST else LOWEST
    integer = inside + ROUND
    r = inside - (integer - ROUND)
    r2 = r * r
    r4 = r2 * r2
    low = ((C0 + C1 * r) + (C2 + C3 * r) * r2) + ((C4 + C5 * r) + (C6 + C7 * r) * r2) * r4
    high = ((C8 + C9 * r) + (C10 + C11 * r) * r2) + (C12 + C13 * r) * r4
    power = _from_bits(_bits(low + high * (r4 * r4)) + (_bits(integer) << 52))
    return power if t > LOWEST else 0.0


@compiled(fastmath=SUMS | {"nnan"})
def _largest(row: np.ndarray) -> float:
    top = row[0]
    for k in range(len(row)):
        top = _larger(top, row[k])
    return top


@compiled(fastmath=SUMS | {"nnan"})
def _least_and_most(row: np.ndarray) -> Any:
    low, high = row[0], row[0]
    for k in range(len(row)):
        low, high = _smaller(low, row[k]), _larger(high, row[k])
    return low, high


@_inlined
def _states(item: int, parts: int, states: int) -> Any:
    """The states of an item."""
    part = item % parts
    return range(part * states // parts, (part + 1) * states // parts)


@_inlined
def _row(memory: np.ndarray, i: int, particles: int) -> Any:
    """Row ``i`` of the ``memory`` to work in."""
    return memory[i][GAP : GAP + particles]


@_inlined
def _tilt(reward: Any, costs: Any, b: int, low: Any, mix: Any, log_prior: Any, z: Any, weights: Any) -> float:
    """z/log 2 of state ``b`` less its largest value (with log p), and w times their sum; that value."""
    row, least, by = reward[b], low[0, b], mix[0]
    for k in range(len(z)):
        z[k] = by * (np.float64(row[k]) - least)
    for m in range(len(costs)):
        row, least, by = costs[m, b], low[1 + m, b], mix[1 + m]
        for k in range(len(z)):
            z[k] += by * (np.float64(row[k]) - least)
    if log_prior is None:
        top = _largest(z)
        for k in range(len(z)):
            moved = z[k] - top
            z[k], weights[k] = moved, _exp2(moved)
    else:
        for k in range(len(z)):
            # Outside the support values may be of any size.
            z[k] = z[k] if log_prior[k] > -np.inf else 0.0
            weights[k] = z[k] + log_prior[k] * PER_LN2
        top = _largest(weights)
        for k in range(len(z)):
            weights[k] = _exp2(weights[k] - top)
            z[k] -= top
    return top


@_inlined
def _gather(costs: Any, b: int, low: Any, weights: Any, first: Any, means: Any, share: float, sums: Any) -> float:
    """Adds ``share`` of E_w[f] and of the lower half of Cov_w[f] of state ``b`` to ``sums`` [S + S²]; Σ_k weights.

    f = (``first``, Q_c), w = ``weights`` over their sum; ``means`` [S] is memory to work in.
    """
    count, particles = 1 + len(costs), len(weights)
    total, mean, square = 0.0, 0.0, 0.0
    for k in range(particles):
        part = weights[k] * first[k]
        total += weights[k]
        mean += part
        square += part * first[k]
    over = 1.0 / total
    mean *= over
    means[0] = mean
    sums[0] += share * mean
    sums[count] += share * (over * square - mean * mean)
    for i in range(1, count):
        row, least = costs[i - 1, b], low[i, b]
        mean, square, joint = 0.0, 0.0, 0.0
        for k in range(particles):
            f = np.float64(row[k]) - least
            part = weights[k] * f
            mean += part
            square += part * f
            joint += part * first[k]
        mean *= over
        means[i] = mean
        sums[i] += share * mean
        sums[count + count * i + i] += share * (over * square - mean * mean)
        sums[count + count * i] += share * (over * joint - mean * means[0])
        for j in range(1, i):
            other, under, joint = costs[j - 1, b], low[j, b], 0.0
            for k in range(particles):
                joint += weights[k] * (np.float64(row[k]) - least) * (np.float64(other[k]) - under)
            sums[count + count * i + j] += share * (over * joint - mean * means[j])
    return total


@_inlined
def _finish(sums: Any, scale: Any) -> None:
    """The upper half of the covariance as well, and all of it in the units of ``scale``."""
    count = len(scale)
    for i in range(count):
        sums[i] *= scale[i]
        for j in range(i + 1):
            sums[count + count * i + j] *= scale[i] * scale[j]
            sums[count + count * j + i] = sums[count + count * i + j]


@_loop
def moments(
    start: int,
    stop: int,
    which: np.ndarray,
    q_reward: np.ndarray,
    q_cost: np.ndarray,
    log_prior: np.ndarray | None,
    low: np.ndarray,
    scale: np.ndarray,
    mix: np.ndarray,
    sums: np.ndarray,
    found: np.ndarray | None,
) -> None:
    """What :meth:`cvpo.estep.passes.Pass.moments` returns of the problems in ``which``: ``sums`` [P,C,2+S+S²], and, if
    not None, ``found`` [P,B,K]."""
    _, states, particles = q_reward.shape
    count, parts = scale.shape[1], sums.shape[1]
    memory, means, share = np.empty((2, particles + 2 * GAP)), np.empty(count), 1.0 / states
    z, weights = _row(memory, 0, particles), _row(memory, 1, particles)
    for item in range(start, stop):
        p = which[item // parts]
        costs, least, total = q_cost[p], low[p], sums[p, item % parts]
        total[:] = 0.0
        mixed, units, product = mix[p] * scale[p], scale[p].copy(), 1.0
        # z is scaled as it is made.
        units[0] = 1.0
        for b in _states(item, parts, states):
            given = None if log_prior is None else log_prior[p, b]
            total[1] += share * _tilt(q_reward[p], costs, b, least, mixed, given, z, weights)
            mass = _gather(costs, b, least, weights, z, means, share, total[2:])
            product *= mass
            if product > LARGE:
                total[0] += share * math.log(product)
                product = 1.0
            if found is not None:
                over, row = 1.0 / mass, found[p, b]
                for k in range(particles):
                    row[k] = over * weights[k]
        total[0] += share * math.log(product)
        _finish(total[2:], units)


@_loop
def weights_at(
    start: int,
    stop: int,
    parts: int,
    q_reward: np.ndarray,
    q_cost: np.ndarray,
    log_prior: np.ndarray | None,
    low: np.ndarray,
    scale: np.ndarray,
    mix: np.ndarray,
    found: np.ndarray,
) -> None:
    """w of the items ``start`` to ``stop``, ``parts`` of each problem: ``found`` [P,B,K]."""
    _, states, particles = q_reward.shape
    memory = np.empty((2, particles + 2 * GAP))
    z, weights = _row(memory, 0, particles), _row(memory, 1, particles)
    for item in range(start, stop):
        p = item // parts
        mixed = mix[p] * scale[p]
        for b in _states(item, parts, states):
            given = None if log_prior is None else log_prior[p, b]
            _tilt(q_reward[p], q_cost[p], b, low[p], mixed, given, z, weights)
            mass = 0.0
            for k in range(particles):
                mass += weights[k]
            over = 1.0 / mass
            for k in range(particles):
                found[p, b, k] = over * weights[k]


@_loop
def read(
    start: int,
    stop: int,
    q_reward: np.ndarray,
    q_cost: np.ndarray,
    log_prior: np.ndarray | None,
    limit: np.ndarray,
    epsilon: np.ndarray,
    low: np.ndarray,
    numbers: np.ndarray,
    prior: np.ndarray | None,
) -> None:
    """Fills ``low`` and ``numbers`` [P,C,n], which are those of :class:`cvpo.estep.scaling.Shifted`, and, if not None,
    ``prior`` [P,C,S+S²], what :meth:`cvpo.estep.passes.Pass.prior` returns but in the units of the values."""
    _, states, particles = q_reward.shape
    costs, parts, share = q_cost.shape[1], numbers.shape[1], 1.0 / states
    memory, ones, means = np.empty((2, particles + 2 * GAP)), np.ones(1 + costs), np.empty(1 + costs)
    f0, mass = _row(memory, 0, particles), _row(memory, 1, particles)
    mass[:] = 1.0 / particles
    for item in range(start, stop):
        p = item // parts
        total = numbers[p, item % parts]
        total[:] = 0.0
        if item % parts == 0:
            total[-2] = epsilon[p]
            total[-1] = 1.0 + (math.log(particles) if log_prior is None else 0.0)
        for b in _states(item, parts, states):
            given = None if log_prior is None else log_prior[p, b]
            if log_prior is not None:
                total[-1] -= _least(log_prior[p, b]) / states
            low[p, 0, b], width = _ends(q_reward[p, b], given)
            total[0] += width / states
            for m in range(costs):
                least, width = _ends(q_cost[p, m, b], given)
                low[p, 1 + m, b] = least
                total[1 + m] += width / states
                total[1 + costs + m] += (limit[p, m] - least) / states
                total[1 + 2 * costs + m] += abs(least) / states
            if prior is not None:
                row, least = q_reward[p, b], low[p, 0, b]
                if log_prior is not None:
                    for k in range(particles):
                        mass[k] = _exp2(log_prior[p, b, k] * PER_LN2)
                for k in range(particles):
                    f0[k] = np.float64(row[k]) - least
                _gather(q_cost[p], b, low[p], mass, f0, means, share, prior[p, item % parts])
        if prior is not None:
            _finish(prior[p, item % parts], ones)


@_inlined
def _least(log_prior: Any) -> float:
    """The least log p within the support."""
    least, doubt = 0.0, 0.0
    for k in range(len(log_prior)):
        inside = log_prior[k] if log_prior[k] != -np.inf else 0.0
        least = _smaller(least, inside)
        # NaN and infinities may get lost in comparisons, not here.
        doubt += 0.0 * inside
    return least + doubt


@_inlined
def _ends(row: Any, log_prior: Any) -> Any:
    """The least value within the prior's support and the range; NaN if anything is not finite."""
    low, high, none = np.inf, -np.inf, row[0] - row[0]
    if log_prior is None:
        # In the dtype of the values, which fills twice the lanes with float32.
        least, most = _least_and_most(row)
        low, high = np.float64(least), np.float64(most)
    else:
        for k in range(len(row)):
            value, inside = np.float64(row[k]), log_prior[k] > -np.inf
            low = _smaller(low, value if inside else np.inf)
            high = _larger(high, value if inside else -np.inf)
    doubt = none
    for k in range(len(row)):
        # NaN and infinities may get lost in comparisons, not here.
        doubt += none * row[k]
    return low + doubt, high - low + doubt
