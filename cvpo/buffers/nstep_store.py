"""n-step returns, summed when steps are added."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from cvpo.buffers.ring import Fields
from cvpo.buffers.uniform import UniformStore
from cvpo.types import Spec, Transition


class NStepStore(UniformStore):
    """Each row holds its window as far as it goes: a step that comes is added to the n−1 before it whose windows are
    open. Steps are added once and sampled many times, so that a sample costs what it does without windows.

    ``done`` says where episodes end. ``_open`` [n−1,N,1], oldest first: 1 where nothing has ended since, else 0.
    """

    #: What adds up over a window, one field after the other; what a window has of its last step.
    summed: ClassVar[tuple[str, ...]] = ("signals",)
    last: ClassVar[tuple[str, ...]] = ("next_obs", "terminated")

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(config, spec, num_envs, device, generator)
        ring = self.ring
        self._reach = min(config.steps, ring.rows) - 1
        before = torch.arange(self._reach, 0, -1, dtype=torch.float64, device=ring.home)
        powers = torch.pow(torch.tensor(spec.gamma, dtype=torch.float64, device=ring.home), before)
        self._discounts = (powers * spec.gamma).float().view(-1, 1, 1)
        self._shares = self.shares(powers, spec).float().unsqueeze(1)
        self._open = torch.zeros((self._reach, num_envs, 1), device=ring.home)
        self._begun = torch.ones((1, num_envs, 1), device=ring.home)

    def shares(self, powers: Tensor, spec: Spec) -> Tensor:
        """[n−1,W] what a step counts in the sums of the windows before it; ``powers`` [n−1] of γ, oldest first."""
        return powers.unsqueeze(-1).expand(-1, spec.signals)

    def fields(self, spec: Spec) -> Fields:
        return super().fields(spec) | {"discount": (), "done": ()}

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        done = transition.terminated | transition.truncated
        discount = torch.full(done.shape, self.gamma, device=done.device)
        return super().stored(transition) | {"discount": discount, "done": done}

    def add(self, transition: Transition) -> None:
        head = self.ring.head
        super().add(transition)
        if self._reach:
            self._grow(head)

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

    def discount(self, data: dict[str, Tensor]) -> Tensor:
        return data["discount"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._reopen()

    def _grow(self, row: int) -> None:
        """Add the step at ``row`` to the open windows before it."""
        ring = self.ring
        sums, last, discount = (ring.columns(*names) for names in (self.summed, self.last, ("discount",)))
        counted = self._open * self._shares
        for rows, part in ring.span(row - self._reach, self._reach):
            sums[rows].addcmul_(counted[part], sums[row])
            # Exact at both ends, where a choice of elements takes twice as long.
            last[rows].lerp_(last[row], self._open[part])
            discount[rows].lerp_(self._discounts[part], self._open[part])
        going = 1.0 - ring.columns("done")[row]
        self._open = torch.cat([self._open[1:], self._begun]).mul_(going)

    def _grow_many(self, kept: Tensor, earlier: int) -> None:
        """Add the steps of the rows ``kept`` to the open windows before them, also to those of ``earlier`` rows."""
        ring = self.ring
        rows = (kept[0] + torch.arange(-earlier, len(kept), device=kept.device)) % ring.rows
        rows = rows.to(ring.home)
        done = ring.columns("done")[rows] != 0
        names = (self.summed, self.last, ("discount",))
        sums, last, discount = (ring.columns(*each)[rows] for each in names)
        single, ends = sums.clone(), last.clone()
        is_open = torch.ones_like(done)
        for j in range(1, min(self._reach, len(rows) - 1) + 1):
            is_open = is_open[:-1] & ~done[j - 1 : -1]
            # What was there before is in those windows already.
            fresh = max(0, earlier - j)
            grown = is_open[fresh:]
            windows = slice(fresh, len(rows) - j)
            sums[windows].addcmul_(grown * self._shares[-j], single[fresh + j :])
            last[windows] = torch.where(grown, ends[fresh + j :], last[windows])
            discount[windows] = torch.where(grown, self._discounts[-j], discount[windows])
        for each, value in zip(names, (sums, last, discount), strict=True):
            ring.columns(*each)[rows] = value

    def _reopen(self) -> None:
        """Which windows are open, from the newest rows; a row that was never written is not."""
        ring = self.ring
        rows = torch.arange(ring.head - self._reach, ring.head, device=ring.home) % ring.rows
        going = ring.columns("done")[rows] == 0
        self._open = going.flip(0).cumprod(0).flip(0).float()
