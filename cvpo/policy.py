"""Policy networks: frozen configurations that build an ``nn.Module`` mapping observations to a distribution."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import attrs
import torch
from torch import Tensor, nn

from cvpo.distributions import Categorical, Gaussian
from cvpo.errors import ConfigError
from cvpo.handover import require_members
from cvpo.networks import ACTIVATIONS, StackedMLP
from cvpo.registry import Registry
from cvpo.validators import as_tuple, flag, number, one_of, sizes

registry = Registry(
    "policy",
    {
        "diagonal": "cvpo.policy:DiagonalPolicy",
        "cholesky": "cvpo.policy:CholeskyPolicy",
        "categorical": "cvpo.policy:CategoricalPolicy",
    },
    group="cvpo.policies",
)


class Policy(Protocol):
    """``π(a|s)``: a frozen configuration that builds a network from observations to a distribution over actions.

    ``discrete`` says for which actions: False for a :class:`~cvpo.distributions.Gaussian` over the policy's own
    actions, in [-1, 1] in each dimension; True for a :class:`~cvpo.distributions.Categorical` over one-hot ones, or for
    what offers the same. The agent owns the network, its old copy and its optimiser, and calls it in training mode.
    """

    @property
    def discrete(self) -> bool: ...

    def build(
        self, obs_size: int, action_size: int, population: int = 1, generator: torch.Generator | None = None
    ) -> nn.Module:
        """A new network, float32 on the CPU, its parameters drawn with ``generator``: observations [...,B,O] to a
        distribution over actions [...,B,D]. ``population`` > 1 gives every parameter, and both, a leading axis P."""
        ...


@attrs.frozen
class GaussianPolicy:
    """``π(a|s) = N(μ(s), L(s) L(s)ᵀ)`` with ``μ = tanh(m(s))`` or ``m(s)`` and the scale inside a range.

    Scales are ``exp`` of a sigmoid between the logarithms of ``scale_min`` and ``scale_max`` and start at
    ``scale_init``; actions live in [-1, 1] per dimension, so scales are in units of half the action range.
    ``state_dependent=False`` learns one scale for all states. Source: CVPO (arXiv 2201.11927), section 5.
    """

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=as_tuple, validator=sizes)
    activation: str = attrs.field(default="relu", validator=one_of(ACTIVATIONS))
    layer_norm: bool = attrs.field(default=False, validator=flag)
    mean: str = attrs.field(default="tanh", validator=one_of(("tanh", "free")))
    state_dependent: bool = attrs.field(default=True, validator=flag)
    scale_min: float = attrs.field(default=0.02, validator=number(gt=0))
    scale_max: float = attrs.field(default=1.0, validator=number(gt=0))
    scale_init: float = attrs.field(default=0.5, validator=number(gt=0))

    discrete: ClassVar[bool] = False
    cholesky: ClassVar[bool] = False

    def __attrs_post_init__(self) -> None:
        if not self.scale_min < self.scale_init < self.scale_max:
            raise ConfigError(
                f"{type(self).__name__}.scale_init is {self.scale_init}; allowed: between scale_min={self.scale_min} "
                f"and scale_max={self.scale_max}"
            )

    def build(
        self, obs_size: int, action_size: int, population: int = 1, generator: torch.Generator | None = None
    ) -> GaussianNet:
        """The network, float32 on the CPU: [...,B,O] to a Gaussian over [...,B,D]; P > 1 adds a leading axis P."""
        return GaussianNet(self, obs_size, action_size, population, generator)


@attrs.frozen
class DiagonalPolicy(GaussianPolicy):
    __doc__ = GaussianPolicy.__doc__
    summary: ClassVar[str] = "Gaussian with a diagonal covariance, tanh-bounded or free mean"


@attrs.frozen
class CholeskyPolicy(GaussianPolicy):
    __doc__ = GaussianPolicy.__doc__
    summary: ClassVar[str] = "Gaussian with a full covariance through its Cholesky factor"
    cholesky: ClassVar[bool] = True


class GaussianNet(nn.Module):
    """The network of a :class:`GaussianPolicy`; ``forward(obs)`` returns a :class:`~cvpo.distributions.Gaussian`."""

    def __init__(
        self,
        config: GaussianPolicy,
        obs_size: int,
        action_size: int,
        population: int,
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.rows: Tensor
        self.columns: Tensor
        self.action_size = action_size
        self.population = population
        self.tanh = config.mean == "tanh"
        self.state_dependent = config.state_dependent
        self.below = action_size * (action_size - 1) // 2 if config.cholesky else 0
        self.parts = [action_size, action_size, self.below]
        scales = action_size + self.below
        self.mlp = StackedMLP(
            population,
            obs_size,
            config.hidden,
            action_size + (scales if config.state_dependent else 0),
            activation=config.activation,
            layer_norm=config.layer_norm,
            # A small head starts every state at the same distribution: mean 0, scale scale_init.
            output_gain=0.01,
            generator=generator,
        )
        if not config.state_dependent:
            self.scales = nn.Parameter(torch.zeros(population, 1, scales))
        low, high, init = (math.log(x) for x in (config.scale_min, config.scale_max, config.scale_init))
        self.log_low, self.log_range = low, high - low
        share = (init - low) / (high - low)
        self.offset = math.log(share / (1.0 - share))
        rows, columns = torch.tril_indices(action_size, action_size, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, obs: Tensor) -> Gaussian:
        require_members(obs, self.population)
        batch = obs.shape[:-1]
        out = self.mlp(obs.reshape(self.population, -1, obs.shape[-1]))
        if self.state_dependent:
            # Split, not sliced: autograd puts the parts together again at once.
            raw_mean, raw_scale, raw_below = out.split_with_sizes(self.parts, -1)
        else:
            raw_mean = out
            raw_scale, raw_below = self.scales.expand(-1, out.shape[1], -1).split_with_sizes(self.parts[1:], -1)
        mean = torch.tanh(raw_mean) if self.tanh else raw_mean
        share = torch.sigmoid(raw_scale + self.offset)
        scale = torch.exp(self.log_low + self.log_range * share)
        if self.below:
            factor = torch.diag_embed(scale)
            # Rows relative to their diagonal: the correlation does not depend on the scale.
            factor[..., self.rows, self.columns] = raw_below * scale[..., self.rows]
            return Gaussian(mean.reshape(*batch, -1), factor.reshape(*batch, self.action_size, self.action_size))
        return Gaussian(mean.reshape(*batch, -1), scale.reshape(*batch, -1))


@attrs.frozen
class CategoricalPolicy:
    """``π(a|s) = softmax(l(s))`` over n actions, one-hot [...,B,n]: the E-step is then exact, with every action a
    particle and ``log_prior = log π_old``."""

    hidden: tuple[int, ...] = attrs.field(default=(256, 256), converter=as_tuple, validator=sizes)
    activation: str = attrs.field(default="relu", validator=one_of(ACTIVATIONS))
    layer_norm: bool = attrs.field(default=False, validator=flag)

    summary: ClassVar[str] = "categorical over discrete actions; the E-step is exact"
    discrete: ClassVar[bool] = True

    def build(
        self, obs_size: int, action_size: int, population: int = 1, generator: torch.Generator | None = None
    ) -> CategoricalNet:
        """The network, float32 on the CPU: [...,B,O] to a Categorical over n actions."""
        return CategoricalNet(self, obs_size, action_size, population, generator)


class CategoricalNet(nn.Module):
    """The network of a :class:`CategoricalPolicy`."""

    def __init__(
        self,
        config: CategoricalPolicy,
        obs_size: int,
        action_size: int,
        population: int,
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.population = population
        self.mlp = StackedMLP(
            population,
            obs_size,
            config.hidden,
            action_size,
            activation=config.activation,
            layer_norm=config.layer_norm,
            output_gain=0.01,
            generator=generator,
        )

    def forward(self, obs: Tensor) -> Categorical:
        require_members(obs, self.population)
        out = self.mlp(obs.reshape(self.population, -1, obs.shape[-1]))
        return Categorical(out.reshape(*obs.shape[:-1], -1))
