"""What a run measures of its episodes, and the scores of its policies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

import cvpo
from cvpo.run import Result, RunFolder, review
from cvpo.run.measure import Interval, ratio, score, troubles
from cvpo.statistics import Episode


def test_an_interval_is_the_mean_of_its_episodes() -> None:
    agent = cvpo.make_agent(*spaces(), cost_limits=(4.0, 0.0), horizon=10)
    interval = Interval(agent.config)
    empty = interval.take()
    assert empty["train/return"] is None and empty["train/limit_0"] == 4.0
    for total in ([1.0, 2.0, 0.0], [3.0, 8.0, 1.0]):
        episode = Episode(np.array(total), np.array(total) / 2, 10, np.zeros(3), np.zeros(2), np.zeros(3), False)
        interval.add(episode, np.array([7.0, 9.0]))
    saved = Interval(agent.config)
    saved.load_state_dict(interval.state_dict())
    row = interval.take()
    assert row == saved.take()
    assert (row["train/return"], row["train/length"]) == (2.0, 10.0)
    assert (row["train/cost_0"], row["train/cost_ratio_0"]) == (5.0, 1.25)
    assert (row["train/cost_1"], row["train/cost_ratio_1"]) == (0.5, float("inf"))
    assert (row["calibration/predicted_1"], row["calibration/realised_0"]) == (9.0, 2.5)
    assert interval.take() == empty


def test_a_row_says_where_nothing_is_learned() -> None:
    well = {"critic/loss": 0.5, "estep/infeasible": 1.0, "estep/nonfinite": 0.2, "estep/backend_error": 0.2}
    assert troubles(well) == {} == troubles({"train/return": None})
    assert "critic/loss is nan" in troubles({"critic/loss": math.nan})["critic"]
    assert "mstep/loss is inf" in troubles({"mstep/loss": math.inf})["mstep"]
    assert "80% of the E-steps have no solution" in troubles({**well, "estep/nonfinite": 0.6})["estep"]


def test_a_ratio_to_no_cost_at_all() -> None:
    assert (ratio(0.0, 0.0), ratio(0.1, 0.0), ratio(3.0, 2.0)) == (0.0, float("inf"), 1.5)


@pytest.mark.parametrize(("kind", "expected"), [("episode", 6.0), ("step", 0.6), ("discounted", 5.0)])
def test_a_score_is_in_the_units_of_its_limit(kind: str, expected: float) -> None:
    agent = cvpo.make_agent(*spaces(), cost_limits=(5.5,), horizon=10, limit_kind=kind)
    evaluation = cvpo.evaluation.Evaluation(
        returns=np.array([1.0, 3.0]),
        costs=np.array([[4.0], [8.0]]),
        discounted=np.array([[4.0], [6.0]]),
        lengths=np.array([10, 10]),
    )
    found = score("x", evaluation, agent.config)
    assert found.costs == (pytest.approx(expected),)
    assert found.within == (expected <= 5.5,)


def test_reviewing_a_run_repeats_its_last_evaluation(finished: tuple[RunFolder, Result]) -> None:
    folder, result = finished
    assert review.scores(folder.path) == (500, result.scores)
    _, (mode, *_) = review.scores(folder.path, 3, seed=1)
    assert mode.episodes == 3 and mode.returned != result.scores[0].returned


def spaces() -> tuple[Any, Any]:
    return Box(-1.0, 1.0, (3,)), Box(-1.0, 1.0, (2,))
