"""The baselines do what the practices they stand for do: no better, and no worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.baselines import AdamStep, Slsqp
from benchmarks.contestants import LEVELS, at_level, contestants, make
from benchmarks.numpy_dual import NumpyDual
from benchmarks.solver_problems import draw
from cvpo.estep import DualProblem, Status, dual, kkt_residuals, registry


@pytest.mark.parametrize("costs", [0, 1, 3])
@pytest.mark.parametrize("prior", ["uniform", "uneven", "some impossible"])
def test_numpy_dual_is_the_dual(costs: int, prior: str) -> None:
    problem = draw(0, states=8, particles=6, costs=costs)
    if prior != "uniform":
        log_prior = torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        if prior == "some impossible":
            log_prior[:, 2:4] = -torch.inf
        problem = DualProblem(problem.q_reward, problem.q_cost, problem.cost_limit, problem.kl_epsilon, log_prior)
    x = np.array([0.7, 0.4, 0.0, 1.3])[: 1 + costs]
    q = torch.cat([problem.q_reward[None], problem.q_cost])[None]
    log_prior = None if problem.log_prior is None else problem.log_prior[None]
    exact = dual.evaluate(q, log_prior, problem.cost_limit[None], problem.kl_epsilon[None], torch.from_numpy(x)[None])
    own = NumpyDual(problem, 0)
    value, gradient = own.value_and_gradient(x)
    assert value == pytest.approx(float(exact.value)) == own.value(x)
    np.testing.assert_allclose(gradient, exact.gradient[0].numpy(), atol=1e-12)
    np.testing.assert_allclose(own.weights(x), exact.weights[0].numpy(), atol=1e-12)


def test_finite_differences_never_see_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NumpyDual] = []
    original = NumpyDual.__init__

    def watched(self: NumpyDual, *arguments: Any) -> None:
        original(self, *arguments)
        seen.append(self)

    monkeypatch.setattr(NumpyDual, "__init__", watched)
    problem = draw(0, states=32, particles=8)
    differences, exact = (Slsqp(gradient=gradient, ftol=1e-12, max_iter=100) for gradient in (False, True))
    steps = int(differences.solve(problem).iterations)
    exact.solve(problem)
    assert seen[0].gradients == 0 and seen[1].values == 0
    # A value and one more for each of η and λ, at every iteration.
    assert seen[0].values >= 3 * steps
    assert seen[1].gradients < seen[0].values


def test_loose_practices_are_graded_as_less_accurate() -> None:
    problem = draw(10, states=256, particles=16)
    worst = {
        name: float(kkt_residuals(problem, at_level(name, 1e-6).solve(problem)).max)
        for name in ("newton", "fd-slsqp", "analytic-slsqp", "fd-slsqp-loose", "adam-step")
    }
    assert max(worst[name] for name in ("newton", "fd-slsqp", "analytic-slsqp")) <= 1e-6
    assert min(worst[name] for name in ("fd-slsqp-loose", "adam-step")) > 1e-3


def test_existing_practices_keep_their_settings() -> None:
    loose = make("fd-slsqp-loose", {})
    assert (loose.gradient, loose.ftol, loose.max_iter, loose.least) == (False, 1e-3, 10, 1e-6)
    problem = draw(0, states=16, particles=8)
    first = AdamStep().solve(problem)
    # From (1, 0) the first Adam step is the learning rate, by the sign of the slope.
    slope = NumpyDual(problem, 0).value_and_gradient(np.array([1.0, 0.0]))[1]
    np.testing.assert_allclose(first.eta, 1.0 - 0.02 * np.sign(slope[0]))
    following = first
    for _ in range(600):
        following = AdamStep().solve(problem, following)
    worst = [float(kkt_residuals(problem, each).max) for each in (first, following)]
    assert worst[1] < 0.1 * worst[0]


def test_stacks_are_solved_one_by_one() -> None:
    stack = draw(0, (3,), states=16, particles=8, costs=2)
    for solver in (Slsqp(), AdamStep()):
        whole = solver.solve(stack)
        assert whole.weights.shape == stack.q_reward.shape and whole.lam.shape == (3, 2)
        one = solver.solve(DualProblem(stack.q_reward[1], stack.q_cost[1], stack.cost_limit[1], 0.1))
        assert torch.equal(whole.lam[1], one.lam) and torch.equal(whole.weights[1], one.weights)


def test_success_is_what_the_optimiser_says() -> None:
    problem = draw(0, states=16, particles=8)
    assert Slsqp(max_iter=1).solve(problem).status == Status.MAX_ITER
    assert Slsqp(max_iter=100).solve(problem).status == Status.OK


def test_every_registered_solver_takes_part_at_every_level() -> None:
    field = contestants(extra=["benchmarks.baselines:AdamStep"])
    for name in [*registry.names(), "benchmarks.baselines:AdamStep"]:
        assert sorted(level for each in field if each.name == name for level in each.levels) == sorted(LEVELS)
