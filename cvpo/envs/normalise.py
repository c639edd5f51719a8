"""Running normalisation of observations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ObservationNormaliser:
    """``o' = clip((o − mean) / std, −clip, clip)`` with the running mean and standard deviation of all observations.

    Batched Welford updates in float64 (Chan et al., 1979). Called with [...,O]; before the first update it clips
    alone.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", clip: float = 10.0, floor: float = 1e-4) -> None:
        self.clip, self.floor = clip, floor
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.square = torch.zeros(size, dtype=torch.float64, device=device)
        self._refresh()

    def update(self, obs: Tensor) -> None:
        """Take observations [N,O]."""
        obs = obs.double()
        total = self.count + obs.shape[0]
        centre = obs.mean(0)
        delta = centre - self.mean
        self.square += (obs - centre).square().sum(0) + delta.square() * (self.count * obs.shape[0] / total)
        self.mean += delta * (obs.shape[0] / total)
        self.count = total
        self._refresh()

    def __call__(self, obs: Tensor) -> Tensor:
        return ((obs - self._centre) * self._scale).clamp(-self.clip, self.clip)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).clone() for name in ("count", "mean", "square")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("count", "mean", "square"):
            setattr(self, name, state[name].to(self.mean.device).clone())
        self._refresh()

    def _refresh(self) -> None:
        std = (self.square / self.count.clamp_min(1.0)).sqrt()
        seen = self.count > 1
        self._centre = torch.where(seen, self.mean, 0.0).float()
        self._scale = torch.where(seen, 1.0 / std.clamp_min(self.floor), 1.0).float()
