"""The single steps behind the saved rows of an n-step store, which hold the sums of their windows.

A window of m steps and the one that begins a step later, of m', differ by the first's own step:
``S_t − γ S_{t+1} = x_t − [m' = n] γⁿ x_{t+n}``, so from the newest row backwards each step follows from later ones.
"""

from __future__ import annotations

from typing import Any

import torch

from cvpo.types import Transition


def single_steps(saved: dict[str, Any], gamma: float) -> Transition:
    """The steps [T,N,...], oldest first, of a store's ``state_dict``; the last of the stream counts as truncated."""
    filled, steps = int(saved["filled"]), int(saved["steps"])
    data = {name: value.roll(-(int(saved["head"]) % filled), 0) for name, value in saved["data"].items()}
    count = data["count"].long()
    single = data["signals"].double()
    for t in range(filled - 2, -1, -1):
        more = count[t] > 1
        rest = single[t] - gamma * data["signals"][t + 1].double()
        if t + steps < filled:
            rest += gamma**steps * single[t + steps] * (count[t + 1] == steps).unsqueeze(-1)
        single[t] = torch.where(more.unsqueeze(-1), rest, single[t])
    terminated = data["terminated"] != 0
    truncated = (data["done"] != 0) & ~terminated
    truncated[-1] |= ~terminated[-1]
    return Transition(
        obs=data["obs"],
        action=data["action"],
        signals=single.float().mT.contiguous(),
        next_obs=data["next_obs"],
        terminated=terminated,
        truncated=truncated,
    )
