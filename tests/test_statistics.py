"""Episode statistics against direct sums over recorded episodes."""

from __future__ import annotations

import numpy as np
import pytest

from cvpo.critics.limits import to_q_scale
from cvpo.statistics import EpisodeStatistics

GAMMA = 0.95
LENGTHS = (20,)


def play(statistics: EpisodeStatistics, steps: int, lengths: tuple[int, int] = (5, 8), seed: int = 0):
    """Random signals [S=3,N=2]; the episodes [(signals [T,S], first obs)] in the order they end."""
    rng = np.random.default_rng(seed)
    open_episodes: list[list[np.ndarray]] = [[], []]
    starts: list[np.ndarray] = [np.zeros(1)] * 2
    expected, found = [], []
    for t in range(steps):
        obs, action = rng.normal(size=(2, 4)).astype(np.float32), rng.normal(size=(2, 1)).astype(np.float32)
        signals = rng.normal(size=(3, 2))
        done = np.array([(t + 1) % length == 0 for length in lengths])
        for n in range(2):
            if not open_episodes[n]:
                starts[n] = obs[n]
            open_episodes[n].append(signals[:, n])
            if done[n]:
                expected.append((np.stack(open_episodes[n]), starts[n]))
                open_episodes[n] = []
        found.extend(statistics.add(obs, action, signals, obs + 1.0, done & (t % 2 == 0), done & (t % 2 == 1)))
    return expected, found


def fresh() -> EpisodeStatistics:
    return EpisodeStatistics(2, 4, 1, signals=3, gamma=GAMMA, keep_episodes=4, keep_steps=12)


def test_sums_lengths_and_starts():
    statistics = fresh()
    expected, found = play(statistics, 40)
    assert len(found) == len(expected) == 13 == statistics.count
    for (signals, start), episode in zip(expected, found, strict=True):
        np.testing.assert_allclose(episode.total, signals.sum(0))
        np.testing.assert_allclose(episode.discounted, (GAMMA ** np.arange(len(signals))) @ signals)
        assert episode.length == len(signals)
        np.testing.assert_array_equal(episode.obs, start)


def test_measured_cost_of_the_newest_episodes():
    statistics = fresh()
    assert statistics.measured_cost("episode", LENGTHS, terminates=False) is None
    expected, _ = play(statistics, 40)
    newest = [signals for signals, _ in expected[-4:]]
    rate = np.mean([s[:, 1:].sum(0) for s in newest], 0) / np.mean(LENGTHS)
    np.testing.assert_allclose(statistics.measured_cost("episode", LENGTHS, terminates=False), rate / (1 - GAMMA))
    discounted = np.mean([(GAMMA ** np.arange(len(s))) @ s[:, 1:] for s in newest], 0)
    np.testing.assert_allclose(statistics.measured_cost("discounted", LENGTHS, terminates=True), discounted)
    seen = 1.0 - np.mean([GAMMA ** len(s) for s in newest])
    np.testing.assert_allclose(statistics.measured_cost("discounted", LENGTHS, terminates=False), discounted / seen)
    assert statistics.lengths() == [len(s) for s in newest]


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("kind", ["episode", "steps", "discounted"])
def test_a_policy_at_its_limit_measures_the_limit(kind: str, terminates: bool) -> None:
    """At a cost of 0.25 in each of 20 steps, what is measured is what an episode limit of 5 is in the scale of Q."""
    statistics = EpisodeStatistics(1, 1, 1, signals=2, gamma=GAMMA, keep_episodes=4, keep_steps=20)
    zero, no = np.zeros((1, 1), np.float32), np.zeros(1, bool)
    for t in range(60):
        end = np.array([(t + 1) % 20 == 0])
        ended, cut = (end, no) if terminates else (no, end)
        statistics.add(zero, zero, np.array([[0.0], [0.25]]), zero, ended, cut)
    limit = to_q_scale(5.0, "episode", GAMMA, LENGTHS, terminates=terminates)
    measured = statistics.measured_cost(kind, LENGTHS, terminates=terminates)
    np.testing.assert_allclose(measured, [limit])


def test_a_discounted_sum_goes_on_after_a_truncation_and_not_after_a_termination():
    """For a limit that is a discounted sum itself, five steps at a cost of 1, ended by one and by the other."""
    statistics = EpisodeStatistics(1, 1, 1, 2, GAMMA, keep_episodes=2, keep_steps=9)
    obs, action, signals = np.zeros((1, 1)), np.zeros((1, 1)), np.array([[0.0], [1.0]])
    total = (1 - GAMMA**5) / (1 - GAMMA)
    for terminated, expected in ((True, total), (False, total / (1 - GAMMA**5 / 2))):
        for t in range(5):
            last = np.array([t == 4])
            statistics.add(obs, action, signals, obs, last & terminated, last & (not terminated))
        found = statistics.measured_cost("discounted", [5.0], terminates=False, ends=True)
        np.testing.assert_allclose(found, expected)
    # What is converted as if all of them were truncated is held against what is.
    found = statistics.measured_cost("discounted", [5.0], terminates=False)
    np.testing.assert_allclose(found, 1 / (1 - GAMMA))


def test_measured_cost_of_the_newest_steps_is_there_before_an_episode_has_ended():
    statistics = EpisodeStatistics(1, 1, 1, signals=2, gamma=GAMMA, keep_episodes=4, keep_steps=20)
    assert statistics.measured_cost("steps", LENGTHS, terminates=False) is None
    zero, no = np.zeros((1, 1)), np.zeros(1, bool)
    for _ in range(20):
        statistics.add(zero, zero, np.array([[0.0], [0.25]]), zero, no, no)
    found = statistics.measured_cost("steps", LENGTHS, terminates=False)
    np.testing.assert_allclose(found, 0.25 / (1 - GAMMA))
    assert statistics.measured_cost("episode", LENGTHS, terminates=False) is None


def test_measured_cost_of_the_newest_steps_waits_for_no_episode():
    statistics = fresh()
    expected, _ = play(statistics, 40)
    rng = np.random.default_rng(5)
    newest = rng.normal(size=(6, 3, 2))
    for signals in newest:
        statistics.add(np.zeros((2, 4)), np.zeros((2, 1)), signals, np.zeros((2, 4)), *np.zeros((2, 2), dtype=bool))
    rate = newest[:, 1:].mean((0, 2))
    np.testing.assert_allclose(statistics.measured_cost("steps", LENGTHS, terminates=False), rate / (1 - GAMMA))


def test_state_round_trip_in_the_middle_of_episodes():
    statistics, other = fresh(), fresh()
    play(statistics, 17)
    other.load_state_dict(statistics.state_dict())
    _, ours = play(statistics, 20, seed=1)
    _, theirs = play(other, 20, seed=1)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.total, b.total)
        np.testing.assert_array_equal(a.discounted, b.discounted)
        assert a.length == b.length
    assert statistics.count == other.count
    np.testing.assert_array_equal(
        statistics.measured_cost("steps", LENGTHS, terminates=False),
        other.measured_cost("steps", LENGTHS, terminates=False),
    )


def test_interrupt_forgets_unfinished_episodes():
    statistics = fresh()
    play(statistics, 3)
    statistics.interrupt()
    expected, found = play(statistics, 40)
    for (signals, _), episode in zip(expected, found, strict=True):
        np.testing.assert_allclose(episode.total, signals.sum(0))
