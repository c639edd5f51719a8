"""The network of the library's critics: all signals and ensemble members in one stack of perceptrons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cvpo.networks import StackedMLP


class EnsembleNet(nn.Module):
    """``outputs`` numbers of every signal and member: [...,B,O], [...,B,K,D] to [...,S,E,B,K,outputs].

    ``population`` > 1 is a leading axis P of inputs and parameters. ``clip`` evaluates at actions clipped to [-1, 1].
    """

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        signals: int,
        members: int,
        outputs: int,
        population: int = 1,
        *,
        hidden: tuple[int, ...],
        activation: str,
        layer_norm: bool,
        clip: bool,
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.shape = ((population,) if population > 1 else ()) + (signals, members)
        self.population = population
        self.each = signals * members
        self.clip = clip
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
        bias = self.mlp.head.bias
        bias.view(*self.shape, -1).add_(by.reshape(*self.shape[:-1], 1, 1))

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        if self.clip:
            actions = actions.clamp(-1.0, 1.0)
        if self.population > 1:
            if obs.device.type == "cpu" and actions.shape[-2] > 1:
                # Member by member: the activations of all at once would not stay in the cache.
                values = [
                    self.mlp.particles(obs[p : p + 1], actions[p : p + 1], slice(p * self.each, (p + 1) * self.each))
                    for p in range(self.population)
                ]
                return torch.cat(values).unflatten(0, self.shape)
            obs = obs.repeat_interleave(self.each, dim=0)
            actions = actions.repeat_interleave(self.each, dim=0)
            return self.mlp.particles(obs, actions).unflatten(0, self.shape)
        batch = obs.shape[:-1]
        states, rows = obs.reshape(1, -1, obs.shape[-1]), actions.reshape(1, -1, *actions.shape[-2:])
        values = self.mlp.particles(states, rows).unflatten(0, self.shape)
        if len(batch) == 1:
            return values
        lead = len(batch) - 1
        return values.unflatten(2, batch).movedim(tuple(range(2, 2 + lead)), tuple(range(lead)))
