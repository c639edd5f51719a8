"""Prioritised replay: transitions in proportion to their TD errors, with importance weights for the critic's loss."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from cvpo.buffers.compiled_tree import tree_for
from cvpo.buffers.nstep import store_for
from cvpo.buffers.protocol import end_windows
from cvpo.buffers.ring import STORAGE
from cvpo.errors import ConfigError
from cvpo.handover import require_tensor
from cvpo.types import Batch, Spec, Transition
from cvpo.validators import flag, number, one_of


@attrs.frozen
class PrioritizedBuffer:
    """``P(i) = p_i / Σ p``, ``p_i = (|δ_i| + floor)^alpha``, ``weight_i = (P(i) / min_j P(j))^(−beta)`` over the batch.

    The weights are at most 1 and multiply the critic's loss and nothing else; with ``beta`` 1, the default, its mean
    gradient is that of uniform replay up to a factor of each batch, so that Q_c stays what the limit is about. A new
    transition gets the largest priority so far. Draws are stratified. ``steps`` > 1 gives n-step windows, and
    ``windows`` their single steps, as :class:`~cvpo.buffers.nstep.NStepBuffer` does; ``capacity`` in transitions;
    ``storage`` as for :class:`~cvpo.buffers.uniform.UniformBuffer` (the priorities stay on the device). Source: Schaul
    et al. (2016), arXiv 1511.05952, proportional variant.
    """

    alpha: float = attrs.field(default=0.6, validator=number(ge=0, le=1))
    beta: float = attrs.field(default=1.0, validator=number(ge=0, le=1))
    floor: float = attrs.field(default=1e-3, validator=number(gt=0))
    steps: int = attrs.field(default=1, validator=number(ge=1, integer=True))
    windows: bool = attrs.field(default=False, validator=flag)
    capacity: int = attrs.field(default=1_000_000, validator=number(ge=1, integer=True))
    storage: str = attrs.field(default="device", validator=one_of(STORAGE))

    summary: ClassVar[str] = "in proportion to TD errors, importance weights in the critic's loss"

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> PrioritizedStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return PrioritizedStore(self, spec, num_envs, device, generator)


class PrioritizedStore:
    """The transitions of a uniform or n-step store, and a tree of their priorities."""

    def __init__(
        self,
        config: PrioritizedBuffer,
        spec: Spec,
        num_envs: int,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self.config, self.generator = config, generator
        self.inner = store_for(config, spec, num_envs, device, generator)
        self.ring = self.inner.ring
        device = self.ring.device
        self.tree = tree_for(self.ring.rows * num_envs, device)
        self.largest = torch.ones((), dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def nbytes(self) -> int:
        """Of the transitions and the priorities."""
        return self.inner.nbytes + self.tree.nbytes

    def add(self, transition: Transition) -> None:
        first = self.ring.head * self.ring.num_envs
        self.inner.add(transition)
        self.tree.write_range(first, self.ring.num_envs, self.largest)

    def extend(self, transitions: Transition) -> Tensor:
        """Add T steps at once, every tensor with a leading axis T; the rows that are kept."""
        rows = self.inner.extend(transitions)
        columns = torch.arange(self.ring.num_envs, device=rows.device)
        index = (rows.unsqueeze(-1) * self.ring.num_envs + columns).flatten()
        self.tree.write(index, self.largest.expand(len(index)))
        return rows

    def end(self) -> None:
        """See :meth:`cvpo.buffers.nstep_store.NStepStore.end`."""
        end_windows(self.inner)

    def sample(self, size: int) -> Batch:
        self.ring.check_draw(size)
        shape = self.tree.shares, size
        uniform = torch.rand(shape, generator=self.generator, dtype=torch.float64, device=self.ring.device)
        return self.inner.at(*self.tree.sample(uniform, self.config.beta))

    def reprioritise(self, index: Tensor, td: Tensor) -> None:
        require_tensor("td of reprioritise", td, tuple(index.shape))
        if index.dtype != torch.int64:
            raise ConfigError(f"index of reprioritise is {index.dtype}; allowed: torch.int64, as a sample has it")
        if index.device.type == "cpu" and index.numel():
            # Loops do not look where they write.
            least, most = (end.item() for end in index.aminmax())
            if not 0 <= least <= most < len(self.inner):
                raise ConfigError(
                    f"index of reprioritise goes from {least} to {most}; allowed: 0 to {len(self.inner) - 1}, what is "
                    "stored"
                )
        priority = (td.detach().double().abs() + self.config.floor).pow(self.config.alpha)
        if priority.device.type != "cpu":
            # A look would wait for the update: what is not finite is as urgent as anything so far.
            priority = torch.where(torch.isfinite(priority), priority, self.largest)
        elif not np.isfinite(priority.sum().item()):
            raise ConfigError(f"TD errors are {td.tolist()}; allowed: finite numbers")
        self.tree.write(index, priority)
        self.largest = torch.maximum(self.largest, priority.amax())

    def state_dict(self) -> dict[str, Any]:
        written = len(self.inner)
        return {
            "inner": self.inner.state_dict(),
            "priorities": self.tree.levels[0][:written].clone(),
            "largest": self.largest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        priorities = state["priorities"].to(self.ring.device)
        self.tree.clear()
        self.tree.write(torch.arange(len(priorities), device=self.ring.device), priorities)
        self.largest = state["largest"].to(self.ring.device)
