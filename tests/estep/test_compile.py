"""Newton's tensor function in one graph: ``torch.compile(fullgraph=True)``, and no second graph for other values."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from cvpo.estep import DualProblem, Status, dual, passes, registry
from cvpo.estep.newton import minimise_masked
from cvpo.estep.scaling import scale
from cvpo.estep.task import Task, cold_start, main_task
from tests.estep.problems import draw_problem

BUDGET = 2
"""Steps in the graph: each is the same code, and tracing takes time in proportion."""


def task_of(problem: DualProblem) -> tuple[Task, Tensor]:
    task = main_task(scale(problem))
    return task, cold_start(task, torch.zeros_like(task.limit))


def masked(task: Task, start: Tensor) -> tuple[Tensor, ...]:
    """(η, λ), the error and the iterations after ``BUDGET`` steps."""
    end = minimise_masked(task, start, lambda: start, 1e-8, BUDGET)
    return end.x, end.error, end.iterations


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> None:
    torch.compiler.reset()


def check_compiled(costs: int, backend: str) -> None:
    compiled = torch.compile(masked, fullgraph=True, backend=backend)
    task, start = task_of(draw_problem(50, lead=(3,), costs=costs))
    for found, right in zip(compiled(task, start), masked(task, start), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
    # Other values, other limits, an infeasible problem among them: the same graph serves, or this raises.
    with torch.compiler.set_stance("fail_on_recompile"):
        task, start = task_of(draw_problem(51, lead=(3,), costs=costs, epsilon=0.5, tightness=0.8))
        for found, right in zip(compiled(task, start), masked(task, start), strict=True):
            torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("costs", "backend"), [(0, "eager"), (1, "aot_eager"), (4, "eager")])
def test_one_graph_serves_all_values(costs: int, backend: str) -> None:
    """Any backend gets the same graph; none of these compiles machine code, which takes a minute."""
    check_compiled(costs, backend)


def test_a_shape_that_was_not_compiled_is_noticed() -> None:
    """The guard that the tests above rely on."""
    compiled = torch.compile(masked, fullgraph=True, backend="eager", dynamic=False)
    compiled(*task_of(draw_problem(52, lead=(2,), costs=0)))
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError):
        compiled(*task_of(draw_problem(52, lead=(3,), costs=0)))


@pytest.mark.skipif(not os.environ.get("CVPO_SLOW"), reason="a minute of C++ compilation; CVPO_SLOW=1 runs it")
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="inductor needs g++ or clang++")
def test_machine_code_has_the_same_answers() -> None:
    check_compiled(1, "inductor")


def test_a_fixed_budget_without_a_look_from_the_host_has_the_same_answers() -> None:
    """``check_every=None``: every problem takes the same masked steps, and is solved as with ``check_every=1``."""
    drawn = draw_problem(53, lead=(6,), costs=2, tightness=0.2)
    limit = drawn.cost_limit.clone()
    limit[0] -= 10.0
    stack = DualProblem(drawn.q_reward, drawn.q_cost, limit, 0.1)
    looked = registry.create("newton").solve(stack)
    blind = registry.create("newton", check_every=None, budget=25).solve(stack)
    assert looked.status.tolist() == blind.status.tolist() == [Status.INFEASIBLE] + [Status.OK] * 5
    torch.testing.assert_close(blind.weights, looked.weights, atol=1e-6, rtol=0)


def test_other_numbers_of_problems_are_not_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is taken for a constant, the second shows that it is not."""
    monkeypatch.setattr(passes, "CACHED", 1)

    def value_and_weights(q: Tensor, limit: Tensor, epsilon: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return dual.evaluate(q, None, limit, epsilon, x).value, dual.softmax_weights(q, None, x)

    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(value_and_weights, backend=counter, fullgraph=True)
    for problems in (3, 5, 7, 9):
        x = torch.ones(problems, 2, dtype=torch.float64)
        parts = torch.randn(problems, 2, 4, 3, dtype=torch.float64), 0.5 * x[:, 1:], 0.1 * x[:, 0], x
        torch.testing.assert_close(compiled(*parts), value_and_weights(*parts))
    assert counter.frame_count <= 2
