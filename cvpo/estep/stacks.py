"""Small vectors of P problems (:mod:`cvpo.estep.lanes`): in NumPy's arrays on a host that may look, else in tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpo.estep.lanes import Lanes, Matrix, Number, Vector


class Many:
    """P problems, in tensors: no host synchronisation but in :meth:`all`."""

    keeps_weights = False
    minimum = staticmethod(torch.minimum)
    maximum = staticmethod(torch.maximum)
    sqrt = staticmethod(torch.sqrt)

    @staticmethod
    def power_of_two(value: Tensor) -> Tensor:
        return torch.where(value > 0, torch.exp2(torch.log2(value).round().clamp(-1022, 1022)), 1.0)

    @staticmethod
    def where(condition: Tensor, yes: Number, no: Number) -> Tensor:
        return torch.where(condition, yes, no)

    @staticmethod
    def at_least(value: Tensor, bound: float) -> Tensor:
        return value.clamp(min=bound)

    @staticmethod
    def at_most(value: Tensor, bound: float) -> Tensor:
        return value.clamp(max=bound)

    @staticmethod
    def choose(condition: Tensor, yes: Any, no: Any) -> Any:
        if not isinstance(yes, tuple):
            return None if yes is None else torch.where(condition, yes, no)
        return tuple(Many.choose(condition, a, b) for a, b in zip(yes, no, strict=True))

    @staticmethod
    def same(a: Vector, b: Vector) -> bool:
        return False

    @staticmethod
    def all(condition: Tensor) -> bool:
        return bool(condition.all())

    @staticmethod
    def split(tensor: Tensor) -> Any:
        return tensor.unbind(1) if tensor.ndim == 2 else tensor

    @staticmethod
    def join(vector: Vector, like: Tensor) -> Tensor:
        return torch.stack(vector, dim=1)

    @staticmethod
    def matrix(rows: Matrix, like: Tensor) -> Tensor:
        first = torch.stack(rows[0], dim=1).unsqueeze(1)
        # Below the first they are rows of the identity: made on the device, where numbers from the host would wait.
        below = torch.eye(len(rows), dtype=like.dtype, device=like.device)[1:]
        return torch.cat([first, below.expand(len(like), -1, -1)], dim=1)

    @staticmethod
    def solve(matrix: Matrix, right: Vector, pinned: Vector, value: Vector) -> Vector:
        at = torch.stack(pinned, dim=1)
        rows = torch.stack([torch.stack(row, dim=1) for row in matrix], dim=1)
        eye = torch.eye(len(right), dtype=rows.dtype, device=rows.device)
        system = torch.where(at.unsqueeze(2), eye, rows)
        goal = torch.where(at, torch.stack(value, dim=1), torch.stack(right, dim=1))
        return torch.linalg.solve_ex(system, goal)[0].unbind(1)


class Host:
    """P problems, in NumPy's arrays: the arithmetic of :class:`Many` on a CPU, at a fraction of its cost a step.

    What is split shares the memory of its tensor, and is not written to.
    """

    keeps_weights = False
    minimum: Any = staticmethod(np.minimum)
    maximum: Any = staticmethod(np.maximum)
    sqrt: Any = staticmethod(np.sqrt)
    at_least: Any = staticmethod(np.maximum)
    at_most: Any = staticmethod(np.minimum)
    where: Any = staticmethod(np.where)

    @staticmethod
    def power_of_two(value: np.ndarray) -> np.ndarray:
        return np.where(value > 0, np.exp2(np.clip(np.rint(np.log2(value)), -1022, 1022)), 1.0)

    @staticmethod
    def choose(condition: np.ndarray, yes: Any, no: Any) -> Any:
        if not isinstance(yes, tuple):
            return None if yes is None else np.where(condition, yes, no)
        return tuple(Host.choose(condition, a, b) for a, b in zip(yes, no, strict=True))

    @staticmethod
    def same(a: Vector, b: Vector) -> bool:
        return all((one == other).all() for one, other in zip(a, b, strict=True))

    @staticmethod
    def all(condition: np.ndarray) -> bool:
        return bool(condition.all())

    @staticmethod
    def split(tensor: Tensor | np.ndarray) -> Any:
        array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().numpy()
        return tuple(np.ascontiguousarray(array.T)) if array.ndim == 2 else array

    @staticmethod
    def join(vector: Vector, like: Tensor) -> Tensor:
        return torch.from_numpy(np.stack(vector, axis=1))

    @staticmethod
    def matrix(rows: Matrix, like: Tensor) -> Tensor:
        made = np.empty((len(like), len(rows), len(rows)))
        made[:, 0] = np.stack(rows[0], axis=1)
        made[:, 1:] = np.reshape(rows[1:], (len(rows) - 1, len(rows)))
        return torch.from_numpy(made)

    @staticmethod
    def solve(matrix: Matrix, right: Vector, pinned: Vector, value: Vector) -> Vector:
        """Elimination without pivoting, as in :meth:`One.solve`: for so small systems quicker than a library's, and no
        other threads are woken, which would be in the way of the next pass."""
        count = range(len(right))
        rows = [
            [np.where(at, float(i == j), entry) for j, entry in enumerate(line)]
            for i, (line, at) in enumerate(zip(matrix, pinned, strict=True))
        ]
        goal = [np.where(at, held, aim) for at, held, aim in zip(pinned, value, right, strict=True)]
        over = []
        for k in count:
            over.append(np.where(rows[k][k] > 0, 1.0 / rows[k][k], 0.0))
            for i in count[k + 1 :]:
                factor = rows[i][k] * over[k]
                goal[i] = goal[i] - factor * goal[k]
                for j in count[k + 1 :]:
                    rows[i][j] = rows[i][j] - factor * rows[k][j]
        for k in reversed(count):
            rest = goal[k]
            for j in count[k + 1 :]:
                rest = rest - rows[k][j] * goal[j]
            goal[k] = rest * over[k]
        return tuple(goal)


def lanes_for(tensor: Tensor) -> Lanes:
    """What a stack that lies where ``tensor`` does is worked on in, if the host may look at it."""
    return Host if tensor.device.type == "cpu" else Many
