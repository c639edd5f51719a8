"""The environment benchmark on one episode of a task, whose two sides must be the same episode."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.environments import measure

needs_safety = pytest.mark.skipif(not importlib.util.find_spec("safety_gymnasium"), reason="no Safety-Gymnasium")


@needs_safety
@pytest.mark.parametrize("task", ["SafetyPointCircle1-v0", "SafetyHalfCheetahVelocity-v1"])
def test_an_episode_is_that_of_the_package(task: str) -> None:
    row = measure(task, pairs=2)
    assert row["return_apart"] == row["cost_apart"] == 0.0
