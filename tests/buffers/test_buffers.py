"""Buffers against plain Python: what is sampled is exactly what was added, and windows never cross an episode."""

from __future__ import annotations

import pytest
import torch

from cvpo import buffers
from cvpo.buffers.ring import Ring
from cvpo.errors import CheckpointError, ConfigError
from cvpo.types import Spec, Transition

GAMMA = 0.9
CPU = torch.device("cpu")


def spec(signals: int = 3) -> Spec:
    return Spec(obs_size=2, action_size=1, signals=signals, gamma=GAMMA)


def stream(steps: int, envs: int, lengths: tuple[int, ...] = (4, 7), terminating: bool = True) -> list[Transition]:
    """Steps whose values name their place: obs = (env, t); episodes of environment n have lengths[n % 2] steps."""
    transitions = []
    for t in range(steps):
        ends = torch.tensor([(t + 1) % lengths[n % 2] == 0 for n in range(envs)])
        env, time = torch.arange(envs, dtype=torch.float32), torch.full((envs,), float(t))
        transitions.append(
            Transition(
                obs=torch.stack([env, time], -1),
                action=time[:, None] / 100.0,
                signals=torch.stack([1.0 + time, env, -time]),
                next_obs=torch.stack([env, time + 1.0], -1),
                terminated=ends & terminating,
                truncated=ends & (not terminating),
            )
        )
    return transitions


def filled(name: str, steps: int = 40, envs: int = 3, terminating: bool = True, **options: int):
    store = buffers.registry.create(name, **options).build(spec(), envs, CPU, torch.Generator().manual_seed(0))
    for transition in stream(steps, envs, terminating=terminating):
        store.add(transition)
    return store


@pytest.mark.parametrize("name", ["nstep", "prioritized"])
def test_no_window_goes_on_where_the_stream_broke_off(name: str) -> None:
    store = buffers.registry.create(name, steps=4, capacity=60).build(spec(), 2, CPU, torch.Generator().manual_seed(0))
    store.end()  # nothing is there yet
    steps = stream(6, 2, lengths=(100, 100))
    for t, transition in enumerate(steps):
        store.add(transition)
        if t == 2:
            store.end()
    windows = getattr(store, "inner", store).at(torch.arange(12))
    last = windows.next_obs[:, 1].view(6, 2)
    assert last.tolist() == [[3.0, 3.0]] * 3 + [[6.0, 6.0]] * 3 and not windows.terminated.any()


def test_uniform_returns_what_was_added_and_reaches_every_transition():
    store = filled("uniform", capacity=60)
    batch = store.sample(4000)
    env, time = batch.obs.unbind(-1)
    # Capacity 60 over 3 environments keeps the newest 20 of 40 steps.
    assert set(time.tolist()) == set(map(float, range(20, 40)))
    assert set(env.tolist()) == {0.0, 1.0, 2.0}
    torch.testing.assert_close(batch.signals, torch.stack([1.0 + time, env, -time]))
    torch.testing.assert_close(batch.next_obs, torch.stack([env, time + 1.0], -1))
    torch.testing.assert_close(batch.action[:, 0], time / 100.0)
    assert torch.equal(batch.discount, torch.full((4000,), GAMMA))
    counts = torch.bincount(batch.index, minlength=60)
    # 66.7 expected a cell; five standard deviations either way.
    assert counts.min() > 25 and counts.max() < 110


@pytest.mark.parametrize("terminating", [True, False])
def test_nstep_equals_a_loop_over_the_episode(terminating: bool):
    steps = 3
    store = buffers.registry.create("nstep", steps=steps, capacity=90).build(
        spec(), 3, CPU, torch.Generator().manual_seed(1)
    )
    for transition in stream(40, 3, terminating=terminating):
        store.add(transition)
    batch = store.sample(3000)
    shortened = 0
    for i in range(0, 3000, 7):
        env, time = int(batch.obs[i, 0]), int(batch.obs[i, 1])
        length = (4, 7)[env % 2]
        end = time - time % length + length  # first step of the next episode
        window = min(steps, end - time, 40 - time)
        shortened += window < steps
        expected = torch.zeros(3)
        for k in range(window):
            expected += GAMMA**k * torch.tensor([1.0 + time + k, float(env), -float(time + k)])
        torch.testing.assert_close(batch.signals[:, i], expected)
        torch.testing.assert_close(batch.discount[i].item(), GAMMA**window)
        assert batch.next_obs[i].tolist() == [env, time + window]
        assert bool(batch.terminated[i]) == (terminating and time + window == end)
    assert shortened > 50  # windows cut short by an episode's end are in the sample


def test_one_step_nstep_is_uniform():
    uniform = filled("uniform", capacity=90)
    one = buffers.registry.create("nstep", steps=1, capacity=90).build(spec(), 3, CPU, torch.Generator().manual_seed(0))
    for transition in stream(40, 3):
        one.add(transition)
    for ours, theirs in zip(_fields(one.sample(64)), _fields(uniform.sample(64)), strict=True):
        torch.testing.assert_close(ours, theirs)


def _fields(batch):
    return [batch.obs, batch.action, batch.signals, batch.next_obs, batch.terminated, batch.discount, batch.index]


@pytest.mark.parametrize("name", ["uniform", "nstep"])
def test_state_round_trip_gives_the_same_samples(name: str):
    store = filled(name, capacity=50)
    other = buffers.registry.create(name, capacity=50).build(spec(), 3, CPU, torch.Generator().manual_seed(5))
    other.load_state_dict(store.state_dict())
    other.generator.set_state(store.generator.get_state())
    for transition in stream(5, 3):
        store.add(transition)
        other.add(transition)
    for ours, theirs in zip(_fields(store.sample(200)), _fields(other.sample(200)), strict=True):
        assert torch.equal(ours, theirs)


def test_unwritten_rows_are_nan_and_never_sampled():
    store = filled("uniform", steps=5, capacity=300)
    assert torch.isnan(store.ring.data["obs"][5:]).all()
    assert torch.isfinite(store.sample(1000).obs).all()


def test_ring_errors_name_what_is_wrong():
    with pytest.raises(ConfigError, match="capacity is 2"):
        Ring(2, 3, {"obs": (1,)}, CPU)
    store = filled("uniform", capacity=60)
    smaller = buffers.registry.create("uniform", capacity=30).build(spec(), 3, CPU, torch.Generator())
    with pytest.raises(CheckpointError, match="buffer field 'obs'"):
        smaller.load_state_dict(store.state_dict())
    with pytest.raises(ConfigError, match="MiB"):
        Ring(10**15, 1, {"obs": (10,)}, CPU)


def test_recent_states_come_from_the_newest_window_only():
    source = buffers.states.create("recent", window=30).build(spec(), 3, CPU, torch.Generator().manual_seed(0))
    store = filled("uniform", capacity=300)
    for transition in stream(40, 3):
        source.add(transition.obs)
    obs = source.select(store.sample(5), 500)
    assert set(obs[:, 1].tolist()) == set(map(float, range(30, 40)))
    replay = buffers.states.create("replay").build(spec(), 3, CPU, torch.Generator())
    batch = store.sample(10)
    assert torch.equal(replay.select(batch, 4), batch.obs[:4])


@pytest.mark.parametrize("name", buffers.registry.names())
def test_a_ring_that_the_saved_rows_just_fill_goes_on(name: str) -> None:
    saved = filled(name, steps=5, envs=2, capacity=20).state_dict()
    small = buffers.registry.create(name, capacity=10).build(spec(), 2, CPU, torch.Generator().manual_seed(0))
    small.load_state_dict(saved)
    for transition in stream(7, 2)[5:]:
        small.add(transition)
    assert set(small.sample(500).obs[:, 1].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}


def test_windows_of_another_length_are_refused() -> None:
    three, five = (
        buffers.registry.create("nstep", steps=steps, capacity=30).build(spec(), 3, CPU, torch.Generator())
        for steps in (3, 5)
    )
    with pytest.raises(CheckpointError, match="windows of 3 steps; allowed: 5"):
        five.load_state_dict(three.state_dict())
    one = buffers.registry.create("uniform", capacity=30).build(spec(), 3, CPU, torch.Generator())
    with pytest.raises(CheckpointError, match="windows of 3 steps; allowed: 1"):
        one.load_state_dict(three.state_dict())


@pytest.mark.parametrize("name", buffers.registry.names())
def test_nothing_is_broadcast_into_a_store_and_an_empty_one_says_so(name: str) -> None:
    store = buffers.registry.create(name, capacity=60).build(spec(), 3, CPU, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="the buffer is empty"):
        store.sample(4)
    steps = stream(4, 3)
    names = ("obs", "action", "signals", "next_obs", "terminated", "truncated")
    stacked = {part: torch.stack([getattr(step, part) for step in steps]) for part in names}
    with pytest.raises(ConfigError, match=r"signals to be stored has shape \[4, 3, 1\]; allowed: \[4, 3, 3\]"):
        store.extend(Transition(**(stacked | {"signals": stacked["signals"][:, :1]})))
    store.extend(Transition(**{part: value[:0] for part, value in stacked.items()}))
    assert len(store) == 0
