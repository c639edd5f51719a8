"""Records that several families share. Shape legend: ``B`` states, ``D`` action dimensions, ``O`` observation size,
``N`` parallel environments, ``M`` costs, ``S = 1 + M`` signals (reward first)."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.frozen
class Spec:
    """What a buffer stores: observation and action sizes, number of signals, and the discount γ of one step."""

    obs_size: int
    action_size: int
    signals: int
    gamma: float


@attrs.frozen
class Transition:
    """One step of ``N`` environments: what :meth:`cvpo.CVPO.observe` and ``store.add`` take.

    ``obs``, ``next_obs`` [N,O]; ``action`` [N,D], the policy's own; ``signals`` [S,N]; ``terminated``, ``truncated``
    [N] bool. ``next_obs`` is the observation that ended the step, never that of a reset.
    """

    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor


@attrs.frozen
class Batch:
    """Replayed transitions: ``signals`` [S,B] summed over the n steps with γ, ``discount`` [B] = γ to the power n,
    ``terminated`` [B] bool (not folded into ``discount``), ``weight`` [B] importance weights, ``index`` [B]."""

    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    discount: Tensor
    weight: Tensor
    index: Tensor
