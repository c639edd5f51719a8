"""What the agent's own critic says of its newest episodes, where a cost limit is measured by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cvpo.learner import Learner
from cvpo.statistics import Episode

Normalise = Callable[[Tensor], Tensor]


@torch.no_grad()
def start_values(episodes: list[Episode], learner: Learner, normalise: Normalise, device: torch.device) -> Tensor:
    """``J_c = mean V_c(o₀)`` [M] of the old policy, over the first observations of ``episodes``."""
    return learner.values(normalise(_stack(episodes, "obs", device)))[1:].mean(-1).double()


@torch.no_grad()
def critic_bias(episodes: list[Episode], learner: Learner, normalise: Normalise, device: torch.device) -> Tensor:
    """``mean [Q_c(o₀, a₀) − Σ_t γᵗ c_t − γᵀ V_c(o_T)]`` [M] over ``episodes``; the last term where costs bootstrap:
    after a truncation, and after a termination too unless ``mask_cost`` stops them there.

    Where the critic underestimates the costs it is negative.
    """
    predicted = learner.q_values(normalise(_stack(episodes, "obs", device)), _stack(episodes, "action", device))[1:]
    tails = learner.values(normalise(_stack(episodes, "last", device)))[1:]
    gamma, stops = learner.config.gamma, learner.config.mask_cost
    onward = [0.0 if episode.terminated and stops else gamma**episode.length for episode in episodes]
    realised = _stack(episodes, "discounted", device).T[1:] + torch.tensor(onward, device=device) * tails
    return (predicted - realised).mean(-1).double()


#: Measures of a limit that the critic makes, by name, with what they are before the first episode has ended.
BY_CRITIC: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "critic": (start_values, torch.clone),
    "bias": (critic_bias, torch.zeros_like),
}


def _stack(episodes: list[Episode], name: str, device: torch.device) -> Tensor:
    return torch.as_tensor(np.stack([getattr(episode, name) for episode in episodes]), device=device)
