"""The mathematics of the dual: against autograd, identities and sampled weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvpo.estep import dual, passes
from cvpo.estep.stacks import Host
from tests.estep.problems import draw_problem

CASES = [(0, False), (1, False), (2, True), (4, True)]


def _parts(costs: int, prior: bool, seed: int = 0) -> tuple[torch.Tensor, ...]:
    problem = draw_problem(seed, lead=(3,), costs=costs, prior=prior)
    q = torch.cat([problem.q_reward.unsqueeze(-3), problem.q_cost], dim=-3)
    return q, problem.log_p, problem.cost_limit, problem.kl_epsilon


def _points(costs: int, seed: int = 1) -> torch.Tensor:
    return 0.2 + torch.rand(3, 1 + costs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _plain_value(q: torch.Tensor, log_p: torch.Tensor, limit: torch.Tensor, epsilon: torch.Tensor, x: torch.Tensor):
    """g written as in the paper, without shifts."""
    eta, lam = x[0], x[1:]
    z = (q[0] - (lam.view(-1, 1, 1) * q[1:]).sum(0)) / eta
    return eta * epsilon + lam @ limit + eta * torch.logsumexp(z + log_p, dim=-1).mean()


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_value_gradient_and_hessian_are_those_of_autograd(costs: int, prior: bool) -> None:
    q, log_p, limit, epsilon = _parts(costs, prior)
    x = _points(costs)
    found = dual.evaluate(q, log_p if prior else None, limit, epsilon, x)
    for i in range(3):
        point = x[i].clone().requires_grad_()
        args = (q[i], log_p[i], limit[i], epsilon[i])
        value = _plain_value(*args, point)
        (gradient,) = torch.autograd.grad(value, point)
        hessian = torch.autograd.functional.hessian(lambda y, args=args: _plain_value(*args, y), x[i])
        torch.testing.assert_close(found.value[i], value.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.gradient[i], gradient, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.hessian[i], hessian, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_gradient_is_the_slack_and_the_gap_is_complementarity(costs: int, prior: bool) -> None:
    q, log_p, limit, epsilon = _parts(costs, prior)
    x = _points(costs)
    found = dual.evaluate(q, log_p, limit, epsilon, x)
    mean = (found.weights.unsqueeze(1) * q).sum(-1).mean(-1)
    slack = torch.cat([(epsilon - dual.kl(found.weights, log_p).mean(-1)).unsqueeze(1), limit - mean[:, 1:]], dim=1)
    torch.testing.assert_close(found.gradient, slack, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found.value - mean[:, 0], (x * slack).sum(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_value_is_convex_and_its_hessian_positive_semidefinite(costs: int, prior: bool) -> None:
    q, log_p, limit, epsilon = _parts(costs, prior)
    a, b = _points(costs, 2), 3 * _points(costs, 3)
    at_a, at_b, middle = (dual.evaluate(q, log_p, limit, epsilon, x) for x in (a, b, (a + b) / 2))
    assert (middle.value < (at_a.value + at_b.value) / 2).all()
    # The Hessian is singular along no direction here but the smallest eigenvalue must not be negative.
    assert torch.linalg.eigvalsh(middle.hessian).min() > -1e-14


def test_value_bounds_the_reward_of_every_feasible_weight() -> None:
    q, log_p, limit, epsilon = _parts(1, True)
    least = dual.evaluate(q, log_p, limit, epsilon, _points(1)).value
    generator = torch.Generator().manual_seed(5)
    feasible = 0
    for _ in range(500):
        noise = torch.randn(q[:, 0].shape, generator=generator, dtype=torch.float64)
        w = torch.softmax(log_p + 0.5 * noise - 0.5 * q[:, 1], dim=-1)
        mean = (w.unsqueeze(1) * q).sum(-1).mean(-1)
        inside = (dual.kl(w, log_p).mean(-1) <= epsilon) & (mean[:, 1] <= limit[:, 0])
        feasible += int(inside.sum())
        assert (mean[:, 0] <= least)[inside].all()
    assert feasible > 50


def test_kl_takes_zero_weights_and_stays_non_negative_near_the_prior() -> None:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(4, 9, dtype=torch.float64, generator=generator), -1)
    one_hot = torch.zeros(4, 9, dtype=torch.float64)
    one_hot[:, 2] = 1.0
    torch.testing.assert_close(dual.kl(one_hot, log_p), -log_p[:, 2])
    near = torch.softmax(log_p + 1e-9 * torch.randn(4, 9, dtype=torch.float64, generator=generator), dim=-1)
    assert (dual.kl(near, log_p) > -1e-16).all()


def test_particles_without_prior_mass_have_no_weight_and_no_influence() -> None:
    q, log_p, limit, epsilon = _parts(2, True)
    masked = log_p.clone()
    masked[..., 0] = -torch.inf
    masked = masked.log_softmax(-1)
    found = dual.evaluate(q, masked, limit, epsilon, _points(2))
    without = dual.evaluate(q[..., 1:], masked[..., 1:], limit, epsilon, _points(2))
    assert (found.weights[..., 0] == 0).all()
    torch.testing.assert_close(found.value, without.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.hessian, without.hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("costs", "prior"), CASES)
def test_a_large_stack_worked_on_by_parts_is_the_same(costs: int, prior: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, log_p, limit, epsilon = _parts(costs, prior)
    args = (q, log_p if prior else None, limit, epsilon, _points(costs))
    whole = dual.evaluate(*args)
    monkeypatch.setattr(passes, "CACHED", 2 * q[0].numel())
    for found, right in zip(dual.evaluate(*args), whole, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("prior", [False, True])
def test_so_are_its_weights(prior: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, log_p, *_ = _parts(1, prior)
    given, x = log_p if prior else None, _points(1)
    whole = dual.softmax_weights(q, given, x)
    monkeypatch.setattr(passes, "CACHED", 2 * q[0].numel())
    with torch.no_grad():
        torch.testing.assert_close(dual.softmax_weights(q, given, x), whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("prior", [False, True])
def test_only_the_problems_that_are_wanted_are_passed_over(prior: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, log_p, *_ = _parts(1, prior)
    count = len(q)
    data, mix = passes.Stack(q, log_p if prior else None), Host.split(_points(1))
    whole = np.stack(data.moments(Host, mix, False, True)[0])
    seen: list[int] = []
    passed_over = passes._moments
    monkeypatch.setattr(passes, "_moments", lambda q, *rest: (seen.append(len(q)), passed_over(q, *rest))[1])
    for some in ([0], [count - 1], list(range(count - 1)), list(range(count))):
        wanted = np.isin(np.arange(count), some)
        found = np.stack(data.moments(Host, mix, False, wanted)[0])
        np.testing.assert_allclose(found[:, wanted], whole[:, wanted], rtol=1e-13, atol=1e-15)
        assert np.isfinite(found).all()
        # A copy pays where much is left out.
        assert seen.pop() == (len(some) if len(some) < passes.MOSTLY * count else count) and not seen
