"""The replay protocol and the registry of buffers."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from cvpo.registry import Registry
from cvpo.types import Batch, Spec, Transition

registry = Registry(
    "buffer",
    {
        "uniform": "cvpo.buffers.uniform:UniformBuffer",
        "nstep": "cvpo.buffers.nstep:NStepBuffer",
        "prioritized": "cvpo.buffers.prioritized:PrioritizedBuffer",
    },
    group="cvpo.buffers",
)


class Store(Protocol):
    """The state of a buffer: what it holds, and how it is sampled."""

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        ...

    def add(self, transition: Transition) -> None:
        """Append one step of all environments.

        A store may also offer ``extend(transitions)``, many steps at once with a leading axis [T,...]; without it a
        data set is added step by step. One that joins steps to windows offers ``end()``: no window goes beyond the
        newest step, as if it had been truncated.
        """
        ...

    def sample(self, size: int) -> Batch:
        """``size`` transitions drawn with replacement, with the generator given to ``build``.

        ``weight`` corrects for how they are drawn: positive, the largest of the batch 1.
        """
        ...

    def reprioritise(self, index: Tensor, td: Tensor) -> None:
        """Take note of |TD errors| [B] of the transitions ``index`` [B]; nothing to do where sampling is uniform."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything :meth:`load_state_dict` needs to go on bit-exactly: tensors, numbers, strings."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        ...


class Buffer(Protocol):
    """A frozen configuration that builds stores."""

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> Store:
        """An empty store for ``num_envs`` environments, memory allocated."""
        ...


def end_windows(store: Store) -> None:
    """What is added to ``store`` from now on does not follow on what it holds."""
    end = getattr(store, "end", None)
    if end is not None:
        end()
