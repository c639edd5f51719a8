"""A tree of sums: draws in proportion to priorities, in a few passes for any number of leaves.

Shape legend: ``n`` leaves, ``B`` draws, ``F`` children of a node.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.memory import claim

FANOUT = 64
"""Few levels, each a small row of children: the number of passes is what a draw costs, not the arithmetic."""
ROOT = 2**14
"""Nodes of the uppermost level, which is searched in one piece."""


class SumTree:
    """Every node is the sum of its ``F`` children; ``levels[0]`` are the n leaves, padded with zeros, in float64.

    Sums are computed anew from the children, never adjusted by differences, so that they do not drift. Raises
    ConfigError, with the bytes they take, where they do not fit.
    """

    def __init__(self, leaves: int, device: torch.device) -> None:
        sizes = [leaves]
        while sizes[-1] > ROOT:
            sizes.append(-(-sizes[-1] // FANOUT))
        # A level has whole rows of children for the level above it.
        padded = [size * FANOUT for size in sizes[1:]] + [sizes[-1]]
        self.nbytes = sum(padded) * torch.float64.itemsize
        claim(f"a tree of {leaves} priorities", self.nbytes, device)
        self.levels = [torch.zeros(size, dtype=torch.float64, device=device) for size in padded]
        self._view()
        #: Uniform numbers that a draw takes: one for each level.
        self.shares = len(self.levels)
        self._strata = torch.empty(0, dtype=torch.float64, device=device)

    def _view(self) -> None:
        self.rows = [level.view(-1, FANOUT) for level in self.levels[:-1]]

    def __getstate__(self) -> dict[str, Any]:
        # A pickle would make tensors of their own of the views.
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._view()

    def write(self, index: Tensor, values: Tensor) -> None:
        """Set the leaves ``index`` [B], each listed once or with equal values, to ``values`` [B] >= 0."""
        self.levels[0][index] = values.double()
        for rows, above in zip(self.rows, self.levels[1:], strict=True):
            # Neighbours share a node: once each, or 64 rows would be gathered for every row.
            index = torch.unique_consecutive(index // FANOUT) if len(index) > ROOT else index // FANOUT
            above[index] = rows[index].sum(-1)

    def clear(self) -> None:
        """Set all leaves to 0."""
        for level in self.levels:
            level.zero_()

    def write_range(self, first: int, count: int, value: Tensor) -> None:
        """Set ``count`` leaves from ``first`` on to one value."""
        last = first + count
        self.levels[0][first:last] = value
        for rows, above in zip(self.rows, self.levels[1:], strict=True):
            first, last = first // FANOUT, -(-last // FANOUT)
            torch.sum(rows[first:last], -1, out=above[first:last])

    def draw(self, uniform: Tensor) -> Tensor:
        """Leaves [B], each with probability leaf / total, for ``uniform`` [levels,B] in [0, 1).

        The first row says in which node of the uppermost level that share of the total sum lies, each further row in
        which of its children: one number for each level, so that no difference of large sums is taken. A leaf of
        priority 0 is never drawn, whatever is rounded on the way.
        """
        cumulative = self.levels[-1].cumsum(0)
        node = torch.searchsorted(cumulative, uniform[0] * cumulative[-1], right=True)
        for rows, share in zip(reversed(self.rows), uniform[1:], strict=True):
            cumulative = rows.index_select(0, node).cumsum(-1)
            child = torch.searchsorted(cumulative, (share * cumulative[:, -1]).unsqueeze(-1), right=True)
            node = torch.add(child.squeeze(-1), node, alpha=FANOUT)
        return node

    def sample(self, uniform: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Leaves [B], one of each Bth part of the total, for ``uniform`` [levels,B] in [0, 1); and their weights, (P /
        min P)^(−``beta``) in float32."""
        size = uniform.shape[1]
        if len(self._strata) != size:
            self._strata = torch.arange(size, dtype=torch.float64, device=uniform.device)
        # Strata of the uppermost level only: draws of the levels below are independent.
        uniform[0].add_(self._strata).div_(size)
        # Rounded up, the last draw could be 1 itself.
        leaf = self.draw(uniform.clamp_(max=1.0 - 1e-15))
        priority = self.levels[0].index_select(0, leaf)
        return leaf, (priority.amin() / priority).pow_(beta).float()

    @property
    def total(self) -> Tensor:
        """The sum of all leaves, 0-d."""
        return self.levels[-1].sum()
