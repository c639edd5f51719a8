"""The whole chain on a known process: CVPO with exact critics against the linear program's optimum."""

from __future__ import annotations

import numpy as np
import pytest

from cvpo import critics
from tests.cmdp.exact import iterate
from tests.cmdp.model import Cmdp, binding_limits, random_cmdp

SLACK = 20.0
"""A limit above every discounted cost: 1/(1−γ) = 10 for costs up to 1."""


@pytest.mark.parametrize("single_start", [False, True], ids=["uniform start", "single start"])
@pytest.mark.parametrize("costs", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_policy_limit_reaches_the_optimum_and_the_limits(seed: int, costs: int, single_start: bool) -> None:
    cmdp = random_cmdp(seed, costs, single_start=single_start)
    limits = binding_limits(cmdp)
    optimum = cmdp.optimum(limits)
    free = cmdp.optimum(np.full(costs, SLACK))
    # The limits bind: every one has a price, and the best return costs a good part of the unconstrained one.
    assert (optimum.prices > 0.1).all() and optimum.reward < 0.95 * free.reward
    # A state's share of the E-step is not its share of an episode: a part of the slack at a time does not overshoot.
    trace = iterate(cmdp, limits, critics.limits.create("policy", rate=0.3), rounds=35)
    assert trace[0, 0] < 0.9 * optimum.reward  # it does not start there
    np.testing.assert_allclose(trace[-3:, 0], optimum.reward, rtol=1e-3)
    np.testing.assert_allclose(trace[-3:, 1:], np.broadcast_to(limits, (3, costs)), rtol=2e-3)


@pytest.mark.parametrize("costs", [1, 2])
def test_taking_an_excess_back_faster_leaves_the_optimum_where_it_is(costs: int) -> None:
    """From near the best policy without limits, which is far outside: at the limits sooner, and at the same optimum."""
    cmdp = random_cmdp(0, costs, single_start=True)
    limits = binding_limits(cmdp)
    occupancy = cmdp.optimum(np.full(costs, SLACK)).occupancy + 0.1
    traces = {}
    for recovery in (1.0, 3.0):
        limit = critics.limits.create("policy", rate=0.3, recovery=recovery)
        traces[recovery] = iterate(cmdp, limits, limit, rounds=50, start=occupancy)
        np.testing.assert_allclose(traces[recovery][-3:, 0], cmdp.optimum(limits).reward, rtol=1e-3)
        np.testing.assert_allclose(traces[recovery][-3:, 1:], np.broadcast_to(limits, (3, costs)), rtol=2e-3)
    outside = {recovery: (trace[:, 1:] > 1.01 * limits).any(-1).sum() for recovery, trace in traces.items()}
    assert 0 < 2 * outside[3.0] <= outside[1.0]


def test_without_costs_it_reaches_the_best_return() -> None:
    cmdp = random_cmdp(3, 0, single_start=True)
    trace = iterate(cmdp, np.zeros(0), critics.limits.create("policy"), rounds=12)
    np.testing.assert_allclose(trace[-1, 0], cmdp.optimum(np.zeros(0)).reward, rtol=1e-6)


@pytest.mark.parametrize("costs", [1, 2])
def test_the_paper_limit_cycles_around_the_limit(costs: int) -> None:
    """The states' own Q_c is held to d although it is that of the old policy: a step that is right for one round is
    taken again in the next. The uniform start makes mean_b V_c(b) the policy's cost itself."""
    cmdp = random_cmdp(2, costs, single_start=False)
    limits = binding_limits(cmdp)
    cost = iterate(cmdp, limits, critics.limits.create("q"), rounds=35)[-20:, 1:] / limits
    print(f"J_c/d of the last 20 rounds: {cost.min(0).round(3)} to {cost.max(0).round(3)}")
    assert (cost.max(0) > 1.03).all() and (cost.min(0) < 0.97).all()
    # The policy limit has settled.
    settled = iterate(cmdp, limits, critics.limits.create("policy", rate=0.3), rounds=25)[-5:, 1:] / limits
    assert np.ptp(settled, axis=0).max() < 0.1 * np.ptp(cost, axis=0).min()


@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("costs", [1, 2])
def test_an_average_of_the_policies_stays_in_the_middle_of_the_cycle(costs: int, seed: int) -> None:
    cmdp = random_cmdp(seed, costs, single_start=False)
    limits = binding_limits(cmdp)
    newest, mean = (
        iterate(cmdp, limits, critics.limits.create("q"), rounds=160, average=average)[-20:, 1:] / limits
        for average in (0.0, 0.1)
    )
    for name, cost in (("newest", newest), ("mean", mean)):
        print(f"J_c/d of the {name} policies: {cost.min(0).round(3)} to {cost.max(0).round(3)}")
    assert (np.ptp(mean, axis=0) < 0.3 * np.ptp(newest, axis=0)).all()
    np.testing.assert_allclose(mean.mean(0), newest.mean(0), atol=0.15 * np.ptp(newest, axis=0).max())


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("costs", [1, 2])
def test_the_paper_limit_settles_where_it_is_approached_slowly(costs: int, seed: int) -> None:
    """A share of the excess of about 1 − γ a round: what the performance difference would ask for."""
    cmdp = random_cmdp(seed, costs, single_start=False)
    limits = binding_limits(cmdp)
    trace = iterate(cmdp, limits, critics.limits.create("q", approach=0.03), rounds=80)[-10:]
    np.testing.assert_allclose(trace[:, 1:], np.broadcast_to(limits, (10, costs)), rtol=1e-3)
    np.testing.assert_allclose(trace[:, 0], cmdp.optimum(limits).reward, rtol=1e-3)


def test_the_model_against_sums_over_time() -> None:
    """Q-values, returns and the linear program against plain iteration of the dynamics."""
    cmdp = random_cmdp(5, 1, single_start=True)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=8)
    state, sums, occupancy = cmdp.start.copy(), np.zeros(2), np.zeros((8, 3))
    for t in range(400):
        joint = state[:, None] * policy
        occupancy += cmdp.gamma**t * joint
        sums += cmdp.gamma**t * np.einsum("xa,sxa->s", joint, cmdp.signals)
        state = np.einsum("xa,xay->y", joint, cmdp.next)
    np.testing.assert_allclose(cmdp.returns(policy), sums, rtol=1e-12)
    best = cmdp.optimum(np.array([SLACK]))
    np.testing.assert_allclose(best.occupancy.sum(), occupancy.sum(), rtol=1e-9)
    assert best.reward > sums[0]
    np.testing.assert_allclose(best.reward, _value_iteration(cmdp), rtol=1e-9)


def _value_iteration(cmdp: Cmdp) -> float:
    values = np.zeros(8)
    for _ in range(400):
        values = (cmdp.signals[0] + cmdp.gamma * cmdp.next @ values).max(-1)
    return float(cmdp.start @ values)
