"""The tree of sums of :mod:`cvpo.buffers.sumtree` on a host, in loops that Numba compiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvpo.buffers.memory import claim
from cvpo.buffers.sumtree import SumTree
from cvpo.compiled import loops

FANOUT = 8
"""Children of a node: one line of the cache."""


class CompiledTree:
    """n leaves in float64, each node above them the sum of its eight children; ``levels[0]`` are the leaves, and levels
    are padded with zeros. As in :class:`~cvpo.buffers.sumtree.SumTree`, sums are computed anew and never adjusted.
    Raises ConfigError, with the bytes they take, where they do not fit.
    """

    #: Uniform numbers that a draw takes.
    shares = 1

    def __init__(self, leaves: int, loops: Any) -> None:
        self._loops = loops
        sizes = [-(-leaves // FANOUT) * FANOUT]
        while sizes[-1] > FANOUT:
            sizes.append(-(-sizes[-1] // FANOUT**2) * FANOUT)
        self.nbytes = sum(sizes) * torch.float64.itemsize
        claim(f"a tree of {leaves} priorities", self.nbytes, torch.device("cpu"))
        tree = torch.zeros(sum(sizes), dtype=torch.float64)
        self.levels = list(tree.split(sizes))
        self._tree, self._starts = tree.numpy(), np.cumsum([0, *sizes[:-1]])

    def __reduce__(self) -> Any:
        # A copy has levels of its own, in memory that they share, and the loops are a module.
        return _grown, (self.levels[0],)

    def write(self, index: Tensor, values: Tensor) -> None:
        """See :meth:`~cvpo.buffers.sumtree.SumTree.write`."""
        self._loops.write(self._tree, self._starts, index.contiguous().numpy(), values.double().contiguous().numpy())

    def write_range(self, first: int, count: int, value: Tensor) -> None:
        """See :meth:`~cvpo.buffers.sumtree.SumTree.write_range`."""
        self._loops.write_range(self._tree, self._starts, first, first + count, float(value))

    def clear(self) -> None:
        """See :meth:`~cvpo.buffers.sumtree.SumTree.clear`."""
        self._tree.fill(0.0)

    def draw(self, uniform: Tensor) -> Tensor:
        """Leaves [B], each with probability leaf / total, for ``uniform`` [1,B] in [0, 1).

        What is left of a number below a node says which child is drawn: it loses three bits a level, of its 53. A leaf
        of priority 0 is never drawn, whatever is rounded on the way.
        """
        found = np.empty(uniform.shape[1], dtype=np.int64)
        self._loops.draw(self._tree, self._starts, uniform[0].contiguous().numpy(), found)
        return torch.from_numpy(found)

    def sample(self, uniform: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """See :meth:`~cvpo.buffers.sumtree.SumTree.sample`; ``uniform`` [1,B]."""
        found = np.empty(uniform.shape[1], dtype=np.int64)
        weight = np.empty(uniform.shape[1], dtype=np.float32)
        self._loops.sample(self._tree, self._starts, uniform[0].numpy(), beta, found, weight)
        return torch.from_numpy(found), torch.from_numpy(weight)

    @property
    def total(self) -> Tensor:
        """The sum of all leaves, 0-d."""
        return self.levels[-1].sum()


def _grown(leaves: Tensor) -> SumTree | CompiledTree:
    tree = tree_for(len(leaves), leaves.device)
    tree.write(torch.arange(len(leaves)), leaves)
    return tree


def tree_for(leaves: int, device: torch.device) -> SumTree | CompiledTree:
    """The tree for a store on ``device``."""
    found = loops("cvpo.buffers.tree_loops") if device.type == "cpu" else None
    return SumTree(leaves, device) if found is None else CompiledTree(leaves, found)
