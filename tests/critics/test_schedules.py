"""Schedules of the limits, and the agent's limit while one is under way."""

from __future__ import annotations

import math

import attrs
import pytest
import torch

import cvpo
from cvpo import critics
from cvpo.critics.limits import LIMIT_KINDS, to_q_scale
from cvpo.errors import ConfigError
from tests.fakes import line_agent


def test_each_goes_from_its_start_to_the_limits() -> None:
    final = (10.0, 0.0)
    assert critics.schedules.create("constant").limits(final, 0) == final
    linear = critics.schedules.create("linear", start=(50.0, 4.0), steps=100)
    assert [linear.limits(final, t) for t in (0, 25, 100, 900)] == [(50.0, 4.0), (40.0, 3.0), final, final]
    halving = critics.schedules.create("exponential", start=50.0, half_life=10)
    assert [halving.limits(final, t) for t in (0, 10, 20)] == [(50.0, 50.0), (30.0, 25.0), (20.0, 12.5)]
    assert halving.limits(final, 2000)[1] == pytest.approx(0.0, abs=1e-12)
    tightening = critics.schedules.create("linear", start=2.0, steps=10)
    assert tightening.limits((10.0,), 5) == (6.0,)


def test_a_wrong_number_of_starts_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="start has 2 values; allowed: one, or one for each of 1 costs"):
        line_agent(1, limit_schedule={"name": "linear", "start": (1.0, 2.0)})
    with pytest.raises(ConfigError, match="Linear.start is"):
        critics.schedules.create("linear", start=-1.0)


@attrs.frozen
class Backwards:
    """Limits that fall below 0 with the steps."""

    first: float = 5.0

    def limits(self, final: tuple[float, ...], step: int) -> tuple[float, ...]:
        return (self.first - step,)


def test_limits_that_are_none_are_an_error() -> None:
    for first in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="limit_schedule Backwards gives .* at step 0; allowed: a finite number"):
            line_agent(1, limit_schedule=Backwards(first))
    agent, _ = line_agent(1, limit_schedule=Backwards())
    with pytest.raises(ConfigError, match=r"limit_schedule Backwards gives \(-16.0,\) at step 21"):
        agent.learn(40, warmup_steps=20)


def test_the_agent_follows_its_schedule_in_the_steps_of_all_environments() -> None:
    agent, env = line_agent(
        2, num_envs=2, limit_schedule={"name": "linear", "start": 20.0, "steps": 200}, adaptive_horizon=False
    )
    seen = {}
    cvpo.learn(
        agent,
        240,
        env,
        warmup_steps=1_000,
        callback=lambda loop: seen.update({loop.agent.steps: loop.agent.constraint.limit.clone()}) or None,
    )
    for steps, share in ((100, 0.5), (240, 0.0)):
        limits = [c + share * (20.0 - c) for c in agent.config.cost_limits]
        expected = [to_q_scale(c, "episode", agent.config.gamma, 20) for c in limits]
        torch.testing.assert_close(seen[steps], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", LIMIT_KINDS)
@pytest.mark.parametrize(
    ("limit", "gamma", "message"),
    [
        (25.0, 1.0, "gamma is 1.0; allowed: a number between 0 and 1"),
        (25.0, 1.5, "gamma is 1.5"),
        (float("nan"), 0.99, "limit is nan; allowed: a finite number"),
        ("a", 0.99, "limit is 'a'"),
    ],
)
def test_a_limit_that_cannot_be_converted_is_named(kind, limit, gamma, message):
    with pytest.raises(ConfigError, match=message):
        to_q_scale(limit, kind, gamma, 100)
    with pytest.raises(ConfigError, match="limit_kind is None; "):
        to_q_scale(25.0, None, 0.99, 100)
