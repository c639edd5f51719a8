"""The integral part of the constraint: its arithmetic, what it is for, and that it belongs to an agent's state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cvpo
from cvpo.constraint import Constraint
from cvpo.errors import ConfigError
from cvpo.types import Transition
from tests.fakes import line_agent

GAMMA, LIMIT, HORIZON = 0.9, 5.0, 20
AIMED = LIMIT / HORIZON / (1 - GAMMA)


def constraint(costs: int = 1, **options: Any) -> Constraint:
    """That of an agent whose limit is 5 in an episode of 20 steps: 0.25 a step, 2.5 in the scale of Q."""
    agent, _ = line_agent(costs, gamma=GAMMA, cost_limits=(LIMIT,) * costs, measure_steps=4, **options)
    return agent.constraint


def step(*costs: float) -> Transition:
    return Transition(
        obs=torch.zeros(1, 3),
        action=torch.zeros(1, 2),
        signals=torch.tensor([[0.0], *([cost] for cost in costs)]),
        next_obs=torch.zeros(1, 3),
        terminated=torch.tensor([False]),
        truncated=torch.tensor([False]),
    )


@pytest.mark.parametrize("limit", ["policy", "q", "calibrated"])
def test_every_step_adds_the_excess_of_the_newest_over_the_limit(limit: str) -> None:
    of = constraint(2, integral_steps=100, limit=limit)
    for _ in range(3):
        of.add(step(2.0, 0.3))
    expected = np.array([3 * AIMED / 100, 3 * 0.5 / 100])  # an excess counts as much as the limit at the most
    np.testing.assert_allclose(of.excess, expected, atol=1e-6)
    torch.testing.assert_close(of.limit, torch.as_tensor(AIMED - expected), atol=1e-6, rtol=0)


def test_it_ends_at_sixteen_times_the_limit_and_at_nothing() -> None:
    of = constraint(integral_steps=2)
    for _ in range(100):
        of.add(step(1.0))
    assert of.excess == pytest.approx(16 * AIMED)
    for _ in range(100):
        of.add(step(0.0))
    assert of.excess == 0.0 and float(of.limit) == pytest.approx(AIMED)


@pytest.mark.parametrize(("cost", "share"), [(1.0, 1.0), (0.25, 1.0), (0.125, 0.5), (0.0, 0.0)])
def test_who_costs_less_than_the_limit_is_asked_for_less(cost: float, share: float) -> None:
    of = constraint(integral_steps=1_000_000)
    of.excess[:] = 2 * AIMED
    for _ in range(4):
        of.add(step(cost))
    assert float(of.limit) == pytest.approx(AIMED - share * 2 * AIMED, abs=1e-4)


def test_a_limit_of_zero_stays_beside_another() -> None:
    agent, _ = line_agent(2, gamma=GAMMA, cost_limits=(0.0, LIMIT), measure_steps=4, integral_steps=100)
    agent.constraint.add(step(1.0, 1.0))
    assert agent.constraint.limit[0] == 0.0 and agent.constraint.limit[1] < AIMED


def test_without_it_limits_stay() -> None:
    of = constraint()
    for _ in range(50):
        of.add(step(1.0))
    assert float(of.limit) == pytest.approx(AIMED)


@pytest.mark.parametrize("steps", [None, 200])
def test_costs_that_rise_unless_a_step_is_asked_for_less_end_at_the_limit(steps: int | None) -> None:
    """A policy whose cost a step, 1 at first, follows what it is asked for, and rises by 0.002 besides."""
    of, cost = constraint(integral_steps=steps), 1.0
    for _ in range(3_000):
        of.add(step(cost))
        asked = 0.02 * (1 - GAMMA) * float(of.limit - of.measured)
        cost = max(cost + asked + 0.002, 0.0)
    assert cost == pytest.approx(0.25 if steps else 0.35, abs=0.01)


def test_it_goes_on_where_it_was() -> None:
    first, second = (line_agent(1, seed=seed, integral_steps=500, measure_steps=8)[0] for seed in (0, 1))
    for _ in range(5):
        first.constraint.add(step(1.0))
    assert first.constraint.excess > 0
    second.load_state_dict(first.state_dict())
    assert second.constraint.excess == first.constraint.excess
    assert torch.equal(second.constraint.limit, first.constraint.limit)
    for agent in (first, second):
        for cost in (1.0, 0.0, 3.0):
            agent.constraint.add(step(cost))
    assert second.constraint.excess == first.constraint.excess


def test_each_member_of_a_population_has_its_own() -> None:
    population = cvpo.VectorAgent([line_agent(1, seed=seed, integral_steps=100)[0] for seed in (0, 1)])
    population.agents[1].constraint.add(step(2.0))
    alone = [agent.constraint for agent in population.agents]
    q_cost = torch.zeros(2, 1, 4, 3, dtype=torch.float64)
    both = population._constraints.threshold(q_cost, None)
    torch.testing.assert_close(both, torch.stack([each.threshold(q_cost[0], None) for each in alone]))
    assert alone[0].excess == 0 < alone[1].excess


def test_steps_that_are_none_are_an_error() -> None:
    with pytest.raises(ConfigError, match="integral_steps is 0"):
        line_agent(1, integral_steps=0)
