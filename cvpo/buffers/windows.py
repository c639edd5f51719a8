"""Replayed windows with their single steps, for returns that correct for the policy that took them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvpo.buffers.nstep_store import NStepStore
from cvpo.buffers.ring import Fields
from cvpo.types import Spec, Transition, Window


class WindowStore(NStepStore):
    """An n-step store whose rows hold the signals of their own step too, beside the sums of their window, and the
    log-probability of their action."""

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        super().__init__(config, spec, num_envs, device, generator)
        self._steps = torch.arange(config.steps, device=self.ring.device)

    def fields(self, spec: Spec) -> Fields:
        return super().fields(spec) | {"step_signals": (spec.signals,), "log_prob": ()}

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        values = super().stored(transition)
        log_prob = transition.log_prob
        if log_prob is None:
            log_prob = torch.full_like(values["count"], torch.nan)
        return values | {"step_signals": values["signals"], "log_prob": log_prob}

    def window(self, data: dict[str, Tensor], index: Tensor) -> Window:
        ring = self.ring
        count = data["count"].long().unsqueeze(-1)
        # Steps after the last one become the last one: what lies there may never have been written.
        steps = torch.minimum(self._steps, count - 1)
        own = ring.fields(ring.read((index.unsqueeze(-1) + steps * ring.num_envs) % (ring.rows * ring.num_envs)))
        return Window(
            obs=own["obs"],
            action=own["action"],
            signals=own["step_signals"].movedim(-1, 0),
            next_obs=own["next_obs"],
            terminated=own["terminated"] != 0,
            log_prob=own["log_prob"],
            inside=self._steps < count,
        )
