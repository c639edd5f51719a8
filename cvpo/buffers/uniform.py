"""Uniform replay of single steps."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.buffers.memory import Fields
from cvpo.buffers.ring import Ring
from cvpo.types import Batch, Spec, Transition
from cvpo.validators import number


@attrs.frozen
class UniformBuffer:
    """``P(i) = 1 / size``: every stored transition is equally likely, with replacement.

    ``capacity`` in transitions, over all environments.
    """

    capacity: int = attrs.field(default=1_000_000, validator=number(ge=1, integer=True))

    summary: ClassVar[str] = "uniform replay of single steps"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> UniformStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return UniformStore(self.capacity, spec, num_envs, device, generator)


class UniformStore:
    """Single transitions in a :class:`~cvpo.buffers.ring.Ring`."""

    def __init__(self, capacity: int, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        self.generator = generator
        self.ring = Ring(capacity, num_envs, transition_fields(spec), device)
        self.gamma = spec.gamma

    def __len__(self) -> int:
        return len(self.ring)

    def add(self, transition: Transition) -> None:
        self.ring.add(**stored(transition))

    def extend(self, transitions: Transition) -> Tensor:
        """Add T steps at once, every tensor with a leading axis T; the rows that are kept."""
        return self.ring.extend(**stored(transitions))

    def sample(self, size: int) -> Batch:
        return self.at(*self.ring.ages(size, self.generator))

    def at(self, age: Tensor, env: Tensor) -> Batch:
        """The transitions of these ages [B] and environments [B], weights 1."""
        index = self.ring.row(age) * self.ring.num_envs + env
        data = self.ring.rows_at(index)
        size = len(index)
        return Batch(
            obs=data["obs"],
            action=data["action"],
            signals=data["signals"].T,
            next_obs=data["next_obs"],
            terminated=data["terminated"],
            discount=data["signals"].new_full((size,), self.gamma),
            weight=data["signals"].new_ones(size),
            index=index,
        )

    def reprioritise(self, index: Tensor, td: Tensor) -> None:
        """Uniform sampling has no priorities."""

    def state_dict(self) -> dict[str, Any]:
        return self.ring.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ring.load_state_dict(state)


def transition_fields(spec: Spec) -> Fields:
    """Shapes and types of a stored transition."""
    return {
        "obs": ((spec.obs_size,), torch.float32),
        "action": ((spec.action_size,), torch.float32),
        "signals": ((spec.signals,), torch.float32),
        "next_obs": ((spec.obs_size,), torch.float32),
        "terminated": ((), torch.bool),
        "done": ((), torch.bool),
    }


def stored(transition: Transition) -> dict[str, Tensor]:
    """The fields of :func:`transition_fields`, from a transition [N,...] or a stack of them [T,N,...]."""
    return {
        "obs": transition.obs,
        "action": transition.action,
        "signals": transition.signals.mT,
        "next_obs": transition.next_obs,
        "terminated": transition.terminated,
        "done": transition.terminated | transition.truncated,
    }
