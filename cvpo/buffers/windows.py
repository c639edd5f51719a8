"""Replayed windows with their single steps, for returns that correct for the policy that took them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from cvpo.buffers.nstep_store import NStepStore
from cvpo.buffers.ring import Fields
from cvpo.types import Spec, Transition, Window

STEP = "step_"
"""Before the name of what a row holds of its own step, beside that of its window."""


class WindowStore(NStepStore):
    """An n-step store whose rows hold their own step too; ``count`` is how many steps the window of a row has."""

    summed: ClassVar[tuple[str, ...]] = ("signals", "count")

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(config, spec, num_envs, device, generator)
        self._steps = torch.arange(config.steps, device=self.ring.device)

    def shares(self, powers: Tensor, spec: Spec) -> Tensor:
        return torch.cat([super().shares(powers, spec), torch.ones_like(powers).unsqueeze(-1)], dim=-1)

    def fields(self, spec: Spec) -> Fields:
        fields = super().fields(spec)
        first = {name: fields.pop(name) for name in ("obs", "action", "signals")}
        own = {STEP + name: fields.get(name, first.get(name, ())) for name in ("signals", *self.last)}
        return first | {"count": ()} | fields | own | {"log_prob": ()}

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        values = super().stored(transition)
        own = {STEP + name: values[name] for name in ("signals", *self.last)}
        count = torch.ones_like(values["discount"])
        log_prob = torch.full_like(count, torch.nan) if transition.log_prob is None else transition.log_prob
        return values | own | {"count": count, "log_prob": log_prob}

    def window(self, data: dict[str, Tensor], index: Tensor) -> Window:
        ring = self.ring
        count = data["count"].long().unsqueeze(-1)
        # Steps after the last one become the last one: what lies there may never have been written.
        steps = torch.minimum(self._steps, count - 1)
        own = ring.fields(ring.read((index.unsqueeze(-1) + steps * ring.num_envs) % (ring.rows * ring.num_envs)))
        return Window(
            obs=own["obs"],
            action=own["action"],
            signals=own[STEP + "signals"].movedim(-1, 0),
            next_obs=own[STEP + "next_obs"],
            terminated=own[STEP + "terminated"] != 0,
            log_prob=own["log_prob"],
            inside=self._steps < count,
        )
