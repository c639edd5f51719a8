"""Arithmetic on small vectors, for one problem in Python numbers and for P problems in arrays or tensors.

An algorithm on (η, λ) handles a few numbers per problem. On a host, for one problem, Python numbers are ten times
faster than tensors of one element, and for a stack NumPy's arrays several times faster than tensors; on a device or in
a compiled region only tensors will do (:mod:`cvpo.estep.stacks`). Code that writes its vectors as tuples of components,
and takes what differs from here, serves all three.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

Number = Any
"""A float (or bool), or an array or a tensor [P]."""
Vector = tuple[Number, ...]
Matrix = tuple[Vector, ...]


class Lanes(Protocol):
    """What differs between one problem and many: :class:`One` itself and the like, not instances of them."""

    def minimum(self, a: Number, b: Number, /) -> Number:
        """The smaller of two numbers."""

    def maximum(self, a: Number, b: Number, /) -> Number:
        """The larger of two numbers."""

    def sqrt(self, value: Number, /) -> Number:
        """The square root."""

    def power_of_two(self, value: Number, /) -> Number:
        """The power of two nearest a positive value in logarithm, with one over it a number as well; else 1."""

    def at_least(self, value: Number, bound: float, /) -> Number:
        """The value, or the bound where it is larger."""

    def at_most(self, value: Number, bound: float, /) -> Number:
        """The value, or the bound where it is smaller."""

    def where(self, condition: Number, yes: Number, no: Number, /) -> Number:
        """``yes`` where the condition holds, else ``no``."""

    keeps_weights: bool
    """Whether it costs nothing to choose between two weights [P,B,K]: for many, a pass over the data in every step."""

    def choose(self, condition: Number, yes: Any, no: Any, /) -> Any:
        """``yes`` where the condition holds, else ``no``: nested tuples of numbers and kept weights."""

    def same(self, a: Vector, b: Vector, /) -> bool:
        """Whether two vectors are known to be equal, without waiting for the device."""

    def all(self, condition: Number, /) -> bool:
        """Whether the condition holds for every problem."""

    def split(self, tensor: Any, /) -> Any:
        """A tensor, or on a host an array, [P] or [P,S] by components: a number, or a tuple of them."""

    def join(self, vector: Vector, like: Tensor, /) -> Tensor:
        """A tensor [P,S] of the components, with the dtype and device of ``like``."""

    def matrix(self, rows: Matrix, like: Tensor, /) -> Tensor:
        """A tensor [P,S,S] of the rows, of which all but the first may be constants."""

    def solve(self, matrix: Matrix, right: Vector, pinned: Vector, value: Vector, /) -> Vector:
        """y with (matrix · y)_i = right_i in the free coordinates and y_i = ``value_i`` in the pinned ones."""


class One:
    """One problem, in Python numbers. Reading them off a tensor waits for the device."""

    keeps_weights = True
    minimum = staticmethod(min)
    maximum = staticmethod(max)
    sqrt = staticmethod(math.sqrt)
    at_least = staticmethod(max)
    at_most = staticmethod(min)

    @staticmethod
    def power_of_two(value: float) -> float:
        return 2.0 ** max(-1022, min(round(math.log2(value)), 1022)) if value > 0 else 1.0

    @staticmethod
    def where(condition: bool, yes: Number, no: Number) -> Number:
        return yes if condition else no

    @staticmethod
    def choose(condition: bool, yes: Any, no: Any) -> Any:
        return yes if condition else no

    @staticmethod
    def same(a: Vector, b: Vector) -> bool:
        return a == b

    @staticmethod
    def all(condition: bool) -> bool:
        return condition

    @staticmethod
    def split(tensor: Any) -> Any:
        (numbers,) = tensor.tolist()
        return tuple(numbers) if tensor.ndim == 2 else numbers

    @staticmethod
    def join(vector: Vector, like: Tensor) -> Tensor:
        return torch.tensor([vector], dtype=like.dtype, device=like.device)

    @staticmethod
    def matrix(rows: Matrix, like: Tensor) -> Tensor:
        return torch.tensor([rows], dtype=like.dtype, device=like.device)

    @staticmethod
    def solve(matrix: Matrix, right: Vector, pinned: Vector, value: Vector) -> Vector:
        """Elimination without pivoting, for positive definite matrices; a pivot lost to rounding gives y_i = 0."""
        free = [i for i, at in enumerate(pinned) if not at]
        result = [at if held else 0.0 for at, held in zip(value, pinned, strict=True)]
        rows = []
        for i in free:
            line = matrix[i]
            rows.append([*(line[j] for j in free), right[i] - _dot(line, result)])
        for k, row in enumerate(rows):
            for lower in rows[k + 1 :]:
                factor = lower[k] / row[k] if row[k] > 0 else 0.0
                for j in range(k + 1, len(row)):
                    lower[j] -= factor * row[j]
        for k in range(len(free) - 1, -1, -1):
            row = rows[k]
            rest = row[-1]
            for j in range(k + 1, len(free)):
                rest -= row[j] * result[free[j]]
            result[free[k]] = rest / row[k] if row[k] > 0 else 0.0
        return tuple(result)


def _dot(a: Vector, b: list[float]) -> float:
    total = 0.0
    for one, other in zip(a, b, strict=True):
        total += one * other
    return total
