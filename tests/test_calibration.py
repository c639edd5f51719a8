"""The critic's bias against a critic whose error is known, and the limit that it corrects."""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from cvpo import critics
from cvpo.types import Transition
from tests.fakes import line_agent


@attrs.frozen
class Flat:
    """``Q_s = value`` everywhere: its bias is the value less what was realised."""

    summary: ClassVar[str] = "a constant"
    value: float = 3.0

    def build(self, obs_size, action_size, signals, population=1, generator=None):
        return nn.ParameterList([nn.Parameter(torch.full((signals, 1, 1), self.value))])

    def evaluate(self, net, obs, actions):
        return net[0].expand(-1, *actions.shape[:-1])

    def loss(self, net, batch, target):
        error = net[0][:, 0] - target
        return 0.0 * error.square().mean(), error.detach().abs().mean(-2)


def play(agent, steps: int, terminate: bool) -> None:
    """One episode with a cost of 1 in every step."""
    for t in range(steps):
        end = torch.tensor([t == steps - 1])
        agent.observe(
            Transition(
                obs=torch.zeros(1, 3),
                action=torch.zeros(1, 2),
                signals=torch.ones(2, 1),
                next_obs=torch.ones(1, 3),
                terminated=end & terminate,
                truncated=end & (not terminate),
            )
        )


@pytest.mark.parametrize("mask_cost", [True, False])
@pytest.mark.parametrize("terminate", [True, False])
def test_the_threshold_moves_by_the_bias(terminate: bool, mask_cost: bool) -> None:
    limit = {"name": "calibrated", "share": 0.5}
    agent, _ = line_agent(1, critic=Flat(), limit=limit, batch_size=4, mask_cost=mask_cost)
    play(agent, 10, terminate)
    metrics = agent.update()
    gamma = agent.config.gamma
    realised = np.sum(gamma ** np.arange(10)) + (0.0 if terminate and mask_cost else 3.0 * gamma**10)
    assert float(agent.constraint.measured[0]) == pytest.approx(3.0 - realised, rel=1e-5)
    expected = float(agent.constraint.limit[0]) + 0.5 * (3.0 - realised)
    assert float(metrics["estep/limit_0"]) == pytest.approx(expected, rel=1e-5)


def test_before_the_first_episode_there_is_no_correction() -> None:
    agent, env = line_agent(1, limit="calibrated")
    agent.learn(15, warmup_steps=5)
    assert agent.updates and float(agent.constraint.measured[0]) == 0.0


def test_it_is_off_by_default() -> None:
    agent, _ = line_agent(1)
    assert agent.config.limit.measure not in ("bias", "critic")
    assert critics.limits.create("q").measure == "states"
