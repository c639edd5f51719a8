"""Solutions lie where their problems do. ``meta`` stands for a device whose values the host cannot read: an operation
that mixes devices, or that waits for a value, is an error there."""

from __future__ import annotations

import attrs
import pytest
import torch

from cvpo.estep import DualProblem, DualSolution, registry
from tests.estep.problems import draw_problem

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")


def moved(problem: DualProblem, device: str) -> DualProblem:
    return attrs.evolve(
        problem,
        **{
            name: value.to(device)
            for name, value in attrs.asdict(problem, recurse=False).items()
            if isinstance(value, torch.Tensor)
        },
    )


def devices(solution: DualSolution) -> set[str]:
    parts = attrs.asdict(solution, recurse=False).values()
    return {part.device.type for part in parts if isinstance(part, torch.Tensor)}


@pytest.mark.parametrize("costs", [0, 2])
@pytest.mark.parametrize("lead", [(), (2, 2)])
def test_newton_with_a_budget_reads_no_value(costs: int, lead: tuple[int, ...]) -> None:
    problem = moved(draw_problem(0, lead, costs, prior=True, dtype=torch.float32), "meta")
    solver = registry.create("newton", check_every=None, budget=3)
    cold = solver.solve(problem)
    warm = solver.solve(problem, cold)
    for solution in (cold, warm):
        assert devices(solution) == {"meta"}
        assert solution.weights.shape == problem.q_reward.shape and solution.lam.shape == (*lead, costs)


def test_a_problem_on_two_devices_would_be_seen() -> None:
    """What the test above relies on."""
    problem = draw_problem(0)
    with pytest.raises((RuntimeError, ValueError)):
        registry.create("newton", check_every=None).solve(attrs.evolve(problem, q_reward=problem.q_reward.to("meta")))


@needs_cuda
@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("lead", [(), (3,)])
def test_an_accelerator_gives_the_answer_of_the_host(name: str, lead: tuple[int, ...]) -> None:
    problem = draw_problem(1, lead, costs=2)
    solver = registry.create(name)
    here = solver.solve(problem)
    there = solver.solve(moved(problem, "cuda"))
    again = solver.solve(moved(problem, "cuda"), there)
    assert devices(there) == devices(again) == {"cuda"}
    bound = 1e-2 if name == "adam" else 1e-5
    torch.testing.assert_close(there.weights.cpu(), here.weights, atol=bound, rtol=0)
    torch.testing.assert_close(again.weights.cpu(), here.weights, atol=bound, rtol=0)
