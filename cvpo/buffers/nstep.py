"""Uniform replay with n-step returns."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.buffers.ring import STORAGE, Fields
from cvpo.buffers.uniform import UniformStore
from cvpo.types import Batch, Spec, Transition, Window
from cvpo.validators import flag, number, one_of


@attrs.frozen
class NStepBuffer:
    """``x = Σ_{i<m} γ^i x_{t+i}``, ``discount = γ^m``, with m <= ``steps``: n-step returns, uniformly sampled.

    A window stops at the end of its episode (termination or truncation, whose last observation bootstraps) and at the
    newest stored step, never across either. No off-policy correction; ``windows`` gives the single steps too
    (:class:`~cvpo.types.Window`), for returns that correct. ``capacity`` in transitions; ``storage`` as for
    :class:`~cvpo.buffers.uniform.UniformBuffer`. Source: Sutton & Barto (2018), section 7.1.
    """

    steps: int = attrs.field(default=3, validator=number(ge=1, integer=True))
    windows: bool = attrs.field(default=False, validator=flag)
    capacity: int = attrs.field(default=1_000_000, validator=number(ge=1, integer=True))
    storage: str = attrs.field(default="device", validator=one_of(STORAGE))

    summary: ClassVar[str] = "uniform replay with n-step returns"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> NStepStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return NStepStore(self, spec, num_envs, device, generator)


class NStepStore(UniformStore):
    """Single steps are stored; windows are summed when they are sampled, so that nothing is stored twice.

    ``done`` says where episodes end, ``cut`` where windows do: there, and at the newest step.
    """

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(config, spec, num_envs, device, generator)
        steps = torch.arange(config.steps, device=device)
        self._offsets = steps * num_envs
        powers = torch.pow(torch.tensor(spec.gamma, dtype=torch.float64, device=device), steps)
        # Row j of each: what holds for a window whose last step is j.
        self._inside = steps <= steps.unsqueeze(-1)
        self._stay = torch.minimum(steps, steps.unsqueeze(-1))
        self._weights = (powers * self._inside).float().unsqueeze(1)
        self._discounts = (powers * spec.gamma).float()

    def fields(self, spec: Spec) -> Fields:
        own: Fields = {"done": (), "cut": ()}
        if self.config.windows:
            own["log_prob"] = ()
        return super().fields(spec) | own

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        done = transition.terminated | transition.truncated
        own = {"done": done, "cut": done}
        if self.config.windows:
            known = transition.log_prob
            own["log_prob"] = torch.full(done.shape, torch.nan) if known is None else known
        return super().stored(transition) | own

    def add(self, transition: Transition) -> None:
        before = self.ring.newest
        super().add(transition)
        self._move_end(before)

    def extend(self, transitions: Transition) -> Tensor:
        before = self.ring.newest
        kept = super().extend(transitions)
        self._move_end(before)
        return kept

    def end(self) -> None:
        """No window goes beyond the newest step, whatever is added after it."""
        if len(self):
            self.ring.data["done"][self.ring.newest] = True

    def _move_end(self, before: int) -> None:
        """Windows end at the newest step, and no longer at the row that was the newest ``before``."""
        cut, done = self.ring.data["cut"], self.ring.data["done"]
        cut[before] = done[before]
        cut[self.ring.newest] = True

    def at(self, index: Tensor) -> Batch:
        """The windows that start at the transitions ``index`` [B], weights 1."""
        ring = self.ring
        read = ring.read((index.unsqueeze(-1) + self._offsets) % (ring.rows * ring.num_envs))
        cut = ring.scalar(read, "cut").bool()
        cut[:, -1] = True
        last = cut.view(torch.uint8).argmax(-1)
        # Steps after the last one become the last one: what was read there may never have been written.
        first = torch.arange(0, cut.numel(), self.config.steps, device=index.device)
        steps = first.unsqueeze(-1) + self._stay.index_select(0, last)
        data = ring.fields(read.flatten(0, 1).index_select(0, steps.flatten()).view_as(read))
        terminated = data["terminated"].bool()
        window = None
        if self.config.windows:
            window = Window(
                obs=data["obs"],
                action=data["action"],
                signals=data["signals"].movedim(-1, 0),
                next_obs=data["next_obs"],
                terminated=terminated,
                log_prob=data["log_prob"],
                inside=self._inside.index_select(0, last),
            )
        return Batch(
            obs=data["obs"][:, 0],
            action=data["action"][:, 0],
            signals=torch.bmm(self._weights.index_select(0, last), data["signals"]).squeeze(1).T,
            next_obs=data["next_obs"][:, -1],
            terminated=terminated[:, -1],
            discount=self._discounts.index_select(0, last),
            weight=torch.ones(len(index), device=index.device),
            index=index,
            window=window,
        )
