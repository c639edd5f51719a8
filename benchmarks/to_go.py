"""What came of each step: the discounted sums that a critic's values are graded by."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def followed(signals: Tensor, ended: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """``G_s,t = Σ_i γ^i x_s,t+i`` to the end of the episode [S,T,N], of ``signals`` [T,S,N]; whether 99 % of its
    weights are inside the episode [T,N]; and how many episodes ended after the step in its environment [T,N], from
    ``ended`` [T,N]."""
    needed = math.ceil(math.log(0.01) / math.log(gamma))
    total, whole, later = torch.zeros_like(signals), torch.zeros_like(ended), torch.zeros(ended.shape, dtype=torch.long)
    after, left, count = torch.zeros_like(signals[0]), torch.zeros(ended.shape[1]), torch.zeros(ended.shape[1]).long()
    for t in reversed(range(len(signals))):
        after = signals[t] + gamma * after * ~ended[t]
        left = torch.where(ended[t], 1.0, left + 1.0)
        total[t], whole[t], later[t] = after, left > needed, count
        count = count + ended[t]
    return total.transpose(0, 1), whole, later
