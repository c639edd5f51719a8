"""Uniform replay of single steps."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from cvpo.buffers.ring import STORAGE, Fields, Ring
from cvpo.errors import CheckpointError
from cvpo.types import Batch, Spec, Transition, Window
from cvpo.validators import number, one_of


@attrs.frozen
class UniformBuffer:
    """``P(i) = 1 / size``: every stored transition is equally likely, with replacement.

    ``capacity`` in transitions, over all environments. ``storage``: on the agent's ``"device"``, or in page-locked host
    memory, ``"pinned"``, from which samples are copied.
    """

    capacity: int = attrs.field(default=1_000_000, validator=number(ge=1, integer=True))
    storage: str = attrs.field(default="device", validator=one_of(STORAGE))

    summary: ClassVar[str] = "uniform replay of single steps"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> UniformStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return UniformStore(self, spec, num_envs, device, generator)


class UniformStore:
    """Single transitions in a :class:`~cvpo.buffers.ring.Ring`; of ``config`` it reads ``capacity`` and ``storage``,
    and ``steps``, if there are any, for those that sum over them."""

    def __init__(self, config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        self.config, self.generator, self.gamma = config, generator, spec.gamma
        self.steps: int = getattr(config, "steps", 1)
        self.ring = Ring(config.capacity, num_envs, self.fields(spec), device, config.storage)

    def __len__(self) -> int:
        return len(self.ring)

    @property
    def nbytes(self) -> int:
        """What the store takes."""
        return self.ring.nbytes

    def fields(self, spec: Spec) -> Fields:
        """Shapes of what is stored of a transition."""
        return {
            "obs": (spec.obs_size,),
            "action": (spec.action_size,),
            "signals": (spec.signals,),
            "next_obs": (spec.obs_size,),
            "terminated": (),
        }

    def stored(self, transition: Transition) -> dict[str, Tensor]:
        """The values of :meth:`fields`, from a transition [N,...] or a stack of them [T,N,...]."""
        return {
            "obs": transition.obs,
            "action": transition.action,
            "signals": transition.signals.mT,
            "next_obs": transition.next_obs,
            "terminated": transition.terminated,
        }

    def add(self, transition: Transition) -> None:
        self.ring.add(**self.stored(transition))

    def extend(self, transitions: Transition) -> Tensor:
        """Add T steps at once, every tensor with a leading axis T; the rows that are kept."""
        return self.ring.extend(**self.stored(transitions))

    def sample(self, size: int) -> Batch:
        return self.at(self.ring.draw(size, self.generator))

    def at(self, index: Tensor, weight: Tensor | None = None) -> Batch:
        """The transitions ``index`` [B] with ``weight`` [B], 1 unless given."""
        data = self.ring.fields(self.ring.read(index))
        last, discount = self.last(data, index)
        return Batch(
            obs=data["obs"],
            action=data["action"],
            signals=data["signals"].T,
            next_obs=last["next_obs"],
            terminated=last["terminated"] != 0,
            discount=discount,
            weight=torch.ones_like(discount) if weight is None else weight,
            index=index,
            window=self.window(data, index),
        )

    def last(self, data: dict[str, Tensor], index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Of the rows ``data`` at ``index``: the fields of the last step that was summed, and γ to the power of how
        many were, [B]."""
        return data, torch.full_like(data["terminated"], self.gamma)

    def window(self, data: dict[str, Tensor], index: Tensor) -> Window | None:
        """The single steps, of stores that hold them."""
        return None

    def reprioritise(self, index: Tensor, td: Tensor) -> None:
        """Uniform sampling has no priorities."""

    def state_dict(self) -> dict[str, Any]:
        return self.ring.state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CheckpointError where the saved rows do not fit, or are sums over another number of steps."""
        if state.get("steps", 1) != self.steps:
            raise CheckpointError(
                f"the saved buffer has windows of {state.get('steps', 1)} steps; allowed: {self.steps}, as this one has"
            )
        self.ring.load_state_dict(state)
