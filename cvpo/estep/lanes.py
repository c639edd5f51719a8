"""Arithmetic on small vectors, for one problem in Python numbers and for P problems in tensors.

An algorithm on (η, λ) handles a few numbers per problem. On a host, for one problem, Python numbers are ten times
faster than tensors of one element; for a stack, on a device or in a compiled region, only tensors will do. Code that
writes its vectors as tuples of components, and takes what differs from here, serves both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Number = Any
"""A float (or bool), or a tensor [P]."""
Vector = tuple[Number, ...]
Matrix = tuple[Vector, ...]


class One:
    """One problem, in Python numbers. Reading them off a tensor waits for the device."""

    minimum = staticmethod(min)
    maximum = staticmethod(max)
    sqrt = staticmethod(math.sqrt)

    at_least = staticmethod(max)
    at_most = staticmethod(min)

    @staticmethod
    def where(condition: bool, yes: Number, no: Number) -> Number:
        """``yes`` where the condition holds, else ``no``."""
        return yes if condition else no

    @staticmethod
    def keep(weights: Tensor) -> Tensor | None:
        """``weights`` [P,B,K], if it costs nothing to choose between two of them."""
        return weights

    @staticmethod
    def either(condition: bool, yes: Tensor | None, no: Tensor | None) -> Tensor | None:
        """One of two kept weights."""
        return yes if condition else no

    @staticmethod
    def all(condition: bool) -> bool:
        """Whether the condition holds for every problem."""
        return condition

    @staticmethod
    def split(tensor: Tensor) -> Any:
        """The rows of ``tensor`` [1,...] as numbers, tuples of them, or tuples of tuples."""
        return _as_tuples(tensor[0].tolist())

    @staticmethod
    def join(vector: Vector, like: Tensor) -> Tensor:
        """A tensor [1,S] of the numbers."""
        return torch.tensor([vector], dtype=like.dtype, device=like.device)

    @staticmethod
    def solve(matrix: Matrix, right: Vector, pinned: Vector, value: Vector) -> Vector:
        """y with (matrix · y)_i = right_i in the free coordinates and y_i = ``value_i`` in the pinned ones.

        Elimination without pivoting, for positive definite matrices; a pivot lost to rounding gives y_i = 0.
        """
        free = [i for i, at in enumerate(pinned) if not at]
        rows = [
            [matrix[i][j] for j in free] + [right[i] - sum(matrix[i][j] * value[j] for j in range(len(value)) if pinned[j])]
            for i in free
        ]
        for k, row in enumerate(rows):
            for lower in rows[k + 1 :]:
                factor = lower[k] / row[k] if row[k] > 0 else 0.0
                for j in range(k + 1, len(row)):
                    lower[j] -= factor * row[j]
        result = list(value)
        for k in range(len(free) - 1, -1, -1):
            row = rows[k]
            rest = row[-1] - sum(row[j] * result[free[j]] for j in range(k + 1, len(free)))
            result[free[k]] = rest / row[k] if row[k] > 0 else 0.0
        return tuple(result)


class Many:
    """P problems, in tensors: no host synchronisation but in :meth:`all`."""

    minimum = staticmethod(torch.minimum)
    maximum = staticmethod(torch.maximum)
    sqrt = staticmethod(torch.sqrt)

    where = staticmethod(torch.where)

    @staticmethod
    def at_least(value: Tensor, bound: float) -> Tensor:
        """The value, or the bound where it is larger."""
        return value.clamp(min=bound)

    @staticmethod
    def at_most(value: Tensor, bound: float) -> Tensor:
        """The value, or the bound where it is smaller."""
        return value.clamp(max=bound)

    @staticmethod
    def keep(weights: Tensor) -> Tensor | None:
        """None: choosing problem by problem would cost a pass over the data in every step."""
        return None

    @staticmethod
    def either(condition: Tensor, yes: Tensor | None, no: Tensor | None) -> Tensor | None:
        """None: nothing was kept."""
        return None

    @staticmethod
    def all(condition: Tensor) -> bool:
        """Whether the condition holds for every problem."""
        return bool(condition.all())

    @staticmethod
    def split(tensor: Tensor) -> Any:
        """``tensor`` [P], [P,S] or [P,S,S] by components: tuples (of tuples) of tensors [P]."""
        if tensor.ndim == 1:
            return tensor
        return tuple(Many.split(part) for part in tensor.unbind(1))

    @staticmethod
    def join(vector: Vector, like: Tensor) -> Tensor:
        """A tensor [P,S] of the components."""
        return torch.stack(vector, dim=1)

    @staticmethod
    def solve(matrix: Matrix, right: Vector, pinned: Vector, value: Vector) -> Vector:
        """y with (matrix · y)_i = right_i in the free coordinates and y_i = ``value_i`` in the pinned ones."""
        at = torch.stack(pinned, dim=1)
        rows = torch.stack([torch.stack(row, dim=1) for row in matrix], dim=1)
        eye = torch.eye(len(right), dtype=rows.dtype, device=rows.device)
        system = torch.where(at.unsqueeze(2), eye, rows)
        goal = torch.where(at, torch.stack(value, dim=1), torch.stack(right, dim=1))
        return torch.linalg.solve_ex(system, goal)[0].unbind(1)


Lanes = type[One] | type[Many]


def largest(lanes: Lanes, values: Sequence[Number]) -> Number:
    """The largest of some numbers, problem by problem."""
    result = values[0]
    for value in values[1:]:
        result = lanes.maximum(result, value)
    return result


def _as_tuples(nested: Any) -> Any:
    return tuple(_as_tuples(part) for part in nested) if isinstance(nested, list) else nested
