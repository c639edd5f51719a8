"""The critic protocol and the registry of critics.

Shape legend: ``S = 1 + M`` signals (reward first), ``E`` ensemble members, ``B`` states, ``K`` actions per state.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from cvpo.registry import Registry
from cvpo.types import Batch

registry = Registry(
    "critic",
    {
        "mlp": "cvpo.critics.mlp:MLPCritic",
        "quantile": "cvpo.critics.quantile:QuantileCritic",
        "given": "cvpo.critics.given:GivenCost",
    },
    group="cvpo.critics",
)


class Critic(Protocol):
    """``Q_s(o, a) = E[Σ_t γ^t x_s,t]`` for every signal s: a frozen configuration with three functions of a network.

    The agent owns the network that :meth:`build` returns, its target copy and its optimiser. A critic may also offer
    ``bootstrap(net, next_obs, actions)``, samples [A,S,B] of the return at the next state (its targets are then
    [A,S,B]); ``residual(net, batch, target)`` [...,S,B] and ``shift(net, by)``, the signed error of its values and what
    adds ``by`` [...,S] to all of them, for ``level_rate``; and ``ensemble(net, obs, actions)``, what each member says,
    [...,E,B,K] for every signal, for its property tests. One around another, which learns, has that as ``learned_by``.
    """

    def build(
        self,
        obs_size: int,
        action_size: int,
        signals: int,
        population: int = 1,
        generator: torch.Generator | None = None,
    ) -> nn.Module:
        """A new network, float32 on the CPU; ``population`` > 1 gives every tensor a leading axis P."""
        ...

    def evaluate(self, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """Aggregated Q-values: [...,B,O] and [...,B,K,D] to [...,S,B,K]."""
        ...

    def loss(self, net: nn.Module, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [...] against ``target`` [...,S,B], weighted by ``batch.weight``, and |TD error| [...,B]."""
        ...
