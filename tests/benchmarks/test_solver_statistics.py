"""Means and profiles against numbers worked out by hand: failures must cost the time limit."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.performance import charged, performance_profile, shifted_geometric_mean


def row(solver: str, case: str, seconds: float | None, solved: bool, primal: bool | None = None) -> dict:
    found = {"solver": solver, "family": "f", "case": case, "start": "cold", "solved": solved}
    found["primal"] = solved if primal is None else primal
    return found if seconds is None else found | {"seconds": {"median": seconds}}


def test_shifted_geometric_mean_by_hand() -> None:
    # (1 + 1)(7 + 1) = 16, whose root is 4.
    assert shifted_geometric_mean([1.0, 7.0], shift=1.0) == pytest.approx(3.0)
    assert shifted_geometric_mean([2.0, 8.0], shift=0.0) == pytest.approx(4.0)


def test_failures_are_charged_the_limit() -> None:
    rows = [row("fast but wrong", "a", 1e-3, False), row("slow", "a", 0.5, True), row("none", "a", None, False)]
    times = charged(rows, limit=10.0)
    assert times == {"fast but wrong": {"f/a/cold": 10.0}, "slow": {"f/a/cold": 0.5}, "none": {"f/a/cold": 10.0}}


def test_grade_of_the_weights_alone() -> None:
    assert charged([row("s", "a", 0.5, False, primal=True)], 10.0, grade="primal") == {"s": {"f/a/cold": 0.5}}


def test_performance_profile_by_hand() -> None:
    times = {"x": {"a": 1.0, "b": 4.0, "c": 10.0}, "y": {"a": 2.0, "b": 1.0}}
    curves = performance_profile(times, limit=10.0)
    # x: 1 and 4 times the best, and c, at the limit, never; y: 2 and 1 times, and no time for c.
    for name, ratios in {"x": [1.0, 4.0], "y": [1.0, 2.0]}.items():
        np.testing.assert_allclose(curves[name][0], ratios)
        np.testing.assert_allclose(curves[name][1], [1 / 3, 2 / 3])
