"""What the library logs of an E-step, against the definitions written out for one problem of a stack."""

from __future__ import annotations

import pytest
import torch

from cvpo.estep import DualProblem, Status, registry
from cvpo.estep.metrics import expectation_metrics


def stack(prior: bool) -> DualProblem:
    """Three problems with two costs: the second cost of the first two is active, the third problem is infeasible."""
    generator = torch.Generator().manual_seed(0)
    reward, costs, logits = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 16, 8), (3, 2, 16, 8), (3, 16, 8))
    )
    limit = torch.tensor([[5.0, -0.1], [5.0, -0.15], [5.0, -4.0]])
    return DualProblem(reward, costs, limit, 0.1, logits if prior else None)


@pytest.mark.parametrize("prior", [False, True])
def test_metrics_are_what_they_are_said_to_be(prior: bool):
    problem = stack(prior)
    solution = registry.create("newton").solve(problem)
    metrics = expectation_metrics(problem, solution)
    assert all(value.shape == (3,) for value in metrics.values())
    for i in range(3):
        w, p = solution.weights[i], torch.exp(problem.log_p[i])
        kl = float((w * (w / p).log()).sum(-1).mean()) / 0.1
        assert float(metrics["kl"][i]) == pytest.approx(kl, rel=1e-9)
        spread = [float(row.max() - row.min()) for row in problem.q_reward[i]]
        assert float(metrics["q_range"][i]) == pytest.approx(sum(spread) / len(spread))
        for m in range(2):
            cost = float((w * problem.q_cost[i, m]).sum()) / 16
            assert float(metrics[f"cost_{m}"][i]) == pytest.approx(cost)
            assert metrics[f"lam_{m}"][i] == solution.lam[i, m]
            assert metrics[f"limit_{m}"][i] == problem.cost_limit[i, m]
    statuses = {status: metrics[status.name.lower()].tolist() for status in Status}
    assert statuses[Status.OK] == [1.0, 1.0, 0.0] and statuses[Status.INFEASIBLE] == [0.0, 0.0, 1.0]
    assert sum(sum(values) for values in statuses.values()) == 3.0
    assert metrics["kl"][:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_single_problem_without_costs_has_numbers():
    generator = torch.Generator().manual_seed(0)
    problem = DualProblem(torch.randn(4, 3, generator=generator), None, None, 0.1)
    metrics = expectation_metrics(problem, registry.create("newton").solve(problem))
    assert all(value.ndim == 0 for value in metrics.values())
    assert not any(name.startswith(("lam", "cost", "limit")) for name in metrics)
    assert float(metrics["kl"]) == pytest.approx(1.0, abs=1e-4)


def test_an_action_that_the_prior_excludes_counts_for_nothing():
    prior = torch.tensor([[0.0, 0.0, -torch.inf]]).log_softmax(-1)
    problem = DualProblem(torch.tensor([[1.0, 0.0, 9.0]]), None, None, 0.1, prior)
    metrics = expectation_metrics(problem, registry.create("newton").solve(problem))
    assert float(metrics["kl"]) == pytest.approx(1.0, abs=1e-4)
