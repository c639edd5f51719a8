"""The E-step's states: they decide which constrained problem the fixed point of the algorithm solves."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import attrs
import torch
from torch import Tensor

from cvpo.buffers.ring import Ring
from cvpo.registry import Registry
from cvpo.types import Batch, Spec
from cvpo.validators import number

states = Registry(
    "E-step states", {"replay": "cvpo.buffers.states:ReplayStates", "recent": "cvpo.buffers.states:RecentStates"}
)


class StateSource(Protocol):
    """Where the E-step's observations come from: built by a frozen configuration, fed by the agent."""

    def add(self, obs: Tensor) -> None:
        """Take the observations [N,O] that were acted on."""
        ...

    def select(self, batch: Batch, size: int) -> Tensor:
        """``size`` observations [B,O] for the E-step, given the critic's batch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@attrs.frozen
class ReplayStates:
    """``s ~ replay``: the critic's own batch, as in the paper and its implementations."""

    summary: ClassVar[str] = "the states of the critic's batch, over all replay (the paper's)"
    #: There are no more states than the batch has.
    of_batch: ClassVar[bool] = True

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> ReplaySource:
        """A source without memory of its own."""
        return ReplaySource()


class ReplaySource:
    def add(self, obs: Tensor) -> None:
        """The buffer holds the observations already."""

    def select(self, batch: Batch, size: int) -> Tensor:
        return batch.obs[:size]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is no state."""


@attrs.frozen
class RecentStates:
    """``s ~ uniform over the newest window``: states of about the current policy; the critics learn from all replay.

    ``window`` in transitions over all environments. Memory of its own, window × O floats, so that any buffer will do.
    """

    window: int = attrs.field(default=10_000, validator=number(ge=1, integer=True))

    summary: ClassVar[str] = "uniform over the newest observations only"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> RecentSource:
        """An empty window."""
        return RecentSource(self.window, spec, num_envs, device, generator)


class RecentSource:
    def __init__(self, window: int, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator):
        self.generator = generator
        self.ring = Ring(max(window, num_envs), num_envs, {"obs": (spec.obs_size,)}, device)

    def add(self, obs: Tensor) -> None:
        self.ring.add(obs=obs)

    def select(self, batch: Batch, size: int) -> Tensor:
        return self.ring.read(self.ring.draw(size, self.generator))

    def state_dict(self) -> dict[str, Any]:
        return self.ring.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ring.load_state_dict(state)
