"""Loops around the products of :mod:`cvpo.particles` that Numba compiles; importing this module needs Numba.

Shapes: N = B·K rows of H numbers. What products read and write is float32, or bfloat16, whose bits are given as int16.
No loop both adds up and writes, so that its sums do not depend on where arrays lie; and no number depends on how many
threads share the rows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, prange, types

from cvpo.compiled import compiled, shareable

SUMS = {"nsz", "contract", "reassoc", "arcp"}
"""What the compiler may do with sums, so that it can use all lanes: infinities and NaN keep their meaning."""

_intrinsic: Any = extending.intrinsic
_inlined = compiled(fastmath=SUMS, forceinline=True)
_loop = compiled(fastmath=SUMS, nogil=True)
_shared = compiled(parallel=True)


@_intrinsic
def _bits(context: Any, value: Any) -> Any:
    """The bits of a float32, as an integer."""
    return types.int32(types.float32), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(32))


@_intrinsic
def _from_bits(context: Any, value: Any) -> Any:
    """The float32 of these bits."""
    return types.float32(types.int32), lambda _, builder, __, args: builder.bitcast(args[0], ir.FloatType())


def _put(row: Any, k: int, value: Any) -> None:
    """``row[k] = value``, rounded to the nearest if it is a row of bfloat16."""


def _get(row: Any, k: int) -> Any:
    """``row[k]`` as a float32."""


@extending.overload(_put, inline="always")
def _put_typed(row: Any, k: int, value: Any) -> Any:
    def put(row: Any, k: int, value: Any) -> None:
        row[k] = value

    def put_half(row: Any, k: int, value: Any) -> None:
        bits = _bits(value)
        # Half a unit in the last place, less where that is even; NaN would become another number.
        rounded = bits + np.int32(0x7FFF) + ((bits >> 16) & np.int32(1))
        row[k] = np.int16((rounded if value == value else bits) >> 16)

    return put_half if row.dtype == types.int16 else put


@extending.overload(_get, inline="always")
def _get_typed(row: Any, k: int) -> Any:
    def get(row: Any, k: int) -> Any:
        return row[k]

    def get_half(row: Any, k: int) -> Any:
        return _from_bits(np.int32(row[k]) << 16)

    return get_half if row.dtype == types.int16 else get


@_inlined
def _rectified(value: Any) -> Any:
    """max(0, x); NaN stays."""
    return np.float32(0.0) if value < 0 else value


@_inlined
def _add_two(row: Any, weight: Any, j: int, total: Any) -> None:
    """``total += row[j] W[j] + row[j + 1] W[j + 1]`` [H]."""
    a, b, one, other = row[j], row[j + 1], weight[j], weight[j + 1]
    for h in range(len(total)):
        total[h] += a * one[h] + b * other[h]


@_inlined
def _last_two(so_far: Any, row: Any, weight: Any, out: Any) -> None:
    """``max(0, so_far + row[-2] W[-2] + row[-1] W[-1])`` [H]."""
    j = len(row) - 2
    a, b, one, other = row[j], row[j + 1], weight[j], weight[j + 1]
    for h in range(len(out)):
        _put(out, h, _rectified(so_far[h] + (a * one[h] + b * other[h])))


@_loop
def first(shared: np.ndarray, rows: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """``out = max(0, shared_b + row_bk W)`` [N,H]: ``shared`` [B,H], ``rows`` [B,K,J], ``weight`` [J,H], J even."""
    states, count, inputs = rows.shape
    total = np.empty(out.shape[1], np.float32)
    for b in range(states):
        for k in range(count):
            row, found = rows[b, k], out[b * count + k]
            if inputs == 2:
                _last_two(shared[b], row, weight, found)
            else:
                for h in range(len(total)):
                    total[h] = shared[b, h]
                for j in range(0, inputs - 2, 2):
                    _add_two(row, weight, j, total)
                _last_two(total, row, weight, found)


@_loop
def between(values: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """``out = max(0, values + bias)`` [N,H]."""
    for n in range(len(values)):
        row, found = values[n], out[n]
        for h in range(len(bias)):
            _put(found, h, _rectified(_get(row, h) + bias[h]))


@_loop
def last(values: np.ndarray, bias: np.ndarray, head: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """``out = max(0, values + bias) Vᵀ + offset`` [N,O]: ``values`` [N,H], ``head`` V [O,H]."""
    for n in range(len(values)):
        row = values[n]
        for o in range(len(offset)):
            column, total = head[o], np.float32(0.0)
            for h in range(len(bias)):
                total += _rectified(_get(row, h) + bias[h]) * column[h]
            out[n, o] = total + offset[o]


@_shared
def _first_shared(parts: int, shared: np.ndarray, rows: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    states, count, _ = rows.shape
    for part in prange(parts):
        start, stop = part * states // parts, (part + 1) * states // parts
        first(shared[start:stop], rows[start:stop], weight, out[start * count : stop * count])


@_shared
def _between_shared(parts: int, values: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    for part in prange(parts):
        start, stop = part * len(values) // parts, (part + 1) * len(values) // parts
        between(values[start:stop], bias, out[start:stop])


@_shared
def _last_shared(
    parts: int, values: np.ndarray, bias: np.ndarray, head: np.ndarray, offset: np.ndarray, out: np.ndarray
) -> None:
    for part in prange(parts):
        start, stop = part * len(values) // parts, (part + 1) * len(values) // parts
        last(values[start:stop], bias, head, offset, out[start:stop])


@contextlib.contextmanager
def by(threads: int) -> Iterator[tuple[Callable[..., None], ...]]:
    """:func:`first`, :func:`between` and :func:`last`, shared among as many ``threads``, if they can be."""
    if threads == 1 or not shareable():
        yield first, between, last
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        yield tuple(functools.partial(loop, threads) for loop in (_first_shared, _between_shared, _last_shared))
    finally:
        numba.set_num_threads(before)
