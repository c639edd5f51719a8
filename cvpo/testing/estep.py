"""The contract of an E-step solver, to run on your own: ``check_estep_solver(MySolver())``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cvpo.estep import DualProblem
from cvpo.testing import estep_equivalence as equivalence
from cvpo.testing import estep_properties as properties
from cvpo.testing.drawing import fixed
from cvpo.testing.problems import dual_problems, edge_cases

Property = Callable[[Any, DualProblem], None]


def check_estep_solver(solver: Any, *, examples: int | None = None) -> None:
    """Raise AssertionError, with a falsifying example, unless ``solver`` keeps its contract on drawn problems.

    ``solver`` has ``solve(problem, warm=None) -> DualSolution`` and declares ``accuracy``, the largest residual of what
    it calls OK or INFEASIBLE (and ``graded``, the residuals it answers for, where not all). The parts are those of
    :func:`estep_checks`. ``examples`` of each are drawn, the same ones every time; None takes the number of the loaded
    hypothesis profile ("cvpo-ci" and "cvpo-nightly" are registered by :mod:`cvpo.testing`).
    """
    for _, check in estep_checks(solver, examples=examples):
        check()


def estep_checks(solver: Any, *, examples: int | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
    """The parts of :func:`check_estep_solver`: what each is about, and a call that raises AssertionError."""
    if not isinstance(getattr(solver, "accuracy", None), (int, float)):
        raise AssertionError(f"{type(solver).__name__} declares no accuracy: the largest residual of what it calls OK")
    drawn = fixed(examples or settings().max_examples)
    anything, ordinary, single = dual_problems(), dual_problems(ordinary=True), dual_problems(stacks=False)
    parts: list[tuple[str, st.SearchStrategy[DualProblem], Property]] = [
        ("solutions have the shapes, dtypes and finite weights of the contract", anything, properties.check_form),
        ("the problem is left as it was", anything, properties.check_inputs),
        ("what is called solved is within the declared accuracy", anything, properties.check_residuals),
        ("every status has its witness, computed without the library", anything, properties.check_witness),
        ("ordinary problems are solved", ordinary, properties.check_answers),
        ("objectives agree with the reference solver", single, equivalence.check_reference),
        ("a stack is solved as its problems are", dual_problems(stacks=True), equivalence.check_stack),
        ("scales, shifts and the order of particles change nothing", anything, equivalence.check_invariances),
        ("float32 problems have the solutions of float64 ones", anything, equivalence.check_float32),
        ("values that are not finite give the prior and say so", anything, properties.check_nonfinite),
        ("a warm start changes nothing but the time", anything, equivalence.check_warm),
    ]
    for name, problems, holds in parts:
        yield name, drawn(given(problems)(_run(solver, holds)))


def _run(solver: Any, holds: Property) -> Callable[[DualProblem], None]:
    def keeps(problem: DualProblem) -> None:
        if holds is properties.check_form:
            # Once is enough for the statistics: the other parts draw from the same strategy.
            for case in sorted(edge_cases(problem, solver.solve(problem))):
                event(case)
        holds(solver, problem)

    # The name is what the falsifying example shows, and seeds what is drawn.
    keeps.__name__ = holds.__name__
    return keeps
