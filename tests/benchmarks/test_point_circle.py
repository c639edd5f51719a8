"""The controllers of the PointCircle benchmark drive along their paths, and the score holds them to the limit."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import cvpo
from benchmarks.point_circle import PENALTY, TASK, Controller, episode, score

needs_safety = pytest.mark.skipif(not importlib.util.find_spec("safety_gymnasium"), reason="no Safety-Gymnasium")


def test_on_its_path_a_controller_keeps_its_heading_and_outside_it_turns_in() -> None:
    controller = Controller(a=1.0, b=1.0, power=2.0, inward=1.0, turn=1.0, damping=0.0, most=1.0)
    north = np.pi / 2
    assert controller.act(1.0, 0.0, north, 0.0).tolist() == [[1.0, 0.0]]
    assert controller.act(1.2, 0.0, north, 0.0)[0, 1] == pytest.approx(0.2)
    assert controller.act(0.8, 0.0, north, 0.0)[0, 1] == pytest.approx(-0.2)


@needs_safety
def test_a_small_circle_stays_inside_and_a_large_one_pays() -> None:
    env = cvpo.envs.make(TASK, seed=0)
    env.reset()
    small, large = ([a, a, 2.0, 2.0, 5.0, 0.2, 1.2] for a in (0.7, 1.4))
    reward, cost, speed = episode(env, Controller(*small))
    assert reward > 25.0 and cost == 0.0 and 0.8 < speed < 1.6
    reward, cost, _ = episode(env, Controller(*large))
    assert cost > 100.0
    assert score(env, np.array(large), 25.0, 1) < reward - PENALTY * 50.0
