"""Solutions lie where their problems do. ``meta`` stands for a device whose values the host cannot read: an operation
that mixes devices, or that waits for a value, is an error there. Where the host may look, a stand-in with values has
an accelerator's rules (:mod:`tests.estep.stand_in_checks`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch

from cvpo.estep import DualProblem, DualSolution, kkt_residuals, registry
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
    compare(name, problem, "cuda")


def test_a_stand_in_with_the_rules_of_an_accelerator() -> None:
    """In a process of its own: a device is registered for good, and not after autograd has run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/estep/stand_in_checks.py"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout


def compare(name: str, problem: DualProblem, device: str) -> None:
    """The host's answers on ``device``, cold and warm, graded there as here."""
    solver, copy = registry.create(name), moved(problem, device)
    here, there = [solver.solve(problem)], [solver.solve(copy)]
    here.append(solver.solve(problem, here[0]))
    there.append(solver.solve(copy, there[0]))
    for ours, theirs in zip(here, there, strict=True):
        assert devices(theirs) == {device}
        assert torch.equal(theirs.status.cpu(), ours.status)
        torch.testing.assert_close(theirs.weights.cpu(), ours.weights, atol=1e-5, rtol=0)
        residual = kkt_residuals(copy, theirs).max
        assert residual.device.type == device
        torch.testing.assert_close(
            residual.cpu(), kkt_residuals(problem, ours).max, atol=1e-5, rtol=1e-5, equal_nan=True
        )
