"""The contract of an E-step solver: the library's solvers keep it, and solvers with a mistake do not."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from cvpo.errors import ConfigError
from cvpo.estep import DualProblem, Status, registry
from cvpo.testing import check_estep_solver, dual_problems, edge_cases, run_checks
from cvpo.testing.estep import estep_checks
from tests.testing.wrong_solvers import WRONG, Right

OPTIONS = {"adam": {"steps": 200}}
# Interior-point and host solvers are slow; `HYPOTHESIS_PROFILE=nightly` draws a hundred times as many.
FACTOR = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1
EXAMPLES = {"newton": 25, "slsqp": 6, "osqp": 6, "cvxpy": 5, "adam": 5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", registry.names())
def test_every_solver_of_the_library_keeps_the_contract(name: str) -> None:
    solver = registry.create(name, **OPTIONS.get(name, {}))
    check_estep_solver(solver, examples=FACTOR * EXAMPLES.get(name, 5))


@pytest.mark.parametrize("name", ["newton", "slsqp", "osqp"])
def test_exact_solvers_answer_every_drawn_problem(name: str) -> None:
    """No MAX_ITER and no BACKEND_ERROR, whatever edge the problem has."""
    solver = registry.create(name)

    @settings(max_examples=FACTOR * (150 if name == "newton" else 30), derandomize=True, database=None, deadline=None)
    @given(dual_problems())
    def answers(problem: DualProblem) -> None:
        status = solver.solve(problem).status
        assert ((status == Status.OK) | (status == Status.INFEASIBLE)).all(), status

    answers()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_solver_with_a_mistake_is_caught_with_a_falsifying_example(wrong: type) -> None:
    with pytest.raises(AssertionError) as caught:
        check_estep_solver(wrong(), examples=25)
    notes = "\n".join(caught.value.__notes__)
    assert "DualProblem(" in notes, "the falsifying example is part of the error"


def test_the_same_scaffold_without_a_mistake_is_not_caught() -> None:
    check_estep_solver(Right(), examples=10)


def test_every_edge_case_is_drawn_often() -> None:
    """At least one drawn problem in fifty shows each edge that the contract names; most are far more frequent."""
    solver = registry.create("newton")
    seen: Counter[str] = Counter()

    @settings(
        max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(dual_problems())
    def count(problem: DualProblem) -> None:
        seen.update(edge_cases(problem, solver.solve(problem)))
        seen["drawn"] += 1

    count()
    total = seen.pop("drawn")
    shares = {name: number / total for name, number in sorted(seen.items())}
    print({name: f"{100 * share:.0f} %" for name, share in shares.items()})
    expected = {"K = 1", "K >= 64", "float32", "a stack", "uneven prior", "particles without prior", "constant reward"}
    expected |= {"Q_r of 1e-6 or less", "Q_r of 1e6 or more", "KL bound slack", "a cost active", "a cost inactive"}
    expected |= {"KL slack, cost active", "infeasible", "collinear costs", *(f"M = {m}" for m in range(5))}
    assert expected == set(shares)
    assert all(share >= 0.02 for share in shares.values()), shares


def test_checks_are_reported_one_by_one() -> None:
    good = list(run_checks("estep", registry.create("newton"), examples=2))
    assert all(check.passed and check.error is None for check in good)
    assert len({check.name for check in good}) == len(good) == len(list(estep_checks(Right(), examples=2)))
    broken = [check for check in run_checks("estep", WRONG[0](), examples=10) if not check.passed]
    assert broken and "DualProblem(" in broken[0].error
    with pytest.raises(ConfigError, match="estep"):
        next(run_checks("esteps", registry.create("newton")))


def test_whatever_a_solver_raises_breaks_the_property_that_met_it() -> None:
    class Raises(Right):
        def solve(self, problem: DualProblem, warm: object = None):
            raise ValueError("no such luck")

    check = next(run_checks("estep", Raises(), examples=2))
    assert not check.passed and "ValueError: no such luck" in check.error
