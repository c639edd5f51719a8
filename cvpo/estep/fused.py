"""Passes over problems on a host in loops that Numba compiles: every row is read once, and what is made of it not kept.

NumPy and torch go over the data once for each operation: a pass in eager torch takes 3.9 to 4.8 times as long, one
by ``torch.compile`` 1.4 to 4.1 times (the goals in ``benchmarks/results/solvers-full.jsonl``). Numba is an extra;
without it passes are those of :mod:`cvpo.estep.workspace` and :class:`cvpo.estep.passes.Stack`, with the same numbers
but for rounding. A first call loads what an earlier process has compiled, or compiles it, which takes seconds.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cvpo.compiled import loops, readable
from cvpo.estep.lanes import Lanes, Number, Vector

PART = 2**16
"""Numbers of Q in one item: threads can share a large problem, and sums are added in an order that does not depend on
how many threads there are."""
SHARED = 2**17
"""Numbers of Q from which a pass is worth the waking of other threads."""


def kernels() -> Any:
    """The compiled loops; None without Numba."""
    return loops("cvpo.estep.kernels")


def fits(*values: Tensor | None) -> bool:
    """Whether compiled loops go over these."""
    return kernels() is not None and readable(*values)


class Values(NamedTuple):
    """``q_reward`` [P,B,K], ``q_cost`` [P,M,B,K], ``log_prior`` [P,B,K] or None: contiguous, float32 or float64."""

    q_reward: np.ndarray
    q_cost: np.ndarray
    log_prior: np.ndarray | None


def values_of(q_reward: Tensor, q_cost: Tensor, log_prior: Tensor | None) -> Values:
    """The values as they lie, leading dimensions flattened to P; a copy where loops could not read them."""
    costs, *rows = q_cost.shape[-3:]
    problems = math.prod(q_reward.shape[:-2])
    given = None if log_prior is None else array(log_prior, (problems, *rows))
    return Values(array(q_reward, (problems, *rows)), array(q_cost, (problems, costs, *rows)), given)


def over(q: Tensor, log_prior: Tensor | None) -> Fused:
    """Problems ``q`` [P,S,B,K] whose rows have been shifted, in their units."""
    values = values_of(q[:, 0], q[:, 1:], log_prior)
    return Fused(values, np.zeros(q.shape[:3]), (1.0,) * q.shape[1])


class Reading(NamedTuple):
    """``numbers``: those of :class:`cvpo.estep.scaling.Shifted`; ``low`` [P,S,B]: the least value of each row;
    ``prior`` [P,S+S²]: see :meth:`cvpo.estep.passes.Pass.prior`, in the units of the values; None if not asked for."""

    numbers: np.ndarray
    low: np.ndarray
    prior: np.ndarray | None


class Fused:
    """P problems on a host, as the caller holds them: passes subtract the least value of each row, ``low`` [P,S,B], and
    divide by ``unit`` [S] or [P,S]. ``q_reward`` [P,B,K], ``q_cost`` [P,M,B,K], ``log_prior`` [P,B,K] or None."""

    def __init__(self, values: Values, low: np.ndarray, unit: Vector, prior: np.ndarray | None = None) -> None:
        problems, costs, states, particles = values.q_cost.shape
        self.offset = math.log(particles) if values.log_prior is None else 0.0
        self._shape, self._numbers = (problems, states, particles), (1 + costs) * states * particles
        self._values, self._unit, self._prior = values, unit, prior
        self._begun = False
        self._data = *values, low, 1.0 / _rows(unit, problems)
        self._parts, self._size = _parts(values), (1 + costs) * (2 + costs)

    @property
    def like(self) -> Tensor:
        """See :attr:`~cvpo.estep.passes.Pass.like`."""
        return torch.empty(self._shape[0], dtype=torch.float64)

    def prior(self, lanes: Lanes) -> Any:
        """See :meth:`~cvpo.estep.passes.Pass.prior`."""
        if self._prior is None:
            problems, costs = self._values.q_cost.shape[:2]
            self._prior = read(self._values, np.zeros((problems, costs)), np.zeros(problems), True).prior
        over = [1.0 / each for each in self._unit]
        scale = *over, *(a * b for a in over for b in over)
        return tuple(a * b for a, b in zip(lanes.split(self._prior), scale, strict=True))

    def moments(self, lanes: Lanes, mix: Vector, keep: bool, wanted: Number) -> tuple[Any, Tensor | None]:
        """See :meth:`~cvpo.estep.passes.Pass.moments`; w, in the dtype of Q_r, is kept of a small problem only, whose
        memory costs less than to make it again by :meth:`weights`, and not of the first pass: few descents end
        there."""
        problems, empty = self._shape[0], np.empty
        if isinstance(wanted, np.ndarray):
            which, empty = np.flatnonzero(wanted), np.zeros
        else:
            which = np.arange(problems)
        sums = empty((problems, self._parts, 2 + self._size))
        keep = keep and self._begun and problems * self._numbers < SHARED
        self._begun = True
        found = np.empty(self._shape, self._values.q_reward.dtype) if keep else None
        items, numbers = len(which) * self._parts, len(which) * self._numbers
        _share(kernels().moments, items, numbers, which, *self._data, _rows(mix, problems), sums, found)
        return lanes.split(_added(sums)), None if found is None else torch.from_numpy(found)

    def weights(self, mix: Vector) -> Tensor:
        """w [P,B,K] in the dtype of Q_r; ``mix`` as for :meth:`moments`."""
        problems = self._shape[0]
        found = np.empty(self._shape, self._values.q_reward.dtype)
        items, numbers = problems * self._parts, problems * self._numbers
        _share(kernels().weights_at, items, numbers, self._parts, *self._data, _rows(mix, problems), found)
        return torch.from_numpy(found)


def read(values: Values, limit: np.ndarray, epsilon: np.ndarray, prior: bool) -> Reading:
    """What is read of the ``values`` [...], limits [P,M] and ε [P] before the first pass, with the ``prior`` or not."""
    problems, costs, states, _ = values.q_cost.shape
    low, parts = np.empty((problems, 1 + costs, states)), _parts(values)
    numbers = np.empty((problems, parts, 3 + 3 * costs))
    sums = np.zeros((problems, parts, (1 + costs) * (2 + costs))) if prior else None
    _share(
        kernels().read,
        problems * parts,
        (1 + costs) * values.q_reward.size,
        *values,
        limit,
        epsilon,
        low,
        numbers,
        sums,
    )
    return Reading(_added(numbers), low, None if sums is None else _added(sums))


def _rows(vector: Vector, problems: int) -> np.ndarray:
    """A vector by components, numbers or arrays [P], as an array [P,S]."""
    rows = np.empty((problems, len(vector)))
    for i, each in enumerate(vector):
        rows[:, i] = each
    return rows


def array(tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The values as they lie, or as contiguous float64 where loops are compiled for no such layout or dtype."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.float64)
    return np.ascontiguousarray(tensor.numpy()).reshape(shape)


def _added(sums: np.ndarray) -> np.ndarray:
    """The sums of all parts."""
    return sums[:, 0] if sums.shape[1] == 1 else sums.sum(1)


def _parts(values: Values) -> int:
    _, costs, states, particles = values.q_cost.shape
    return min(states, -(-(1 + costs) * states * particles // PART))


def _share(kernel: Callable[..., None], items: int, numbers: int, *arguments: Any) -> None:
    """``kernel`` on all ``items``, by as many threads as torch has if they hold ``numbers`` enough."""
    if numbers < SHARED:
        kernel(0, items, *arguments)
        return
    threads = min(torch.get_num_threads(), items)
    ends = [items * i // threads for i in range(threads + 1)]
    others = [
        _pool(os.getpid(), threads - 1).submit(kernel, start, stop, *arguments)
        for start, stop in zip(ends[1:], ends[2:], strict=False)
    ]
    kernel(0, ends[1], *arguments)
    for other in others:
        other.result()


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this ``process``: those of another do not survive its fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="cvpo-estep")
