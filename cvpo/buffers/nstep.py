"""Uniform replay with n-step returns."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch

from cvpo.buffers.nstep_store import NStepStore
from cvpo.buffers.ring import STORAGE
from cvpo.buffers.uniform import UniformStore
from cvpo.buffers.windows import WindowStore
from cvpo.types import Spec
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

    def build(self, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> UniformStore:
        """An empty store; raises ConfigError, with the bytes it takes, where it does not fit."""
        return store_for(self, spec, num_envs, device, generator)


def store_for(config: Any, spec: Spec, num_envs: int, device: torch.device, generator: torch.Generator) -> UniformStore:
    """The store that holds no more than ``config.steps`` and ``config.windows`` ask for; a window of one step is what a
    uniform store holds."""
    kind = WindowStore if config.windows else NStepStore if config.steps > 1 else UniformStore
    return kind(config, spec, num_envs, device, generator)
