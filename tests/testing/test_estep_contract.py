"""The contract of an E-step solver: the library's solvers keep it, and solvers with a mistake do not."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

import cvpo.testing
from cvpo.cli import main
from cvpo.errors import ConfigError
from cvpo.estep import DualProblem, DualSolution, registry
from cvpo.testing import check_estep_solver, run_checks
from cvpo.testing.estep import estep_checks
from tests.testing.wrong_solvers import WRONG, LimitIgnored, NeverSure, Right

# CVPO_PROFILE=cvpo-nightly draws a hundred times as many.
EXAMPLES = settings.get_profile(os.environ.get("CVPO_PROFILE", "cvpo-ci")).max_examples
OPTIONS = {"adam": {"steps": 20}}
SOLVERS = [*((name, OPTIONS.get(name, {})) for name in registry.names()), ("newton", {"passes": "torch"})]


@pytest.mark.parametrize(("name", "options"), SOLVERS, ids=lambda part: part if isinstance(part, str) else "")
def test_every_solver_of_the_library_keeps_the_contract(name: str, options: dict) -> None:
    check_estep_solver(registry.create(name, **options), examples=EXAMPLES)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_solver_with_a_mistake_is_caught_and_the_command_prints_the_example(
    wrong: type, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{wrong.__module__}:{wrong.__name__}"
    assert main(["check", "estep", name, "--examples", "12"]) == 1
    printed = capsys.readouterr().out
    broken = printed[printed.index("FAILED") :]
    assert "DualProblem(q_reward=tensor(" in broken, "the falsifying example is part of what is printed"
    words = ("eta", "status", "overwritten", "iterations are")
    assert any(word in broken for word in words), "and so is what is wrong with the answer"


def test_the_same_scaffold_without_a_mistake_is_not_caught(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "estep", f"{Right.__module__}:Right", "--examples", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(estep_checks(Right(), examples=5)))
    assert all(line.startswith("passed  ") for line in lines)


def test_the_error_that_a_test_of_your_own_gets_carries_the_example() -> None:
    with pytest.raises(AssertionError) as caught:
        check_estep_solver(LimitIgnored(), examples=5)
    assert "DualProblem(" in "\n".join(caught.value.__notes__)


def test_checks_are_reported_one_by_one() -> None:
    checks = list(run_checks("estep", NeverSure(), examples=2))
    assert len({check.name for check in checks}) == len(checks) == len(list(estep_checks(Right())))
    assert {check.passed for check in checks} == {True, False}
    with pytest.raises(ConfigError, match="estep"):
        next(run_checks("esteps", registry.create("newton")))


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_whatever_a_solver_raises_breaks_the_property_that_met_it(kind: type[BaseException]) -> None:
    class Raises(Right):
        def solve(self, problem: DualProblem, warm: DualSolution | None = None) -> DualSolution:
            raise kind("no such luck")

    check = next(run_checks("estep", Raises(), examples=2))
    assert not check.passed and f"{kind.__name__}: no such luck" in (check.error or "")


def test_residuals_that_a_solver_does_not_answer_for_are_left_out() -> None:
    """``graded`` is about what a conic solver cannot promise, not about the witness of a status."""

    class Shy(Right):
        graded = ("simplex",)

    check_estep_solver(Shy(), examples=3)

    class ShyAndWrong(LimitIgnored):
        graded = ("simplex",)

    with pytest.raises(AssertionError, match="exceed the limits"):
        check_estep_solver(ShyAndWrong(), examples=10)


def test_each_of_several_things_that_hypothesis_found_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        first, second = AssertionError("one thing"), ValueError("another")
        second.add_note("Falsifying example: b")
        raise ExceptionGroup("Hypothesis found 2 distinct failures.", [first, second])

    monkeypatch.setitem(cvpo.testing.CONTRACTS, "estep", lambda component: [("all of it", fails)])
    (check,) = run_checks("estep", None)
    assert check.error == "one thing\n\nValueError: another\nFalsifying example: b"


def test_a_solver_that_declares_no_accuracy_fails_in_words() -> None:
    (check,) = run_checks("estep", object())
    assert not check.passed and "declares no accuracy" in str(check.error)
