"""Distributional critic: quantiles of the return of every signal, in one stack of networks.

Shape legend: ``S = 1 + M`` signals, ``E`` members, ``B`` states, ``K`` actions, ``N`` quantiles, ``A`` target samples.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

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


@attrs.frozen
class QuantileCritic:
    """``Z_s(o,a) ~ {z_1 … z_N}`` at levels τ_i = (2i−1)/2N; Q_r is their mean, Q_c their mean or CVaR_α.

    ``CVaR_α(Z) = (1/α) ∫_{1−α}^1 F⁻¹(τ) dτ``: the mean of the worst share α = ``cost_level`` of the returns, 1 the mean
    of all. A limit on it bounds bad episodes, not their average; what it is compared with must then be one too:
    ``limit="q"``, or ``"policy"`` with the measure ``critic`` or ``states``. Quantiles may cross; they are sorted where
    a tail is taken. ``reward`` and ``cost`` aggregate ``members`` and ``cost_members`` as in ``mlp``; in the targets,
    each quantile.

    Loss: ``Σ_i mean_j |τ_i − 1{u_ij<0}| H(u_ij)/κ`` with u_ij = target_j − z_i and H Huber's loss with threshold κ =
    ``huber``. Errors below κ count squared, which draws quantiles towards expectiles: choose κ small against the spread
    of returns. N quantiles cannot see events rarer than about 1/2N. Source: Dabney et al. (2018), arXiv 1710.10044;
    Yang et al. (2021), WCSAC.
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=as_tuple, validator=sizes)
    members: int = attrs.field(default=2, validator=number(ge=1, integer=True))
    quantiles: int = attrs.field(default=16, validator=number(ge=1, integer=True))
    cost_level: float = attrs.field(default=1.0, validator=number(gt=0, le=1))
    activation: str = attrs.field(default="relu", validator=one_of(ACTIVATIONS))
    layer_norm: bool = attrs.field(default=False, validator=flag)
    reward: str | Aggregate = attrs.field(default="min", validator=check_single)
    cost: CostAggregate = attrs.field(default="mean", converter=as_tuple, validator=check_aggregation)
    clip_actions: bool = attrs.field(default=True, validator=flag)
    cost_members: int | tuple[int, ...] | None = attrs.field(default=None, converter=as_tuple, validator=check_members)
    huber: float = attrs.field(default=0.1, validator=number(gt=0))

    distributional: ClassVar[bool] = True
    summary: ClassVar[str] = "quantiles of all signals in one network; costs by mean or CVaR"

    _reward: Aggregate = attrs.field(init=False, repr=False, eq=False)
    _cost: Aggregate | tuple[Aggregate, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_reward", resolve(self.reward))
        object.__setattr__(self, "_cost", resolve(self.cost))

    def build(
        self,
        obs_size: int,
        action_size: int,
        signals: int,
        population: int = 1,
        generator: torch.Generator | None = None,
    ) -> QuantileNet:
        """The network of all signals, members and quantiles; see :class:`cvpo.critics.protocol.Critic`."""
        check_count(self.cost, signals)
        return QuantileNet(self, obs_size, action_size, signals, population, generator)

    def ensemble(self, net: QuantileNet, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Mean or CVaR by each member, for every signal: [...,B,O] and [...,B,K,D] to [...,E,B,K]."""
        return self._scores(net, obs, actions)

    def evaluate(self, net: QuantileNet, obs: Tensor, actions: Tensor) -> Tensor:
        """Aggregated Q-values: [...,B,O] and [...,B,K,D] to [...,S,B,K]."""
        return by_signal(self._scores(net, obs, actions), self._reward, self._cost)

    def bootstrap(self, net: QuantileNet, obs: Tensor, actions: Tensor) -> Tensor:
        """Samples [...,A,S,B] of the return at the next state: A = K·N, the quantiles of every action."""
        quantiles = net.split(net(obs, actions).flatten(-2), -3)
        return by_signal(quantiles, self._reward, self._cost).movedim(-1, -3)

    def residual(self, net: QuantileNet, batch: Batch, target: Tensor) -> Tensor:
        """``mean_a target_as − mean_e mean_i z_sei`` [...,S,B], for ``target`` [...,A,S,B]."""
        values = net.split(net(batch.obs, batch.action.unsqueeze(-2)).mean(-1), -3)
        return target.mean(-3) - by_signal(values, mean, mean).squeeze(-1)

    def shift(self, net: QuantileNet, by: Tensor) -> None:
        """Add ``by`` [...,S] to all quantiles of each signal."""
        net.shift(by)

    def loss(self, net: QuantileNet, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """The quantile Huber loss against ``target`` [...,A,S,B] (or [...,S,B]), summed over S and E, and the |error of
        the mean| [...,B]."""
        z = net(batch.obs, batch.action.unsqueeze(-2)).squeeze(-2)
        if target.ndim == z.ndim - 1:
            target = target.unsqueeze(-3)
        require_tensor("target", target, (*z.shape[:-3], *target.shape[-3:-2], len(net.members), z.shape[-2]))
        samples = target.movedim(-3, -1).index_select(-3, net.signal)
        losses = quantile_huber(z, samples, net.levels, self.huber)
        loss = (losses * batch.weight.unsqueeze(-2)).mean(-1).sum(-1)
        return loss, (z.detach().mean(-1) - samples.mean(-1)).abs().mean(-2)

    def _scores(self, net: QuantileNet, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Mean or CVaR by each member, for every signal: [...,E,B,K]."""
        reward, *costs = net.split(net(obs, actions), -4)
        tail = self.cost_level < 1.0
        return reward.mean(-1), *(each.sort(-1).values @ net.tail if tail else each.mean(-1) for each in costs)


class QuantileNet(EnsembleNet):
    """N quantiles of each of G networks [...,G,B,K,N], their ``levels`` and the weights of the ``tail``."""

    levels: Tensor
    tail: Tensor

    def __init__(
        self,
        config: QuantileCritic,
        obs_size: int,
        action_size: int,
        signals: int,
        population: int,
        generator: torch.Generator | None,
    ):
        super().__init__(
            obs_size,
            action_size,
            sizes_of(config.members, config.cost_members, signals),
            config.quantiles,
            population,
            hidden=config.hidden,
            activation=config.activation,
            layer_norm=config.layer_norm,
            clip=config.clip_actions,
            generator=generator,
        )
        edges = torch.arange(config.quantiles + 1) / config.quantiles
        self.register_buffer("levels", 0.5 * (edges[1:] + edges[:-1]), persistent=False)
        self.register_buffer("tail", tail_weights(config.quantiles, config.cost_level), persistent=False)


def tail_weights(quantiles: int, level: float) -> Tensor:
    """Weights [N] that make CVaR of the ascending quantiles: each stands for 1/N of the mass, and its part in the upper
    ``level`` counts."""
    edges = torch.arange(quantiles + 1, dtype=torch.float64) / quantiles
    inside = (edges[1:] - edges[:-1].clamp(min=1.0 - level)).clamp(min=0.0)
    return (inside / inside.sum()).float()


def quantile_huber(z: Tensor, samples: Tensor, levels: Tensor, threshold: float) -> Tensor:
    """``Σ_i mean_j |τ_i − 1{u_ij<0}| H(u_ij)/κ`` [...] of ``z`` [...,N], ``samples`` [...,A] and ``levels`` τ [N]."""
    errors = samples.unsqueeze(-2) - z.unsqueeze(-1)
    slope = (levels.unsqueeze(-1) - (errors.detach() < 0).to(z.dtype)).abs()
    huber = nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=threshold)
    return (slope * huber).mean(-1).sum(-1) / threshold
