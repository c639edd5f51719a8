"""The guard leaves a policy inside its bounds alone and brings every other one back, close to the edge."""

from __future__ import annotations

import math

import pytest
import torch

from cvpo import mstep
from cvpo.mstep.guard import guard
from tests.mstep.helpers import Net, Table, problem

CURVES = {
    "quadratic": lambda t: 50.0 * t**2,
    "huge": lambda t: 1e12 * t**2,
    "barely outside": lambda t: 1.0001 * t**2,
    "exponential": lambda t: math.expm1(30.0 * t),
    "logarithmic": lambda t: math.log1p(1e5 * t),
    "plateau below, then a cliff": lambda t: 0.3 * min(t, 0.1) + 1e6 * max(t - 0.4, 0.0) ** 2,
    "saturates": lambda t: 1e4 * math.tanh(200.0 * t),
    "infinite at the end": lambda t: math.inf if t > 0.5 else 3.0 * t,
    "not a number at the end": lambda t: math.nan if t > 0.9 else 4.0 * t**2,
    "goes back inside": lambda t: 4.0 * math.sin(math.pi * min(t, 0.9)) ** 2,
}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", CURVES)
def test_one_parameter_ends_close_to_the_edge(name: str, early: bool) -> None:
    curve = CURVES[name]
    theta, old = [torch.tensor([3.0], dtype=torch.float64)], [torch.tensor([1.0], dtype=torch.float64)]

    def measure():
        return torch.tensor([curve((float(theta[0]) - 1.0) / 2.0)], dtype=torch.float64)

    first = measure()
    t, ratio = guard(measure, theta, old, first, early)
    if bool(first[0] <= 1.0):
        assert float(t) == 1.0 and float(theta[0]) == 3.0
        return
    assert 0.0 < float(t) < 1.0
    assert float(theta[0]) == pytest.approx(1.0 + 2.0 * float(t), abs=1e-14)
    assert float(ratio[0]) == float(measure()[0])
    assert 0.9 <= float(ratio[0]) <= 1.0


@pytest.mark.parametrize("average", ["batch", "state"])
@pytest.mark.parametrize("kind", ["diagonal", "cholesky", "categorical"])
def test_networks_thrown_far_away_come_back_to_the_edge(kind: str, average: str) -> None:
    torch.manual_seed(0)
    name = "full" if kind == "categorical" else "decoupled"
    projection = mstep.registry.create(name, average=average)
    for size in (0.2, 0.5, 1.0):
        policy, obs = Net(kind), torch.randn(64, 3)
        state = mstep.fits.create("likelihood").build(policy, projection)
        old, old_params, *_ = problem(policy, obs)
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(size * torch.randn_like(p).sign())

        def measure(policy=policy, obs=obs, old=old, state=state):
            return state.ratios(torch.stack(list(projection.kl(old, policy(obs)).values()), -2))

        before = measure()
        assert before.max() > 1.0
        for early in (True, False):
            params = [p.detach().clone() for p in policy.parameters()]
            t, ratios = guard(measure, list(policy.parameters()), old_params, before, early)
            assert 0.9 <= ratios.max() <= 1.0
            assert torch.equal(ratios, measure())
            for p, o, f in zip(policy.parameters(), old_params, params, strict=True):
                assert torch.allclose(p, o + t * (f - o), atol=1e-6 * size)
                with torch.no_grad():
                    p.copy_(f)


@pytest.mark.parametrize("early", [True, False])
def test_each_member_of_a_population_has_its_own_step(early: bool) -> None:
    torch.manual_seed(0)
    policy, projection = Table(3, 5, 2), mstep.registry.create("decoupled")
    obs = torch.zeros(3, 5, 1)
    state = mstep.fits.create("likelihood").build(policy, projection, population=(3,))
    old, old_params, *_ = problem(policy, obs)
    with torch.no_grad():
        for size, member in zip((1e-4, 0.5, 5.0), range(3), strict=True):
            for p in policy.parameters():
                p[member] += size * torch.randn_like(p[member])
    before = [p.detach().clone() for p in policy.parameters()]

    def measure():
        return state.ratios(torch.stack(list(projection.kl(old, policy(obs)).values()), -2))

    t, ratios = guard(measure, list(policy.parameters()), old_params, measure(), early)
    assert t[0] == 1.0 and 1.0 > t[1] > t[2] > 0.0
    assert all(torch.equal(p[0], b[0]) for p, b in zip(policy.parameters(), before, strict=True))
    worst = ratios.amax(-1)
    assert worst[0] < 0.9 and (worst[1:] >= 0.9).all() and (worst <= 1.0).all()


@pytest.mark.parametrize("early", [True, False])
def test_non_finite_parameters_fall_back_to_the_old_policy(early: bool) -> None:
    policy, obs, projection = Net("diagonal"), torch.randn(8, 3), mstep.registry.create("decoupled")
    state = mstep.fits.create("likelihood").build(policy, projection)
    old, old_params, *_ = problem(policy, obs)
    with torch.no_grad():
        next(policy.parameters()).fill_(torch.nan)

    def measure():
        return state.ratios(torch.stack(list(projection.kl(old, policy(obs)).values()), -2))

    t, ratios = guard(measure, list(policy.parameters()), old_params, measure(), early)
    assert float(t) == 0.0 and (ratios == 0.0).all()
    assert all(torch.equal(p, o) for p, o in zip(policy.parameters(), old_params, strict=True))
