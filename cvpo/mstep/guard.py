"""The guard: every update of the network ends inside the trust region, whatever the optimiser did.

A population is a number of leading axes that observations, distributions and every parameter of the policy share; each
member has its own t. ``population=()`` is a single policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

BISECTIONS = 18
CLOSE = 0.95
AIM = 0.975


def spread(value: Tensor, like: Tensor) -> Tensor:
    """``value`` [*population] as a view that broadcasts against the parameter ``like`` [*population, ...]."""
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


@torch.no_grad()
def guard(
    measure: Callable[[], Tensor],
    params: tuple[Tensor, ...],
    old_params: tuple[Tensor, ...],
    ratios: Tensor,
    early: bool,
    sound: Tensor | bool = True,
) -> tuple[Tensor, Tensor]:
    """θ ← θ_old + t(θ − θ_old) in place, t = 1 where every KL/ε <= 1, else t < 1 with the largest KL/ε in [0.9, 1].

    ``measure()`` gives KL/ε [*population, terms] of the policy with its present ``params``; ``ratios`` is its value
    now. θ_old are the parameters of π_old, where KL = 0. Returns t [*population] and KL/ε at the end.

    A fixed number of probes shrinks the bracket of t, and the largest t seen inside is kept. ``early`` allows a look at
    the result on the way: nothing is done where all is inside, and the search stops when it is close. That costs
    nothing on a CPU; without it the same search runs masked, with no host synchronisation and the same result.
    Non-finite parameters fall back to θ_old, and so does all of it where the step is not ``sound`` [*population].
    """
    worst = ratios.amax(-1)
    inside = (worst <= 1.0) & sound
    if early and bool(inside.all()):
        return torch.ones_like(worst), ratios
    lead = worst.ndim
    finite = torch.stack([p.isfinite().flatten(lead).all(-1) for p in params]).all(0) & sound
    fitted = [torch.where(spread(finite, p), p, o) for p, o in zip(params, old_params, strict=True)]

    def move(t: Tensor) -> None:
        # lerp is exact at 0 and at 1, so that t = 1 leaves the parameters bit for bit.
        steps = [spread(t, p).to(p.dtype) for p in params]
        torch._foreach_copy_(params, torch._foreach_lerp(old_params, fitted, steps))

    low = torch.where(inside, 1.0, 0.0)
    high = torch.ones_like(low)
    low_worst = torch.where(inside, worst, 0.0)
    high_worst = worst
    best = torch.where(inside.unsqueeze(-1), ratios, 0.0)
    for probe in range(BISECTIONS):
        settled = inside | ~finite | (low_worst >= CLOSE)
        if early and bool(settled.all()):
            break
        t = torch.where(settled, low, low + (high - low) * _fraction(probe, low_worst, high_worst))
        move(t)
        now = measure()
        worst = now.amax(-1)
        good = (worst <= 1.0) & finite
        low, low_worst = torch.where(good, t, low), torch.where(good, worst, low_worst)
        best = torch.where(good.unsqueeze(-1), now, best)
        high, high_worst = torch.where(good, high, t), torch.where(good, high_worst, worst)
    move(low)
    return low, best


def _fraction(probe: int, low: Tensor, high: Tensor) -> Tensor:
    """Where in the bracket to look next, from KL/ε at its ends: where √KL is linear in t (a network's first order),
    where log KL is (far from it), and the middle (whatever it is), in turn."""
    if probe % 3 == 2:
        return torch.full_like(low, 0.5)
    guess = (AIM**0.5 - low.sqrt()) / (high.sqrt() - low.sqrt())
    if probe % 3 == 1:
        steep = (math.log(AIM) - low.log()) / (high.log() - low.log())
        guess = torch.where(low > 0.0, steep, guess)
    return torch.where((guess > 0.0) & (guess < 1.0), guess, 0.5)
