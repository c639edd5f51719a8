"""Piecewise-linear encoding of observations between bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import utils
from torch import Tensor

from cvpo.errors import ConfigError


class PiecewiseEncoding:
    """``e_t(x) = clip(T (x − low)/(high − low) − t, 0, 1)``, t = 0 … T−1, of every bounded number of an observation.

    Called with [...,O], gives [...,``size``]: the numbers without bounds as they are, then piece after piece of the
    others. A network that sees x alone has to bend its first layer towards what counts near one end of it, as closeness
    in a lidar does; here each piece has weights of its own, and values between two edges are interpolated. ``low`` and
    ``high`` are those of the flattened ``space``; numbers outside count as on the edge. Raises ConfigError where no
    number has two bounds. Source: Gorishniy et al. (2022), arXiv 2203.05556, equation 1, with edges at even distances.
    """

    def __init__(self, space: Space[Any], pieces: int, device: torch.device | str = "cpu") -> None:
        flat: Any = utils.flatten_space(space)
        low, high = (np.asarray(each, dtype=np.float64).reshape(-1) for each in (flat.low, flat.high))
        bounded = np.isfinite(low) & np.isfinite(high) & (low < high)
        if not bounded.any():
            raise ConfigError(f"obs_pieces is {pieces} and no number of {space} has bounds; allowed: None there")
        scale = pieces / (high - low)[bounded]
        self.pieces, self.size = pieces, int((~bounded).sum() + bounded.sum() * pieces)
        self._bounded, self._free = (
            torch.as_tensor(np.flatnonzero(each), device=device) for each in (bounded, ~bounded)
        )
        self._scale, self._shift = (
            torch.as_tensor(each, dtype=torch.float32, device=device) for each in (scale, low[bounded] * scale)
        )
        self._first = torch.arange(pieces, dtype=torch.float32, device=device).unsqueeze(-1)

    def __call__(self, obs: Tensor) -> Tensor:
        scaled = obs[..., self._bounded] * self._scale - self._shift
        encoded = (scaled.unsqueeze(-2) - self._first).clamp_(0.0, 1.0)
        return torch.cat([obs[..., self._free], encoded.flatten(-2)], dim=-1)
