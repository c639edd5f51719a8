"""Loops of :class:`cvpo.buffers.compiled_tree.CompiledTree`; importing this module needs Numba.

``tree`` holds all levels one after the other, the leaves first, level l from ``starts[l]`` on; a node has eight
children.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvpo.compiled import compiled

_loop = compiled(nogil=True)


@compiled(forceinline=True)
def _sum(tree: np.ndarray, at: int) -> float:
    """The sum of eight children, in the order in which :func:`_child` adds them."""
    total = 0.0
    for k in range(at, at + 8):
        total += tree[k]
    return total


@compiled(forceinline=True)
def _child(tree: np.ndarray, at: int, rest: float) -> Any:
    """Which of the eight from ``at`` on the running sum passes ``rest`` in, and what is left of it.

    All are added up: where a loop would end is as good as random, and a wrong guess of the processor costs more.
    """
    c0 = tree[at]
    c1 = c0 + tree[at + 1]
    c2 = c1 + tree[at + 2]
    c3 = c2 + tree[at + 3]
    c4 = c3 + tree[at + 4]
    c5 = c4 + tree[at + 5]
    c6 = c5 + tree[at + 6]
    before = c0 if rest >= c0 else 0.0
    before = c1 if rest >= c1 else before
    before = c2 if rest >= c2 else before
    before = c3 if rest >= c3 else before
    before = c4 if rest >= c4 else before
    before = c5 if rest >= c5 else before
    before = c6 if rest >= c6 else before
    passed = (rest >= c0) + (rest >= c1) + (rest >= c2) + (rest >= c3) + (rest >= c4) + (rest >= c5) + (rest >= c6)
    # Rounding may lead beyond the last that counts.
    while passed and tree[at + passed] <= 0.0:
        passed -= 1
    return passed, rest - before


@_loop
def draw(tree: np.ndarray, starts: np.ndarray, uniform: np.ndarray, found: np.ndarray) -> None:
    """Fills ``found`` [B] with leaves, each drawn with probability leaf / total, from ``uniform`` [B] in [0, 1)."""
    rest = uniform * _sum(tree, starts[-1])
    found[:] = 0
    # All draws of one level after the other: they do not wait for each other's memory.
    for level in range(len(starts) - 1, -1, -1):
        for i in range(len(uniform)):
            child, rest[i] = _child(tree, starts[level] + 8 * found[i], rest[i])
            found[i] = 8 * found[i] + child


@_loop
def sample(
    tree: np.ndarray, starts: np.ndarray, uniform: np.ndarray, beta: float, found: np.ndarray, weight: np.ndarray
) -> None:
    """Fills ``found`` [B] with leaves, one of each Bth part of the total, and ``weight`` [B], (P / min P)^(−beta)."""
    count, least = len(uniform), np.inf
    shares = np.empty(count)
    for i in range(count):
        # Rounded up, the last share could be 1 itself.
        shares[i] = min((uniform[i] + i) / count, 1.0 - 1e-15)
    draw(tree, starts, shares, found)
    for i in range(count):
        shares[i] = tree[found[i]]
        least = min(least, shares[i])
    for i in range(count):
        weight[i] = (least / shares[i]) ** beta


@_loop
def write(tree: np.ndarray, starts: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """The leaves ``index`` [B] become ``values`` [B], and all sums above them are made again."""
    for i in range(len(index)):
        tree[index[i]] = values[i]
    for level in range(1, len(starts)):
        for i in range(len(index)):
            node = index[i] >> 3 * level
            tree[starts[level] + node] = _sum(tree, starts[level - 1] + 8 * node)


@_loop
def write_range(tree: np.ndarray, starts: np.ndarray, first: int, last: int, value: float) -> None:
    """The leaves from ``first`` to ``last`` become ``value``, and all sums above them are made again."""
    for k in range(first, last):
        tree[k] = value
    for level in range(1, len(starts)):
        for node in range(first >> 3 * level, ((last - 1) >> 3 * level) + 1):
            tree[starts[level] + node] = _sum(tree, starts[level - 1] + 8 * node)
