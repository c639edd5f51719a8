"""Vectorised ensemble of multilayer perceptrons: all signals and members in batched linear layers."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from cvpo.critics.aggregate import (
    Aggregate,
    CostAggregate,
    by_signal,
    check_aggregation,
    check_count,
    check_members,
    check_single,
    mean,
    resolve,
    sizes_of,
)
from cvpo.critics.network import EnsembleNet
from cvpo.handover import require_tensor
from cvpo.networks import ACTIVATIONS
from cvpo.types import Batch
from cvpo.validators import as_tuple, flag, number, one_of, sizes

PARTICLE_DTYPES = ("float32", "bfloat16")


@attrs.frozen
class MLPCritic:
    """``Q_s(o, a) = aggregate_e f_se(o, a)``: E members of each signal, each a network of its own, evaluated together.

    ``members`` E of the reward, and of each cost too unless ``cost_members`` says otherwise. ``reward`` and ``cost``
    aggregate them: ``"min"``, ``"max"``, ``"mean"``, ``"ucb:FACTOR"``, or a callable [...,E,B,K] to [...,B,K].
    ``cost`` and ``cost_members`` may be tuples with one for each cost.
    ``clip_actions`` evaluates at the action clipped to [-1, 1], which is what the environment executes, so that the
    critic need not learn that invariance. ``error`` is ``"mse"`` or ``"huber"`` (threshold 1). ``particle_dtype``
    ``"bfloat16"`` takes the products between hidden layers in bfloat16 where several actions of a state are evaluated
    without gradients, as in the E-step: for devices with instructions for it, on others it is many times slower.
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=as_tuple, validator=sizes)
    members: int = attrs.field(default=2, validator=number(ge=1, integer=True))
    activation: str = attrs.field(default="relu", validator=one_of(ACTIVATIONS))
    layer_norm: bool = attrs.field(default=False, validator=flag)
    reward: str | Aggregate = attrs.field(default="min", validator=check_single)
    cost: CostAggregate = attrs.field(default="mean", converter=as_tuple, validator=check_aggregation)
    clip_actions: bool = attrs.field(default=True, validator=flag)
    cost_members: int | tuple[int, ...] | None = attrs.field(default=None, converter=as_tuple, validator=check_members)
    error: str = attrs.field(default="mse", validator=one_of(("mse", "huber")))
    particle_dtype: str = attrs.field(default="float32", validator=one_of(PARTICLE_DTYPES))

    summary: ClassVar[str] = "vectorised ensembles of MLPs, one for each signal"

    _reward: Aggregate = attrs.field(init=False, repr=False, eq=False)
    _cost: Aggregate | tuple[Aggregate, ...] = attrs.field(init=False, repr=False, eq=False)
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
        check_count(self.cost, signals)
        return EnsembleNet(
            obs_size,
            action_size,
            sizes_of(self.members, self.cost_members, signals),
            1,
            population,
            hidden=self.hidden,
            activation=self.activation,
            layer_norm=self.layer_norm,
            clip=self.clip_actions,
            generator=generator,
            particle_dtype=getattr(torch, self.particle_dtype),
        )

    def ensemble(self, net: EnsembleNet, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """What each member says, for every signal: [...,B,O] and [...,B,K,D] to [...,E,B,K]."""
        return net.split(net(obs, actions).squeeze(-1), -3)

    def evaluate(self, net: EnsembleNet, obs: Tensor, actions: Tensor) -> Tensor:
        """Aggregated Q-values: [...,B,O] and [...,B,K,D] to [...,S,B,K]."""
        return by_signal(net.split(net(obs, actions).squeeze(-1), -3), self._reward, self._cost)

    def residual(self, net: EnsembleNet, batch: Batch, target: Tensor) -> Tensor:
        """``target_s − mean_e Q_se`` [...,S,B]."""
        values = net.split(net(batch.obs, batch.action.unsqueeze(-2)).squeeze(-1), -3)
        return target - by_signal(values, mean, mean).squeeze(-1)

    def shift(self, net: EnsembleNet, by: Tensor) -> None:
        """Add ``by`` [...,S] to all Q-values of each signal."""
        net.shift(by)

    def loss(self, net: EnsembleNet, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """``Σ_s Σ_e mean_b weight_b ℓ(Q_se − target_s)`` and ``mean_{s,e} |Q_se − target_s|`` [...,B]."""
        values = net(batch.obs, batch.action.unsqueeze(-2)).squeeze(-1).squeeze(-1)
        require_tensor("target", target, (*values.shape[:-2], len(net.members), values.shape[-1]))
        target = target.index_select(-2, net.signal)
        errors = self._elementwise(values, target, reduction="none")
        loss = (errors * batch.weight.unsqueeze(-2)).mean(-1).sum(-1)
        return loss, (values.detach() - target).abs().mean(-2)
