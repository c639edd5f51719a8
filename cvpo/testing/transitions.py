"""Hypothesis strategy for buffers: streams of transitions whose values say where they come from."""

from __future__ import annotations

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from cvpo.types import Spec, Transition


@attrs.frozen(eq=False)
class Stream:
    """T steps of N environments: ``obs`` [T,N,3] is (environment, step, noise), ``next_obs`` likewise at its end;
    ``signals`` [T,S,N], ``terminated`` and ``truncated`` [T,N]."""

    spec: Spec
    obs: Tensor
    action: Tensor
    signals: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor

    @property
    def envs(self) -> int:
        """N."""
        return self.terminated.shape[1]

    def __len__(self) -> int:
        return len(self.obs)

    def step(self, t: int) -> Transition:
        """Step ``t``, in memory of its own."""
        parts = (self.obs, self.action, self.signals, self.next_obs, self.terminated, self.truncated)
        return Transition(*(part[t].clone() for part in parts))


@st.composite
def transitions(draw: st.DrawFn, *, max_steps: int = 24) -> Stream:
    """Streams of 1 … ``max_steps`` steps of 1 … 5 environments with 0 … 2 costs: episodes that end never, now and then
    or in every step, by termination, by truncation, or by either."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed"))
    steps = draw(st.integers(1, max_steps), label="steps")
    envs = draw(st.sampled_from([1, 2, 5]), label="N")
    signals = draw(st.integers(1, 3), label="S")
    rate = draw(st.sampled_from([0.2, 0.0, 1.0]), label="share of steps that end an episode")
    share = draw(st.sampled_from([0.5, 0.0, 1.0]), label="share of ends that are terminations")
    spec = Spec(obs_size=3, action_size=2, signals=signals, gamma=draw(st.sampled_from([0.9, 0.5]), label="gamma"))

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    ends, by_termination = noise(steps, envs) < rate, noise(steps, envs) < share
    env = torch.arange(envs).expand(steps, envs).float()
    time = torch.arange(steps).unsqueeze(-1).expand(steps, envs).float()
    return Stream(
        spec=spec,
        obs=torch.stack([env, time, noise(steps, envs)], -1),
        # The policy's own actions, which an unbounded one draws beyond what the environment takes.
        action=4.0 * noise(steps, envs, 2) - 2.0,
        signals=noise(steps, signals, envs),
        next_obs=torch.stack([env, time, 2.0 + noise(steps, envs)], -1),
        terminated=ends & by_termination,
        truncated=ends & ~by_termination,
    )
