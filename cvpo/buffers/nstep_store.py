"""n-step returns, summed when steps are added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.ring import Fields
from cvpo.buffers.uniform import UniformStore
from cvpo.types import Spec, Transition


class NStepStore(UniformStore):
    """Each row holds the sums of its window as far as it goes, and ``count``, the steps in it: a step that comes is
    added to the n−1 before it whose windows are open. Steps are added once and sampled many times, so that a sample
    reads two rows of the ring and no more: its own, and that of its window's last step.

    ``done`` says where episodes end. ``_open`` [n−1,N,1], oldest first: 1 where nothing has ended since, else 0.
    """

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(config, spec, num_envs, device, generator)
        ring = self.ring
        self._reach = min(config.steps, ring.rows) - 1
        powers = torch.pow(spec.gamma, torch.arange(self._reach + 2, dtype=torch.float64, device=ring.device))
        #: γ^m for windows of m steps; what a step counts in the sums, and the count, of the windows before it.
        self._discounts = powers.float()
        before = self._discounts[1 : self._reach + 1].flip(0).to(ring.home).view(-1, 1, 1)
        self._shares = torch.cat([before.expand(-1, 1, spec.signals), torch.ones_like(before)], dim=-1)
        self._open = torch.zeros((self._reach, num_envs, 1), device=ring.home)
        self._begun = torch.ones((1, num_envs, 1), device=ring.home)
        self._single = self._begun.view(-1)

    def fields(self, spec: Spec) -> Fields:
        fields = super().fields(spec)
        signals = fields.pop("signals")
        return fields | {"signals": signals, "count": (), "done": ()}

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        done = transition.terminated | transition.truncated
        return super().stored(transition) | {"count": self._single.expand_as(done), "done": done}

    def add(self, transition: Transition) -> None:
        head, values = self.ring.head, self.stored(transition)
        self.ring.add(**values)
        if self._reach:
            self._grow(head, values["done"])

    def extend(self, transitions: Transition) -> Tensor:
        before = len(self) // self.ring.num_envs
        kept = super().extend(transitions)
        if self._reach and len(kept):
            self._grow_many(kept, min(self._reach, before, self.ring.rows - len(kept)))
            self._reopen()
        return kept

    def end(self) -> None:
        """No window goes beyond the newest step, whatever is added after it."""
        if len(self):
            self.ring.data["done"][self.ring.newest] = True
            self._open.zero_()

    def last(self, data: dict[str, Tensor], index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        ring = self.ring
        count = data["count"].long()
        ends = torch.add(index, count - 1, alpha=ring.num_envs).remainder_(ring.rows * ring.num_envs)
        ended = ring.some_fields(ring.read(ends), "next_obs", "terminated")
        return ended, self._discounts.index_select(0, count)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._reopen()

    @property
    def _sums(self) -> Tensor:
        """What adds up over a window, [T,N,W]."""
        return self.ring.columns("signals", "count")

    def _grow(self, row: int, done: Tensor) -> None:
        """Add the step at ``row`` to the open windows before it; ``done`` [N]: where its episode ends."""
        sums = self._sums
        counted = self._open * self._shares
        for rows, part in self.ring.span(row - self._reach, self._reach):
            sums[rows].addcmul_(counted[part], sums[row])
        ended = done.to(self.ring.home).unsqueeze(-1)
        self._open = torch.cat([self._open[1:], self._begun]).masked_fill_(ended, 0.0)

    def _grow_many(self, kept: Tensor, earlier: int) -> None:
        """Add the steps of the rows ``kept`` to the open windows before them, also to those of ``earlier`` rows."""
        ring = self.ring
        rows = (kept[0] + torch.arange(-earlier, len(kept), device=kept.device)) % ring.rows
        rows = rows.to(ring.home)
        done = ring.columns("done")[rows] != 0
        sums = self._sums[rows]
        single = sums.clone()
        is_open = torch.ones_like(done)
        for j in range(1, min(self._reach, len(rows) - 1) + 1):
            is_open = is_open[:-1] & ~done[j - 1 : -1]
            # What was there before is in those windows already.
            fresh = max(0, earlier - j)
            sums[fresh : len(rows) - j].addcmul_(is_open[fresh:] * self._shares[-j], single[fresh + j :])
        self._sums[rows] = sums

    def _reopen(self) -> None:
        """Which windows are open, from the newest rows; a row that was never written is not."""
        ring = self.ring
        rows = torch.arange(ring.head - self._reach, ring.head, device=ring.home) % ring.rows
        going = ring.columns("done")[rows] == 0
        self._open = going.flip(0).cumprod(0).flip(0).float()
