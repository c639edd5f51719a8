"""Metrics: means over updates without host synchronisation, and the files they are written to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Means:
    """Running means of named 0-d tensors; :meth:`add` is two tensor operations, :meth:`take` reads the host values.

    Metrics [P] of a population have lists of P means.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add one update's metrics; under other names than before, the means start anew."""
        if metrics.keys() != set(self._names):
            # The first update beyond the critics' warm-up, or a checkpoint of a version that had others.
            self._names, self._sum, self._count = tuple(metrics), None, 0
        values = torch.stack([metrics[name].to(torch.float64) for name in self._names])
        # Of a checkpoint they are on the host.
        self._sum = values if self._sum is None else self._sum.to(values.device).add_(values)
        self._count += 1

    def take(self) -> dict[str, Any]:
        """The means since the last call, empty if there was no update."""
        if self._sum is None:
            return {}
        means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))
        self._sum, self._count = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"names": self._names, "sum": None if self._sum is None else self._sum.clone(), "count": self._count}

    def member_state(self, index: int) -> dict[str, Any]:
        """What :meth:`state_dict` of one member of a population alone gives."""
        state = self.state_dict()
        return state | {"sum": None if state["sum"] is None else state["sum"][:, index].clone()}

    def load_member_states(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over the states of all members of a population, of as many updates each."""
        first, sums = states[0], [state["sum"] for state in states]
        self.load_state_dict(first | {"sum": None if first["sum"] is None else torch.stack(sums, dim=1)})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names, self._count = tuple(state["names"]), state["count"]
        self._sum = None if state["sum"] is None else state["sum"].clone()
