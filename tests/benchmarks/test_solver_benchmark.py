"""The solver benchmark runs: rows from a small profile, and the report from the rows."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import attrs
import pytest
import torch

from benchmarks import memory, report, solver_measure, solvers, speed_goals
from benchmarks.contestants import contestants
from benchmarks.fused_pass import fused_pass
from benchmarks.measuring import Inside, TimeLimit, quartiles, time_limit, timed
from benchmarks.solver_families import cases
from benchmarks.solver_problems import draw
from benchmarks.speed_goals import GOALS, alternate, loosest
from cvpo.estep import dual, registry


@pytest.fixture(autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_smallest_profile_and_its_report(tmp_path: Path) -> None:
    target = tmp_path / "solvers-smoke.jsonl"
    names = ["newton", "fd-slsqp-loose"]
    solvers.main(["--profile", "smoke", "--threads", "1", "--output", str(target), "--only", *names])
    header, *rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert header["versions"]["torch"] == torch.__version__ and header["threads"] == 1
    assert len(rows) == len(list(cases("smoke"))) * len(names) * 2 * 3
    for row in rows:
        assert row["seconds"]["p25"] <= row["seconds"]["median"] <= row["seconds"]["p75"]
        assert row["residuals"] and row["solved"] == (max(row["residuals"].values()) <= row["level"])
        assert row["evaluations"] > 0 and sum(row["statuses"].values()) == row["P"]
    assert all(row["solved"] for row in rows if row["solver"] == "newton")
    assert not all(row["solved"] for row in rows if row["solver"] == "fd-slsqp-loose")
    goal = {"kind": "goal", "goal": "g", "size": "s", "bound": "at least", "needed": 3.0, "command": "c"}
    lines = [
        goal | {"measured": 2.0, "ratio": quartiles([2.0]), "reached": False, "seconds": {"newton": quartiles([0.1])}},
        goal | {"measured": None, "reached": None, "note": "not measured: no CUDA device"},
        {"kind": "memory", "solver": "newton", "problem": "one", "bytes": 2**20, "data_bytes": 2**18},
    ]
    with target.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    report.main(["--results", str(tmp_path)])
    text = target.with_suffix(".md").read_text()
    assert "## Limitations" in text and "at least 3" in text and "1.0 MiB (4.0 times the data)" in text
    assert all((tmp_path / f"solvers-smoke-{plot}.png").stat().st_size > 0 for plot in ("profile", "scaling"))


def test_without_an_answer_nothing_is_solved() -> None:
    contestant = contestants(only=["newton"])[0]
    case = next(iter(cases("smoke")))
    for row in solver_measure.rows(contestant, case, "cold", {"status": "time limit"}, case.make()):
        assert not row["solved"] and not row["primal"]


def test_accuracy_is_made_equal_before_times_are_compared() -> None:
    problem = draw(0, states=64, particles=16)
    options, worst = loosest("analytic-slsqp", [problem], [None])
    assert worst <= 1e-6 and options["ftol"] > 1e-15


def test_goal_row() -> None:
    row = speed_goals.measure_goal(attrs.evolve(GOALS[3], count=2, particles=8), rounds=2, different=1, states=16)
    assert row["equal_accuracy"] and row["residual"]["newton"] <= 1e-6 and row["turns"] == 2
    assert row["measured"] == row["ratio"]["median"] > 0
    assert row["reached"] == (row["measured"] >= 8.0)


def test_the_fused_pass_is_what_an_iteration_needs() -> None:
    problem = draw(0, (2,), states=16, particles=8)
    q = torch.cat([problem.q_reward.unsqueeze(1), problem.q_cost], dim=1)
    x = torch.tensor([[0.7, 0.4], [1.3, 0.0]], dtype=torch.float64)
    exact = dual.evaluate(q, None, problem.cost_limit, problem.kl_epsilon, x)
    value, _, cost, aa, ab, bb = fused_pass(q, x)
    hessian = torch.stack([torch.stack([aa, ab], 1), torch.stack([ab, bb], 1)], 1) / x[:, 0].view(-1, 1, 1)
    torch.testing.assert_close(hessian, exact.hessian)
    torch.testing.assert_close(problem.cost_limit[:, 0] - cost, exact.gradient[:, 1])
    eta, constant = x[:, 0], problem.kl_epsilon - math.log(8)
    torch.testing.assert_close(eta * (value + constant) + x[:, 1] * problem.cost_limit[:, 0], exact.value)


@pytest.mark.skipif(not os.access(memory.CLEAR, os.W_OK), reason="needs /proc")
def test_memory_is_that_of_the_solve() -> None:
    row = memory.growth("newton", "stack")
    assert row["data_bytes"] == 2 * 8 * 64 * 64 * 16
    assert 0 <= row["bytes"] < 100 * row["data_bytes"]


def test_turns_alternate() -> None:
    seen: list[str] = []
    times = alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2)
    assert "".join(seen) == "ab" + "ab" + "ba" and {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}


def test_time_limit() -> None:
    with pytest.raises(TimeLimit), time_limit(0.05):
        time.sleep(5.0)
    with time_limit(5.0):
        pass


def test_a_slow_call_is_timed_once() -> None:
    times, warmed_up = timed(lambda: time.sleep(0.02), 0.03)
    assert len(times) == 1 and not warmed_up
    times, warmed_up = timed(lambda: None, 0.01)
    assert warmed_up and len(times) == 25


def test_inside_a_solve() -> None:
    problem = draw(0, (2,), states=8, particles=4)
    solver, inside = registry.create("newton"), Inside()
    with inside.watch(solver):
        steps = int(solver.solve(problem).iterations.max())
    # Each step evaluates the dual of both problems, and so does the start.
    assert inside.evaluations == 2 * (steps + 1)
    assert inside.solve_seconds is not None and 0 < inside.solve_seconds < math.inf
    outside = inside.evaluations
    solver.solve(problem)
    assert inside.evaluations == outside
