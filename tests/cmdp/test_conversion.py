"""Cost limits in the scale of Q against Monte-Carlo: episodes of a known process, of fixed and of varying length."""

from __future__ import annotations

import numpy as np
import pytest

from cvpo.critics.limits import to_q_scale
from tests.cmdp.model import Cmdp, random_cmdp

EPISODES = 4_000


def costs_of(cmdp: Cmdp, policy: np.ndarray, start: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """Realised costs [EPISODES, steps] of ``policy`` from ``start``."""
    rng = np.random.default_rng(seed)

    def draw(rows: np.ndarray) -> np.ndarray:
        return (rows.cumsum(-1) > rng.uniform(size=(len(rows), 1)) * rows.sum(-1, keepdims=True)).argmax(-1)

    state = draw(np.broadcast_to(start, (EPISODES, len(start))))
    costs = np.empty((EPISODES, steps))
    for t in range(steps):
        action = draw(policy[state])
        costs[:, t] = cmdp.signals[1, state, action]
        state = draw(cmdp.next[state, action])
    return costs


@pytest.fixture(scope="module")
def process() -> tuple[Cmdp, np.ndarray, float, np.ndarray]:
    """A process that starts where its policy stays, so that costs do not drift: itself, the policy, its discounted cost
    E[Σ γᵗ c] over an endless episode, and realised costs [EPISODES, 40]."""
    cmdp = random_cmdp(4, 1, single_start=False)
    policy = np.random.default_rng(1).dirichlet(np.ones(3), size=8)
    start = cmdp.stationary(policy)
    endless = float(start @ (policy * cmdp.q_values(policy)[1]).sum(-1))
    return cmdp, policy, endless, costs_of(cmdp, policy, start, 40)


def close(estimates: np.ndarray, expected: float) -> None:
    """The mean of independent estimates is ``expected`` within four standard errors, and within 1 %."""
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - expected) < 4.0 * error < 0.02 * expected
    assert estimates.mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("horizon", [10, 40])
def test_a_truncating_horizon_is_the_endless_value(process, horizon: int) -> None:
    cmdp, _, endless, costs = process
    sums = costs[:, :horizon].sum(-1)
    close(np.array([to_q_scale(c, "episode", cmdp.gamma, horizon) for c in sums]), endless)
    # The other form would ask for far less.
    assert to_q_scale(sums.mean(), "episode", cmdp.gamma, horizon, terminates=True) < 0.99 * endless


@pytest.mark.parametrize("horizon", [10, 40])
def test_a_terminating_horizon_is_the_discounted_sum(process, horizon: int) -> None:
    cmdp, _, _, costs = process
    realised = costs[:, :horizon] @ cmdp.gamma ** np.arange(horizon)
    converted = [to_q_scale(c, "episode", cmdp.gamma, horizon, terminates=True) for c in costs[:, :horizon].sum(-1)]
    close(np.array(converted), realised.mean())


def test_lengths_that_vary(process) -> None:
    """Episodes of 3 to 40 steps: of their mean cost and their lengths."""
    cmdp, _, endless, costs = process
    lengths = np.random.default_rng(2).integers(3, 41, size=EPISODES)
    inside = np.arange(40) < lengths[:, None]
    mean_sum = (costs * inside).sum(-1).mean()
    assert to_q_scale(mean_sum, "episode", cmdp.gamma, lengths) == pytest.approx(endless, rel=0.01)
    realised = (costs * inside @ cmdp.gamma ** np.arange(40)).mean()
    converted = to_q_scale(mean_sum, "episode", cmdp.gamma, lengths, terminates=True)
    assert converted == pytest.approx(realised, rel=0.01)
    # With the mean length alone the limit would be too loose: γ to the mean is below the mean of γ to each.
    assert to_q_scale(mean_sum, "episode", cmdp.gamma, lengths.mean(), terminates=True) > 1.05 * realised


def test_terminations_on_the_way(process) -> None:
    """Every step ends the episode with probability 0.1: the process itself has the discount 0.9 γ then, exactly."""
    cmdp, policy, _, costs = process
    lengths = np.minimum(np.random.default_rng(3).geometric(0.1, size=EPISODES), 40)
    inside = np.arange(40) < lengths[:, None]
    converted = to_q_scale((costs * inside).sum(-1).mean(), "episode", cmdp.gamma, lengths, terminates=True)
    ending = Cmdp(cmdp.next, cmdp.signals, cmdp.stationary(policy), 0.9 * cmdp.gamma)
    assert converted == pytest.approx(ending.returns(policy)[1], rel=0.02)
