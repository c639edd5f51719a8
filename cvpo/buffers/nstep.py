"""Uniform replay with n-step returns."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.buffers.uniform import UniformStore
from cvpo.types import Batch, Spec
from cvpo.validators import number


@attrs.frozen
class NStepBuffer:
    """``x = Σ_{i<m} γ^i x_{t+i}``, ``discount = γ^m``, with m <= ``steps``: n-step returns, uniformly sampled.

    A window stops at the end of its episode (termination or truncation, whose last observation bootstraps) and at the
    newest stored step, never across either. No off-policy correction. ``capacity`` in transitions.
    Source: Sutton & Barto (2018), section 7.1.
    """

    steps: int = attrs.field(default=3, validator=number(ge=1, integer=True))
    capacity: int = attrs.field(default=1_000_000, validator=number(ge=1, integer=True))

    summary: ClassVar[str] = "uniform replay with n-step returns"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> NStepStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return NStepStore(self.steps, self.capacity, spec, num_envs, device, generator)


class NStepStore(UniformStore):
    """Single steps are stored; windows are summed when they are sampled, so that nothing is stored twice."""

    def __init__(
        self, steps: int, capacity: int, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator
    ):
        super().__init__(capacity, spec, num_envs, device, generator)
        self.offsets = torch.arange(steps, device=device)
        self.powers = torch.pow(torch.tensor(spec.gamma, dtype=torch.float64, device=device), self.offsets).float()

    def at(self, age: Tensor, env: Tensor) -> Batch:
        """The windows that start at these ages [B] and environments [B], weights 1."""
        ring = self.ring
        ages = age.unsqueeze(-1) - self.offsets
        index = ring.row(ages.clamp_min(0)) * ring.num_envs + env.unsqueeze(-1)
        # Everything is read once: the windows whole, with rows of one transition each.
        data = {name: value.unflatten(0, index.shape) for name, value in ring.rows_at(index.flatten()).items()}
        done = data["done"]
        # Step i is in the window when it is stored and no earlier step of the window ended the episode.
        inside = (ages >= 0) & ((done.cumsum(-1) - done.long()) == 0)
        last = inside.sum(-1) - 1
        weights = (inside * self.powers).unsqueeze(-1)
        final = torch.arange(len(age), device=age.device), last
        return Batch(
            obs=data["obs"][:, 0],
            action=data["action"][:, 0],
            signals=(data["signals"] * weights).sum(-2).T,
            next_obs=data["next_obs"][final],
            terminated=data["terminated"][final],
            discount=self.powers[last] * self.gamma,
            weight=data["signals"].new_ones(len(age)),
            index=index[:, 0],
        )
