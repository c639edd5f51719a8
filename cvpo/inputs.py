"""What an agent's networks see of observations: encoded, then normalised, each where the configuration asks for it."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from gymnasium import Space
from torch import Tensor

from cvpo.config import AgentConfig
from cvpo.envs.normalise import ObservationNormaliser
from cvpo.envs.pieces import PiecewiseEncoding
from cvpo.envs.spaces import flat_size
from cvpo.types import Batch


class NetworkInputs:
    """``x = normalise(encode(o))`` of flat observations, [...,O] to [...,``size``]; replay keeps the observations.

    ``encoding`` is :class:`~cvpo.envs.pieces.PiecewiseEncoding` for ``obs_pieces``, ``normaliser``
    :class:`~cvpo.envs.normalise.ObservationNormaliser` for ``normalise_obs``, or None each.
    """

    def __init__(self, config: AgentConfig, space: Space[Any], device: torch.device) -> None:
        pieces = config.obs_pieces
        self.encoding = None if pieces is None else PiecewiseEncoding(space, pieces, device)
        self.size = flat_size(space) if self.encoding is None else self.encoding.size
        self.normaliser = ObservationNormaliser(self.size, device) if config.normalise_obs else None

    def __call__(self, obs: Tensor) -> Tensor:
        obs = self._encoded(obs)
        return obs if self.normaliser is None else self.normaliser(obs)

    def batch(self, batch: Batch) -> Batch:
        """``batch`` with its observations as the networks see them, those of its windows too."""
        if self.encoding is None and self.normaliser is None:
            return batch
        window = batch.window
        if window is not None:
            window = attrs.evolve(window, obs=self(window.obs), next_obs=self(window.next_obs))
        return attrs.evolve(batch, obs=self(batch.obs), next_obs=self(batch.next_obs), window=window)

    def update(self, obs: Tensor) -> None:
        """Take observations [N,O] into the running normalisation."""
        if self.normaliser is not None:
            self.normaliser.update(self._encoded(obs))

    def state_dict(self) -> dict[str, Any] | None:
        return None if self.normaliser is None else self.normaliser.state_dict()

    def load_state_dict(self, state: Any) -> None:
        if self.normaliser is not None:
            self.normaliser.load_state_dict(state)

    def _encoded(self, obs: Tensor) -> Tensor:
        return obs if self.encoding is None else self.encoding(obs)
