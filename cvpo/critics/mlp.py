"""Vectorised ensemble of multilayer perceptrons: all signals and members in batched linear layers."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvpo.critics.aggregate import Aggregate, by_signal, check_aggregation, resolve
from cvpo.critics.network import EnsembleNet
from cvpo.networks import ACTIVATIONS
from cvpo.types import Batch
from cvpo.validators import number, one_of, sizes


@attrs.frozen
class MLPCritic:
    """``Q_s(o, a) = aggregate_e f_se(o, a)``: S signals × E members, each a network of its own, evaluated together.

    ``members`` E per signal. ``reward`` and ``cost`` aggregate the members: ``"min"``, ``"max"``, ``"mean"``,
    ``"ucb:FACTOR"``, or a callable [...,E,B,K] to [...,B,K]. ``clip_actions`` evaluates at the action clipped to
    [-1, 1], which is what the environment executes, so that the critic need not learn that invariance.
    ``error`` is ``"mse"`` or ``"huber"`` (threshold 1).
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=tuple, validator=sizes)
    members: int = attrs.field(default=2, validator=number(ge=1, integer=True))
    activation: str = attrs.field(default="relu", validator=one_of(ACTIVATIONS))
    layer_norm: bool = False
    reward: str | Aggregate = attrs.field(default="min", validator=check_aggregation)
    cost: str | Aggregate = attrs.field(default="mean", validator=check_aggregation)
    clip_actions: bool = True
    error: str = attrs.field(default="mse", validator=one_of(("mse", "huber")))

    summary: ClassVar[str] = "vectorised ensemble of MLPs over signals × members"

    _reward: Aggregate = attrs.field(init=False, repr=False, eq=False)
    _cost: Aggregate = attrs.field(init=False, repr=False, eq=False)
    _elementwise: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_reward", resolve(self.reward))
        object.__setattr__(self, "_cost", resolve(self.cost))
        object.__setattr__(self, "_elementwise", F.mse_loss if self.error == "mse" else F.smooth_l1_loss)

    def build(
        self,
        obs_size: int,
        action_size: int,
        signals: int,
        population: int = 1,
        generator: torch.Generator | None = None,
    ) -> EnsembleNet:
        """The network of all signals and members; see :class:`cvpo.critics.protocol.Critic`."""
        return EnsembleNet(
            obs_size,
            action_size,
            signals,
            self.members,
            1,
            population,
            hidden=self.hidden,
            activation=self.activation,
            layer_norm=self.layer_norm,
            clip=self.clip_actions,
            generator=generator,
        )

    def ensemble(self, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """What each member says: [...,B,O] and [...,B,K,D] to [...,S,E,B,K]."""
        return net(obs, actions).squeeze(-1)

    def evaluate(self, net: nn.Module, obs: Tensor, actions: Tensor) -> Tensor:
        """Aggregated Q-values: [...,B,O] and [...,B,K,D] to [...,S,B,K]."""
        return by_signal(self.ensemble(net, obs, actions), self._reward, self._cost)

    def residual(self, net: nn.Module, batch: Batch, target: Tensor) -> Tensor:
        """``target_s − mean_e Q_se`` [...,S,B]."""
        return target - self.ensemble(net, batch.obs, batch.action.unsqueeze(-2)).squeeze(-1).mean(-2)

    def shift(self, net: EnsembleNet, by: Tensor) -> None:
        """Add ``by`` [...,S] to all Q-values of each signal."""
        net.shift(by)

    def loss(self, net: nn.Module, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """``Σ_s Σ_e mean_b weight_b ℓ(Q_se − target_s)`` and ``mean_{s,e} |Q_se − target_s|`` [...,B]."""
        values = self.ensemble(net, batch.obs, batch.action.unsqueeze(-2)).squeeze(-1)
        target = target.unsqueeze(-2).expand_as(values)
        errors = self._elementwise(values, target, reduction="none")
        loss = (errors * batch.weight.unsqueeze(-2).unsqueeze(-2)).mean(-1).sum((-2, -1))
        return loss, (values.detach() - target).abs().mean((-3, -2))
