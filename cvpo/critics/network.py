"""The network of the library's critics: all signals and ensemble members in one stack of perceptrons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvpo.errors import ConfigError
from cvpo.handover import require_members
from cvpo.networks import StackedMLP


class EnsembleNet(nn.Module):
    """``outputs`` numbers of each of G networks: [...,B,O], [...,B,K,D] to [...,G,B,K,outputs].

    The first ``members[0]`` networks are those of the reward, then come ``members[s]`` of each other signal s:
    ``signal`` [G].
    ``population`` > 1 is a leading axis P of inputs and parameters. ``clip`` evaluates at actions clipped to [-1, 1].
    ``particle_dtype``: of the products between hidden layers, of several actions a state and without gradients.
    """

    signal: Tensor

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        members: tuple[int, ...],
        outputs: int,
        population: int = 1,
        *,
        hidden: tuple[int, ...],
        activation: str,
        layer_norm: bool,
        clip: bool,
        generator: torch.Generator | None,
        particle_dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        signal = torch.arange(len(members)).repeat_interleave(torch.tensor(members))
        self.register_buffer("signal", signal, persistent=False)
        self.members = members
        self.each = len(self.signal)
        self.population = population
        self.clip = clip
        self.inputs = obs_size + action_size
        self._dtype = None if particle_dtype == torch.float32 else particle_dtype
        self.mlp = StackedMLP(
            population * self.each,
            obs_size + action_size,
            hidden,
            outputs,
            activation=activation,
            layer_norm=layer_norm,
            # Start at Q = 0: where costs are rare, a random start is unlearned over 1/(1−γ) target periods only.
            output_gain=0.01,
            generator=generator,
        )

    @torch.no_grad()
    def shift(self, by: Tensor) -> None:
        """Add ``by`` [...,S] to all outputs of each signal."""
        self.mlp.head.bias.add_(by[..., self.signal].reshape(-1, 1, 1))

    def split(self, values: Tensor, axis: int) -> tuple[Tensor, ...]:
        """What lies by network along ``axis``, by signal: the members of each, [...,E,...]."""
        return values.split_with_sizes(self.members, axis)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        expected = (*obs.shape[:-1], *actions.shape[-2:-1], self.inputs - obs.shape[-1])
        if actions.shape != expected or actions.ndim != obs.ndim + 1:
            raise ConfigError(
                f"actions have shape {list(actions.shape)} for obs of shape {list(obs.shape)}; allowed: obs [...,B,O] "
                f"and actions [...,B,K,D], of {self.inputs} numbers together"
            )
        if self.clip:
            actions = actions.clamp(-1.0, 1.0)
        dtype = None if actions.shape[-2] == 1 or torch.is_grad_enabled() else self._dtype
        if self.population > 1:
            require_members(obs, self.population)
            batch = obs.shape[1:-1]
            values = self._of_population(obs.flatten(1, -2), actions.flatten(1, -3), dtype)
            return values.unflatten(2, batch).movedim(1, len(batch)) if len(batch) > 1 else values
        batch = obs.shape[:-1]
        states, rows = obs.reshape(1, -1, obs.shape[-1]), actions.reshape(1, -1, *actions.shape[-2:])
        values = self.mlp.particles(states, rows, dtype=dtype)
        # The axis of networks comes before the last of the batch.
        return values.unflatten(1, batch).movedim(0, len(batch) - 1) if len(batch) > 1 else values

    def _of_population(self, obs: Tensor, actions: Tensor, dtype: torch.dtype | None) -> Tensor:
        """[P,B,O] and [P,B,K,D] to [P,G,B,K,outputs]."""
        if obs.device.type == "cpu" and actions.shape[-2] > 1:
            # Member by member: the activations of all at once would not stay in the cache.
            own = (slice(p * self.each, (p + 1) * self.each) for p in range(self.population))
            each = [
                self.mlp.particles(obs[p : p + 1], actions[p : p + 1], networks, dtype)
                for p, networks in enumerate(own)
            ]
            return torch.stack(each)
        obs = obs.repeat_interleave(self.each, dim=0)
        actions = actions.repeat_interleave(self.each, dim=0)
        return self.mlp.particles(obs, actions, dtype=dtype).unflatten(0, (self.population, self.each))
